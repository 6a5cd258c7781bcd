"""How many items would decide an inconclusive check: rounded to two digits, with a range, since the figure is only estimated."""

import math
from typing import NamedTuple

from scipy.special import ndtri

from analyzer.gate.bounds import Bounded
from analyzer.stats.significance import POWER

MOST = 1_000_000  # items; a figure that needs more is practically at its limit
NEAR = 0.5  # standard errors; nearer to its limit, a figure says neither how many items decide nor on which side it is


class Needed(NamedTuple):
    """Number of items with which the check would be decided in 80 % of cases; for a check by subject, of items in that subject.

    low, high : the same if the true figure is a standard error further from the limit, or nearer; high is None if it may then be at the
                limit, so that no number of items is enough.
    passes    : whether the check would then pass, judged by the side of the limit that the estimate is on.
    """

    items: int
    low: int
    high: int | None
    passes: bool


def items_needed(amount: Bounded, limit: float, *, at_least: bool, pass_tail: float, fail_tail: float) -> Needed | None:
    """Return how many items are needed; None where none is known to be enough, or the figure is too near its limit.

    at_least : whether values of at least the limit pass.
    """
    values, value = amount.contributions, amount.estimate.value
    distance = abs(value - limit)
    if not values.size or not distance > 0:
        return None
    n_units, per_unit = amount.estimate.units, amount.estimate.items / amount.estimate.units
    passes = (value > limit) == at_least
    upper = value < limit  # whether it is the upper end of the interval that must not cross the limit
    spread, share = float(values.std()), n_units / values.size
    tail = pass_tail if passes else fail_tail
    reach = ((amount.of_unit(amount.most, tail) - value) if upper else (value - amount.of_unit(amount.least, tail))) * share
    error = spread * math.sqrt(share / n_units)
    if not math.isfinite(reach) or distance < NEAR * error:
        return None

    def count(apart: float) -> int | None:
        if not apart > 0:
            return None
        by_spread = share * ((float(ndtri(POWER)) - float(ndtri(tail))) * spread / apart) ** 2
        by_unseen = -math.log(tail) * reach / apart
        needed = max(math.hypot(by_spread, by_unseen) * per_unit, (n_units + 1) * per_unit, amount.fewest)
        return two_digits(needed) if needed <= MOST else None

    items, low = count(distance), count(distance + error)
    return None if items is None or low is None else Needed(items, low, count(distance - error), passes)


def two_digits(count: float) -> int:
    """Return a count rounded up to two significant digits."""
    step = int(10 ** max(math.floor(math.log10(count)) - 1, 0))
    return math.ceil(count / step) * step
