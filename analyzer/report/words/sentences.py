"""One or two sentences per panel, written from its numbers, with its main message."""

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from statistics import median
from typing import Any

from analyzer.compare.two_axis_verdict import BOTH_DEGRADE, BOTH_HOLD, FALLS_SILENT, HOLDS_GROW
from analyzer.compare.two_axis_verdict import INCONCLUSIVE as UNDECIDED
from analyzer.gate.gate import FAIL, INCONCLUSIVE, PASS
from analyzer.measure.records import Record
from analyzer.report.data.tables import Tables
from analyzer.report.words.cards import Card
from analyzer.studies.cliffs import GRADUAL, NO_GROWTH, THRESHOLD, TOO_FEW, UNCLEAR, sweep_kind
from analyzer.tables.numbers import fixed
from analyzer.tables.terminal import estimate
from schemas.levels import method_and_level
from schemas.run import CHECKPOINT
from store.shown import counted

GROWTHS = {
    NO_GROWTH: "{} stay{} within the tolerance",
    GRADUAL: "in {} the sets grow gradually",
    THRESHOLD: "in {} the sets grow suddenly",
    UNCLEAR: "{} cannot be decided",
    TOO_FEW: "{} need{} more levels to find the cliff",
}
REST = {INCONCLUSIVE: "cannot be decided yet", FAIL: "must not"}
WATCHED = {"holds": "The guarantee holds", "alarm": "Alarm", "not enough yet": "There is not enough to tell yet"}
PROMISED = {
    "set size": ("mean set size", 1, 2, ""),
    "answer": ("answered alone", 100, 1, " %"),
    "misses": ("missed", 100, 1, " %"),
    "cost per 1,000": ("cost per 1,000 questions", 1, 2, ""),
}
DISAGREE = {HOLDS_GROW: "accuracy held and sets grew", FALLS_SILENT: "accuracy fell and the sets did not warn"}
AGREE = {BOTH_HOLD: "Both held", BOTH_DEGRADE: "both got worse", UNDECIDED: "too few questions to tell"}
MOST_NAMED = 3  # sweeps that break, named in a sentence
SLOPE = ("family", "method", "level", "task", "prompt", "scorer")
NO_PAIRS = "No run here has a dense run of the same model, task and prompt beside it."


def verdicts(cards: Sequence[Card]) -> str:
    """Return how many compressed models may ship."""
    if not cards:
        return "No compressed model to judge yet."
    counts = Counter(card.result for card in cards)
    one = "model" if len(cards) == 1 else "models"
    rest = [f"{counts[result]} {words}" for result, words in REST.items() if counts[result]]
    return f"{counts[PASS] or 'None'} of {len(cards)} compressed {one} may ship{'; ' if rest else ''}{' and '.join(rest)}."


def heat_map(named_tables: Tables) -> str:
    """Return where sets grow most and where accuracy falls most."""
    pairs = _sound(named_tables["pairs"])
    if not pairs:
        return NO_PAIRS
    grown = max(pairs, key=lambda pair: pair["set_size_change"])
    lost = min(pairs, key=lambda pair: pair["accuracy_change"])
    return (
        f"Sets grow most with {_run(grown)}: {_interval(grown, 'set_size_change', 1, 2)} options. "
        f"Accuracy falls most with {_run(lost)}: {_interval(lost, 'accuracy_change', 100, 1)} points."
    )


def decoupling(named_tables: Tables) -> str:
    """Return in how many comparisons accuracy and sets disagree, and in how many they agree."""
    pairs = _sound(named_tables["pairs"])
    if not pairs:
        return NO_PAIRS
    counts = Counter(pair["verdict"] for pair in pairs)
    agree = ", ".join(f"{words} in {counts[verdict]}" for verdict, words in AGREE.items())
    return f"{'; '.join(f'{counts[verdict]} of {len(pairs)}: {words}' for verdict, words in DISAGREE.items())}. {agree}."


def alphas(named_tables: Tables) -> str:
    """Return how much the figures vary with the choice of calibration items alone."""
    records = [record for record in named_tables["runs"] if record.get("set_size_sd") is not None]
    if not records:
        return "No run is measured over all splits."
    size, coverage = (median(record[f"{name}_sd"] for record in records) for name in ("set_size", "coverage"))
    return (
        f"Choosing other calibration items alone moves coverage by up to {200 * coverage:.1f} points and set size by up to {2 * size:.2f} "
        f"options (two standard deviations at alpha {records[0]['alpha']:g}; median of {len(records)} runs)."
    )


