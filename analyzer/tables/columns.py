"""The columns of each command's table; a column that its records leave empty is not shown."""

from collections.abc import Callable, Iterable, Sequence
from string import ascii_uppercase

from analyzer.measure.records import Record
from analyzer.tables.numbers import fixed_interval
from analyzer.tables.terminal import Column, estimate, interval, number, p_value, span, stated, words

MAIN = ("accuracy", "coverage", "set_size")  # the figures that no table leaves out


def live_range(record: Record) -> str:
    """Return the cell of a confidence sequence, such as `[0.081, 0.132]`."""
    return "" if record["low"] is None else fixed_interval(record["low"], record["high"], 3)


def count(name: str) -> Callable[[Record], str]:
    """Return the cell maker of a number of items, such as `2,000`."""
    return lambda record: f"{record[name]:,}" if record[name] else ""


def e_value(record: Record) -> str:
    """Return the cell of an e-value, such as `12.3`; beyond a million the number says nothing more."""
    value = record["e_value"]
    return "" if value is None else "over 1,000,000" if value > 1e6 else f"{value:,.1f}"


def look(record: Record) -> str:
    """Return the cell of a planned look, such as `2 of 3, 0.15 %`: which one it is, and its error probability."""
    return f"{record['look']} of {record['n_looks']}, {100 * record['look_error']:.2g} %" if record["look"] else ""


def items_needed(record: Record) -> str:
    """Return the cell of the items that would decide, with their range and the likely result: `about 900 [600, 2,000] to pass`."""
    low, high = record["items_needed_low"], record["items_needed_high"]
    if record["items_needed"] is None:
        return ""
    between = f"[{low:,}, {high:,}]" if high else f"[{low:,}, ∞)"
    return f"about {record['items_needed']:,} {between} to {record['items_needed_to']}"


def growth(record: Record) -> str:
    """Return the cell of how the sets grow over a sweep: none, gradual, or a cliff, which the record calls `threshold`."""
    return record["note"] or ("cliff" if record["growth"] == "threshold" else record["growth"] or "")


SETS = (
    Column("accuracy", estimate("accuracy")),
    Column("coverage", number("coverage", sd="coverage_sd")),
    Column("set size", estimate("set_size", 2)),
    Column("uacc", number("uacc", 2), dispensable=3),
    Column("empty", number("empty_rate"), dispensable=2),
    Column("one option", number("singleton_rate"), dispensable=1),
)


def replayed(records: Sequence[Record]) -> list[Column]:
    """Return the columns of stated figures beside measured ones, such as `2.62 = 2.62`, or `2.85 ≠ 2.84`; left is what is stated.

    All have the decimals of the stated ones, at most 6; a measured figure has more only where it would look like the other case.
    """
    names = [name.removesuffix("_stated") for name in records[0] if name.endswith("_stated")]
    differing = {name for record in records for name in (record["differs_in"] or "").split(", ")}
    columns = [
        Column(
            name.replace("_", " "),
            _beside(name, _decimals(record[f"{name}_stated"] for record in records)),
            dispensable=0 if name in (*MAIN, *differing) else len(names) - number,
        )
        for number, name in enumerate(names)
    ]
    return [*columns, Column("agreement", words("agreement"))]


def _decimals(stated: Iterable[float | None]) -> int:
    """The most decimals of stated figures, up to 6: a per cent is a share here, so that 45.86 % is 0.45860000000000006."""
    return max((len(f"{value:.6f}".rstrip("0").partition(".")[2]) for value in stated if value is not None), default=0)


def _beside(name: str, decimals: int) -> Callable[[Record], str]:
    def text(record: Record) -> str:
        stated, measured = record.get(f"{name}_stated"), record.get(name)
        if stated is None:
            return ""
        shown, sign = f"{stated:.{decimals}f}", "≠" if name in (record["differs_in"] or "").split(", ") else "="
        if measured is None:
            return shown
        digits = next(
            (n for n in range(decimals, decimals + 4) if (f"{measured:.{n}f}" != f"{stated:.{n}f}") == (sign == "≠")), decimals + 1
        )
        return f"{shown} {sign} {measured:.{digits}f}"

    return text


