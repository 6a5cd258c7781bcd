"""Records as LaTeX tables (booktabs; longtable where there are many rows), with a caption in words and a label to refer to."""

import re
from collections.abc import Mapping, Sequence

from analyzer.measure.records import Record
from analyzer.tables.terminal import Column, filled, sheet
from schemas.levels import NO_LEVEL
from store.shown import printable

PACKAGES = r"% needs \usepackage{booktabs} and \usepackage{longtable}"
ROWS_OF_A_PAGE = 40  # a table with more is broken across pages
SPECIAL = str.maketrans(
    {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}  # in LaTeX's first font encoding, OT1, these are other signs
    | {char: f"\\{char}" for char in "&%$#_{}"}
)
MINUS = re.compile(r"(?<![\w.-])-(?=\d)")  # of a number, where a hyphen would be printed; not those of w4a16-g32 and 2026-11-28
SYMBOLS = {
    "Δ": r"$\Delta$", "τ": r"$\tau$", "±": r"$\pm$", "·": r"$\cdot$", "∞": r"$\infty$", "≠": r"$\neq$",
}  # fmt: skip
# What all rows share -> how a caption says it; what is not here is only in the rows of other forms.
NAMES = {
    "model": "model {}", "task": "task {}", "prompt": "prompt {}", "method": "method {}", "level": "level {}", "scorer": "score {}",
    "alpha": "allowed miscoverage {}", "group": "group {}", "varied": "varied: {}",
}  # fmt: skip
LEFT_OUT = {("level", NO_LEVEL), ("group", "all"), ("protocol", "exact")}
RULES = {
    "protocol": "rules of the protocol {}", "n_items": "{} items", "n_calibration": "{} of them calibrate", "snapshot": "store snapshot {}",
}  # fmt: skip
EMPTY = {"keep": "empty sets stay empty", "top1": "empty sets get the most likely option"}


def latex(records: Sequence[Record], columns: Sequence[Column], title: str = "", notes: Sequence[str] = ()) -> str:
    """Return a LaTeX table with a bold title before its caption; the document needs the packages of PACKAGES.

    Its label is `tab:` and the title in small letters, `tab:hedgemark` without one. Notes stand below the table.
    """
    shown = sheet(records, columns, notes)
    titles, rows = filled(shown, records)
    form = "l" * shown.n_keys + "r" * (len(titles) - shown.n_keys)
    bold = rf"\textbf{{{escaped(title)}.}} " if title else ""
    label = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "hedgemark"
    heading = rf"\caption{{{bold}{escaped(in_words(shown.common))}}}\label{{tab:{label}}}"
    body = [_tabbed(row) for row in rows]
    notes = ["", r"\noindent{\footnotesize " + r"\\ ".join(map(escaped, shown.notes)) + "}"] if shown.notes else []
    if len(rows) > ROWS_OF_A_PAGE:
        return "\n".join([*_across_pages(heading, form, titles, body), *notes])
    begin = [r"\begin{table}", heading, rf"\begin{{tabular}}{{{form}}}", r"\toprule", _tabbed(titles), r"\midrule"]
    return "\n".join([*begin, *body, r"\bottomrule", r"\end{tabular}", *notes, r"\end{table}"])


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
    """Return text escaped so that LaTeX prints it literally."""
    escaped = MINUS.sub("$-$", printable(text).translate(SPECIAL))
    for symbol, command in SYMBOLS.items():
        escaped = escaped.replace(symbol, command)
    return escaped


def _split_in_words(split: str) -> str:
    if split == "all":
        return "exact mean over all calibration splits"
    if split.isdigit():
        return f"mean over {int(split):,} random calibration splits" if int(split) > 1 else "one random calibration split"
    return f"one calibration split ({split})"


def _across_pages(heading: str, form: str, titles: Sequence[str], body: Sequence[str]) -> list[str]:
    head = [r"\toprule", _tabbed(titles), r"\midrule"]
    turn = rf"\multicolumn{{{len(titles)}}}{{r}}{{continued on the next page}} \\"
    first = [rf"\begin{{longtable}}{{{form}}}", rf"{heading} \\", *head, r"\endfirsthead"]
    return [*first, *head, r"\endhead", r"\midrule", turn, r"\endfoot", r"\bottomrule", r"\endlastfoot", *body, r"\end{longtable}"]


def _tabbed(cells: Sequence[str]) -> str:
    return " & ".join(escaped(cell) for cell in cells) + r" \\"
