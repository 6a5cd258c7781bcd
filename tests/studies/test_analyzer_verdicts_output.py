"""Tables as Markdown and LaTeX, and stated figures beside one's own."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from analyzer_data import MemoryReader, item_set, make_run, skilled_logits

from analyzer.measure.question import Question
from analyzer.runs.loading import Runs, select_runs
from analyzer.studies.published_figures import AGREES, DIFFERS, NO_INTERVAL, NO_RUN, OTHER_TASKS, Stated, beside_published, read_published
from analyzer.tables.latex import escaped, in_words, latex
from analyzer.tables.markup import markdown
from analyzer.tables.terminal import Column, estimate, render, words
from schemas.benchmark import BENCHMARK
from schemas.errors import UsageError

ROWS = [
    {"model": "a_b", "task": "t", "x": 1.5, "x_low": 1.0, "x_high": 2.0, "why": "50 % | more", "unreliable": None},
    {"model": "c", "task": "t", "x": None, "why": None, "unreliable": "broken_run"},
]
COLUMNS = (Column("Δ x", estimate("x", 1)), Column("why", words("why")), Column("never", words("nothing")))


def test_markdown_and_latex_say_the_same_golden() -> None:
    """Characters that mean something are escaped, empty columns left out, reasons given below."""
    assert markdown(ROWS, COLUMNS).splitlines() == [
        "task t",
        "",
        "| model | Δ x | why | ! |",
        "| --- | --- | --- | --- |",
        "| a_b | 1.5 [1.0, 2.0] | 50 % \\| more |  |",
        "| c |  |  | !1 |",
        "",
        "!1 unreliable: broken_run",
    ]
    text = latex(ROWS, COLUMNS)
    assert r"a\_b & 1.5 [1.0, 2.0] & 50 \% \textbar{} more &  \\" in text
    assert r"\caption{Task t.}\label{tab:hedgemark}" in text
    assert r"\begin{tabular}{lrlr}" in text and r"$\Delta$ x" in text and r"broken\_run" in text


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("-0.001 [-0.009, +0.007]", "$-$0.001 [$-$0.009, +0.007]"),
        ("<0.001", r"\textless{}0.001"),
        ("w4a16-g32 on 2026-11-28, 3-5 bits", "w4a16-g32 on 2026-11-28, 3-5 bits"),
        ("-", "-"),
        ("see `--prompt`", r"see \texttt{-{}-prompt}"),
        ('a ` and "b"', r"a \textasciigrave{} and ``b''"),
    ],
)
def test_latex_prints_the_sign_that_is_meant(text: str, printed: str) -> None:
    """A minus is no hyphen, two hyphens are no dash, and < stays < in the first font encoding; hyphens of names and dates stay hyphens."""
    assert escaped(text) == printed


def test_a_long_latex_table_goes_on_over_pages() -> None:
    """With its titles on every page, one label, and as many rows as there are records."""
    rows: list[dict[str, Any]] = [{**ROWS[0], "model": f"m{number}"} for number in range(46)]
    text = latex(rows, COLUMNS, "All runs")
    assert text.count(r"\begin{longtable}{lrl}") == text.count(r"\end{longtable}") == 1 and r"\begin{table}" not in text
    assert text.count(r"model & $\Delta$ x & why \\") == 2 and r"\label{tab:all-runs}" in text
    assert text.count("1.5 [1.0, 2.0]") == 46
    assert r"\begin{table}" in latex(rows[:44], COLUMNS)


def test_a_wide_latex_table_lies_sideways_and_says_what_it_leaves_out() -> None:
    """Long texts go on below in their cells; the column that is wanted least goes first, and no other, and its caution goes with it."""
    record = {"model": "m", "why": "word " * 40, "figure": "0.1234567890" * 3, "more": "0.5" * 20, "kl": 0.1, "unreliable": None}
    wide = [Column(f"figure {number}", words("figure")) for number in range(3)]
    least = [Column("more", words("more"), dispensable=1), Column("KL", words("more"), dispensable=2)]
    text = latex([record], [*wide[:2], Column("why", words("why"))])
    assert text.startswith(r"\begin{landscape}") and text.endswith(r"\end{landscape}") and "left out" not in text
    assert r"\begin{tabular}[t]{@{}l@{}}word word" in text
    assert "KL measures" in latex([record], least) and "Columns left out" not in latex([record], least[:1])
    text = latex([record], [wide[0], *least])
    assert "Columns left out, for which the page is too narrow: KL.\\par" in text and "KL measures" not in text and "0.50.5" in text


def test_a_bracket_at_the_start_of_a_row_is_no_option_of_the_line_before() -> None:
    """LaTeX reads a bracket behind the end of a row as a height, and a star as a command not to break the page."""
    text = latex([{"x": "[1.0, 2.0]"}, {"x": "*"}], [Column("x", words("x"))])
    assert "\n{[}1.0, 2.0] \\\\\n{*} \\\\\n" in text


@pytest.mark.parametrize(
    ("common", "caption"),
    [
        (
            {"task": "mmlu", "level": "-", "scorer": "lac", "alpha": "0.1", "group": "all", "protocol": "exact", "split": "all",
             "empty": "keep", "n_items": "2,000", "n_calibration": "1,000", "snapshot": "AB12"},
            "Task mmlu, score lac, allowed miscoverage 0.1. Exact mean over all calibration splits; empty sets stay empty; "
            "2,000 items; 1,000 of them calibrate; store snapshot AB12.",
        ),
        ({"protocol": "ye2024", "split": "train_test_split:42", "empty": "top1"},
         "Rules of the protocol ye2024; one calibration split (train_test_split:42); empty sets get the most likely option."),
        ({"model": "m", "split": "400"}, "Model m. Mean over 400 random calibration splits."),
        ({}, ""),
    ],
)  # fmt: skip
def test_a_caption_is_a_sentence(common: dict[str, str], caption: str) -> None:
    """What all rows share in words that a reader of the paper knows."""
    assert in_words(common) == caption


def test_names_of_a_strangers_store_cannot_steer_the_terminal() -> None:
    """An escape sequence or a line break in a name is shown as question marks."""
    rows = [row | {"model": f"{row['model']}\x1b[2J\n"} for row in ROWS]
    text = render(rows, COLUMNS, 120)
    assert "a_b?[2J?" in text and "\x1b" not in text
    assert "\x1b" not in render(rows[:1], COLUMNS, 120)  # what all rows share goes into the caption


def dense_and_rtn(names: Iterable[str] = BENCHMARK) -> Runs:
    rng = np.random.default_rng(0)
    tasks = {}
    runs = []
    for task in sorted(names):
        answers = rng.integers(0, 4, 500)
        tasks[task] = items = item_set(answers, task=task)
        logits = skilled_logits(rng, answers, 4)
        runs += [make_run(items, logits, model="m"), make_run(items, logits + 1, model="m", method="rtn", level="w4a16-g128")]
    return select_runs(MemoryReader(list(tasks.values()), runs), {})


def test_stated_figures_agree_differ_or_have_no_run() -> None:
    """A figure within what our items and a 2,000-item draw allow agrees; level w4a16 means any group size; level 0 means dense."""
    runs = dense_and_rtn()

    def stated(value: float, **fields: str) -> Stated:
        given = {"model": "m", "method": "dense", "level": "", "task": "average", "metric": "accuracy", "note": ""} | fields
        return Stated(**given, value=value)

    own = beside_published(runs, Question(), [stated(0.5)])[0]["own"]
    figures = [
        stated(own + 0.01),
        stated(own + 0.2),
        stated(own, method="rtn", level="w4a16", task="mmlu", model="owner/M-hf"),
        stated(own, method="wanda", level="0"),
        stated(own, method="wanda", level="0.5"),
    ]
    found = beside_published(runs, Question(), figures)
    assert [record["agreement"] for record in found] == [AGREES, DIFFERS, AGREES, AGREES, NO_RUN]
    assert set(found[0]["tasks"].split("+")) == set(BENCHMARK) and found[0]["admitted_low"] < found[0]["own_low"] < own


def test_a_mean_over_other_tasks_is_not_held_against_the_benchmarks() -> None:
    """A stated average is one over five tasks; with some of them missing ours is shown and judged neither way."""
    figures = [Stated("m", "dense", "", "average", "accuracy", 0.5, "")]
    (found,) = beside_published(dense_and_rtn(("mmlu", "halusum")), Question(), figures)
    assert found["agreement"] == OTHER_TASKS and found["tasks"] == "halusum+mmlu" and found["own"] > 0.5


def test_a_figure_without_an_interval_is_judged_neither_way() -> None:
    """Where few items at the threshold leave the interval of set size open, nothing agrees or differs, and no field is NaN."""
    rng = np.random.default_rng(0)
    answers = rng.integers(0, 4, 90)
    items, logits = item_set(answers, subjects=3), skilled_logits(rng, answers, 4)
    noisy = make_run(items, logits + rng.normal(size=logits.shape).astype(np.float32), method="wanda", level="0.5")
    runs = select_runs(MemoryReader([items], [make_run(items, logits), noisy]), {})
    figures = [Stated("toy", "wanda", "0.5", "quiz", metric, 2.0, "") for metric in ("set_size", "accuracy")]
    open_end, closed = beside_published(runs, Question(scorers=("lac",)), figures)
    assert (open_end["agreement"], open_end["own_low"], open_end["admitted_high"]) == (NO_INTERVAL, None, None)
    assert closed["agreement"] == DIFFERS and list(open_end) == list(closed)


def test_the_published_reference_file_is_read(shared_data: Path) -> None:
    """All 81 figures of the articles are read."""
    assert len(read_published(shared_data.parent / "reference_figures.csv")) == 81


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the file is empty"),
        ("model,method\na,b\n", "no column 'level'"),
        ("model,method,level,task,metric,value\na,b,,t,sharpness,1\n", "unknown metric 'sharpness'"),
        ("model,method,level,task,metric,value\na,b,,t,accuracy,high\n", "'high' is not a number"),
    ],
)
def test_a_reference_that_cannot_be_read_is_refused(tmp_path: Path, text: str, words: str) -> None:
    """The line and the value are quoted."""
    path = tmp_path / "figures.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=words):
        read_published(path)
