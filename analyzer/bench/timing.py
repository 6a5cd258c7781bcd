"""Workload W, and how long the exact law takes on it: what every part of the bench is measured with."""

import resource
import time
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import xarray as xr

from analyzer.api import view_of
from analyzer.conformal.ranks import Ranks, rank_scores, threshold_rank
from analyzer.conformal.split_law import rank_law, set_statistics
from analyzer.conformal.split_moments import all_moments
from analyzer.measure.question import Question
from analyzer.measure.scored import scores_of
from analyzer.runs.view import RunView

N_ITEMS, N_OPTIONS = 10_000, 6
ALPHAS = tuple(Fraction(i, 100) for i in range(1, 100))
W = ("lac", "aps")
REPEATS = 5


def simulated(n_items: int, n_options: int = N_OPTIONS, seed: int = 0) -> RunView:
    """Return the view of a simulated run."""
    return view_of(simulated_data(n_items, n_options, seed))


def simulated_data(n_items: int, n_options: int = N_OPTIONS, seed: int = 0) -> xr.Dataset:
    """Return a model that is right about two times in three; logits rounded to 1/8, so that scores tie as 16-bit ones do."""
    rng = np.random.default_rng(seed)
    answers = rng.integers(0, n_options, n_items)
    logits = rng.normal(size=(n_items, n_options))
    logits[np.arange(n_items), answers] += rng.gamma(2.0, 0.8, n_items)
    return xr.Dataset({"logits": (("item", "option"), np.round(8 * logits) / 8), "answer": ("item", answers)})


class Seconds(NamedTuple):
    """Wall clock and processor time."""

    wall: float
    busy: float

    def __str__(self) -> str:
        return f"{self.wall:8.3f} s ({self.busy:.3f} s busy)"


def best(work: Callable[[], object], repeats: int = REPEATS) -> Seconds:
    """Return the shortest wall-clock and processor times of `repeats` calls."""
    times = []
    for _ in range(repeats):
        wall, busy = time.perf_counter(), time.process_time()
        work()
        times.append((time.perf_counter() - wall, time.process_time() - busy))
    return Seconds(*(min(column) for column in zip(*times, strict=True)))


def busy_seconds() -> float:
    """Return the processor seconds of this process and of those that it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def exact_law(view: RunView, scorers: Iterable[str] = W, alphas: Iterable[Fraction] = ALPHAS) -> None:
    """Compute mean and sd over all splits of coverage, set size, empty and singleton rate at every alpha, from probs."""
    rank_law.cache_clear()  # one run's cost, not that of a second run of as many items
    n_calibration = view.n_items // 2
    laws = [rank_law(view.n_items, n_calibration, threshold_rank(n_calibration, alpha)) for alpha in alphas]
    for scorer in scorers:
        all_moments(laws, set_statistics(ranked(view, scorer)))


def ranked(view: RunView, scorer: str) -> Ranks:
    """Return the ranks of a run under one scorer."""
    return rank_scores(scores_of(view, view.probs, scorer, Question()), view.answer, view.probs)
