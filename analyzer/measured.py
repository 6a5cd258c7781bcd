"""What comes out of one run under one scorer and one alpha: estimates over items, and facts about the splits."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from analyzer.estimate import Estimate
from analyzer.view import RunView

NOTHING = Estimate(math.nan, np.empty(0))
ESTIMATED = ("accuracy", "coverage", "set_size", "uacc", "empty_rate", "singleton_rate")
FACTS = ("coverage_sd", "set_size_sd")


@dataclass(frozen=True)
class Measured:
    """One cell of an analysis.

    estimates : by name; each carries its influence, so cells of the same items can be compared and averaged.
    facts     : by name; plain numbers that have no interval, such as the sd of coverage over splits.
    note      : why the cell says nothing about the model, or None.
    """

    view: RunView
    scorer: str
    alpha: Fraction
    n_calibration: int
    estimates: Mapping[str, Estimate]
    facts: Mapping[str, float | str] = field(default_factory=dict)
    note: str | None = None


def uacc(accuracy: Estimate, set_size: Estimate, view: RunView) -> Estimate:
    """Return accuracy / set size * sqrt(number of options), by the delta method. Source: Ye et al. 2024, arXiv:2401.12794, section 4.4."""
    if not set_size.value > 0:
        return NOTHING
    scale = math.sqrt(float(view.n_options.mean())) / set_size.value
    value = accuracy.value * scale
    return Estimate(value, scale * accuracy.influence - value / set_size.value * set_size.influence)


def nothing(view: RunView, scorer: str, alpha: Fraction) -> Measured:
    """Return the cell of a run that has too few finite items to split: no figure at all, and the run's flag says why."""
    return Measured(view, scorer, alpha, 0, dict.fromkeys(ESTIMATED, NOTHING), dict.fromkeys(FACTS, math.nan))
