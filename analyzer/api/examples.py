"""Example data sets for those who have no store yet; the examples in the docstrings use them."""

import numpy as np
import xarray as xr

N_ITEMS, N_OPTIONS, KNOWLEDGE = 200, 4, 2.0
NOISE = {("dense", "-"): 0.0, ("wanda", "0.3"): 0.2, ("wanda", "0.5"): 1.5}


def example_runs() -> list[xr.Dataset]:
    """Return a dense run and two compressed runs of 200 items with four options, simulated with a fixed seed.

    The first compressed run differs little from the dense one, the second a lot.

    Examples
    --------
    >>> [data.attrs["level"] for data in example_runs()]
    ['-', '0.3', '0.5']
    """
    rng = np.random.default_rng(0)
    answer = rng.integers(0, N_OPTIONS, N_ITEMS)
    logits = rng.normal(size=(N_ITEMS, N_OPTIONS))
    logits[np.arange(N_ITEMS), answer] += KNOWLEDGE
    change = rng.normal(size=logits.shape)
    subject = np.array(["history", "law"])[np.arange(N_ITEMS) % 2]
    return [
        xr.Dataset(
            {"logits": (("item", "option"), logits + noise * change), "answer": ("item", answer), "subject": ("item", subject)},
            attrs={"model": "example-7b", "method": method, "level": level, "task": "quiz"},
        )
        for (method, level), noise in NOISE.items()
    ]
