"""Pairs: a compressed run and the dense run of the same model, task, prompt and items."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from analyzer.arrays import FloatArray
from analyzer.estimate import Estimate, mean
from analyzer.view import RunView
from schemas.errors import ComparisonError
from schemas.run import DENSE

SAME = ("model", "task", "prompt", "items_hash")
ALIKE = ("dtype", "backend", "seed")

Row = Mapping[str, Any]


class Pair(NamedTuple):
    """The items that both runs answered with finite logits, in the same order."""

    dense: RunView
    compressed: RunView


def dense_partner(row: Row, dense_rows: Sequence[Row]) -> Row | None:
    """Return the dense run that a run is compared with, or None; of several, the one alike in dtype, backend and seed.

    Raises ComparisonError where several are equally alike.
    """
    partners = [dense for dense in dense_rows if dense["method"] == DENSE and all(dense[field] == row[field] for field in SAME)]
    if row["method"] == DENSE or not partners:
        return None
    likeness = [sum(dense[field] == row[field] for field in ALIKE) for dense in partners]
    best = [dense for dense, alike in zip(partners, likeness, strict=True) if alike == max(likeness)]
    if len(best) > 1:
        names = ", ".join(dense["name"] for dense in best)
        raise ComparisonError(f"run {row['name']} has {len(best)} dense partners alike in {', '.join(ALIKE)}: {names}")
    return best[0]


def pair_views(dense: RunView, compressed: RunView) -> Pair:
    """Return both runs on their common finite items."""
    return Pair(dense.keep(np.isin(dense.position, compressed.position)), compressed.keep(np.isin(compressed.position, dense.position)))


def flips(pair: Pair) -> Estimate:
    """Return the share of items that turn from right to wrong or from wrong to right."""
    return mean(pair.dense.correct != pair.compressed.correct, share=True)


def kl(pair: Pair) -> Estimate:
    """Return the mean over items of KL(dense || compressed) over the options, in nats."""
    if not pair.dense.n_items:
        return mean(np.empty(0))
    per_item = np.nansum(pair.dense.probs * (log_probs(pair.dense) - log_probs(pair.compressed)), axis=1)
    return mean(np.maximum(per_item, 0.0))


def log_probs(view: RunView) -> FloatArray:
    """Return (item, option) log-probs, exact where the prob underflows to 0; NaN beyond an item's own options."""
    own = ~np.isnan(view.probs)
    raw = np.where(own, view.logits, -np.inf).astype(np.float64)
    raw -= raw.max(axis=1, keepdims=True)
    return np.where(own, raw - np.log(np.exp(raw).sum(axis=1, keepdims=True)), np.nan)
