"""`analyze cost`: what prediction sets cost in use. A set of one option is answered at once, a few are asked again, more go to a person.

Prices are the user's own, in TOML:

    [prices]                 # per question, in any one currency
    answer = 0.001           # one option in the set: answered at once
    ask_again = 0.004        # a few options: asked again, of a larger model or with more context
    review = 0.8             # more options: a person looks
    abstain = 0.2            # an empty set
    wrong = 2.0              # added where the one option of a set is not the answer
    [rules]
    ask_again_up_to = 2      # the largest set that is asked again; larger ones are reviewed
    [hardware]               # per 1,000 questions; by method, or by method and level
    dense = 1.20
    gptq = 0.45
    "wanda/0.5" = 0.90

A question's cost depends on its set alone, so the exact split law gives the mean cost over all splits, with intervals and paired with
the dense run. What compression saves in hardware is subtracted.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictInt

from analyzer.compare.compare import pair_unreliable
from analyzer.compare.paired import Paired, paired
from analyzer.compare.two_axis_verdict import Side, limit_side
from analyzer.conformal.influence import split_influence
from analyzer.conformal.ranks import Ranks
from analyzer.conformal.split_law import SetStatistics, crossings
from analyzer.conformal.split_moments import moments
from analyzer.measure.question import Question
from analyzer.measure.records import Record, identity, interval_fields, provenance
from analyzer.measure.scored import ranks_of
from analyzer.predictor.document import PRICES
from analyzer.runs.answer_metrics import dependence
from analyzer.runs.loading import Runs
from analyzer.runs.pairs import Partners
from analyzer.runs.view import RunView
from analyzer.stats.combined import difference
from analyzer.stats.estimate import NOTHING, Estimate, student
from analyzer.studies.carry_threshold import check_exact, split_law
from schemas.levels import NO_LEVEL
from schemas.run import DENSE
from schemas.toml_file import as_model, number_from_zero, read_toml

WAYS = ("alone", "alone_wrong", "asked_again", "review", "abstained")
FIGURES = (*WAYS, "cost")
FINDINGS = {Side.WITHIN: "saves", Side.BEYOND: "costs more", Side.UNKNOWN: "inconclusive"}
THOUSAND = 1000
BREAK_EVEN = "break_even_review_price"

_Price = Annotated[float, BeforeValidator(number_from_zero)]


class _PerQuestion(BaseModel):
    """Prices of one question, 0 or more, in any one currency."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    answer: _Price = 0.0
    ask_again: _Price = 0.0
    review: _Price = 0.0
    abstain: _Price = 0.0
    wrong: _Price = 0.0


