"""Figures that the release gate can limit: each an estimate of one pair, over all items or over those of one subject."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from analyzer.compare.paired import Paired
from analyzer.measure.question import Question
from analyzer.stats.arrays import BoolArray
from analyzer.stats.estimate import Estimate, mean
from analyzer.studies.threshold_transfer import carried_coverage

Amount = Callable[[Paired, Question], Estimate]
SubjectAmount = Callable[[Paired, Question, BoolArray], Estimate]


@dataclass(frozen=True)
class Figure:
    """One figure.

    amount     : of a pair.
    of_subject : of the items of a pair that a mask, (item,) bool, chooses; None where there is no such figure.
    by_sets    : whether it depends on scorer and alpha; the others are checked once per pair.
    at_least   : whether the limit is the least instead of the largest admitted value.
    """

    amount: Amount
    of_subject: SubjectAmount | None = None
    by_sets: bool = False
    at_least: bool = False


def _change(name: str) -> Figure:
    def amount(cell: Paired, question: Question) -> Estimate:
        return cell.changes[name]

    def of_subject(cell: Paired, question: Question, chosen: BoolArray) -> Estimate:
        return over_items(cell.changes[name], chosen)

    return Figure(amount, of_subject)


def _loss(cell: Paired) -> Estimate:
    change = cell.changes["accuracy_change"]
    return replace(change, value=-change.value, influence=-change.influence)


def over_items(estimate: Estimate, chosen: BoolArray) -> Estimate:
    """Return the mean over the chosen items, (item,) bool, only; for a plain mean, an item's own value is its influence above the mean."""
    part = mean(estimate.influence[chosen] + estimate.value, share=estimate.share)
    return replace(part, unseen=estimate.unseen * chosen.size / max(int(chosen.sum()), 1))


FIGURES: dict[str, Figure] = {
    "accuracy_loss": Figure(lambda cell, _: _loss(cell), lambda cell, _, chosen: over_items(_loss(cell), chosen)),
    "set_size_growth": Figure(lambda cell, _: cell.changes["set_size_change"], by_sets=True),
    "coverage_after_transfer": Figure(carried_coverage, carried_coverage, by_sets=True, at_least=True),
    "flips": _change("flips"),
    "flips_to_wrong": _change("flips_to_wrong"),
    "answers_changed": _change("answers_changed"),
    "kl": _change("kl"),
    "kl_reverse": _change("kl_reverse"),
    "js": _change("js"),
}
