"""`analyze sensitivity`: how much a conclusion depends on choices that have nothing to do with the model.

One choice is varied at a time, the others kept: alpha, scorer, prompt, calibration fraction, number of items, split. A conclusion is
"sets grow", "sets shrink" or "inconclusive" against the dense run, from the paired 95 % interval. A finding survives a choice if at least
half of the variants show it as well and none shows the opposite; nothing can be said of one that most variants leave open.
Whether the ranking of the compressed runs by set size stays the same is reported as well.

Where only dense runs are selected there is nothing to conclude: the set size of every model is reported, and whether the ranking of the
models stays the same.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from analyzer.compare.paired import compressed_pairs
from analyzer.conformal.splits import parse_split
from analyzer.measure.cell import Cell
from analyzer.measure.question import Question
from analyzer.measure.records import Record, unreliable
from analyzer.protocols import protocol_named
from analyzer.runs.loading import Runs
from analyzer.runs.pairs import Partners
from analyzer.runs.view import RunView
from analyzer.scorers import SCORERS
from analyzer.stats.estimate import Estimate
from analyzer.studies.sets import measure_runs
from schemas.fields import KEY_COLUMNS, MADE_WITH
from schemas.run import DENSE

ALPHAS = tuple(Fraction(alpha) for alpha in ("0.01", "0.05", "0.1", "0.15", "0.2", "0.3"))
FRACTIONS = tuple(Fraction(share) for share in ("0.1", "0.25", "0.75"))
SHARES = tuple(Fraction(share) for share in ("0.1", "0.25", "0.5"))
N_SPLITS, DRAW_SEED = 5, 0
OF_A_MODEL = tuple(name for name in KEY_COLUMNS if name not in ("prompt", "tokens_hash"))  # what tells dense runs of a prompt apart
AGREEING = 0.5  # share of variants that must show a finding for it to survive
GROWS, SHRINKS, OPEN = "sets grow", "sets shrink", "inconclusive"

Case = tuple[str, ...]


class Variant(NamedTuple):
    """One run under one variant of a choice.

    base   : whether this is the choice that the question makes.
    group  : what the runs that are ranked together share: task and prompt, and the model if its compressed runs are; `run` names the run
             among them.
    change : of the set size, against the dense run; None without one.
    reason : why the run is unreliable, told of the base."""

    varied: str
    value: str
    base: bool
    group: Case
    run: Case
    row: Mapping[str, Any]
    size: Estimate
    change: Estimate | None
    reason: str | None
    snapshot: str


class Measured(NamedTuple):
    """A cell and the change of its set size against the dense run; None without one."""

    cell: Cell
    change: Estimate | None


def sensitivity(runs: Runs, question: Question, partners: Partners | None = None) -> list[Record]:
    """Return one record per varied choice and compressed run: the range of set size and of its growth, and what survives.

    Of dense runs alone, one record per varied choice and run: the range of set size, and the agreement of the rankings of models.
    The question's first alpha and scorer are the choices that all others are compared with.
    Raises RunNotFoundError if compressed runs are selected and none has a dense run.
    """
    table: dict[tuple[str, Case, Case], list[Variant]] = defaultdict(list)
    for variant in variants(runs, question, partners):
        table[variant.varied, variant.group, variant.run].append(variant)
    agreement = _rank_agreement(table.values())
    comparable = (choices for choices in table.values() if len(choices) > 1 and any(variant.base for variant in choices))
    records = [_record(choices, agreement[choices[0].varied, choices[0].group]) for choices in comparable]
    return sorted(records, key=lambda record: tuple(record[name] for name in ("model", "task", "prompt", "method", "level")))


def variants(runs: Runs, question: Question, partners: Partners | None = None) -> Iterator[Variant]:
    """Yield every run under every variant. Choices that the protocol or a split from a file fixes are not varied."""
    base = replace(question, alphas=question.alphas[:1], scorers=question.scorers[:1])
    fraction, split, protocol = base.calibration_fraction, base.split, protocol_named(base.protocol)
    for cell in _measured(runs, replace(base, alphas=_with(base.alphas, ALPHAS)), partners):
        yield _variant(cell, "alpha", f"{float(cell.cell.alpha):g}", cell.cell.alpha == base.alphas[0])
    for cell in _measured(runs, replace(base, scorers=_with(base.scorers, protocol.scorers or tuple(SCORERS))), partners):
        yield _variant(cell, "scorer", cell.cell.scorer, cell.cell.scorer == base.scorers[0])
    first_prompt = min(row["prompt"] for row in runs.rows)
    for cell in _measured(runs, base, partners):
        prompt = cell.cell.view.row["prompt"]
        yield _variant(cell, "prompt", prompt, prompt == first_prompt)
    settled = "calibration_fraction" in protocol.fixed or split.calibration_ids is not None
    for share in () if settled else _with((fraction,), FRACTIONS):
        for cell in _measured(runs, replace(base, calibration_fraction=share), partners):
            yield _variant(cell, "calibration fraction", f"{float(share):g}", share == fraction)
    for share in (Fraction(1), *SHARES):
        for cell in _measured(FewerItems(runs.reader, runs.rows, share=share), base, partners):
            yield _variant(cell, "items", f"{float(share):.0%}", share == 1)
    seeds = (parse_split(f"seed:{seed}") for seed in range(N_SPLITS))
    for drawn in () if "split" in protocol.fixed else (split, *(one for one in seeds if one != split)):
        for cell in _measured(runs, replace(base, split=drawn), partners):
            yield _variant(cell, "split", drawn.text, drawn == split)


@dataclass(frozen=True)
class FewerItems(Runs):
    """The same runs on a random share of their items: equal for all runs of an item set, a smaller share part of a larger."""

    share: Fraction = field(default=Fraction(1), kw_only=True)

    def view(self, row: Mapping[str, Any]) -> RunView:
        """Return the arrays of one run on its share of the items."""
        all_items = super().view(row)
        drawn_rank = np.random.default_rng(DRAW_SEED).permutation(len(all_items.items))[all_items.position]
        return all_items.keep(drawn_rank < float(self.share) * len(all_items.items))


def conclusion(change: Estimate) -> str:
    """Return the conclusion from the 95 % interval of a paired change of set size."""
    low, high = change.interval()
    return GROWS if low > 0 else SHRINKS if high < 0 else OPEN


def _measured(runs: Runs, question: Question, partners: Partners | None) -> Iterator[Measured]:
    """Yield the compressed runs with their changes; where all selected runs are dense and compared with none, those runs."""
    if all(row["method"] == DENSE for row in runs.rows) and not (partners and partners.against):
        yield from (Measured(cell, None) for cell in measure_runs(runs, question))
    else:
        yield from (Measured(pair.after, pair.changes["set_size_change"]) for pair in compressed_pairs(runs, question, partners))


def _variant(measured: Measured, varied: str, value: str, base: bool) -> Variant:
    cell, row = measured.cell, measured.cell.view.row
    prompt = () if varied == "prompt" else (row["prompt"],)
    if measured.change is None:
        group, run = (row["task"], row["items_hash"], *prompt), tuple(str(row[name]) for name in OF_A_MODEL)
    else:
        group, run = (row["model"], row["task"], *prompt), (row["method"], row["level"], *(row[name] for name in MADE_WITH))
    reason = unreliable([cell]) if base else None
    return Variant(varied, value, base, group, run, row, cell.estimates["set_size"], measured.change, reason, cell.view.snapshot)


def _record(choices: Sequence[Variant], agreement: float | None) -> Record:
    first, base = choices[0], next(variant for variant in choices if variant.base)
    known = [variant for variant in choices if np.isfinite(variant.size.value if variant.change is None else variant.change.value)]
    changes = [variant.change for variant in known if variant.change is not None]
    conclusions = [conclusion(change) for change in changes]
    finding = conclusion(base.change) if base.change is not None and base in known else None
    missing = f"{len(choices) - len(known)} of {len(choices)} variants have no figure" if len(known) < len(choices) else None
    return {
        **{name: base.row[name] for name in ("model", "method", "level", "task")},
        "prompt": "+".join(variant.value for variant in choices) if first.varied == "prompt" else base.row["prompt"],
        "varied": first.varied,
        "variants": " ".join(dict.fromkeys(variant.value for variant in choices)),
        **_range("set_size", [variant.size.value for variant in known]),
        **_range("set_size_change", [change.value for change in changes]),
        "conclusion": finding,
        "agreeing": float(np.mean([each == finding for each in conclusions])) if finding else None,
        "survives": _survives(finding, conclusions) if finding else None,
        "rank_agreement": agreement,
        "run": base.row["name"],
        "unreliable": "; ".join(filter(None, (missing, base.reason))) or None,
        "snapshot": first.snapshot,
    }


def _survives(finding: str, conclusions: Sequence[str]) -> bool | None:
    """Return whether a finding holds under the variants; None for what is no finding, and where most variants are inconclusive."""
    if finding == OPEN:
        return None
    if set(conclusions) - {OPEN, finding}:
        return False
    return True if conclusions.count(finding) >= AGREEING * len(conclusions) else None


def _range(name: str, values: Sequence[float]) -> Record:
    return {f"{name}_least": min(values, default=None), f"{name}_most": max(values, default=None)}


def _rank_agreement(table: Iterable[Sequence[Variant]]) -> dict[tuple[str, Case], float | None]:
    """The smallest Kendall's tau between rankings of runs by set size: the question's choice against each variant; None below two runs."""
    sizes: dict[tuple[str, Case], dict[str, dict[Case, float]]] = defaultdict(lambda: defaultdict(dict))
    default: dict[tuple[str, Case], str] = {}
    for variant in (variant for choices in table for variant in choices):
        sizes[variant.varied, variant.group][variant.value][variant.run] = variant.size.value
        if variant.base:
            default[variant.varied, variant.group] = variant.value
    return {key: _least_tau(by_value, by_value[default[key]]) for key, by_value in sizes.items() if key in default}


def _least_tau(by_value: Mapping[str, Mapping[Case, float]], base: Mapping[Case, float]) -> float | None:
    from scipy.stats import kendalltau  # takes a second to import

    taus = []
    for sizes in by_value.values():
        runs = [run for run in base if np.isfinite(base[run]) and np.isfinite(sizes.get(run, np.nan))]
        if len(runs) > 1:
            taus.append(float(kendalltau([base[run] for run in runs], [sizes[run] for run in runs]).statistic))
    return min((tau for tau in taus if np.isfinite(tau)), default=None)


def _with(first: tuple[Any, ...], others: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys((*first, *others)))
