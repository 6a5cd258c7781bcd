"""Records as Markdown tables, with every column and every name: a page is wide. `latex` is the other form for papers."""

import re
from collections.abc import Callable, Iterable, Sequence

from analyzer.measure.records import Record
from analyzer.tables.latex import latex
from analyzer.tables.terminal import Column, filled, sheet
from store.shown import printable


def markdown(records: Sequence[Record], columns: Sequence[Column], notes: Sequence[str] = ()) -> str:
    """Return a Markdown table with its caption above, and below it the reasons of marked rows and notes."""
    shown = sheet(records, columns, notes)
    titles, rows = filled(shown, records)
    return "\n".join([in_line(shown.caption), "", *piped(titles, rows), *(f"\n{in_line(note)}" for note in shown.notes)])


def piped(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table: titles, rule, rows."""
    return ["| " + " | ".join(in_line(cell) for cell in cells) + " |" for cells in (titles, ["---"] * len(titles), *rows)]


MARKUP: dict[str, Callable[..., str]] = {"markdown": markdown, "latex": latex}


def in_line(text: str) -> str:
    """Return a cell escaped so that Markdown shows the text itself: no cell border, no markup, no link."""
    shown = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", printable(text))
    return shown.replace("\\", "\\\\").replace("|", "\\|").replace("](", "]\\(")
