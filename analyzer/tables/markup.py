"""Records as Markdown and LaTeX (booktabs) tables, with every column and every name: a page is wide."""

import re
from collections.abc import Callable, Iterable, Sequence

from analyzer.measure.records import Record
from analyzer.tables.terminal import Column, Sheet, sheet
from store.shown import printable

SPECIAL = str.maketrans(
    {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {char: f"\\{char}" for char in "&%$#_{}"}
)
SYMBOLS = {"Δ": r"$\Delta$", "±": r"$\pm$", "·": r"$\cdot$"}


def markdown(records: Sequence[Record], columns: Sequence[Column]) -> str:
    """Return a Markdown table with its caption above and the reasons of marked rows below."""
    shown = sheet(records, columns)
    titles, rows = _cells(shown, records)
    return "\n".join([in_line(shown.caption), "", *piped(titles, rows), *(f"\n{in_line(note)}" for note in shown.notes)])


def piped(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table: titles, rule, rows."""
    return ["| " + " | ".join(in_line(cell) for cell in cells) + " |" for cells in (titles, ["---"] * len(titles), *rows)]


def latex(records: Sequence[Record], columns: Sequence[Column], title: str = "") -> str:
    """Return a LaTeX table with a bold title before its caption; the document needs \\usepackage{booktabs}."""
    shown = sheet(records, columns)
    titles, rows = _cells(shown, records)
    form = "l" * shown.n_keys + "r" * (len(titles) - shown.n_keys)
    notes = "".join(f"\\\\ {escaped(note)}" for note in shown.notes)
    body = [_tabbed(titles), r"\midrule", *(_tabbed(row) for row in rows)]
    bold = rf"\textbf{{{escaped(title)}.}} " if title else ""
    begin = [r"\begin{table}", rf"\caption{{{bold}{escaped(shown.caption)}{notes}}}", rf"\begin{{tabular}}{{{form}}}", r"\toprule"]
    return "\n".join([*begin, *body, r"\bottomrule", r"\end{tabular}", r"\end{table}"])


MARKUP: dict[str, Callable[[Sequence[Record], Sequence[Column]], str]] = {"markdown": markdown, "latex": latex}


def _cells(shown: Sheet, records: Sequence[Record]) -> tuple[list[str], list[list[str]]]:
    """Return titles and rows; a column without any text is left out."""
    cells = [(column.title, [column.text(record) for record in records]) for column in shown.columns]
    filled = [(title, texts) for title, texts in cells if any(texts)]
    return [title for title, _ in filled], [list(row) for row in zip(*(texts for _, texts in filled), strict=True)]


def in_line(text: str) -> str:
    """Return a cell escaped so that Markdown shows the text itself: no cell border, no markup, no link."""
    shown = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", printable(text))
    return shown.replace("\\", "\\\\").replace("|", "\\|").replace("](", "]\\(")


def _tabbed(cells: Sequence[str]) -> str:
    return " & ".join(escaped(cell) for cell in cells) + r" \\"


def escaped(text: str) -> str:
    """Return text escaped so that LaTeX prints it literally."""
    escaped = printable(text).translate(SPECIAL)
    for symbol, command in SYMBOLS.items():
        escaped = escaped.replace(symbol, command)
    return escaped
