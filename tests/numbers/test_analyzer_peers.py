"""Independent libraries on the published logits: thresholds and sets equal theirs wherever the definition is the same.

torchcp 1.2.1: LAC and deterministic APS are ours, label by label, tied options included (torch.sort keeps their order on a CPU). It takes
ceil((n + 1)(1 - alpha)) in floating point, so for some n and alpha its threshold is one rank higher; not for these.
MAPIE 1.6: LAC is ours; it admits an option within 1e-8 of the threshold, which in 64-bit probs is wider than rounding, so options that
close are left out of the comparison and counted. Its APS adds the option that crosses the threshold, another definition: not compared.
"""

import os
import types
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from analyzer.bench.peers import classifier_of, import_torchcp
from analyzer.conformal.ranks import threshold_rank
from analyzer.conformal.splits import draw_splits
from analyzer.scorers import SCORERS
from analyzer.stats.probs import softmax

pytestmark = [
    pytest.mark.peers,
    pytest.mark.skipif("HEDGEMARK_PEERS" not in os.environ, reason="other libraries live in an environment of their own: make peers"),
    pytest.mark.filterwarnings("ignore"),  # warnings of libraries that we do not control
]
ALPHAS = tuple(map(Fraction, ("0.05", "0.1", "0.2", "0.5")))
FILES = ("Llama-2-7b-hf_mmlu_10k_base_icl1.pkl", "Yi-6B_halu_dialogue_task_icl1.pkl", "Qwen-7B_halu_summarization_shared_icl1.pkl")
MAPIE_EPSILON = 1e-8


class Problem(NamedTuple):
    """Probs (item, option), answers (item,) and who calibrates (item,)."""

    probs: np.ndarray
    answer: np.ndarray
    calibrates: np.ndarray


@pytest.fixture(scope="module", params=FILES)
def problem(request: pytest.FixtureRequest, shared_data: Path) -> Problem:
    """One published run, half of it calibrating."""
    import json

    from store.importers.safe_pickle import load_plain_pickle

    path = shared_data / "ye2024/outputs_base" / request.param
    rows = load_plain_pickle(path.read_bytes(), str(path))
    task = next(name for name in ("mmlu_10k", "halu_dialogue", "halu_summarization") if name in request.param)
    items = json.loads((shared_data / "ye2024/data" / f"{task}.json").read_text())
    logits = np.stack([row["logits_options"] for row in rows])
    answer = np.array(["ABCDEF".index(item["answer"]) for item in items])
    return Problem(softmax(logits, np.full(len(answer), 6)), answer, draw_splits(len(answer), len(answer) // 2, [0])[0])


@pytest.fixture(scope="module")
def torchcp() -> types.ModuleType:
    """Torchcp, without torchsort."""
    return import_torchcp()


def ours(problem: Problem, scorer: str, alpha: Fraction) -> tuple[float, np.ndarray]:
    """Threshold and sets (test item, option) by the plain definition that the engine is proved against."""
    scores = SCORERS[scorer](problem.probs)
    of_answer = scores[np.arange(len(problem.answer)), problem.answer]
    k = threshold_rank(int(problem.calibrates.sum()), alpha)
    threshold = np.sort(of_answer[problem.calibrates])[k - 1]
    return threshold, scores[~problem.calibrates] <= threshold


@pytest.mark.parametrize("scorer", ["lac", "aps"])
@pytest.mark.parametrize("alpha", ALPHAS, ids=str)
def test_torchcp_gives_the_same_thresholds_and_sets(problem: Problem, torchcp: types.ModuleType, scorer: str, alpha: Fraction) -> None:
    """LAC and deterministic APS agree with torchcp to the last label."""
    import torch

    score = torchcp.score.LAC(score_type="identity") if scorer == "lac" else torchcp.score.APS(score_type="identity", randomized=False)
    predictor = torchcp.predictor.SplitPredictor(score)
    probs, answer = torch.tensor(problem.probs), torch.tensor(problem.answer)
    chosen = torch.tensor(problem.calibrates)
    predictor.calculate_threshold(probs[chosen], answer[chosen], float(alpha))
    theirs = predictor.predict_with_logits(probs[~chosen]).numpy().astype(bool)
    threshold, sets = ours(problem, scorer, alpha)
    assert float(predictor.q_hat) == threshold
    np.testing.assert_array_equal(theirs, sets)


@pytest.mark.parametrize("alpha", ALPHAS, ids=str)
def test_mapie_gives_the_same_lac_sets(problem: Problem, alpha: Fraction) -> None:
    """LAC agrees with MAPIE to the last label, but for options within its 1e-8 of the threshold."""
    from mapie import classification

    places = np.arange(len(problem.answer), dtype=float)[:, None]
    conformal = classification.SplitConformalClassifier(
        classifier_of(problem.probs), confidence_level=1 - float(alpha), conformity_score="lac", prefit=True
    )
    conformal.conformalize(places[problem.calibrates], problem.answer[problem.calibrates])
    _, theirs = conformal.predict_set(places[~problem.calibrates])
    threshold, sets = ours(problem, "lac", alpha)
    close = np.abs(1 - problem.probs[~problem.calibrates] - threshold) <= 2 * MAPIE_EPSILON
    assert close.mean() < 0.001
    np.testing.assert_array_equal(theirs[:, :, 0][~close], sets[~close])
