"""No interval leaves the values that its figure can have, however few the items and however far apart two runs."""

import math

import numpy as np
import pytest
import xarray as xr

from analyzer.api import compare, sets, transfer, weighted

ENDS = {
    "accuracy": (0, 1), "coverage": (0, 1), "set_size": (0, 4), "uacc": (0, math.inf), "nll": (0, math.inf), "brier": (0, 2),
    "ece": (0, 1), "aurc": (0, 1), "accuracy_change": (-1, 1), "coverage_change": (-1, 1), "set_size_change": (-4, 4), "flips": (0, 1),
    "kl": (0, math.inf), "kl_reverse": (0, math.inf), "js": (0, math.log(2)),
    "unweighted_coverage": (0, 1), "recalibrated_coverage": (0, 1),
}  # fmt: skip


def runs(n_items: int, seed: int) -> list[xr.Dataset]:
    """A good run and one that is nearly always wrong, so that changes lie near their ends; one item's divergence is large."""
    rng = np.random.default_rng(seed)
    answer = rng.integers(0, 4, n_items)
    logits = rng.normal(size=(n_items, 4))
    logits[np.arange(n_items), answer] += 8
    other = np.roll(logits, 1, axis=1)
    other[0] *= 30
    subject = np.array(["one", "two"])[np.arange(n_items) % 2]
    names = [("dense", "-"), ("wanda", "0.5")]
    return [
        xr.Dataset(
            {"logits": (("item", "option"), values), "answer": ("item", answer), "subject": ("item", subject)},
            attrs={"model": "m", "method": method, "level": level, "task": "quiz"},
        )
        for (method, level), values in zip(names, (logits, other), strict=True)
    ]


@pytest.mark.parametrize("n_items", [4, 12, 60])
@pytest.mark.parametrize("seed", range(3))
def test_intervals_end_where_their_figures_do(n_items: int, seed: int) -> None:
    """Every figure of every command that has ends by its meaning lies between them with its whole interval."""
    data = runs(n_items, seed)
    tables = [sets(data, by="label"), sets(data, mondrian="label"), compare(data), compare(data, average=True), transfer(data)]
    tables += [transfer(data, kept_from="subject"), weighted(data[1], {"one": 0.95, "two": 0.05})]
    for table in tables:
        for name, (least, most) in ENDS.items():
            found = [value for end in ("", "_low", "_high") if name + end in table for value in table[name + end].drop_nulls().to_list()]
            assert all(least - 1e-12 <= value <= most + 1e-12 for value in found), (name, min(found), max(found))
