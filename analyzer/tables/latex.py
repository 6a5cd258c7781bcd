"""Records as LaTeX tables that fit a page, with a caption in words and a label to refer to.

They are booktabs tables in footnote size, longtables where there are many rows, and on a page turned sideways where they are wide. Where
that is not enough, words go on in a further line of their cell; then columns are left out, as on a terminal, which a sentence below says.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from analyzer.measure.records import Record
from analyzer.tables.terminal import Column, sheet
from schemas.levels import NO_LEVEL
from store.shown import GAP, dispensed, narrowed, narrowest, pieces, printable

PACKAGES = r"% needs \usepackage{booktabs}, \usepackage{longtable} and \usepackage{pdflscape}"


class Page(NamedTuple):
    """Characters of a line and lines in footnote size."""

    width: int
    lines: int


UPRIGHT, TURNED = Page(82, 45), Page(132, 24)  # of a page of the class article on letter paper, upright and sideways
SMALL = r"\footnotesize\setlength{\tabcolsep}{3pt}"
SPECIAL = str.maketrans(
    {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}  # in LaTeX's first font encoding, OT1, these are other signs
    | {char: f"\\{char}" for char in "&%$#_{}"}
)
MINUS = re.compile(r"(?<![\w.-])-(?=\d)")  # of a number, where a hyphen would be printed; not those of w4a16-g32 and 2026-11-28
SYMBOLS = {
    "Δ": r"$\Delta$", "τ": r"$\tau$", "±": r"$\pm$", "·": r"$\cdot$", "∞": r"$\infty$", "≠": r"$\neq$",
}  # fmt: skip
WORD = re.compile(r"[^\W\d_]{3}")
# In this order, since the last writes the sign that the others look for.
SIGNS = {
    re.compile("-(?=-)"): "-{}",  # two hyphens would become a dash
    re.compile("`([^`]*)`"): r"\\texttt{\1}",
    re.compile("`"): r"\\textasciigrave{}",
    re.compile('"([^"]*)"'): r"``\1''",
}
# What all rows share -> how a caption says it; what is not here is only in the rows of other forms.
NAMES = {
    "model": "model {}", "task": "task {}", "prompt": "prompt {}", "method": "method {}", "level": "level {}", "scorer": "score {}",
    "alpha": "allowed miscoverage {}", "group": "group {}", "varied": "varied: {}",
}  # fmt: skip
LEFT_OUT = {("level", NO_LEVEL), ("scorer", "-"), ("group", "all"), ("protocol", "exact")}
RULES = {
    "protocol": "rules of the protocol {}", "n_items": "{} items", "n_calibration": "{} of them calibrate", "snapshot": "store snapshot {}",
}  # fmt: skip
EMPTY = {"keep": "empty sets stay empty", "top1": "empty sets get the most likely option"}


def latex(records: Sequence[Record], columns: Sequence[Column], title: str = "", notes: Sequence[str] = ()) -> str:
    """Return a LaTeX table with a bold title before its caption; the document needs the packages of PACKAGES.

    Its label is `tab:` and the title in small letters, `tab:hedgemark` without one. Notes stand below the table.
    """
    left_out = _too_much(sheet(records, columns).columns, records)
    missing = [f"Columns left out, for which the page is too narrow: {', '.join(left_out)}."] if left_out else []
    shown = sheet(records, [column for column in columns if column.title not in left_out], [*notes, *missing])
    filled = _with_text(shown.columns, records)
    rows = [*zip(*filled, strict=True)]
    worded = [number for number, (_, *cells) in enumerate(filled) if _in_words(cells)]
    whole = [narrowest(title, cells) for title, *cells in filled]
    page = UPRIGHT if sum(whole) + len(GAP) * (len(whole) - 1) <= UPRIGHT.width else TURNED
    widths = narrowed(rows, [max(map(len, column)) for column in filled], page.width, worded)
    form = "".join("l" if number < shown.n_keys or number in worded else "r" for number in range(len(filled)))
    bold = rf"\textbf{{{escaped(title)}.}} " if title else ""
    label = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "hedgemark"
    heading = rf"\caption{{{bold}{escaped(in_words(shown.common))}}}\label{{tab:{label}}}"
    head, *body = (_tabbed(row, widths, form, "t" if number else "b") for number, row in enumerate(rows))
    below = [r"{\footnotesize\raggedright", *(escaped(note) + r"\par" for note in shown.notes), "}"] if shown.notes else []
    n_lines = sum(_n_lines(row, widths) for row in rows) + sum(1 + len(note) // page.width for note in shown.notes)
    if n_lines > page.lines:
        table = [f"{{{SMALL}", *_across_pages(heading, form, head, body), "}", *below]
    else:
        tabular = [rf"\begin{{tabular}}{{{form}}}", r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}\par"]
        table = [r"\begin{table}", rf"\centering{SMALL}", heading, *tabular, *below, r"\end{table}"]
    return "\n".join(table if page is UPRIGHT else [r"\begin{landscape}", *table, r"\end{landscape}"])


def _too_much(columns: Sequence[Column], records: Sequence[Record]) -> list[str]:
    """Return the titles of the columns for which a page turned sideways has no room, with every word on its own line and figures whole."""
    filled = _with_text(columns, records)
    dispensable = {column.title: column.dispensable for column in columns}
    narrow = [[title, *(_words_apart(cells) if _in_words(cells) else cells)] for title, *cells in filled]
    left = dispensed(narrow, [dispensable[title] for title, *_ in filled], TURNED.width)
    return [title for number, (title, *_) in enumerate(filled) if number not in left]


def _with_text(columns: Sequence[Column], records: Sequence[Record]) -> list[list[str]]:
    """Return title and cells of every column that has any text."""
    cells = ([printable(column.title), *(printable(column.text(record)) for record in records)] for column in columns)
    return [column for column in cells if any(column[1:])]


def _words_apart(cells: Sequence[str]) -> list[str]:
    return [word for cell in cells for word in cell.split()]


def _in_words(cells: Sequence[str]) -> bool:
    """Return whether most cells are words and not figures."""
    with_text = [cell for cell in cells if cell]
    return 2 * sum(bool(WORD.search(cell)) for cell in with_text) > len(with_text)


def in_words(common: Mapping[str, str]) -> str:
    """Return what all rows share as a caption, such as `Task mmlu, score lac. Mean over all calibration splits; 2,000 items.`"""
    stated = {name: value for name, value in common.items() if (name, value) not in LEFT_OUT}
    names = [form.format(stated[name]) for name, form in NAMES.items() if name in stated]
    rules = [RULES["protocol"].format(stated["protocol"])] if "protocol" in stated else []
    rules += [_split_in_words(stated["split"])] if "split" in stated else []
    rules += [EMPTY.get(stated["empty"], stated["empty"])] if "empty" in stated else []
    rules += [RULES[name].format(stated[name]) for name in ("n_items", "n_calibration", "snapshot") if name in stated]
    sentences = [", ".join(names), "; ".join(rules)]
    return " ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences if sentence)


def escaped(text: str) -> str:
    """Return text escaped so that LaTeX prints it literally, what stands between backticks in the letters of a typewriter."""
    escaped = MINUS.sub("$-$", printable(text).translate(SPECIAL))
    for symbol, command in SYMBOLS.items():
        escaped = escaped.replace(symbol, command)
    for plain, printed in SIGNS.items():
        escaped = plain.sub(printed, escaped)
    return escaped


def _split_in_words(split: str) -> str:
    if split == "all":
        return "exact mean over all calibration splits"
    if split.isdigit():
        return f"mean over {int(split):,} random calibration splits" if int(split) > 1 else "one random calibration split"
    return f"one calibration split ({split})"


def _across_pages(heading: str, form: str, head: str, body: Sequence[str]) -> list[str]:
    titles = [r"\toprule", head, r"\midrule"]
    turn = rf"\multicolumn{{{len(form)}}}{{r}}{{continued on the next page}} \\"
    first = [rf"\begin{{longtable}}{{{form}}}", rf"{heading} \\", *titles, r"\endfirsthead"]
    return [*first, *titles, r"\endhead", r"\midrule", turn, r"\endfoot", r"\bottomrule", r"\endlastfoot", *body, r"\end{longtable}"]


def _tabbed(cells: Sequence[str], widths: Sequence[int], form: str, at: str) -> str:
    """Return a row; a cell of several lines is a table within the table, whose top (`at` t) or bottom (b) line is the row's."""
    lines = [[_protected(piece) for piece in pieces(cell, width)] for cell, width in zip(cells, widths, strict=True)]
    stacked = [
        rf"\begin{{tabular}}[{at}]{{@{{}}{side}@{{}}}}" + r" \\ ".join(each) + r"\end{tabular}" if len(each) > 1 else each[0]
        for each, side in zip(lines, form, strict=True)
    ]
    return " & ".join(stacked) + r" \\"


def _protected(piece: str) -> str:
    """Return a piece escaped; one that begins with a bracket or a star would else be read as an option of the line break before it."""
    return f"{{{piece[0]}}}{escaped(piece[1:])}" if piece[:1] in ("[", "*") else escaped(piece)


def _n_lines(cells: Sequence[str], widths: Sequence[int]) -> int:
    return max(len(pieces(cell, width)) for cell, width in zip(cells, widths, strict=True))
