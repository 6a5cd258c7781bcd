"""The result for one run, one scorer and one alpha: estimates over items, and facts about the splits."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from analyzer.runs.view import RunView
from analyzer.stats.combined import Quotient
from analyzer.stats.estimate import NOTHING, Estimate

ESTIMATED = ("accuracy", "coverage", "set_size", "uacc", "empty_rate", "singleton_rate")
MORE = ("nll", "brier", "ece", "aurc", "option_mass", "idk_rate", "none_of_above_rate", "tie_rate")
FACTS = ("coverage_sd", "set_size_sd", "set_size_note", "threshold_ties", "parameters")


@dataclass(frozen=True)
class Cell:
    """One cell of an analysis.

    estimates : by name; each carries its influence, so cells of the same items can be compared and averaged.
    facts     : by name; plain numbers without an interval, such as the sd of coverage over splits, or `threshold_ties`, the mean share
                of other calibration scores that equal the threshold (large if the score has an atom there); `set_size_note` says why set
                size has no interval, and is NaN if it has one.
    note      : why the cell says nothing about the model, or None.
    group     : the items it is about, "all" or those of one subject, label or set size.
    reasons   : further reasons not to trust the run, from the comparison with its dense run.
    forced    : whether the most likely option is in every set by rule, so that sets of one option mean nothing.
    """

    view: RunView
    scorer: str
    alpha: Fraction
    n_calibration: int
    estimates: Mapping[str, Estimate]
    facts: Mapping[str, float | str] = field(default_factory=dict)
    note: str | None = None
    group: str = "all"
    reasons: tuple[str, ...] = ()
    forced: bool = False


def with_uacc(estimates: Mapping[str, Estimate], view: RunView) -> dict[str, Estimate]:
    """Return the estimates with uacc, the accuracy per set size: accuracy / set size * sqrt(number of options).

    Source : Ye et al. 2024, arXiv:2401.12794, section 4.4; its interval follows by the delta method.
    """
    return {**estimates, "uacc": _uacc(estimates["accuracy"], estimates["set_size"], view)}


def unmeasured(view: RunView, scorer: str, alpha: Fraction) -> Cell:
    """Return the cell of a run with too few finite items to split: it has no numbers, and the run is flagged with the reason."""
    return Cell(view, scorer, alpha, 0, dict.fromkeys((*ESTIMATED, *MORE), NOTHING), dict.fromkeys(FACTS, math.nan))


def too_few(n_calibration: int, alpha: Fraction) -> str:
    """Return the note for a calibration set that is too small for alpha."""
    return f"{n_calibration} calibration items are too few for alpha {float(alpha):g}: every set is full"


def _uacc(accuracy: Estimate, set_size: Estimate, view: RunView) -> Estimate:
    if not set_size.value > 0:
        return NOTHING
    scale = math.sqrt(view.mean_options) / set_size.value
    value = accuracy.value * scale
    influence = accuracy.influence * scale
    influence -= set_size.influence * (value / set_size.value)
    inverted = Quotient(accuracy, set_size, math.sqrt(view.mean_options)) if set_size.inverted else None
    return Estimate(value, influence, items=min(accuracy.items, set_size.items), least=0.0, inverted=inverted, clusters=accuracy.clusters)
