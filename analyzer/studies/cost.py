"""`analyze cost`: what prediction sets cost in operations. One option is answered alone, a few are asked again, more go to review.

Every question's cost is a function of its set, so the mean cost is one more figure of the exact split law, with the same intervals and
the same pairing with the dense run. The saving in hardware is laid against it.
"""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np

from analyzer.compare.compare import pair_unreliable
from analyzer.compare.paired import Paired, paired
from analyzer.compare.two_axis_verdict import Side, limit_side
from analyzer.conformal.influence import split_influence
from analyzer.conformal.ranks import Ranks, rank_scores
from analyzer.conformal.split_law import Statistics, crossings, moments
from analyzer.measure.question import Question
from analyzer.measure.records import Record, identity, interval_fields, provenance
from analyzer.measure.scored import scores_of
from analyzer.runs.loading import Runs
from analyzer.runs.pairs import Partners
from analyzer.runs.view import RunView
from analyzer.stats.estimate import NOTHING, Estimate, difference
from analyzer.studies.carry_threshold import check_exact, split_law
from analyzer.studies.prices import Prices

WAYS = ("alone", "alone_wrong", "asked_again", "review", "abstained")
FIGURES = (*WAYS, "cost")
FINDINGS = {Side.WITHIN: "saves", Side.BEYOND: "costs more", Side.UNKNOWN: "inconclusive"}
THOUSAND = 1000

Operations = dict[str, Estimate]


def cost(runs: Runs, question: Question, prices: Prices, partners: Partners | None = None) -> list[Record]:
    """Return one record per run, scorer and alpha; changes are null for a run without a dense run.

    Raises UsageError for drawn splits, RunNotFoundError where nothing is compressed and has a dense run.
    """
    check_exact(question, "cost")
    return [_record(cell, question, prices) for cell in paired(runs, question, partners)]


def operations(view: RunView, scorer: str, alpha: Fraction, question: Question, prices: Prices) -> Operations:
    """Return the share of questions that goes each of WAYS, and `cost` in operations per 1,000 questions."""
    if not view.n_items:
        return dict.fromkeys(FIGURES, NOTHING)
    ranks = rank_scores(scores_of(view, view.probs, scorer, question), view.answer, view.probs, question.empty)
    law, ways = split_law(view.n_items, alpha, question), _ways(ranks, prices.ask_again_up_to)
    means, influence = moments(law, ways).mean, split_influence(law, ranks.own, ways)
    found = {name: Estimate(float(means[i]), influence[i], share=True) for i, name in enumerate(WAYS)}
    price = THOUSAND * np.array([prices.answer, prices.wrong, prices.ask_again, prices.review, prices.abstain])
    return found | {"cost": Estimate(float(price @ means), price @ influence)}


def _ways(ranks: Ranks, ask_again_up_to: int) -> Statistics:
    """Which way a question goes by the size of its set; a single option is right where the answer is the first to enter."""
    by_size = np.sort(ranks.option, axis=0)
    size = np.arange(len(by_size) + 1)
    goes = np.stack([size == 1, size == 1, (size > 1) & (size <= ask_again_up_to), size > max(ask_again_up_to, 1), size == 0]).astype(float)
    right = np.where(ranks.answer == by_size[0], by_size[:2], ranks.n_items + 1)
    of_right = np.zeros((len(WAYS), 2))
    of_right[WAYS.index("alone_wrong")] = -1, 1
    steps = np.hstack([np.diff(goes, axis=1), of_right])
    table = crossings(np.vstack([by_size, right]), ranks.own)
    return Statistics(table, WAYS, (True,) * len(WAYS), goes[:, 0], steps, goes[:, 0], steps)  # 0 or 1, so the square is the same


def _record(cell: Paired, question: Question, prices: Prices) -> Record:
    asked = cell.after.scorer, cell.after.alpha, question, prices
    after = operations(cell.after.view, *asked)
    before = operations(cell.before.view, *asked) if cell.before else None
    record = identity([cell.after])
    for name in FIGURES:
        record |= interval_fields(name, after[name])
    for name in FIGURES:
        record |= interval_fields(f"{name}_change", difference(after[name], before[name]) if before else NOTHING)
    record |= _against_hardware(cell, after, before, prices)
    return record | {"unreliable": pair_unreliable([cell])} | provenance([cell.after], question)


def _against_hardware(cell: Paired, after: Operations, before: Operations | None, prices: Prices) -> Record:
    """The saving in hardware against the change in operations, per 1,000 questions: what is left, and the review price that eats it."""
    spent = prices.hardware_of(cell.row["method"], cell.row["level"])
    saving = prices.hardware_of("dense", "-") - spent
    if before is None or math.isnan(saving):
        names = ("hardware_saving", "total_change", "total_change_low", "total_change_high", "pays", "break_even_review_price")
        return {"hardware": None if math.isnan(spent) else spent} | dict.fromkeys(names)
    change = difference(after["cost"], before["cost"])
    total = replace(change, value=change.value - saving)
    reviewed = THOUSAND * (after["review"].value - before["review"].value)
    price = prices.review - total.value / reviewed if reviewed > 0 else math.nan
    return (
        {"hardware": spent, "hardware_saving": saving}
        | interval_fields("total_change", total)
        | {"pays": FINDINGS[limit_side(total, 0.0)], "break_even_review_price": price if price > 0 else None}
    )
