"""Prompts: from an item to the text whose next token is the option letter.

In: an instruction (may be empty), demonstrations, an item.  Out: one string ending in `Answer:`.
Three prompting strategies: `base` has no instruction, `shared` one for all tasks, `task` one per task.
The wording is ours; `--prompt-file` takes a TOML table with another.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from schemas.errors import UsageError
from schemas.items import Item
from schemas.known_names import known
from schemas.toml_file import as_model, read_toml

PROMPTS = ("base", "shared", "task")
CUE = "Answer:"
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


class Wording(BaseModel):
    """The instructions of the prompts `shared` and `task`, the latter by task name."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    shared: str = ""
    task: Mapping[str, str] = Field(default_factory=dict)


def instruction_for(task: str, prompt: str, prompt_file: Path | None = None) -> str:
    """Return the instruction of a named prompt for a task, "" for `base`.

    prompt_file : TOML with a string `shared` and a table `task` of strings by task name; replaces our wording.
    Raises UsageError for an unknown prompt, a file of another form, or a task that has no instruction.
    """
    if prompt not in PROMPTS:
        raise UsageError(f"unknown prompt {prompt!r}; {known(prompt, PROMPTS)}")
    wording = _read(prompt_file) if prompt_file else Wording(shared=SHARED, task=BY_TASK)
    if prompt == "base":
        return ""
    text = wording.shared if prompt == "shared" else wording.task.get(task)
    if not text:
        raise UsageError(f"prompt {prompt!r} has no wording for task {task!r}; give one with --prompt-file")
    return text


def _read(path: Path) -> Wording:
    return as_model(Wording, read_toml(path, "prompt file"), f"prompt file {path}")


def render_prefix(instruction: str, demonstrations: Sequence[Item]) -> str:
    """Return what all items of a run share: the instruction, then each demonstration with its answer."""
    parts = [instruction] if instruction else []
    return "".join(part + "\n\n" for part in parts + [f"{render_item(d)} {d.answer}" for d in demonstrations])


def render_item(item: Item, label: str = "Context") -> str:
    """Return one item as text ending in `Answer:`, options one per line. label : the word before its context."""
    context = [f"{label}: {item.context}"] if item.context else []
    options = [f"{letter}. {text}" for letter, text in item.choices.items()]
    return "\n".join([*context, f"Question: {item.question}", "Choices:", *options, CUE])
