"""Do live questions resemble the calibration questions? A conformal test martingale for each statistic that needs no answer.

The p-value of a live question is the share of calibration questions and earlier live ones whose statistic is larger, ties broken at random.
While all of them are exchangeable, these p-values are independent and uniform, whatever the statistic (Vovk, Nouretdinov & Gammerman 2003).
Bets on small or on large p-values then win nothing on average; after a change they win.
With the questions of each subject compared among themselves, the p-values are independent and uniform whatever the mix of subjects is
(Vovk, Gammerman & Shafer 2005, Mondrian conformal prediction): a change of the mix alone wins nothing then.
Each statistic has a capital of its own. The capitals are not averaged, because the p-values of different statistics need not be
independent of each other; instead the alarms share delta.

Source : Vovk 2021, arXiv:1906.09256, conformal test martingales; the bets are those of Vovk et al. 2021, arXiv:2102.10439.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analyzer.predictor.looks import CREDIBLE_SIZE
from analyzer.stats.arrays import FloatArray, IntArray
from analyzer.stats.random_words import item_uniform
from analyzer.watch.betting import Bets, Trace

# a bet multiplies its capital by 1 + slope (p - 1/2)
SLOPES = np.array([sign * size for size in (1.8, 0.9, 0.45, 0.2) for sign in (-1, 1)])
TOGETHER = 256  # p-values are computed for this many questions at once
STREAM = 1 << 40  # random draws reserved for each statistic


def slope_factors(p: FloatArray) -> FloatArray:
    """Return (..., bet) the bets' factors for p-values (...,); each has mean 1 if p is uniform."""
    return np.asarray(1 + SLOPES * (p[..., None] - 0.5))


def live_p_values(counts: IntArray, bins: IntArray, u: FloatArray) -> FloatArray:
    """Return (question,) conformal p-values of new questions, each relative to the counted questions and the new ones before it.

    counts : (bin,) number of earlier questions.  bins : (question,) bin of each new one.  u : (question,) uniform draws that break ties.
    """
    p_values = np.empty(bins.size)
    counts = counts.copy()
    for start in range(0, bins.size, TOGETHER):
        block = bins[start : start + TOGETHER]
        above = counts.sum() - counts.cumsum()
        earlier = np.tri(block.size, k=-1, dtype=bool)
        larger = above[block] + (earlier & (block[None, :] > block[:, None])).sum(axis=1)
        equal = counts[block] + (earlier & (block[None, :] == block[:, None])).sum(axis=1) + 1
        total = counts.sum() + np.arange(block.size) + 1
        p_values[start : start + TOGETHER] = (larger + u[start : start + TOGETHER] * equal) / total
        counts += np.bincount(block, minlength=counts.size)
    return p_values


class LookWatch:
    """The test of one statistic: the live questions against the calibration questions, all of them or those of each subject by themselves.

    calibration, live : (subject, bin) counts, with one row where subjects are not told apart.
    since_sum : (bet,) sum of bins since each bet's lowest point.  since_subject : (bet, subject) number of questions since then.
    """

    def __init__(self, name: str, calibration: Sequence[Sequence[int]], seed: int, n_subjects: int) -> None:
        self.name, self.seed = name, seed
        self.calibration = np.asarray(calibration, dtype=np.int64)
        self.live = np.zeros_like(self.calibration)
        self.bets, self.trace = Bets(SLOPES.size), Trace()
        self.since_sum = np.zeros(SLOPES.size)
        self.since_subject = np.zeros((SLOPES.size, n_subjects), dtype=np.int64)
        self.since_label = [""] * SLOPES.size

    def see(self, bins: IntArray, subject: IntArray, labels: Sequence[str]) -> None:
        """Take new questions in their order, (question,) each; `labels` say as text when each came."""
        row = subject if len(self.calibration) > 1 else np.zeros_like(subject)
        for p, value, number, label in zip(self._p_values(bins, row), bins, subject, labels, strict=True):
            lower = self.bets.step(slope_factors(p))
            self.trace.add(float(self.bets.total))
            self.since_sum = np.where(lower, 0.0, self.since_sum + value)
            self.since_subject[:, number] += 1
            self.since_subject[lower] = 0
            for bet in np.flatnonzero(self.bets.since == self.bets.steps - 1):  # this is the first question after its lowest point
                self.since_label[bet] = label
        np.add.at(self.live, (row, bins), 1)

    def _p_values(self, bins: IntArray, row: IntArray) -> FloatArray:
        """Return (question,) p-values, each relative to the calibration questions and the earlier live ones of its row."""
        u = item_uniform(np.arange(self.live.sum(), self.live.sum() + bins.size, dtype=np.uint64) + np.uint64(self.seed))
        p_values = np.empty(bins.size)
        for number in np.unique(row):
            chosen = row == number
            p_values[chosen] = live_p_values(self.calibration[number] + self.live[number], bins[chosen], u[chosen])
        return p_values

    @property
    def began(self) -> str:
        """The label of the first question after the likeliest change."""
        return self.since_label[int(self.bets.best)]

    def means(self) -> tuple[float, float]:
        """Return the statistic's mean over the calibration questions, and over the live ones since the likeliest change.

        Where subjects are told apart, the first is what calibration questions in the mix of the live ones would have.
        """
        best = int(self.bets.best)
        n_since = self.bets.steps - int(self.bets.since[best])
        bins = np.arange(self.calibration.shape[1])
        mix = self.live.sum(axis=1) if self.live.any() else self.calibration.sum(axis=1)
        of_subject = self.calibration @ bins / self.calibration.sum(axis=1)
        calibrated = self._value(float(mix @ of_subject / mix.sum()))
        return calibrated, self._value(float(self.since_sum[best]) / n_since) if n_since else calibrated

    def live_mean(self) -> float:
        """Return the statistic's mean over all live questions; NaN without any."""
        n = int(self.live.sum())
        return self._value(float((self.live @ np.arange(self.live.shape[1])).sum()) / n) if n else math.nan

    def _value(self, mean_bin: float) -> float:
        return mean_bin if self.name == CREDIBLE_SIZE else (mean_bin + 0.5) / self.live.shape[1]

    def to_json(self) -> dict[str, Any]:
        """Return the watch as JSON, which `from_json` reads."""
        labels = {"since_sum": self.since_sum.tolist(), "since_subject": self.since_subject.tolist(), "since_label": self.since_label}
        return {"live": self.live.tolist(), "bets": self.bets.to_json(), "trace": self.trace.to_json()} | labels

    @classmethod
    def from_json(cls, name: str, calibration: Sequence[Sequence[int]], seed: int, value: Mapping[str, Any]) -> "LookWatch":
        """Return the watch that `to_json` described."""
        watch = cls(name, calibration, seed, len(value["since_subject"][0]))
        watch.since_subject = np.asarray(value["since_subject"], dtype=np.int64)
        watch.live = np.asarray(value["live"], dtype=np.int64)
        watch.bets, watch.since_sum = Bets.from_json(value["bets"]), np.asarray(value["since_sum"], dtype=np.float64)
        watch.since_label, watch.trace = list(value["since_label"]), Trace.from_json(value["trace"])
        return watch