class _Rules(BaseModel):
    """What is done with a question, depending on the size of its set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ask_again_up_to: Annotated[StrictInt, Field(ge=1)] = 2  # 1: nothing is asked again


class Prices(_PerQuestion, _Rules):
    """The prices from which the cost of a set follows.

    answer, ask_again, review, abstain, wrong : price of one question that goes this way; `wrong` is added to `answer`.
    ask_again_up_to                           : the largest set that is asked again, in options; larger ones are reviewed.
    hardware                                  : cost of 1,000 questions by method, such as gptq, or method/level, such as wanda/0.5.
    """

    hardware: Mapping[str, _Price] = {}

    def hardware_of(self, method: str, level: str) -> float:
        """Return the hardware cost of 1,000 questions; NaN if none is given."""
        return self.hardware.get(f"{method}/{level}", self.hardware.get(method, math.nan))


def read_prices(path: Path) -> Prices:
    """Return the prices of a TOML file.

    Raises UsageError that names every problem: an unknown key, a price that is not a number of 0 or more, nothing that has a price.
    """
    price_file = as_model(PriceFile, read_toml(path, "prices"), f"prices {path}")
    return Prices(**price_file.prices.model_dump(), **price_file.rules.model_dump(), hardware=price_file.hardware)


def _any_price(prices: _PerQuestion) -> _PerQuestion:
    if not any(price for _, price in prices):
        raise ValueError(f"nothing has a price; give at least one of {', '.join(PRICES)}")
    return prices


def _with_dense(hardware: Mapping[str, float]) -> Mapping[str, float]:
    if hardware and DENSE not in hardware:
        raise ValueError(f"there is no {DENSE!r}, with whose cost the others are compared")
    return hardware


class PriceFile(BaseModel):
    """A file of prices as it is written."""

    model_config = ConfigDict(extra="forbid", validate_default=True)

    prices: Annotated[_PerQuestion, AfterValidator(_any_price)] = _PerQuestion()
    rules: _Rules = _Rules()
    hardware: Annotated[Mapping[str, _Price], AfterValidator(_with_dense)] = {}


Operations = dict[str, Estimate]


def cost(runs: Runs, question: Question, prices: Prices, partners: Partners | None = None) -> list[Record]:
    """Return one record per run, scorer and alpha; changes are null for a run without a dense run.

    Raises UsageError for drawn splits, RunNotFoundError if no selected run is compressed and has a dense run.
    """
    check_exact(question, "cost")
    return [_record(cell, question, prices) for cell in paired(runs, question, partners)]


def operations(view: RunView, scorer: str, alpha: Fraction, question: Question, prices: Prices) -> Operations:
    """Return the share of questions that goes each of WAYS, and `cost`, the price of 1,000 questions."""
    if not view.n_items:
        return dict.fromkeys(FIGURES, NOTHING)
    ranks = ranks_of(view, scorer, question)
    law, ways = split_law(view.n_items, alpha, question), _ways(ranks, prices.ask_again_up_to)
    means, influence = moments(law, ways).mean, split_influence(law, ranks.item_rank, ways)
    price = THOUSAND * np.array([prices.answer, prices.wrong, prices.ask_again, prices.review, prices.abstain])
    # intervals from the influences alone: the page's calculator has their covariances, and must say what this command says
    per_thousand = Estimate(float(price @ means), price @ influence, least=0.0, clusters=view.clusters)
    return ways.estimates(means, influence, view.clusters) | {"cost": per_thousand}


def _ways(ranks: Ranks, ask_again_up_to: int) -> SetStatistics:
    """Which way a question goes, by the size of its set; a single option is right if the answer enters the set first."""
    by_size = np.sort(ranks.option, axis=0)
    size = np.arange(len(by_size) + 1)
    goes = np.stack([size == 1, size == 1, (size > 1) & (size <= ask_again_up_to), size > max(ask_again_up_to, 1), size == 0]).astype(float)
    right = np.where(ranks.answer == by_size[0], by_size[:2], ranks.n_items + 1)
    of_right = np.zeros((len(WAYS), 2))
    of_right[WAYS.index("alone_wrong")] = -1, 1
    steps = np.hstack([np.diff(goes, axis=1), of_right])
    table = crossings(np.vstack([by_size, right]), ranks.item_rank)
    return SetStatistics(table, WAYS, (True,) * len(WAYS), goes[:, 0], steps, goes[:, 0], steps)  # 0 or 1, so the square is the same


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
    return record | dependence(cell.after.view) | {"unreliable": pair_unreliable([cell])} | provenance([cell.after], question)


def _against_hardware(cell: Paired, after: Operations, before: Operations | None, prices: Prices) -> Record:
    """The change in cost minus the saving in hardware, per 1,000 questions, and the price of a review at which both are equal."""
    spent = prices.hardware_of(cell.row["method"], cell.row["level"])
    saving = prices.hardware_of(DENSE, NO_LEVEL) - spent
    if before is None or math.isnan(saving):
        ends = ("", "_low", "_high")
        names = ("hardware_saving", *(f"total_change{end}" for end in ends), "pays", *(f"{BREAK_EVEN}{end}" for end in ends))
        return {"hardware": None if math.isnan(spent) else spent} | dict.fromkeys(names)
    change = difference(after["cost"], before["cost"])
    total = replace(change, value=change.value - saving)
    return (
        {"hardware": spent, "hardware_saving": saving}
        | interval_fields("total_change", total)
        | {"pays": FINDINGS[limit_side(total, 0.0)]}
        | _break_even(total, difference(after["review"], before["review"]), prices.review)
    )


def _break_even(total: Estimate, review: Estimate, price: float) -> Record:
    """The review price at which compression neither saves nor costs; null if it is below 0, or if reviews may not increase at all.

    total, review : changes of the cost of 1,000 questions, hardware included, at this price of a review, and of the share reviewed.
    Its interval holds the prices at which the change of cost is not known to be on either side of 0. Source: Fieller 1954, JRSS B 16.
    """
    names = [f"{BREAK_EVEN}{end}" for end in ("", "_low", "_high")]
    if not review.interval().low > 0:
        return dict.fromkeys(names)
    grown, t, both = THOUSAND * review.value, student(review.freedom), THOUSAND * total.covariance(review)
    a, b, c = grown**2 - (t * THOUSAND * review.error) ** 2, grown * total.value - t * t * both, total.value**2 - (t * total.error) ** 2
    half = math.sqrt(max(b * b - a * c, 0.0)) / a
    break_even = price - total.value / grown, price - b / a - half, price - b / a + half
    return dict(zip(names, (max(one, 0.0) for one in break_even), strict=True)) if break_even[0] > 0 else dict.fromkeys(names)
