"""Check the rows of an item file one by one, and report errors and doubtful items with their lines.

In: rows with their lines.  Out: the valid items, and findings by line. A run fails on any error in its items; this check continues to the
end of the file and reports everything, so that the file can be corrected.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from pydantic import ValidationError

from schemas.errors import UsageError
from schemas.item_forms import Columns, as_meant, columns_of, read_forms
from schemas.item_quirks import Quirk, find_quirks
from schemas.item_rows import Row
from schemas.items import Item, item_problems

WRONG, DOUBTFUL = "wrong", "doubtful"
ENOUGH_ITEMS, SAME_PLACE = 20, 0.8  # among this many items, such a share of answers in one place is no coincidence
EXAMPLE = {
    "id": "q1",
    "question": "Which planet is the largest?",
    "choices": {"A": "Mars", "B": "Jupiter", "C": "Venus"},
    "answer": "B",
    "subject": "astronomy",
}


EXAMPLE_ROW = {  # the same as a row of a table
    "id": "q1",
    "question": "Which planet is the largest?",
    **{"A": "Mars", "B": "Jupiter", "C": "Venus"},
    "answer": "B",
    "subject": "astronomy",
}


class Finding(NamedTuple):
    """An error or doubt (`how`) about the item that begins on a line; line 0 stands for the whole file."""

    line: int
    id: str
    how: str
    what: str


class Checked(NamedTuple):
    """The valid items of a file in file order, the line on which each begins by id, and what is wrong with the others, by line."""

    items: list[Item]
    line_of: Mapping[str, int]
    wrong: list[Finding]


def check_rows(rows: Sequence[Row], columns: str = "") -> Checked:
    """Return the valid items of a file's rows, and everything that is wrong with the others.

    columns : which keys or columns have question, choices and answer, as in `schemas.item_forms.columns_of`.
    """
    wrong = [Finding(row.line, "", WRONG, row.problem or "expected an item") for row in rows if not isinstance(row.value, dict)]
    readable = [row for row in rows if isinstance(row.value, dict)]
    items: list[Item] = []
    line_of: dict[str, int] = {}
    if readable:
        try:
            wrong += _check_forms(readable, columns_of(columns, _keys(readable)), items, line_of)
        except UsageError as error:
            wrong.append(Finding(0, "", WRONG, str(error)))
    elif not rows:
        wrong.append(Finding(0, "", WRONG, "there are no items"))
    return Checked(items, line_of, sorted(wrong))


def doubts(rows: Sequence[Row], columns: str, checked: Checked, field: str) -> list[Finding]:
    """Return what is doubtful in the valid items and in the file as a whole, sorted by line.

    field : what a value's name is called in this kind of file, key or column.
    """
    doubtful = [
        Finding(checked.line_of[name], name, DOUBTFUL, f"{quirk.what}{_on_line(quirk, name, checked.line_of)}")
        for quirk in find_quirks(checked.items)
        for name in quirk.ids
    ]
    return sorted([*doubtful, *_unread([row for row in rows if isinstance(row.value, dict)], columns, field), *_same_place(checked.items)])


def _on_line(quirk: Quirk, name: str, line_of: Mapping[str, int]) -> str:
    return f", on line {line_of[quirk.other[name]]}" if name in quirk.other else ""


def _check_forms(rows: Sequence[Row], columns: Columns, items: list[Item], line_of: dict[str, int]) -> Iterator[Finding]:
    """Yield what is wrong; add the item of every other row to `items`. Rows are numbered if none has an id."""
    forms = read_forms([row.value for row in rows], columns)
    id_column = next(iter(columns.parts.get("id", [])), "id")
    names = ["" if (value := as_meant(row.value.get(id_column))) is None else str(value) for row in rows]
    is_named = any(names)
    if forms.of_all:
        yield Finding(0, "", WRONG, forms.of_all)
    for number, (row, document) in enumerate(zip(rows, forms.documents, strict=True)):
        name = names[number] if is_named else str(number + 1)
        if number in forms.problems:
            yield Finding(row.line, name, WRONG, forms.problems[number])
        if document is None:
            continue
        problems, item = _item({"id": name} | document if is_named else document | {"id": name})
        if not name:
            problems.append("has no id, and other rows have one; give every row an id, or none")
        if item and item.id in line_of:
            problems.append(f"has the same id as an earlier item, on line {line_of[item.id]}")
        yield from (Finding(row.line, name, WRONG, problem) for problem in problems)
        if item and not problems:
            line_of[item.id] = row.line
            items.append(item)


def _item(document: Mapping[str, object]) -> tuple[list[str], Item | None]:
    """Return the problems of a document, and its item if it has the form of one."""
    try:
        item = Item.model_validate(document)
    except ValidationError as error:
        return [f"{'.'.join(map(str, one['loc'])) or 'item'}: {one['msg']}" for one in error.errors()], None
    return [problem.removeprefix(f"id {item.id!r} ") for problem in item_problems(item)], item


def _keys(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(str(key) for row in rows for key in row.value))


def _unread(rows: Sequence[Row], columns: str, field: str) -> Iterator[Finding]:
    """Yield one finding for each unknown key or column in the whole file, which may be a mistyped known one."""
    try:
        read = {name for names in columns_of(columns, _keys(rows)).parts.values() for name in names}
    except UsageError:
        return
    count = Counter(str(key) for row in rows for key in row.value if str(key) not in read)
    for key, number in count.items():
        yield Finding(0, "", DOUBTFUL, f"unknown {field} {key[:80]!r} is ignored (in {number} items)")


def _same_place(items: Sequence[Item]) -> Iterator[Finding]:
    """Yield a finding if nearly all answers are in one place, counted from either end: a model can guess these unread."""
    first = Counter(item.answer for item in items)
    last = Counter(len(item.choices) - item.answer_index for item in items)
    if len(items) < ENOUGH_ITEMS:
        return
    (letter, count), (from_end, count_from_end) = first.most_common(1)[0], last.most_common(1)[0]
    if max(count, count_from_end) >= SAME_PLACE * len(items):
        where = letter if count >= count_from_end else "the last option" if from_end == 1 else f"option {from_end} from the end"
        share = f"{max(count, count_from_end)} of {len(items)}"
        yield Finding(0, "", DOUBTFUL, f"{share} answers are {where}; put the options into random order")
