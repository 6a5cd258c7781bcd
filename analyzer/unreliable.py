"""Unreliable: a computed flag with its reason, never an opinion.

Coverage alone cannot see a broken model: it is near 1 - alpha for any scores.
"""

import math

from scipy.special import bdtr

from analyzer.measured import Measured
from analyzer.view import RunView

NOISE = 0.0005  # one side of a 99.9 % band
EXACT = 1e-12


def run_reasons(view: RunView) -> list[str]:
    """Return why no figure of this run can be trusted; [] where nothing is wrong."""
    reasons = []
    if view.n_nonfinite:
        total = view.n_items + view.n_nonfinite
        reasons.append(f"{view.n_nonfinite} of {total} items have non-finite logits and are left out")
    if view.n_items:
        chance, right = float((1 / view.n_options).mean()), int(view.correct.sum())
        if bdtr(right, view.n_items, chance) < NOISE:
            reasons.append(f"accuracy {right / view.n_items:.3f} is below chance {chance:.3f} beyond noise")
    return reasons


def cell_reasons(cell: Measured) -> list[str]:
    """Return why this cell says nothing about the model."""
    if cell.note:
        return [cell.note]
    size, widest = cell.estimates["set_size"].value, float(cell.view.n_options.mean()) if cell.view.n_items else math.nan
    if abs(cell.estimates["singleton_rate"].value - 1) < EXACT:
        return ["every set holds exactly one option"]
    return ["every set is full"] if abs(size - widest) < EXACT else []
