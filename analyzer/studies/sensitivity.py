"""`analyze sensitivity`: how much a conclusion depends on choices that have nothing to do with the model.

One choice is varied at a time, the others kept: alpha, scorer, prompt, calibration fraction, number of items, split. A conclusion is
"sets grow", "sets shrink" or "inconclusive" against the dense run, from the paired 95 % interval. A finding survives a choice if at least
half of the variants show it as well and none shows the opposite; nothing can be said of one that most variants leave open.
Whether the ranking of the compressed runs by set size stays the same is reported as well.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from analyzer.compare.paired import Paired, compressed_pairs
from analyzer.conformal.splits import parse_split
from analyzer.measure.question import Question
from analyzer.measure.records import Record
from analyzer.protocols import protocol_named
from analyzer.runs.loading import Runs
from analyzer.runs.pairs import Partners
from analyzer.runs.view import RunView
from analyzer.scorers import SCORERS
from analyzer.stats.estimate import Estimate
from schemas.fields import MADE_WITH

ALPHAS = tuple(Fraction(alpha) for alpha in ("0.01", "0.05", "0.1", "0.15", "0.2", "0.3"))
FRACTIONS = tuple(Fraction(share) for share in ("0.1", "0.25", "0.75"))
SHARES = tuple(Fraction(share) for share in ("0.1", "0.25", "0.5"))
N_SPLITS, DRAW_SEED = 5, 0
AGREEING = 0.5  # share of variants that must show a finding for it to survive
GROWS, SHRINKS, OPEN = "sets grow", "sets shrink", "inconclusive"

Case = tuple[str, ...]


class Variant(NamedTuple):
    """One run under one variant of a choice.

    base  : whether this is the choice that the question makes.
    group : model, task and prompt, whose runs are ranked together; `run` names the run among them."""

    varied: str
    value: str
    base: bool
    group: Case
    run: Case
    size: Estimate
    change: Estimate
    run_name: str
    snapshot: str


def sensitivity(runs: Runs, question: Question, partners: Partners | None = None) -> list[Record]:
    """Return one record per varied choice and compressed run: the range of set size and of its growth, and what survives.

    The question's first alpha and scorer are the choices that all others are compared with.
    """
    table: dict[tuple[str, Case, Case], list[Variant]] = defaultdict(list)
    for variant in variants(runs, question, partners):
        table[variant.varied, variant.group, variant.run].append(variant)
    agreement = _rank_agreement(table.values())
    comparable = (choices for choices in table.values() if len(choices) > 1 and any(variant.base for variant in choices))
    records = [_record(choices, agreement[choices[0].varied, choices[0].group]) for choices in comparable]
    return sorted(records, key=lambda record: tuple(record[name] for name in ("model", "task", "prompt", "method", "level")))


def variants(runs: Runs, question: Question, partners: Partners | None = None) -> Iterator[Variant]:
    """Yield every compared run under every variant. Choices that the protocol or a split from a file fixes are not varied."""
    base = replace(question, alphas=question.alphas[:1], scorers=question.scorers[:1])
    fraction, split, protocol = base.calibration_fraction, base.split, protocol_named(base.protocol)
    for cell in compressed_pairs(runs, replace(base, alphas=_with(base.alphas, ALPHAS)), partners):
        yield _variant(cell, "alpha", f"{float(cell.after.alpha):g}", cell.after.alpha == base.alphas[0])
    for cell in compressed_pairs(runs, replace(base, scorers=_with(base.scorers, protocol.scorers or tuple(SCORERS))), partners):
        yield _variant(cell, "scorer", cell.after.scorer, cell.after.scorer == base.scorers[0])
    first_prompt = min(row["prompt"] for row in runs.rows)
    for cell in compressed_pairs(runs, base, partners):
        yield _variant(cell, "prompt", cell.row["prompt"], cell.row["prompt"] == first_prompt)
    settled = "calibration_fraction" in protocol.fixed or split.calibration_ids is not None
    for share in () if settled else _with((fraction,), FRACTIONS):
        for cell in compressed_pairs(runs, replace(base, calibration_fraction=share), partners):
            yield _variant(cell, "calibration fraction", f"{float(share):g}", share == fraction)
    for share in (Fraction(1), *SHARES):
        for cell in compressed_pairs(FewerItems(runs.reader, runs.rows, share=share), base, partners):
            yield _variant(cell, "items", f"{float(share):.0%}", share == 1)
    seeds = (parse_split(f"seed:{seed}") for seed in range(N_SPLITS))
    for drawn in () if "split" in protocol.fixed else (split, *(one for one in seeds if one != split)):
        for cell in compressed_pairs(runs, replace(base, split=drawn), partners):
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


def _variant(cell: Paired, varied: str, value: str, base: bool) -> Variant:
    row = cell.row
    prompt = () if varied == "prompt" else (row["prompt"],)
    group, run = (row["model"], row["task"], *prompt), (row["method"], row["level"], *(row[name] for name in MADE_WITH))
    size, change = cell.after.estimates["set_size"], cell.changes["set_size_change"]
    return Variant(varied, value, base, group, run, size, change, row["name"], cell.after.view.snapshot)


def _record(choices: Sequence[Variant], agreement: float | None) -> Record:
    first, base = choices[0], next(variant for variant in choices if variant.base)
    known = [variant for variant in choices if np.isfinite(variant.change.value)]
    conclusions = [conclusion(variant.change) for variant in known]
    model, task, *prompt = first.group
    return {
        "model": model,
        "method": first.run[0],
        "level": first.run[1],
        "task": task,
        "prompt": prompt[0] if prompt else "+".join(variant.value for variant in choices),
        "varied": first.varied,
        "variants": " ".join(dict.fromkeys(variant.value for variant in choices)),
        **_range("set_size", [variant.size.value for variant in known]),
        **_range("set_size_change", [variant.change.value for variant in known]),
        "conclusion": conclusion(base.change) if base in known else None,
        "agreeing": float(np.mean([c == conclusion(base.change) for c in conclusions])) if known else None,
        "survives": _survives(conclusion(base.change), conclusions) if base in known else None,
        "rank_agreement": agreement,
        "run": base.run_name,
        "unreliable": None if len(known) == len(choices) else f"{len(choices) - len(known)} of {len(choices)} variants have no figure",
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
