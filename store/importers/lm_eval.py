"""Import lm-evaluation-harness samples: samples_{task}_{time}.jsonl of multiple-choice tasks, log-likelihoods per choice.

In: a file and the run's description.  Out: (item set, run) pairs. A log-likelihood of a whole answer takes the place of an option
token's logit: softmax over the options is the same formula.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import click
import numpy as np

from schemas.errors import UsageError
from schemas.items import MAX_OPTIONS, Item
from schemas.itemset import ItemSet, build_item_set
from schemas.json_text import parse_json_lines, read_text
from schemas.run import Run
from store.importers.importer import FILE, Description, Importer, imported_run, origin_of

FILE_NAME = re.compile(r"samples_(?P<task>.+?)(?:_\d{4}-\d\d-\d\dT[\d.:-]+)?\.jsonl")


def read_lm_eval(files: Sequence[Path], described: Description) -> Iterator[tuple[ItemSet, Run]]:
    """Yield one run per samples file. Raises UsageError naming the file and line that is not a multiple-choice sample."""
    for path in files:
        match = FILE_NAME.fullmatch(path.name)
        task = described.task or (match["task"] if match else "")
        if not task or not described.model:
            raise UsageError(f"{path.name}: name the model with --model, and a task that is not in samples_TASK_TIME.jsonl with --task")
        samples = _read_samples(path)
        items = build_item_set(task, [item for item, _ in samples], revision=origin_of("lm-eval", path))
        logits = np.full((len(samples), int(items.n_options.max())), np.nan, dtype=np.float32)
        for row, (_, likelihoods) in enumerate(samples):
            logits[row, : len(likelihoods)] = likelihoods
        named = Description(described.model, described.method, described.level, task, described.prompt)
        yield items, imported_run(named, items, logits, origin_of("lm-eval", path))


def _read_samples(path: Path) -> list[tuple[Item, list[float]]]:
    samples = []
    for number, row in _lines(path):
        try:
            samples.append(_sample(row))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            problem = f"{type(error).__name__} {str(error)[:120]}"
            raise UsageError(f"{path.name} line {number} is not a multiple-choice sample: {problem}") from error
    if not samples:
        raise UsageError(f"{path.name} holds no samples")
    return samples


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        yield from parse_json_lines(read_text(path))
    except ValueError as error:
        raise UsageError(f"{path.name} cannot be read: {error}") from error


def _sample(row: Any) -> tuple[Item, list[float]]:
    """Return an item and its log-likelihoods; a response is [log-likelihood, is_greedy], numbers or text by version."""
    likelihoods = [float(response[0]) for response in row["filtered_resps"]]
    contexts, continuations = zip(*map(_argument, _in_order(row["arguments"])), strict=True)
    if not 2 <= len(likelihoods) == len(continuations) <= MAX_OPTIONS:
        raise ValueError(f"{len(likelihoods)} responses to {len(continuations)} choices; expected 2 to {MAX_OPTIONS} of each")
    choices = {letter: text.strip() or text for letter, text in zip(ascii_uppercase, continuations, strict=False)}
    answer = _answer(row["target"], list(choices.values()))
    return Item(id=str(row["doc_id"]), question=contexts[0] or "-", choices=choices, answer=answer), likelihoods


def _in_order(arguments: Any) -> list[Any]:
    """Newer versions write {"gen_args_0": ...} where older ones wrote a list."""
    return [arguments[f"gen_args_{number}"] for number in range(len(arguments))] if isinstance(arguments, dict) else list(arguments)


def _argument(argument: Any) -> tuple[str, str]:
    pair = (argument["arg_0"], argument["arg_1"]) if isinstance(argument, dict) else (argument[0], argument[1])
    return str(pair[0]), str(pair[1])


def _answer(target: Any, choices: list[str]) -> str:
    """Return the letter of a target given as an index, a letter, or the text of a choice."""
    text = str(target).strip()
    if text in choices:
        return ascii_uppercase[choices.index(text)]
    index = int(text) if text.isdigit() else ascii_uppercase.index(text)
    choices[index]  # an index outside the choices raises
    return ascii_uppercase[index]


IMPORTER = Importer(
    read=read_lm_eval,
    help="""Import lm-evaluation-harness samples of multiple-choice tasks.

    Example: store import lm-eval --model org/name samples_arc_easy_2026-01-02T03-04-05.jsonl
    """,
    parameters=[click.Argument(["files"], nargs=-1, required=True, type=FILE)],
    described=True,
)
