"""The panels of the page, in their order: one entry each. A panel is a table, charts over it, and a sentence about it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from analyzer.report.charts import comparison_charts, study_charts
from analyzer.report.charts.theme import Spec
from analyzer.report.data.tables import Tables
from analyzer.report.words import sentences

Chart = Callable[[list[str], dict[str, Any]], Spec]
Follows = Literal["filters", "pair", "neighbours", "sweep", "task"]
NO_PAIRS = "Nothing to compare in this selection: a compressed run needs a dense run of the same model, task and prompt."
RUN = ("run", "scorer", "protocol")


@dataclass(frozen=True)
class Figure:
    """One column of a panel's table.

    digits   : of a number; None for text.
    interval : whether `<field>_low` and `<field>_high` stand beside it.
    times    : 100 for a share shown in percent or points.
    """

    field: str
    title: str
    digits: int | None = None
    interval: bool = False
    sign: bool = False
    times: int = 1

    @property
    def fields(self) -> list[str]:
        """The fields it takes from a record."""
        return [self.field, f"{self.field}_low", f"{self.field}_high"] if self.interval else [self.field]


@dataclass(frozen=True)
class Panel:
    """One panel.

    table   : name of its table.
    figures : columns of its table view and of its CSV, after those that name the run.
    follows : which rows it shows: the filters' ("filters"), the chosen run and its dense run ("pair"), all runs of its model, task and
              prompt ("neighbours"), those of its kind of level ("sweep"), or the filters' within its task and prompt ("task").
    more    : further fields that its charts need.
    """

    id: str
    title: str
    text: str
    table: str
    figures: tuple[Figure, ...]
    reading: Callable[[Tables], str] | None = None
    charts: Mapping[str, Chart] | None = None
    follows: Follows = "filters"
    empty: str = NO_PAIRS
    more: tuple[str, ...] = ()

    @property
    def fields(self) -> list[str]:
        """What the page embeds of each record."""
        named = [*RUN, *(name for figure in self.figures for name in figure.fields), *self.more]
        return list(dict.fromkeys(named))


ACCURACY = Figure("accuracy_change", "Δ accuracy, points", 2, interval=True, sign=True, times=100)
SIZE = Figure("set_size_change", "Δ set size", 3, interval=True, sign=True)
FLIPS = Figure("flips", "flips, %", 2, interval=True, times=100)
REASON = Figure("unreliable", "unreliable")
PAIR = (
    Figure("accuracy", "accuracy, %", 2, interval=True, times=100),
    ACCURACY,
    Figure("set_size", "set size", 3, interval=True),
    SIZE,
    Figure("coverage_change", "Δ coverage, points", 2, interval=True, sign=True, times=100),
    FLIPS,
    Figure("kl", "KL, nats", 4, interval=True),
    Figure("verdict", "verdict"),
    REASON,
)
CHECKS = (
    Figure("check", "check"),
    Figure("subject", "subject"),
    Figure("amount", "amount", 4, interval=True),
    Figure("limit", "limit", 4),
    Figure("result", "result"),
    Figure("items_needed", "items that would decide", 0),
    Figure("reason", "reason"),
)

PANELS = (
    Panel("checks", "Every check of the gate", "The figures behind the verdicts above, each against its limit.", "checks", CHECKS),
    Panel(
        "heat",
        "What each method changed",
        "Orange is worse than the dense run, blue better; bold figures differ from no change by more than noise.",
        "pairs",
        PAIR,
        sentences.heat_map,
        {"heat": comparison_charts.heat_map},
    ),
    Panel(
        "decoupling",
        "Does accuracy tell the whole story?",
        "Each point is a compressed run. Above the line its sets grew, left of it accuracy fell. The upper right corner is what a look at "
        "accuracy alone misses.",
        "pairs",
        PAIR,
        sentences.decoupling,
        {"scatter": comparison_charts.decoupling},
    ),
    Panel(
        "alpha",
        "Move alpha",
        "Alpha is the share of misses allowed. Shaded: two standard deviations over all ways to split items into calibration and test.",
        "curves",
        (
            Figure("set_size", "set size", 3),
            Figure("set_size_sd", "set size ± over splits", 3),
            Figure("coverage", "coverage", 4),
            Figure("coverage_sd", "coverage ± over splits", 4),
        ),
        sentences.alphas,
        {"alpha-size": comparison_charts.set_size_by_alpha, "alpha-coverage": comparison_charts.coverage_by_alpha},
        "neighbours",
        "No run here is measured over all splits.",
    ),
    Panel(
        "cliffs",
        "Where is the cliff?",
        "The levels of all methods that compress as the chosen run does, on its model, task and prompt. Dashed: the tolerance.",
        "cliffs",
        (
            Figure("strength", "strength", 3),
            SIZE,
            ACCURACY,
            Figure("coverage_change", "Δ coverage, points", 2, interval=True, sign=True, times=100),
            FLIPS,
            Figure("safe_level", "safe up to"),
            Figure("growth", "growth"),
            Figure("break_strength", "break at", 3, interval=True),
            REASON,
        ),
        sentences.cliffs,
        {
            "cliff-size": study_charts.cliff("set_size_change", "change in set size", (-0.1, 0.2)),
            "cliff-accuracy": study_charts.cliff("accuracy_change", "change in accuracy, points", (-4, 1), 100),
            "cliff-coverage": study_charts.cliff("coverage_change", "change in coverage, points", (-1, 1), 100),
            "cliff-flips": study_charts.cliff("flips", "flips, percent", (0, 5), 100),
        },
        "sweep",
        "No method was run at a level of its own here.",
    ),
    Panel(
        "sizes",
        "How large are the sets?",
        "A set of one option is an answer; a large set is a hedge; an empty one says that no option looks right.",
        "sizes",
        (Figure("size", "options", 0), Figure("rate", "questions, %", 2, interval=True, times=100)),
        sentences.set_sizes,
        {"sizes": comparison_charts.set_sizes},
        "pair",
        "No run is chosen.",
    ),
    Panel(
        "flips",
        "Which answers flipped?",
        "Flips of the chosen run by subject; below, the items whose answer's probability moved most.",
        "subjects",
        (
            Figure("subject", "subject"),
            Figure("direction", "flip"),
            Figure("share", "items, %", 2, interval=True, times=100),
            Figure("n_items", "items", 0),
        ),
        sentences.flips,
        {"flips": comparison_charts.flips},
        "pair",
    ),
    Panel(
        "scale",
        "Do larger models take it better?",
        "Growth of the mean set against parameters, on the chosen run's task and prompt.",
        "scale",
        (
            Figure("parameters", "parameters", 0),
            Figure("inflation", "growth, %", 2, interval=True, sign=True, times=100),
            Figure("slope", "slope per tenfold", 4, interval=True, sign=True),
            Figure("note", "note"),
            REASON,
        ),
        sentences.scale,
        {"scale": study_charts.scale},
        "task",
        more=("family",),
    ),
    Panel(
        "transfer",
        "Ship without recalibrating?",
        "Filled: coverage under the dense model's threshold. Open: recalibrated. Solid line: the coverage asked for; dashed: tolerated.",
        "transfer",
        (
            Figure("coverage", "coverage, threshold kept", 4, interval=True),
            Figure("recalibrated_coverage", "coverage, recalibrated", 4),
            Figure("set_size", "set size, threshold kept", 3, interval=True),
            Figure("recalibrated_set_size", "set size, recalibrated", 3),
            Figure("finding", "finding"),
            REASON,
        ),
        sentences.transfer,
        {"transfer": study_charts.transfer},
    ),
    Panel(
        "cost",
        "What do the sets cost?",
        "One option is answered alone, a few are asked again, more go to review. Type your own prices; dark ticks mark the dense run.",
        "costs",
        (
            Figure("cost", "cost per 1,000", 3, interval=True),
            Figure("cost_change", "Δ cost", 3, interval=True, sign=True),
            Figure("total_change", "Δ with hardware", 3, interval=True, sign=True),
            Figure("pays", "pays"),
            Figure("break_even", "review price at break-even", 3),
            REASON,
        ),
        None,
        {"cost": study_charts.cost},
        empty="No run here is measured over all splits.",
    ),
    Panel(
        "unreliable",
        "Runs that cannot be trusted",
        "Flagged by rules, never by opinion; no sentence on this page speaks of them.",
        "unreliable",
        (Figure("reason", "reason"),),
        sentences.unreliable,
        empty="Nothing is flagged in this selection.",
    ),
)
COST_FIELDS = [*RUN, "n_items", "t", "rates", "covariance", "change", "change_covariance", "saving", "unreliable"]
ITEM_FIELDS = ["run", "task", "item", "id", "subject", "answer", "dense", "compressed", "answer_prob_change"]
TEXT_FIELDS = ["task", "item", "question", "options"]
