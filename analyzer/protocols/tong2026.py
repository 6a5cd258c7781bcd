"""tong2026: alpha 0.1, 2,000 items per task drawn with a recorded seed, half calibrate and half test, LAC and APS.

Its figures are means over three prompts and two scorers: use `--average`. Drawing 2,000 items moves the set size with a standard deviation
of 0.07 to 0.13, so smaller differences mean nothing.
"""

import numpy as np

from analyzer.conformal.splits import parse_split
from analyzer.measure.question import Question
from analyzer.runs.view import RunView

N_DRAWN, SEED = 2_000, 0
DEFAULT = Question(split=parse_split(f"seed:{SEED}"), protocol="tong2026")


def choose(view: RunView) -> RunView:
    """Return the drawn items, the same for every run over one item set; all items if there are no more than 2,000."""
    n_items = len(view.items)
    draw = np.random.default_rng(SEED).permutation(n_items)
    order = np.empty(n_items, dtype=np.int64)
    order[draw[~view.items.demonstration[draw]]] = np.arange(int((~view.items.demonstration).sum()))
    return view.keep(order[view.position] < N_DRAWN)
