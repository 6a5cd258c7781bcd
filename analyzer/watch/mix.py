"""The live questions by subject: whether they changed within subjects, and which share each subject has.

In: a predictor's calibration questions by subject, the live ones.  Out: tests within subjects, and whether a changed mix of subjects
explains what the other tests saw. If it does, weights mend the threshold: `analyze calibrate --subject-mix`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from analyzer.predictor.document import Part
from analyzer.predictor.looks import coarse
from analyzer.stats.arrays import FloatArray, IntArray
from analyzer.watch.exchangeability import STREAM, LookWatch
from analyzer.watch.miscoverage import Range, miss_share_range

FEWEST_SINCE = 300  # questions since the change, before a mix of subjects is taken for its reason
MIX_TOLERANCE = 0.05  # change of a subject's share that a threshold made for a mix has to bear


class Moved(NamedTuple):
    """A subject's share of the calibration questions, or of the mix the threshold is for, and of the live ones, with its range."""

    subject: str
    calibrated: float
    live: float
    range: Range


class MixWatch:
    """The tests of each statistic within subjects, and counts of the live questions by subject.

    live, answered : (subject,) number of all questions, and of those whose answer is known; the last entry is for all other subjects.
    """

    def __init__(self, parts: Mapping[str, Part], looks: Sequence[str], seed: int) -> None:
        self.parts, self.names = parts, sorted(parts)
        self.looks = {
            look: LookWatch(look, [parts[name].looks[look] for name in self.names], seed + (8 + i) * STREAM, len(parts) + 1)
            for i, look in enumerate(looks)
        }
        self.live, self.answered = (np.zeros(len(parts) + 1, dtype=np.int64) for _ in range(2))

    def numbers(self, subjects: Sequence[str]) -> IntArray:
        """Return (question,) the place of each subject; the last one for subjects that no calibration question has."""
        number_of = {name: number for number, name in enumerate(self.names)}
        return np.array([number_of.get(subject, len(number_of)) for subject in subjects], dtype=np.int64)

    def see(self, bins: Mapping[str, IntArray], subject: IntArray, labels: Sequence[str]) -> None:
        """Take new questions in their order: their bins by statistic, their subjects, and as text when each came."""
        known = subject < len(self.names)
        for look, watch in self.looks.items():
            watch.see(coarse(look, bins[look])[known], subject[known], [label for label, one in zip(labels, known, strict=True) if one])
        self.live += np.bincount(subject, minlength=len(self.live))

    @property
    def shares(self) -> FloatArray:
        """(subject,) share of the questions that the threshold was made for."""
        parts = [self.parts[name] for name in self.names]
        n = sum(part.n for part in parts)
        return np.array([part.n / n if part.share is None else part.share for part in parts])

    def moved(self, delta: float) -> list[Moved]:
        """Return the subjects whose live share is another one at any time with probability 1 - delta, those that moved most first."""
        n = int(self.live.sum())
        each = [
            Moved(name, share, count / max(n, 1), miss_share_range(count, n, delta / len(self.names)))
            for name, share, count in zip(self.names, self.shares.tolist(), self.live.tolist(), strict=False)
        ]
        other = [one for one in each if not one.range.low <= one.calibrated <= one.range.high]
        return sorted(other, key=lambda one: -abs(one.live - one.calibrated))

    def covered(self, counts: IntArray) -> float:
        """Return the coverage that calibration questions in the mix of (subject,) counts have under the threshold."""
        share = np.array([self.parts[name].covered / self.parts[name].n for name in self.names])
        return float(counts[: len(share)] @ share / counts[: len(share)].sum())

    def to_json(self) -> dict[str, Any]:
        """Return the watch as JSON, which `from_json` reads."""
        looks = {look: watch.to_json() for look, watch in self.looks.items()}
        return {"looks": looks, "live": self.live.tolist(), "answered": self.answered.tolist()}

    @classmethod
    def from_json(cls, parts: Mapping[str, Part], seed: int, value: Mapping[str, Any]) -> "MixWatch":
        """Return the watch that `to_json` described."""
        watch = cls(parts, list(value["looks"]), seed)
        watch.looks = {
            look: LookWatch.from_json(look, old.calibration.tolist(), old.seed, value["looks"][look]) for look, old in watch.looks.items()
        }
        watch.live, watch.answered = (np.asarray(value[name], dtype=np.int64) for name in ("live", "answered"))
        return watch
