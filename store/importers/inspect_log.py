"""Import a log of inspect (JSON) whose model answered multiple-choice samples with log-probabilities (`--logprobs --top-logprobs 20`).

In: a log.  Out: one run. The log-probabilities of the letters at the place of the model's answer, `ANSWER: B`, take the place of logits.
Only what came back is known: a sample in which an option's letter is not among the top log-probabilities is refused, as nothing is filled
in. The log's own score is checked: it must be C where the letter that was given is the target, else I.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from schemas.errors import UsageError
from schemas.items import MAX_OPTIONS, parse_items
from schemas.itemset import ItemSet, build_item_set
from schemas.json_text import parse_json, read_text
from schemas.run import Run
from store.command import EXISTING_FILE
from store.importers.importer import Description, Importer, imported_run, in_32_bits, origin_of

ATTACHED = "attachment://"
SCORER = "choice"
SHUFFLED = "Choices were shuffled"
CUE = "ANSWER:"


def read_inspect(file: Path, described: Description) -> Iterator[tuple[ItemSet, Run]]:
    """Yield the run of a log. Raises UsageError that names the sample that cannot be read, or whose own score disagrees."""
    if file.suffix == ".eval":
        raise UsageError(f"{file.name} is packed; make JSON of it with: inspect log convert {file.name} --to json --output-dir .")
    try:
        document = parse_json(read_text(file))
        samples = document["samples"]
        model, task = described.model or document["eval"]["model"], described.task or document["eval"]["task"]
        if not isinstance(samples, list) or not samples:
            raise ValueError("it has no samples")
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{file.name} is not a log of inspect: {type(error).__name__} {str(error)[:120]}") from error
    rows, likelihoods = [], []
    for sample in samples:
        name = str(sample.get("id", ""))[:80] if isinstance(sample, Mapping) else ""
        try:
            row, values = _sample(sample)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            reason = str(error) if isinstance(error, ValueError) else f"it lacks or misstates {error}"
            raise UsageError(f"{file.name}, sample {name!r}: {reason[:240]}") from error
        rows.append(row)
        likelihoods.append(values)
    origin = origin_of("inspect", file)
    items = build_item_set(task, parse_items(rows, file.name), revision=origin)
    logits = np.full((len(items), int(items.n_options.max())), np.nan)
    for number, values in enumerate(likelihoods):
        logits[number, : len(values)] = values
    yield items, imported_run(replace(described, model=model, task=task), items, in_32_bits(logits, file.name), origin)


def _sample(sample: Mapping[str, Any]) -> tuple[dict[str, Any], NDArray[np.float64]]:
    """Return a sample as an item, and the log-probability of each of its options."""
    if sample["epoch"] != 1:
        raise ValueError(f"it was asked more than once (epoch {sample['epoch']}); import a log of one epoch")
    choices = [_whole(choice, sample) for choice in sample["choices"] or ()]
    letters = ascii_uppercase[: len(choices)]
    if not 2 <= len(choices) <= MAX_OPTIONS:
        raise ValueError(f"it has {len(choices)} choices; expected 2 to {MAX_OPTIONS}")
    target = sample["target"] if isinstance(sample["target"], str) else ",".join(sample["target"])
    if len(target) != 1 or target not in letters:
        raise ValueError(f"its target {target[:40]!r} is not one of the letters {letters}; a prediction set is judged by one right answer")
    letter, values = _at_answer(sample["output"]["choices"][0], letters)
    _check_score(sample["scores"], letter, target)
    named = dict(zip(letters, choices, strict=True))
    return {"id": str(sample["id"]), "question": _question(sample), "choices": named, "answer": target}, values


def _at_answer(output: Mapping[str, Any], letters: str) -> tuple[str, NDArray[np.float64]]:
    """Return the letter that the model gave, and the log-probabilities of all letters in its place."""
    content = (output.get("logprobs") or {}).get("content") or []
    if not content:
        raise ValueError("it has no log-probabilities; ask with --logprobs --top-logprobs 20")
    texts = [str(token["token"]) for token in content]
    index = next((number for number in range(len(texts)) if _is_answer(texts, number, letters)), None)
    if index is None:
        text = "".join(texts)[:40]
        raise ValueError(f"the model answered {text!r}, not '{CUE} X' alone; what follows its own words is another question")
    token = content[index]
    before = token["token"][: len(token["token"]) - len(token["token"].lstrip())]  # "B" and " B" are different tokens
    known = {one["token"]: float(one["logprob"]) for one in [*(token["top_logprobs"] or ()), token]}
    missing = [letter for letter in letters if before + letter not in known]
    if missing:
        raise ValueError(
            f"{', '.join(missing)} is not among the {len(known)} log-probabilities at its answer; ask with a larger --top-logprobs"
        )
    values = np.array([known[before + letter] for letter in letters])
    if np.any(values > 0):
        raise ValueError(f"{values.max():.4g} is no log-probability, which is 0 at most")
    return token["token"].strip(), values


def _is_answer(texts: Sequence[str], number: int, letters: str) -> bool:
    """Return whether a token is the letter of the answer: behind the cue or nothing, and before nothing but a stop or special tokens."""
    before, after = "".join(texts[:number]).strip().upper(), "".join(texts[number + 1 :]).strip()
    return texts[number].strip() in set(letters) and before in ("", CUE) and (not after or after == "." or after.startswith("<"))


def _check_score(scores: Mapping[str, Any] | None, letter: str, target: str) -> None:
    score = (scores or {}).get(SCORER)
    if score is None:
        raise ValueError(f"it has no score of the scorer {SCORER!r}, which the letters are checked with")
    if str(score.get("explanation") or "").startswith(SHUFFLED):
        raise ValueError("its choices were shuffled, and the log does not say how the letters belong to them; ask without shuffling")
    if score.get("answer") != letter or score["value"] not in ("C", "I") or (score["value"] == "C") != (letter == target):
        raise ValueError(
            f"the model gave {letter} and the target is {target}, but its score says {score.get('answer')!r}, {score['value']!r}"
        )


def _question(sample: Mapping[str, Any]) -> str:
    asked = sample["input"]
    if isinstance(asked, str):
        return _whole(asked, sample)
    users = [message["content"] for message in asked if message["role"] == "user"]
    if len(users) != 1 or not isinstance(users[0], str):
        raise ValueError("its input is a conversation, or no text")
    return _whole(users[0], sample)


def _whole(text: Any, sample: Mapping[str, Any]) -> str:
    """Return a text, which may stand among the sample's attachments if it is long."""
    if not isinstance(text, str):
        raise ValueError(f"{str(text)[:40]!r} is no text")
    return str(sample["attachments"][text.removeprefix(ATTACHED)]) if text.startswith(ATTACHED) else text


IMPORTER = Importer(
    read=read_inspect,
    help="""Import a JSON log of inspect with log-probabilities of multiple-choice answers.

    Example: store import inspect 2026-01-02T03-04-05_arc_abc123.json
    """,
    parameters=[click.Argument(["file"], type=EXISTING_FILE)],
    described=True,
)
