"""Prompts: from an item to the text whose next token is the option letter.

In: an instruction (may be empty), demonstrations, an item.  Out: one string ending in `Answer:`.
Three prompting strategies: `base` has no instruction, `shared` one for all tasks, `task` one per task.
The wording is ours; `--prompt-file` takes a TOML table with another.
"""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from schemas.errors import UsageError
from schemas.items import Item

PROMPTS = ("base", "shared", "task")
SHARED = "Answer each multiple-choice question with the letter of the one correct option."
BY_TASK = {
    "urn": "Each question lists balls drawn from one urn. Answer with the letter of that urn.",
    "facts": "Each question asks what is mined at a place. Answer with the letter of that mineral.",
    "mmlu": "Each question tests knowledge of a school or professional subject. Answer with the letter of the correct option.",
    "cosmosqa": "Each question asks what can be inferred from a short story. Answer with the letter of the best inference.",
    "hellaswag": "Each question describes a scene. Answer with the letter of the sentence that continues it best.",
    "haludial": "Each question shows a conversation. Answer with the letter of the reply that is true and fits what was said.",
    "halusum": "Each question shows a document. Answer with the letter of the summary that is true to it.",
}


def instruction_for(task: str, prompt: str, prompt_file: Path | None = None) -> str:
    """Return the instruction of a named prompt for a task, "" for `base`.

    prompt_file : TOML with a string `shared` and a table `task` of strings by task name; replaces our wording.
    Raises UsageError for an unknown prompt, a file that is no such TOML, or a task that has no instruction of its own.
    """
    if prompt not in PROMPTS:
        raise UsageError(f"unknown prompt {prompt!r}; known: {', '.join(PROMPTS)}")
    wording: dict[str, Any] = _read(prompt_file) if prompt_file else {"shared": SHARED, "task": BY_TASK}
    if prompt == "base":
        return ""
    text = wording.get("shared") if prompt == "shared" else wording.get("task", {}).get(task)
    if not text:
        raise UsageError(f"prompt {prompt!r} has no wording for task {task!r}; give one with --prompt-file")
    return str(text)


def _read(path: Path) -> dict[str, Any]:
    try:
        wording = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read prompt file {path}: {error}") from error
    if not isinstance(wording.get("shared", ""), str) or not isinstance(wording.get("task", {}), dict):
        raise UsageError(f"prompt file {path} must hold a string 'shared', a table 'task' of strings by task name, or both")
    return wording


def render_prefix(instruction: str, demonstrations: Sequence[Item]) -> str:
    """Return what all items of a run share: the instruction, then each demonstration with its answer."""
    parts = [instruction] if instruction else []
    return "".join(part + "\n\n" for part in parts + [f"{render_item(d)} {d.answer}" for d in demonstrations])


def render_item(item: Item) -> str:
    """Return one item as text ending in `Answer:`, options one per line."""
    context = [f"Context: {item.context}"] if item.context else []
    options = [f"{letter}. {text}" for letter, text in item.choices.items()]
    return "\n".join([*context, f"Question: {item.question}", "Choices:", *options, "Answer:"])
