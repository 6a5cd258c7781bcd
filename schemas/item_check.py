"""Check an item file line by line and report errors and doubtful items with their lines.

In: a JSON array or JSON lines.  Out: findings by line. Reading items for a run fails on any error (`schemas.items`); this check continues
to the end of the file and reports everything, so that the file can be corrected.
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
ENOUGH_ITEMS, SAME_LETTER = 20, 0.8  # among this many items, such a share of answers with the same letter is no coincidence
EXAMPLE = {
    "id": "q1",
    "question": "Which planet is the largest?",
    "choices": {"A": "Mars", "B": "Jupiter", "C": "Venus"},
    "answer": "B",
    "subject": "astronomy",
}


class Finding(NamedTuple):
    """An error or doubt (`how`) about the item that begins on a line; line 0 stands for the whole file."""

    line: int
    id: str
    how: str
    what: str


class Row(NamedTuple):
    """One element of the file: its JSON value, or the problem that prevented reading it."""

    line: int
    value: Any
    problem: str = ""


def check_items(path: Path) -> tuple[int, list[Finding]]:
    """Return the number of items in a file and all findings, sorted by line. Raises ItemError for a file that is not UTF-8 text."""
    try:
        text = read_text(path)
    except ValueError as error:
        raise ItemError(f"cannot read items from {path}: {error}") from error
    rows = list(_lines(text) if path.suffix == ".jsonl" else _elements(text))
    items: dict[str, tuple[int, Item]] = {}
    findings: list[Finding] = [] if rows else [Finding(0, "", WRONG, "there are no items")]
    for row in rows:
        findings += _problems(row, items)
    valid = [item for _, item in items.values()]
    for quirk in find_quirks(valid):
        findings += [Finding(items[item_id][0], item_id, DOUBTFUL, quirk.what) for item_id in quirk.ids]
    findings += [*_unread(rows), *_same_letter(valid)]
    return len(rows), sorted(findings, key=lambda finding: (finding.line, finding.how != WRONG))


def _lines(text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield Row(number, parse_json(line))
            except ValueError as error:
                yield Row(number, None, f"not JSON: {error}")


def _elements(text: str) -> Iterator[Row]:
    """Yield the elements of a JSON array with the lines on which they begin; stop at the first that cannot be read."""
    position, decoder = _after_blanks(text, 0), json.JSONDecoder()
    if text[position : position + 1] != "[":
        yield Row(1, None, "the file is not a JSON array; write items as [ ..., ...], or one per line in a .jsonl file")
        return
    line, counted = 1, 0
    position = _after_blanks(text, position + 1)
    while text[position : position + 1] != "]":
        line, counted = line + text.count("\n", counted, position), position
        try:
            _, end = decoder.raw_decode(text, position)
            value = parse_json(text[position:end])
        except (ValueError, RecursionError) as error:
            yield Row(line, None, f"not JSON: {error or 'nested too deeply'}")
            return
        yield Row(line, value)
        position = _after_blanks(text, end)
        if text[position : position + 1] == ",":
            position = _after_blanks(text, position + 1)
        elif text[position : position + 1] != "]":
            yield Row(line + text.count("\n", counted, position), None, "not JSON: expected , or ] after an item")
            return


def _after_blanks(text: str, position: int) -> int:
    while text[position : position + 1] in (" ", "\t", "\n", "\r"):
        position += 1
    return position


def _problems(row: Row, items: dict[str, tuple[int, Item]]) -> Iterator[Finding]:
    """Yield the errors of one row; if it has none, add its item to `items` by id."""
    if row.problem:
        yield Finding(row.line, "", WRONG, row.problem)
        return
    item_id = str(row.value.get("id", "")) if isinstance(row.value, dict) else ""
    try:
        item = Item.model_validate(row.value)
    except ValidationError as error:
        for one in error.errors():
            yield Finding(row.line, item_id, WRONG, f"{'.'.join(map(str, one['loc'])) or 'item'}: {one['msg']}")
        return
    wrong = [problem.removeprefix(f"id {item.id!r} ") for problem in item_problems(item)]
    if item.answer.isdecimal():
        wrong.append(f"has answer {item.answer!r}, a number, which may count from 0 or from 1; write a letter")
    if not item.choices:
        wrong.append("has no options, so no model can answer it")
    if item.id in items:
        wrong.append(f"has the same id as the item on line {items[item.id][0]}")
    yield from (Finding(row.line, item.id, WRONG, what) for what in wrong)
    if not wrong:
        items[item.id] = (row.line, item)


def _unread(rows: list[Row]) -> Iterator[Finding]:
    """Yield one finding for each unknown key in the whole file, which may be a mistyped known key."""
    count = Counter(key for row in rows if isinstance(row.value, dict) for key in row.value if key not in Item.model_fields)
    for key, number in count.items():
        yield Finding(0, "", DOUBTFUL, f"unknown key {str(key)[:80]!r} is ignored (in {number} items)")


def _same_letter(items: list[Item]) -> list[Finding]:
    """Return a finding if nearly all answers have the same letter, which a model can guess without reading a question."""
    letter, count = Counter(item.answer for item in items).most_common(1)[0] if items else ("", 0)
    if len(items) < ENOUGH_ITEMS or count < SAME_LETTER * len(items):
        return []
    return [Finding(0, "", DOUBTFUL, f"{count} of {len(items)} answers are {letter}; put the options into random order")]