P_VALUES = (
    Column("item", words("id")),
    Column("subject", words("subject"), dispensable=1),
    Column("answer", words("answer")),
    Column("p of answer", number("p_answer", 4)),
    *(Column(letter, number(f"p_{letter}", 4)) for letter in ascii_uppercase),
)
COMPARE = (
    Column("accuracy", number("accuracy")),
    Column("95 % accuracy", interval("accuracy"), dispensable=6),
    Column("Δ accuracy", estimate("accuracy_change", sign=True)),
    Column("p accuracy", p_value("accuracy_p_holm"), dispensable=8),
    Column("coverage", number("coverage"), dispensable=4),
    Column("set size", number("set_size", 2)),
    Column("95 % set size", interval("set_size", 2), dispensable=5),
    Column("Δ set size", estimate("set_size_change", 2, sign=True)),
    Column("p set size", p_value("set_size_p_holm"), dispensable=7),
    Column("flips", number("flips"), dispensable=2),
    Column("KL", number("kl"), dispensable=3),
    Column("verdict", words("verdict"), judges=True),
)
DECOUPLING = (
    Column("by", words("by")),
    Column("part", words("part")),
    Column("pairs", number("n_pairs", 0)),
    Column("unreliable", number("n_unreliable", 0), dispensable=2),
    Column("rank correlation", estimate("correlation", 2, sign=True)),
    Column("both hold", number("share_both_hold", 2)),
    Column("sets grow", number("share_accuracy_holds_sets_grow", 2)),
    Column("sets do not warn", number("share_accuracy_falls_sets_do_not_warn", 2)),
    Column("both degrade", number("share_both_degrade", 2)),
    Column("inconclusive", number("share_inconclusive", 2)),
)
PUBLISHED = (
    Column("metric", words("metric")),
    Column("published", number("stated")),
    Column("measured", estimate("own")),
    Column("agreement", words("agreement")),
    Column("note", words("note"), dispensable=1),
)
MONITOR = (
    Column("check", words("check")),
    Column("questions", number("n_items", 0)),
    Column("calibrated", number("calibrated")),
    Column("live", number("live")),
    Column("range", live_range, dispensable=2),
    Column("e-value", e_value),
    Column("alarm at", number("limit", 0), dispensable=1),
    Column("result", words("result"), judges=True),
    Column("began", words("began")),
)
TRANSFER = (
    Column("from", words("source")),
    Column("coverage", estimate("coverage")),
    Column("recalibrated", number("recalibrated_coverage"), dispensable=2),
    Column("set size", number("set_size", 2)),
    Column("recalibrated size", number("recalibrated_set_size", 2), dispensable=1),
    Column("Δ set size", estimate("set_size_change", 2, sign=True)),
    Column("finding", words("finding")),
)
WEIGHTED = (
    Column("coverage", estimate("coverage")),
    Column("unweighted", estimate("unweighted_coverage")),
    Column("set size", number("set_size", 2)),
    Column("unweighted size", number("unweighted_set_size", 2)),
    Column("finding", words("finding")),
)
GUARANTEE = (
    Column("set size", estimate("set_size", 2)),
    Column("covers at least", number("least_coverage")),
    Column("next covered", lambda record: f"{record['next_covered_low']} to {record['next_covered_high']} of {record['n_next']}"),
    Column("sure set size", estimate("sure_set_size", 2)),
    Column("next right", lambda record: f"{record['next_right_low']} to {record['next_right_high']} of {record['n_next']}", dispensable=1),
    Column("answers alone", number("answered")),
    Column("must abstain", estimate("least_abstention"), dispensable=2),
    Column("note", words("note"), dispensable=3),
)
POSITION = (
    Column("by", words("by")),
    Column("part", words("part")),
    Column("chosen", estimate("chosen"), dispensable=2),
    Column("answer there", number("answer_there")),
    Column("bias", estimate("bias", sign=True)),
    Column("accuracy", estimate("accuracy")),
    Column("Δ accuracy", estimate("accuracy_change", sign=True)),
    Column("accuracy spread", estimate("accuracy_spread")),
    Column("set size", number("set_size", 2)),
    Column("Δ set size", estimate("set_size_change", 2, sign=True)),
    Column("set size spread", estimate("set_size_spread", 2), dispensable=1),
    Column("answered alike", estimate("answered_alike"), dispensable=3),
)
FRONTIER = (
    Column("bytes", count("bytes")),
    Column("effective bits", number("effective_bits", 2), dispensable=1),
    Column("bits per weight", number("bits_per_weight", 2), dispensable=4),
    Column("cache bytes per token", number("cache_bytes_per_token", 0), dispensable=2),
    Column("bits per cached value", number("cache_bits", 1), dispensable=5),
    Column("accuracy", estimate("accuracy")),
    Column("set size", estimate("set_size", 2)),
    Column("flips", estimate("flips"), dispensable=3),
    Column("finding", words("finding")),
    Column("dominated by", words("dominated_by")),
)
TEXT = (
    Column("tokens", count("n_tokens")),
    Column("documents", count("n_documents"), dispensable=2),
    Column("KL", estimate("kl", 4)),
    Column("median KL", number("kl_median", 4), dispensable=4),
    Column("99 % KL", number("kl_99", 3), dispensable=3),
    Column("same top", estimate("same_top")),
    Column("perplexity", estimate("perplexity", 2)),
    Column("perplexity ratio", estimate("perplexity_ratio", 4)),
    Column("note", words("note"), dispensable=1),
)
SCALE = (
    Column("family", words("family"), dispensable=1),
    Column("parameters", number("parameters", 0)),
    Column("inflation", estimate("inflation", sign=True)),
    Column("slope per tenfold", estimate("slope", sign=True)),
    Column("note", words("note"), dispensable=2),
)
CLIFFS = (
    Column("accuracy", number("accuracy")),
    Column("set size", number("set_size", 2)),
    Column("95 % set size", interval("set_size", 2), dispensable=5),
    Column("Δ set size", estimate("set_size_change", 2, sign=True)),
    Column("flips", number("flips"), dispensable=2),
    Column("safe level", words("safe_level")),
    Column("growth", growth),
    Column("break at", estimate("break_strength", 2), dispensable=1),
)
COST = (
    Column("answered", number("alone")),
    Column("wrong", number("alone_wrong"), dispensable=1),
    Column("asked again", number("asked_again"), dispensable=2),
    Column("reviewed", number("review")),
    Column("abstained", number("abstained"), dispensable=3),
    Column("cost per 1,000", estimate("cost", 2)),
    Column("Δ cost", estimate("cost_change", 2, sign=True)),
    Column("Δ with hardware", estimate("total_change", 2, sign=True)),
    Column("pays", words("pays")),
)
GATE = (
    Column("check", words("check")),
    Column("subject", words("subject")),
    Column("amount", estimate("amount")),
    Column("limit", stated("limit")),
    Column("result", words("result"), judges=True),
    Column("look", look),
    Column("next look", count("next_look")),
    Column("items needed", items_needed, dispensable=1, below=True),
    Column("reason", words("reason"), dispensable=2, below=True),
)
SENSITIVITY = (
    Column("set size", span("set_size")),
    Column("Δ set size", span("set_size_change", sign=True)),
    Column("conclusion", words("conclusion")),
    Column("agreeing", number("agreeing", 2)),
    Column("survives", words("survives")),
    Column("rank τ", number("rank_agreement", 2), dispensable=1),
)
