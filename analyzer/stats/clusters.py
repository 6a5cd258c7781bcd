"""Items that belong together: several questions on one passage, from one template, or one question asked again.

Their answers are alike, so 2,000 items in 200 clusters say less than 2,000 independent ones: with ten questions a passage and a correlation
of 0.5 within it, 95 % intervals of accuracy that take the items as independent hold 79 %. What a cluster contributes to an estimate is the
sum of what its items contribute; the clusters are the independent units.
"""

import numpy as np

from analyzer.stats.arrays import AnyArray, FloatArray, IntArray


def cluster_influence(influence: FloatArray, cluster: IntArray) -> FloatArray:
    """Return (cluster,) influences of clusters in place of items, so that an `Estimate` of them has the error between clusters.

    influence : (item,) mean zero.  cluster : (item,) number of each item's cluster, from 0 without gaps.
    Source : Liang & Zeger 1986, Biometrika 73, for the sum; scaled by clusters over items, as an estimate divides by their number.
    """
    n_clusters = int(cluster.max()) + 1 if cluster.size else 0
    sums = np.bincount(cluster, influence, n_clusters)
    return np.asarray(sums * (n_clusters / max(cluster.size, 1)), dtype=np.float64)


def design_effect(influence: FloatArray, cluster: IntArray) -> float:
    """Return the variance between clusters over that of independent items; 1 where items are, NaN where nothing varies."""
    n_items, of_clusters = influence.size, cluster_influence(influence, cluster)
    n_clusters = of_clusters.size
    squares = float(influence @ influence)
    if n_clusters < 2 or not squares > 0:
        return float("nan")
    return float(of_clusters @ of_clusters) / (n_clusters * (n_clusters - 1)) / (squares / (n_items * (n_items - 1)))


def effective_items(contributions: AnyArray) -> float:
    """Return on how many items a sum of squares rests: (sum of squares)^2 over the sum of fourth powers; N where all are as large.

    Below about 10 the spread of an estimate is known from a handful of items, and neither it nor a normal interval can be trusted.
    """
    squares = np.asarray(contributions, dtype=np.float64) ** 2
    fourth = float(squares @ squares)
    return float(squares.sum()) ** 2 / fourth if fourth > 0 else 0.0


def kish_items(weights: FloatArray) -> float:
    """Return how many equally weighted items a weighted mean is worth. Source: Kish 1965, Survey Sampling, section 11.7."""
    squares = float(weights @ weights)
    return float(weights.sum()) ** 2 / squares if squares > 0 else 0.0
