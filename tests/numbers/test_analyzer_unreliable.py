"""Planted broken runs are flagged with their reason, and sound runs are not."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from analyzer_data import MemoryReader, item_set, make_run, make_view, skilled_logits, toy

from analyzer.conformal.splits import Split, parse_split
from analyzer.measure.measure_run import measure_run
from analyzer.measure.question import Question
from analyzer.measure.records import unreliable
from analyzer.runs.loading import select_runs
from analyzer.runs.view import RunView
from analyzer.studies.sets import sets

LAC = Question(scorers=("lac",))
N_ITEMS, N_OPTIONS = 600, 6


def reason(view: RunView, question: Question = LAC) -> str | None:
    return unreliable([next(measure_run(view, "lac", question))])


def planted(seed: int = 0, skill: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    """Answers among A to D of six options, and logits of a confident model."""
    rng = np.random.default_rng(seed)
    answers = rng.integers(0, 4, N_ITEMS)
    return answers, skilled_logits(rng, answers, N_OPTIONS, skill)


def test_a_sound_run_is_not_flagged() -> None:
    """Neither a good model nor one that is honestly near chance is called unreliable."""
    assert reason(toy(skill=2.0)) is None
    rng = np.random.default_rng(1)
    answers = rng.integers(0, 4, N_ITEMS)
    assert reason(make_view(item_set(answers), 0.3 * rng.normal(size=(N_ITEMS, 4)))) is None


def test_nan_logits_are_flagged() -> None:
    """All NaN, one NaN and one infinity are flagged with their count."""
    view = toy()
    for broken, value in ((200, np.nan), (1, np.nan), (3, np.inf), (2, -np.inf)):
        logits = view.logits.copy()
        logits[:broken, 1] = value
        assert (reason(make_view(view.items, logits)) or "").startswith(f"{broken} of 200 items have non-finite logits")


def test_misaligned_labels_are_flagged() -> None:
    """Options shuffled between items and answers: coverage is as it should be, sets are large, and only the answers give it away."""
    answers, logits = planted()
    shuffled = np.random.default_rng(2).permuted(logits[:, :4], axis=1)
    view = make_view(item_set(answers, N_OPTIONS), np.hstack([shuffled, logits[:, 4:]]))
    cell = next(measure_run(view, "lac", LAC))
    assert cell.estimates["coverage"].value == pytest.approx(0.9, abs=0.01)
    assert "labels may be misaligned" in (reason(view) or "")


def test_a_model_that_always_says_f_is_flagged() -> None:
    """"None of the above" on every item is below chance, and far from the dense run."""
    answers, logits = planted()
    always = logits.copy()
    always[:, 5] = 20.0
    items = item_set(answers, N_OPTIONS)
    runs = select_runs(MemoryReader([items], [make_run(items, logits), make_run(items, always, method="rtn")]), {})
    dense, broken = sets(runs, LAC)
    assert dense["unreliable"] is None
    assert "below chance" in broken["unreliable"]
    assert 'answers "None of the above": 1.000, the dense run 0.000' in broken["unreliable"]


def test_a_set_size_of_exactly_one_is_flagged() -> None:
    """Sets of exactly one option with coverage 12 % are no result, whatever the mean says."""
    rng = np.random.default_rng(3)
    n_items = 200
    answers = rng.integers(0, 4, n_items)
    chosen = np.where(np.arange(n_items) < 24, answers, (answers + 1) % 4)
    logits = np.where(np.arange(4) == chosen[:, None], 9.0, 0.0)
    asked = replace(LAC, alphas=(Fraction(95, 100),), empty="top1", split=parse_split("seed:0"))
    cell = next(measure_run(make_view(item_set(answers), logits), "lac", asked))
    assert cell.estimates["set_size"].value == 1.0
    assert cell.estimates["coverage"].value == pytest.approx(0.12, abs=0.04)
    assert "every set holds exactly one option" in (unreliable([cell]) or "")
    assert "below chance" in (unreliable([cell]) or "")


def test_constant_logits_give_full_sets_and_are_flagged() -> None:
    """A model that says the same of everything ties everywhere: its sets are full, which is said."""
    answers, _ = planted()
    assert "every set is full" in (reason(make_view(item_set(answers, N_OPTIONS), np.zeros((N_ITEMS, N_OPTIONS)))) or "")


def test_a_split_that_is_not_exchangeable_is_flagged() -> None:
    """Calibrating on the easy items and testing on the hard ones leaves the 99.9 % band of the exact law; a drawn split does not."""
    view = toy(n_items=600)
    of_answer = view.probs[np.arange(600), view.answer]
    easy = view.items.item_id[np.argsort(-of_answer)[:300]]
    given = Split("file:easy", calibration_ids=frozenset(str(i) for i in easy))
    assert "of its exact law" in (reason(view, replace(LAC, split=given)) or "")
    for text in ("seed:1", "seed:2", "50"):
        assert reason(view, replace(LAC, split=parse_split(text))) is None
