"""`analyze frontier`: which compression to pick for a memory. Accuracy and set size against the bytes of the weights.

A run is *dominated* if a run of the same model with no more bytes has smaller sets or a higher accuracy beyond noise, and is not worse
beyond noise in the other. It is on the *frontier* if every run with no more bytes is worse beyond noise in one of the two. Everything else
is inconclusive: more items may decide it. All comparisons are paired by item; the intervals of one run's comparisons hold together
(Bonferroni), so that a finding is wrong for at most 5 % of draws of items.

Bytes are those of a file: quantized weights with their scales, 16 bits for every other weight. Zeros of pruned weights take room like any
other number. Effective bits are the bits of that file for each parameter of the dense model, so that a model of which parts were removed
and one whose weights were quantized stand on one scale. Cached keys and values are listed beside, per token.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from analyzer.compare.compare import pair_unreliable
from analyzer.compare.paired import Paired, paired
from analyzer.measure.question import Question
from analyzer.measure.records import Record, identity, interval_fields, on_whole_set, provenance
from analyzer.runs.answer_metrics import dependence
from analyzer.runs.loading import Runs
from analyzer.runs.pairs import Partners
from analyzer.runs.view import RunView
from analyzer.stats.combined import difference
from analyzer.stats.estimate import NOTHING, Estimate
from schemas.errors import RunNotFoundError
from schemas.levels import FULL_BITS
from schemas.run import CHECKPOINT

ERROR = 0.05  # of one run's finding
WORSE = {"accuracy": -1, "set_size": 1}  # sign of a change for the worse
FRONTIER, DOMINATED, INCONCLUSIVE, UNKNOWN, LEFT_OUT = "frontier", "dominated", "inconclusive", "bytes unknown", "unreliable"


def frontier(runs: Runs, question: Question, partners: Partners | None = None) -> list[Record]:
    """Return one record per run, scorer and alpha, by rising bytes; runs with one dense model, task and prompt are compared.

    partners : which dense run each belongs to; None means its own model's.
    Raises RunNotFoundError if no selected run is compressed and has a dense run, or if no run states what its weights take.
    """
    records = frontier_records(paired(runs, question, partners), question)
    if all(record["bytes"] is None for record in records):
        raise RunNotFoundError("no selected run says how many bytes its weights take; imported runs do not")
    return records


def frontier_records(cells: Iterable[Paired], question: Question) -> list[Record]:
    """Return the same records from cells that are already measured."""
    return [record for group in _groups(cells) for record in _records(group, question)]


def weight_bytes(view: RunView) -> int | None:
    """Return the bytes of a run's weights in a file, None if the run does not say.

    A method that packs weights measures them. Where it does not, all its parameters have 16 bits; those of a checkpoint that somebody else
    compressed are known by the size of its files alone.
    """
    measured, env = view.env.post_conditions, view.env
    if "bytes" in measured:
        return int(measured["bytes"])
    parameters = measured.get("parameters") or env.parameters
    return int(parameters) * FULL_BITS // 8 if parameters and view.row["method"] != CHECKPOINT else None


def _groups(cells: Iterable[Paired]) -> list[list[Paired]]:
    """Return the cells that can be compared, each group sorted by bytes, unknown ones last."""
    groups: dict[tuple[Any, ...], list[Paired]] = {}
    for cell in cells:
        row, dense = cell.row, cell.before.view.row if cell.before else cell.row
        key = dense["model"], row["task"], row["prompt"], row["items_hash"], cell.after.scorer, cell.after.alpha
        groups.setdefault(key, []).append(cell)

    def size(cell: Paired) -> float:
        return weight_bytes(cell.after.view) or float("inf")

    ordered = (group for _, group in sorted(groups.items(), key=lambda each: each[0][:4]))
    return [sorted(group, key=lambda cell: (size(cell), cell.row["name"])) for group in ordered]


def _records(group: Sequence[Paired], question: Question) -> list[Record]:
    known = [cell for cell in group if weight_bytes(cell.after.view) is not None and not pair_unreliable([cell])]
    return [_record(cell, known, question) for cell in group]


def _record(cell: Paired, known: Sequence[Paired], question: Question) -> Record:
    view, n_bytes = cell.after.view, weight_bytes(cell.after.view)
    measured, reasons = view.env.post_conditions, pair_unreliable([cell])
    finding, by = _finding(cell, known, n_bytes, reasons)
    return {
        **identity([cell.after]),
        "bytes": n_bytes,
        "effective_bits": 8 * n_bytes / view.env.parameters if n_bytes and view.env.parameters else None,
        "bits_per_weight": measured.get("bits_per_weight"),
        "cache_bits": measured.get("cache_bits_per_value"),
        "cache_bytes_per_token": measured.get("cache_bytes_per_token"),
        **interval_fields("accuracy", cell.after.estimates["accuracy"]),
        **interval_fields("set_size", cell.after.estimates["set_size"]),
        **interval_fields("flips", cell.changes.get("flips", NOTHING)),
        "finding": finding,
        "dominated_by": by,
        **dependence(view),
        "unreliable": reasons,
        **provenance([cell.after], question),
    }


def _finding(cell: Paired, known: Sequence[Paired], n_bytes: int | None, reasons: str | None) -> tuple[str, str | None]:
    """Return where a run stands, and the smallest run that dominates it."""
    if reasons or n_bytes is None:
        return LEFT_OUT if reasons else UNKNOWN, None
    rivals = [each for each in known if each is not cell and (weight_bytes(each.after.view) or 0) <= n_bytes]
    sides = [_sides(cell, each, 1 - ERROR / (len(WORSE) * len(rivals))) for each in rivals]
    for rival, side in zip(rivals, sides, strict=True):
        if 1 in side and -1 not in side:
            return DOMINATED, rival.row["name"]
    return (FRONTIER if all(-1 in side for side in sides) else INCONCLUSIVE), None


def _sides(cell: Paired, rival: Paired, level: float) -> list[int]:
    """Return for each figure 1 if the rival is better beyond noise, -1 if it is worse, 0 if neither is shown."""
    return [_side(difference(_on_whole_set(cell, name), _on_whole_set(rival, name)), worse, level) for name, worse in WORSE.items()]


def _side(change: Estimate, worse: int, level: float) -> int:
    low, high = change.interval(level)
    return worse if low > 0 else -worse if high < 0 else 0


def _on_whole_set(cell: Paired, name: str) -> Estimate:
    return on_whole_set(cell.after.estimates[name], cell.after)
