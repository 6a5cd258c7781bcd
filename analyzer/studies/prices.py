"""Prices: what a prediction set costs in operations, given by the user in TOML.

    [prices]                 # per question, in any one currency
    answer = 0.001           # one option in the set: answered alone
    ask_again = 0.004        # a few options: asked again, of a larger model or with more context
    review = 0.8             # more options: a person looks
    abstain = 0.2            # an empty set
    wrong = 2.0              # on top, where the one option of a set is not the answer
    [rules]
    ask_again_up_to = 2      # largest set that is asked again; larger ones are reviewed
    [hardware]               # per 1,000 questions; by method, or by method and level
    dense = 1.20
    gptq = 0.45
    "wanda/0.5" = 0.90
"""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from schemas.errors import UsageError
from schemas.run import DENSE

SECTIONS = ("prices", "rules", "hardware")


@dataclass(frozen=True)
class Prices:
    """Prices per question, the largest set that is asked again, and hardware cost per 1,000 questions by method or method/level."""

    answer: float = 0.0
    ask_again: float = 0.0
    review: float = 0.0
    abstain: float = 0.0
    wrong: float = 0.0
    ask_again_up_to: int = 2
    hardware: Mapping[str, float] = field(default_factory=dict)

    def hardware_of(self, method: str, level: str) -> float:
        """Return the hardware cost of 1,000 questions; NaN where none is given."""
        return self.hardware.get(f"{method}/{level}", self.hardware.get(method, math.nan))


PER_QUESTION = tuple(f.name for f in fields(Prices) if f.name not in ("ask_again_up_to", "hardware"))


def read_prices(path: Path) -> Prices:
    """Return the prices of a file. Raises UsageError for what is no price: an unknown name, a negative or non-finite number."""
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"cannot read the prices {path}: {error}") from error
    for name in found:
        if name not in SECTIONS or not isinstance(found[name], dict):
            raise UsageError(f"prices {path}: {name!r} is no section; expected {', '.join(f'[{section}]' for section in SECTIONS)}")
    prices = {name: _price(name, value, PER_QUESTION) for name, value in found.get("prices", {}).items()}
    hardware = {name: _price(name, value, (name,)) for name, value in found.get("hardware", {}).items()}
    if not any(prices.values()):
        raise UsageError(f"prices {path}: nothing has a price; give at least one of {', '.join(PER_QUESTION)} in [prices]")
    if hardware and DENSE not in hardware:
        raise UsageError(f"prices {path}: [hardware] has no {DENSE!r}, so nothing to save against")
    return Prices(**prices, ask_again_up_to=_rule(found.get("rules", {}), path), hardware=hardware)


def _price(name: str, value: Any, known: tuple[str, ...]) -> float:
    if name not in known:
        raise UsageError(f"unknown price {name!r}; known: {', '.join(known)}")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise UsageError(f"price {name!r} is {value!r}; expected a number of 0 or more")
    return float(value)


def _rule(rules: Mapping[str, Any], path: Path) -> int:
    value = rules.get("ask_again_up_to", Prices.ask_again_up_to)
    if set(rules) - {"ask_again_up_to"} or isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"prices {path}: [rules] takes ask_again_up_to, a whole number from 1 (1: nothing is asked again)")
    return value
