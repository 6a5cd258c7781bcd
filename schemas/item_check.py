"""An item file looked at line by line: what cannot be asked, what is doubtful, and where it stands.

In: a JSON array or JSON lines.  Out: findings by line. Reading items for a run stops at what cannot be asked (`schemas.items`); this
goes on to the end, for whoever mends the file.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from schemas.errors import ItemError
from schemas.item_quirks import find_quirks
from schemas.items import Item, item_problems
from schemas.json_text import parse_json, read_text

WRONG, DOUBTFUL = "wrong", "doubtful"
ONE_PLACE, MOST_IN_ONE_PLACE = 20, 0.8  # of so many items, this share of answers under one letter is no accident
EXAMPLE = {
    "id": "q1",
    "question": "Which planet is the largest?",
    "choices": {"A": "Mars", "B": "Jupiter", "C": "Venus"},
    "answer": "B",
    "subject": "astronomy",
}


class Finding(NamedTuple):
    """What is wrong or doubtful about the item that begins on a line; line 0 is the whole file."""

    line: int
    id: str
    how: str
    what: str


class Row(NamedTuple):
    """One element of the file: its JSON value, or the sentence why it has none."""

    line: int
    value: Any
    problem: str = ""


def check_items(path: Path) -> tuple[int, list[Finding]]:
    """Return how many items a file has, and everything that is wrong or doubtful, by line. Raises ItemError for a file that is no text."""
    try:
        text = read_text(path)
    except ValueError as error:
        raise ItemError(f"cannot read items from {path}: {error}") from error
    rows = list(_lines(text) if path.suffix == ".jsonl" else _elements(text))
    items: dict[str, tuple[int, Item]] = {}
    findings: list[Finding] = [] if rows else [Finding(0, "", WRONG, "there are no items")]
    for row in rows:
        findings += _problems(row, items)
    right = [item for _, item in items.values()]
    for quirk in find_quirks(right):
        findings += [Finding(items[item_id][0], item_id, DOUBTFUL, quirk.what) for item_id in quirk.ids]
    findings += [*_unread(rows), *_one_place(right)]
    return len(rows), sorted(findings, key=lambda finding: (finding.line, finding.how != WRONG))


def _lines(text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield Row(number, parse_json(line))
            except ValueError as error:
                yield Row(number, None, f"no JSON: {error}")


def _elements(text: str) -> Iterator[Row]:
    """Yield the elements of a JSON array with the lines on which they begin; the first that is broken ends it."""
    place, decoder = _after_blanks(text, 0), json.JSONDecoder()
    if text[place : place + 1] != "[":
        yield Row(1, None, "the file is no JSON array; items stand in [ ], or one a line in a .jsonl file")
        return
    line, counted = 1, 0
    place = _after_blanks(text, place + 1)
    while text[place : place + 1] != "]":
        line, counted = line + text.count("\n", counted, place), place
        try:
            _, end = decoder.raw_decode(text, place)
            value = parse_json(text[place:end])
        except (ValueError, RecursionError) as error:
            yield Row(line, None, f"no JSON: {error or 'nested too deeply'}")
            return
        yield Row(line, value)
        place = _after_blanks(text, end)
        if text[place : place + 1] == ",":
            place = _after_blanks(text, place + 1)
        elif text[place : place + 1] != "]":
            yield Row(line + text.count("\n", counted, place), None, "no JSON: expected , or ] after an item")
            return


def _after_blanks(text: str, place: int) -> int:
    while text[place : place + 1] in (" ", "\t", "\n", "\r"):
        place += 1
    return place


def _problems(row: Row, items: dict[str, tuple[int, Item]]) -> Iterator[Finding]:
    """Yield what is wrong with one row, and add it to the items by id where nothing is."""
    if row.problem:
        yield Finding(row.line, "", WRONG, row.problem)
        return
    named = str(row.value.get("id", "")) if isinstance(row.value, dict) else ""
    try:
        item = Item.model_validate(row.value)
    except ValidationError as error:
        for one in error.errors():
            yield Finding(row.line, named, WRONG, f"{'.'.join(map(str, one['loc'])) or 'item'}: {one['msg']}")
        return
    wrong = [problem.removeprefix(f"id {item.id!r} ") for problem in item_problems(item)]
    if item.answer.isdecimal():
        wrong.append(f"has answer {item.answer!r}, a number, which may count from 0 or from 1; write a letter")
    if not item.choices:
        wrong.append("has no options, so it cannot be asked")
    if item.id in items:
        wrong.append(f"has the id of line {items[item.id][0]}")
    yield from (Finding(row.line, item.id, WRONG, what) for what in wrong)
    if not wrong:
        items[item.id] = (row.line, item)


def _unread(rows: list[Row]) -> Iterator[Finding]:
    """Yield keys that mean nothing here, one finding for each in the whole file: one of them may be a mistyped one."""
    count = Counter(key for row in rows if isinstance(row.value, dict) for key in row.value if key not in Item.model_fields)
    for key, number in count.items():
        yield Finding(0, "", DOUBTFUL, f"key {str(key)[:80]!r} is not read (in {number} items)")


def _one_place(items: list[Item]) -> list[Finding]:
    """Answers that nearly all stand in one place can be had without reading a question."""
    letter, count = Counter(item.answer for item in items).most_common(1)[0] if items else ("", 0)
    if len(items) < ONE_PLACE or count < MOST_IN_ONE_PLACE * len(items):
        return []
    return [Finding(0, "", DOUBTFUL, f"{count} of {len(items)} answers are {letter}; put the options into random order")]
