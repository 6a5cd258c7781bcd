"""tong2026: alpha 0.1, 2,000 items per task drawn with a recorded seed, half calibrate and half test, LAC and APS.

Its figures are means over three prompts and two scorers: ask for `--average`. A draw of 2,000 items carries a set-size sd of 0.07 to
0.13, so a difference below that is no finding.
"""

import numpy as np

from analyzer.conformal.splits import parse_split
from analyzer.measure.question import Question
from analyzer.runs.view import RunView

N_DRAWN, SEED = 2_000, 0
DEFAULT = Question(split=parse_split(f"seed:{SEED}"), protocol="tong2026")


def choose(view: RunView) -> RunView:
    """Return the drawn items, the same for every run over one item set; all of them where there are no more than 2,000."""
    n_items = len(view.items)
    draw = np.random.default_rng(SEED).permutation(n_items)
    place = np.empty(n_items, dtype=np.int64)
    place[draw[~view.items.demonstration[draw]]] = np.arange(int((~view.items.demonstration).sum()))
    return view.keep(place[view.position] < N_DRAWN)
