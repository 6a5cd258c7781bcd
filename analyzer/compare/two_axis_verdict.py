"""The two-axis verdict of a pair: did accuracy hold, did the sets grow? It follows from intervals and tolerances, not from point values."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from analyzer.stats.estimate import LEVEL, Estimate
from analyzer.stats.significance import detectable
from schemas.errors import UsageError

HOLDS_GROW = "accuracy holds, sets grow"
FALLS_SILENT = "accuracy falls, sets do not warn"
BOTH_DEGRADE = "both degrade"
BOTH_HOLD = "both hold"
INCONCLUSIVE = "inconclusive"
VERDICTS = (BOTH_HOLD, HOLDS_GROW, FALLS_SILENT, BOTH_DEGRADE, INCONCLUSIVE)


ROUNDING = 1e-12


class Side(Enum):
    """The side of its limit on which a figure is known to be; UNKNOWN if its interval contains the limit."""

    WITHIN = "within"
    BEYOND = "beyond"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Tolerances:
    """The largest changes that count as no change: loss of accuracy as a share in [0, 1], growth of the mean set size in options."""

    accuracy: float = 0.02
    set_size: float = 0.1

    def __str__(self) -> str:
        small = f"accuracy losses up to {self.accuracy:g} and growth of the mean set size up to {self.set_size:g} options"
        return f"For the verdict, {small} count as no change (--accuracy-tolerance, --set-size-tolerance)."

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value >= 0:
                raise UsageError(f"the tolerance of {name.replace('_', ' ')} is {value!r}; expected a number of 0 or more")


def tolerances(options: Mapping[str, Any]) -> Tolerances:
    """Return the tolerances of parsed command-line options. Raises UsageError for a negative one."""
    return Tolerances(options["accuracy_tolerance"], options["set_size_tolerance"])


def verdict(accuracy_change: Estimate, set_size_change: Estimate, tolerances: Tolerances) -> str:
    """Return one of VERDICTS; inconclusive if either change is not known to be within or beyond its tolerance."""
    accuracy = change_side(-accuracy_change, tolerances.accuracy)
    size = change_side(set_size_change, tolerances.set_size)
    if Side.UNKNOWN in (accuracy, size):
        return INCONCLUSIVE
    if accuracy is Side.WITHIN:
        return BOTH_HOLD if size is Side.WITHIN else HOLDS_GROW
    return FALLS_SILENT if size is Side.WITHIN else BOTH_DEGRADE


def borne_out(verdict: str, accuracy_p: float | None, set_size_p: float | None) -> str:
    """Return a verdict, inconclusive where it claims a change whose p-value, corrected over a table, is above 0.05 or missing."""
    claimed = {BOTH_HOLD: (), HOLDS_GROW: (set_size_p,), FALLS_SILENT: (accuracy_p,), BOTH_DEGRADE: (accuracy_p, set_size_p)}
    return verdict if all(p is not None and p <= 1 - LEVEL + ROUNDING for p in claimed.get(verdict, ())) else INCONCLUSIVE


def change_side(change: Estimate, limit: float) -> Side:
    """Return the side of a change; BEYOND only if it is also large enough that this comparison finds such a change in 80 % of cases."""
    side = limit_side(change, limit)
    return Side.UNKNOWN if side is Side.BEYOND and abs(change.value) < detectable(change) else side


def limit_side(estimate: Estimate, limit: float, *, within: float = LEVEL, beyond: float = LEVEL) -> Side:
    """Return WITHIN if the interval of level `within` ends below the limit, BEYOND if that of level `beyond` begins above it."""
    if estimate.interval(within).high <= limit:
        return Side.WITHIN
    return Side.BEYOND if estimate.interval(beyond).low > limit else Side.UNKNOWN