def cliffs(named_tables: Tables) -> str:
    """Return how many sweeps have a safe level, and how the sets grow along them."""
    sweeps = [next(iter(group)) for _, group in groupby(_sound(named_tables["cliffs"]), key=sweep_of)]
    if not sweeps:
        return "No method was run at a level with a dense run beside it."
    counts = Counter(sweep["growth"] for sweep in sweeps)
    growths = [words.format(counts[result], "s" if counts[result] == 1 else "") for result, words in GROWTHS.items() if counts[result]]
    safe = sum(sweep["safe_level"] is not None for sweep in sweeps)
    broken = [sweep for sweep in sweeps if sweep["growth"] == THRESHOLD]
    sudden = [f" {sweep['model']} {sweep['method']} on {sweep['task']} breaks {_after(sweep)}." for sweep in broken]
    counted = f"{safe} of {len(sweeps)} {'sweep has' if len(sweeps) == 1 else 'sweeps have'} a safe level; {', '.join(growths)}."
    return counted + "".join(sudden[:MOST_NAMED])


def _after(sweep: Record) -> str:
    return f"after {sweep['safe_level']}" if sweep["safe_level"] else "at its first level"


def set_sizes(named_tables: Tables) -> str:
    """Return which compressed run loses the most sets with a single option."""
    by_run = {(record["run"], record["scorer"], record["protocol"]): record for record in named_tables["runs"]}
    losses = []
    for pair in _sound(named_tables["pairs"]):
        before = by_run.get((pair["compared_with"], pair["scorer"], pair["protocol"]))
        if before and before["singleton_rate"] is not None and pair["singleton_rate"] is not None:
            losses.append((pair["singleton_rate"] - before["singleton_rate"], before["singleton_rate"], pair))
    if not losses:
        return NO_PAIRS
    _, before_rate, pair = min(losses, key=lambda loss: loss[0])
    was, now = (fixed(100 * rate, 0) for rate in (before_rate, pair["singleton_rate"]))
    return f"Sets of a single option change most with {_run(pair)}: from {was} % to {now} % of questions."


def flips(named_tables: Tables) -> str:
    """Return where most answers turn from right to wrong or back."""
    pairs = _sound(named_tables["pairs"])
    if not pairs:
        return NO_PAIRS
    most = max(pairs, key=lambda pair: pair["flips"])
    flipped, to_wrong, to_right = (fixed(100 * most[name], 1) for name in ("flips", "flips_to_wrong", "flips_to_right"))
    parts = f"{to_wrong} % from right to wrong and {to_right} % from wrong to right"
    return f"Most answers flip with {_run(most)}: {flipped} % of items, {parts}."


def scale(named_tables: Tables) -> str:
    """Return whether the sets of larger models grow less."""
    if named_tables["pairs"] and not named_tables["scale"]:
        return "No run here says how many parameters its model has."
    slopes = [record for record in named_tables["scale"] if record["slope"] is not None and not record["unreliable"]]
    groups = [next(iter(group)) for _, group in groupby(slopes, key=lambda record: tuple(record[name] for name in SLOPE))]
    if not groups:
        note = next((record["note"] for record in named_tables["scale"] if record["note"]), None)
        return f"No slope: {note}." if note else NO_PAIRS
    less, more = sum(group["slope_high"] < 0 for group in groups), sum(group["slope_low"] > 0 for group in groups)
    unclear = len(groups) - less - more
    steepest = max(groups, key=lambda group: abs(group["slope"]))
    pairs = "comparison" if len(groups) == 1 else "comparisons"
    return (
        f"In {less or 'none'} of {len(groups)} {pairs} of sizes larger models suffered less, in {more or 'none'} more; "
        f"{unclear} {'is' if unclear == 1 else 'are'} unclear. The steepest is {_what(steepest)}: "
        f"{_interval(steepest, 'slope', 100, 1)} points of growth for ten times the parameters."
    )


def frontier(named_tables: Tables) -> str:
    """Return how many runs are on the frontier and how many are dominated, and the smallest on it."""
    records = [record for record in named_tables["frontier"] if record["bytes"] is not None and not record["unreliable"]]
    if not records:
        return "No run here says how many bytes its weights take."
    counts = Counter(record["finding"] for record in records)
    others = f"{counts['dominated']} are dominated beyond noise, {counts['inconclusive']} cannot be decided"
    return f"{counts['frontier'] or 'None'} of {len(records)} runs {'is' if counts['frontier'] == 1 else 'are'} on the frontier; {others}."


