"""Read or check a file of items that a user wrote: JSON, JSON lines, CSV or Parquet.

In: a path, and which columns have question, choices and answer if they are called otherwise.  Out: items, or findings by line.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from schemas.errors import ItemError
from schemas.item_check import EXAMPLE, EXAMPLE_ROW, WRONG, Finding, check_rows, doubts
from schemas.item_rows import TEXT_FORMS, Row
from schemas.items import MAX_REPORTED, Item
from schemas.json_text import read_text

PARQUET = ".parquet"
SUFFIXES = (*TEXT_FORMS, PARQUET)


def read_item_file(path: Path, columns: str = "") -> list[Item]:
    """Return the items of a file; each has text. Raises ItemError with the first few problems and the number of further ones.

    columns : such as "question=stem,choices=a+b+c+d,answer=key:1", see `schemas.item_forms.columns_of`.
    """
    items, _, wrong = check_rows(_rows(path), columns)
    if wrong:
        more = f" (and {len(wrong) - MAX_REPORTED} more)" if len(wrong) > MAX_REPORTED else ""
        problems = "; ".join(_sentence(finding) for finding in wrong[:MAX_REPORTED])
        raise ItemError(f"{path}: {problems}{more}; `store items check` lists all problems")
    return items


def check_item_file(path: Path, columns: str = "") -> tuple[int, list[Finding]]:
    """Return the number of rows of a file, and all that is wrong or doubtful, sorted by line. Raises ItemError if it cannot be read."""
    rows = _rows(path)
    checked = check_rows(rows, columns)
    doubtful = doubts(rows, columns, checked, "column" if path.suffix in (".csv", PARQUET) else "key")
    return len(rows), sorted([*checked.wrong, *doubtful], key=lambda finding: (finding.line, finding.how != WRONG))


def example_of(path: Path) -> str:
    """Return a sentence that shows a valid item as a file of this kind holds it."""
    if path.suffix == PARQUET:
        return f"a valid row, by its columns, is {json.dumps(EXAMPLE_ROW)}"
    if path.suffix == ".csv":
        return f"a valid file has a line of titles and a line for each item:\n{','.join(EXAMPLE_ROW)}\n{','.join(EXAMPLE_ROW.values())}"
    item = json.dumps(EXAMPLE)
    return f"a valid file with one item is [{item}]" if path.suffix == ".json" else f"a valid line is {item}"


def _rows(path: Path) -> Sequence[Row]:
    try:
        if path.suffix == PARQUET:
            return _parquet_rows(path)
        if path.suffix in TEXT_FORMS:
            return list(TEXT_FORMS[path.suffix](read_text(path)))
    except ValueError as error:
        raise ItemError(f"cannot read items from {path}: {error}") from error
    raise ItemError(f"{path} is none of {', '.join(SUFFIXES)}; name it by what it holds")


def _parquet_rows(path: Path) -> list[Row]:
    import polars as pl

    from store.format.polars_files import read_polars

    return [Row(number, row) for number, row in enumerate(read_polars(pl.read_parquet, path).to_dicts(), start=1)]


def _sentence(finding: Finding) -> str:
    where = f"line {finding.line}" if finding.line else ""
    name = f"id {finding.id!r}" if finding.id else ""
    return ": ".join(filter(None, (", ".join(filter(None, (where, name))), finding.what)))
