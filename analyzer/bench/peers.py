"""Other libraries' time per cell, for the bench: threshold from calibration scores, sets, coverage and set size at one alpha.

A library that is not installed is left out, with a message.
"""

import importlib
import sys
import time
import types
from collections.abc import Callable

import numpy as np

from analyzer.stats.arrays import FloatArray, IntArray

ALPHA, REPEATS, SCORERS = 0.1, 5, 2
Peer = Callable[[FloatArray, IntArray], Callable[[], object]]


def peer_seconds_per_cell(probs: FloatArray, answer: IntArray) -> dict[str, float]:
    """Return busy seconds per cell of every peer that is installed, mean over LAC and APS; probs (item, option), half calibrates."""
    seconds = {}
    for name, prepare in PEERS.items():
        try:
            work = prepare(probs, answer)
        except ImportError:
            print(f"{name} is not installed and left out")
            continue
        work()
        times = []
        for _ in range(REPEATS):
            start = time.process_time()
            work()
            times.append(time.process_time() - start)
        seconds[name] = min(times) / SCORERS
    return seconds


def import_torchcp() -> types.ModuleType:
    """Return torchcp.classification with an empty torchsort, which needs a compiler and serves no score used here."""
    stand_in = types.ModuleType("torchsort")
    vars(stand_in).update(soft_rank=None, soft_sort=None)
    sys.modules.setdefault("torchsort", stand_in)
    return importlib.import_module("torchcp.classification")


def _torchcp(probs: FloatArray, answer: IntArray) -> Callable[[], object]:
    torch, torchcp = importlib.import_module("torch"), import_torchcp()
    torch.set_num_threads(1)
    half = len(answer) // 2
    logits, labels = torch.log(torch.tensor(probs)), torch.tensor(answer)

    def cell(score: object) -> object:
        predictor = torchcp.predictor.SplitPredictor(score)
        predictor.calculate_threshold(logits[:half], labels[:half], ALPHA)
        sets = predictor.predict_with_logits(logits[half:])
        return sets[torch.arange(len(sets)), labels[half:]].double().mean(), sets.sum(dim=1).double().mean()

    return lambda: [cell(torchcp.score.LAC()), cell(torchcp.score.APS(randomized=False))]


def _mapie(probs: FloatArray, answer: IntArray) -> Callable[[], object]:
    classification = importlib.import_module("mapie.classification")
    metrics = importlib.import_module("mapie.metrics.classification")
    half = len(answer) // 2
    model = classifier_of(probs)
    row_numbers = np.arange(len(answer), dtype=np.float64)[:, None]

    def cell(score: str) -> object:
        conformal = classification.SplitConformalClassifier(model, confidence_level=1 - ALPHA, conformity_score=score, prefit=True)
        conformal.conformalize(row_numbers[:half], answer[:half])
        _, sets = conformal.predict_set(row_numbers[half:])
        return metrics.classification_coverage_score(answer[half:], sets), metrics.classification_mean_width_score(sets)

    return lambda: [cell("lac"), cell("aps")]


def classifier_of(probs: FloatArray) -> object:
    """Return a fitted scikit-learn classifier whose predict_proba looks the row up by its number."""
    base = importlib.import_module("sklearn.base")

    class StoredProbs(base.ClassifierMixin, base.BaseEstimator):  # type: ignore[name-defined,misc]
        classes_ = np.arange(probs.shape[1])
        is_fitted_ = True

        def fit(self, row_numbers: FloatArray, answer: IntArray) -> "StoredProbs":
            return self

        def predict_proba(self, row_numbers: FloatArray) -> FloatArray:
            return np.asarray(probs[row_numbers[:, 0].astype(np.int64)])

        def predict(self, row_numbers: FloatArray) -> IntArray:
            return np.asarray(self.predict_proba(row_numbers).argmax(axis=1))

    return StoredProbs()


PEERS: dict[str, Peer] = {"torchcp": _torchcp, "MAPIE": _mapie}