def transfer(named_tables: Tables) -> str:
    """Return how many compressed runs keep their coverage with the dense model's threshold."""
    records = _sound(named_tables["transfer"])
    if not records:
        return NO_PAIRS
    counts = Counter(record["finding"] for record in records)
    worst = min(records, key=lambda record: record["coverage"])
    return (
        f"With the dense model's threshold, {counts['covers']} of {len(records)} runs keep their coverage, {counts['undercovers']} do not, "
        f"and {counts['inconclusive']} cannot be decided. The lowest is {_run(worst)}: "
        f"{_interval(worst, 'coverage', 100, 1, sign=False)} %."
    )


def unreliable(named_tables: Tables) -> str:
    """Return how many runs cannot be trusted."""
    runs = {record["run"] for record in named_tables["runs"]}
    broken = {record["run"] for record in named_tables["unreliable"]}
    return f"{len(broken)} of {len(runs)} runs cannot be trusted." if broken else f"None of {len(runs)} runs is flagged."


def noted(named_tables: Tables) -> str:
    """Return how many runs have notes."""
    runs = {record["run"] for record in named_tables["runs"]}
    with_notes = {record["run"] for record in named_tables["noted"]}
    return (
        f"{len(with_notes)} of {len(runs)} runs {'has' if len(with_notes) == 1 else 'have'} notes." if with_notes else "No run has a note."
    )


def made(named_tables: Tables) -> str:
    """Return how many runs there are, of how many weights, and when they were made."""
    records = named_tables["made"]
    dates = {record["date"] for record in records} - {""}
    checkpoints = {record["weights"] for record in records if record["method"] == CHECKPOINT} - {""}
    dense = {record["weights"] for record in records} - {""} - checkpoints
    of = [f"{len(dense) or 'unknown'} dense {'model' if len(dense) == 1 else 'models'}"]
    of += [counted(len(checkpoints), "checkpoint")] if checkpoints else []
    runs = f"{counted(len(records), 'run')} of {' and '.join(of)}"
    if not dates:
        return f"{runs}; none says when it was made."
    return f"{runs}, made " + (f"on {min(dates)}." if len(dates) == 1 else f"from {min(dates)} to {max(dates)}.")


def watch(named_tables: Tables) -> str:
    """Return whether a predictor's guarantee still holds for live questions, what moved, and what was promised beside what is seen."""
    records = named_tables["watch"]
    if not records:
        return "The monitor has seen no question yet."
    of_all = {record["check"]: record for record in records if record["group"] == "all"}
    answered = of_all["misses"]["n_items"] if "misses" in of_all else 0
    state = f"{WATCHED[records[0]['outcome']]} after {of_all['set size']['n_items']:,} questions, {answered:,} of them with answers."
    alarmed = [record for record in records if record["result"] == "alarm"]
    moved = [f"{record['test'].replace('_', ' ')} from {record['calibrated']:.3g} to {record['live']:.3g}" for record in alarmed]
    if moved:
        strongest = max(alarmed, key=lambda record: record["e_value"] / record["limit"])
        moved = [f"Moved, since about {strongest['began']}: {', '.join(moved)}."]
    promises = [
        f"{words} {times * of_all[check]['live']:.{digits}f}{unit} ({times * of_all[check]['calibrated']:.{digits}f} promised)"
        for check, (words, times, digits, unit) in PROMISED.items()
        if check in of_all
    ]
    return " ".join([state, *moved, f"Seen: {', '.join(promises)}."])


def _sound(records: Sequence[Record]) -> list[Record]:
    """Return the records that sentences may be about: those that have figures and are not flagged."""
    return [record for record in records if not record["unreliable"] and record.get("set_size_change", 0) is not None]


def _run(record: Record) -> str:
    return f"{record['model']} {_what(record)}"


def _what(record: Record) -> str:
    return f"{method_and_level(record['method'], record['level'])} on {record['task']}"


def _interval(record: Record, name: str, times: int, digits: int, *, sign: bool = True) -> str:
    scaled = {f"{name}{end}": None if (value := record.get(f"{name}{end}")) is None else times * value for end in ("", "_low", "_high")}
    return estimate(name, digits, sign=sign)(scaled)


def sweep_of(record: Record) -> tuple[Any, ...]:
    """Return what the levels of one sweep have in common."""
    return (*(record[name] for name in ("model", "method", "task", "prompt", "scorer")), sweep_kind(record["level"]))
