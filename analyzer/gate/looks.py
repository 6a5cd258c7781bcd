"""Repeated looks of the gate at a growing number of items, planned so that all of them together err no more often than a single one.

A gate that is undecided, and is asked again every night with more items, has many chances to pass a model that is at its limit: 20 looks
pass 9 to 12 % of such models instead of 2.5 %. A plan fixes beforehand at which numbers of items the gate may be asked, and a spending
function says how much of the error probability is used up by then. Each look may err with the part added since the look before it. The
parts sum to the whole, and the probability of an error at any look is at most that sum (Bonferroni). This holds for every figure and for
exact bounds, whether the items of one look are among those of the next or all new. A look is counted in items, with clusters of dependent
items as well: the bounds of each look then count clusters, and how the error is shared out does not need independent items.
The boundaries of Lan & DeMets also use how the looks are correlated; they decide a little earlier, but are exact for normal means only.

Source : Lan & DeMets 1983, Biometrika 70 (the spending functions).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from scipy.special import ndtr, ndtri

Spending = Callable[[float, float], float]


def obrien_fleming(share: float, tail: float) -> float:
    """Return the error spent when a share of the items is in, little at first: 2 - 2 Phi(z / sqrt(share)). The last look keeps most."""
    return 2 * float(ndtr(ndtri(tail / 2) / math.sqrt(share)))


def pocock(share: float, tail: float) -> float:
    """Return the error spent when a share of the items is in, nearly in proportion: more early decisions, fewer at the last look."""
    return tail * math.log1p((math.e - 1) * share)


SPENDING: dict[str, Spending] = {"obrien-fleming": obrien_fleming, "pocock": pocock}


def _rising(items: tuple[int, ...]) -> tuple[int, ...]:
    if any(after <= before for before, after in pairwise(items)):
        raise ValueError(f"{list(items)} does not rise; each look needs more items than the look before it")
    return items


class Looks(BaseModel):
    """The section `[looks]` of a policy: at which numbers of items of a run the gate may be asked, and how the error is spent on them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    items: Annotated[tuple[Annotated[int, Field(strict=True, gt=0)], ...], Field(min_length=1), AfterValidator(_rising)]
    spending: Literal["obrien-fleming", "pocock"] = "obrien-fleming"

    def tails(self, tail: float) -> list[float]:
        """Return the error probability of each look; they sum to `tail`."""
        spent = [0.0, *(SPENDING[self.spending](count / self.items[-1], tail) for count in self.items)]
        return [now - before for before, now in pairwise(spent)]

    @property
    def words(self) -> str:
        """The plan as a text, such as `500, 1,000 and 2,000 items, obrien-fleming`."""
        counts = [f"{count:,}" for count in self.items]
        listed = f"{', '.join(counts[:-1])} and {counts[-1]}" if len(counts) > 1 else counts[0]
        return f"{listed} items, {self.spending}"


class LaterLook(NamedTuple):
    """A look that the plan still has: its number of items and its error probability."""

    items: int
    tail: float


@dataclass(frozen=True)
class Look:
    """What the gate may conclude from the items that it has now.

    tail    : error probability of a pass, and of all failures of a model together, at this look.
    number  : which look of the plan it is, from 1; None without a plan, or for a number of items that the plan does not have.
    looks   : the plan; None without one.
    later   : the looks with more items.
    problem : why nothing may be concluded: the plan has no look at this number of items.
    """

    tail: float
    number: int | None = None
    looks: Looks | None = None
    later: tuple[LaterLook, ...] = ()
    problem: str | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """The look's fields of a record; all but the tail are None without a plan."""
        return {
            "look": self.number,
            "n_looks": len(self.looks.items) if self.looks else None,
            "looks": self.looks.words if self.looks else None,
            "look_error": None if self.problem else self.tail,
        }


def look_at(looks: Looks | None, n_items: int, tail: float) -> Look:
    """Return the look at a run of this many items: the one of the plan that has exactly as many. Without a plan it has the whole `tail`.

    A number of items between two looks is refused. If it counted as one of them, asking at many such numbers would err as if unplanned.
    """
    if looks is None:
        return Look(tail)
    tails = looks.tails(tail)
    later = tuple(LaterLook(count, error) for count, error in zip(looks.items, tails, strict=True) if count > n_items)
    if n_items in looks.items:
        number = looks.items.index(n_items) + 1
        return Look(tails[number - 1], number, looks, later)
    problem = f"{n_items:,} items are no look of the plan ({looks.words})"
    todo = f"ask again with {later[0].items:,}" if later else "its error is spent by then; make a new plan and use new items"
    return Look(0.0, None, looks, later, f"{problem}; {todo}")
