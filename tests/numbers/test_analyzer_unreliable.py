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
from analyzer.stats.probs import log_softmax
from analyzer.studies.sets import sets
from schemas.items import Item
from schemas.itemset import build_item_set

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


@pytest.mark.simulation
@pytest.mark.parametrize("n_items", [200, 600, 2_000])
@pytest.mark.parametrize(("n_options", "skill"), [(4, 0.3), (4, 1.0), (6, 0.3), (6, 1.5)])
def test_a_weak_and_overconfident_model_is_sound(n_items: int, n_options: int, skill: float) -> None:
    """Top probs near 1 over an accuracy of 0.3 to 0.6 are bad manners and no misalignment, however few the items."""
    flagged = 0
    for seed in range(20):
        rng = np.random.default_rng([seed, n_items])
        answers = rng.integers(0, n_options, n_items)
        flagged += reason(make_view(item_set(answers, n_options), 8 * skilled_logits(rng, answers, n_options, skill))) is not None
    assert flagged == 0


@pytest.mark.parametrize("kind", ["scattered", "second half"])
def test_labels_that_are_misaligned_in_half_of_the_items_are_flagged(kind: str) -> None:
    """Half of 2,000 answers shuffled among themselves, anywhere or in one block: accuracy looks like that of a middling model."""
    rng = np.random.default_rng(5)
    answers = rng.integers(0, 4, 2_000)
    logits = skilled_logits(rng, answers, 4, 4.0)
    chosen = rng.permutation(2_000)[:1_000] if kind == "scattered" else np.arange(1_000, 2_000)
    shuffled = answers.copy()
    shuffled[chosen] = rng.permutation(answers[chosen])
    assert reason(make_view(item_set(answers), logits)) is None
    found = reason(make_view(item_set(shuffled), logits)) or ""
    assert "misaligned" in found and ("second half" in found) == (kind == "second half")


@pytest.mark.parametrize(("order", "words"), [([1, 0, 2, 3], "A as B, B as A"), ([3, 0, 1, 2], "D as A")])
def test_swapped_columns_are_flagged(order: list[int], words: str) -> None:
    """Two options exchanged, and all moved by one, of a model of accuracy 0.6; a preference for a letter that is seldom right is not."""
    rng = np.random.default_rng(6)
    answers = rng.integers(0, 4, 400)
    logits = skilled_logits(rng, answers, 4, 1.5)
    found = reason(make_view(item_set(answers), logits[:, order])) or ""
    assert words in found and "columns may be swapped" in found
    rare = rng.choice(4, 2_000, p=[0.1, 0.5, 0.2, 0.2])
    biased = skilled_logits(rng, rare, 4, 0.8) + np.array([1.0, 0, 0, 0])
    assert "swapped" not in (reason(make_view(item_set(rare), biased)) or "")


def test_rows_of_other_items_are_flagged_and_repeated_questions_are_not() -> None:
    """A block of logits written twice is found; the same question asked twice has the same logits, and values of 16 bits often agree."""
    rng = np.random.default_rng(7)
    answers = rng.integers(0, 4, 400)
    logits = skilled_logits(rng, answers, 4, 2.0)
    doubled = logits.copy()
    doubled[200:210] = doubled[100:110]
    assert "10 of 400 items have the very logits of another item" in (reason(make_view(item_set(answers), doubled)) or "")
    texts = [f"question {number % 200}" for number in range(400)]
    items = [Item(id=str(n), question=texts[n], answer="ABCD"[answers[n % 200]], choices=dict.fromkeys("ABCD", "?")) for n in range(400)]
    asked_twice = build_item_set("quiz", items, n_options=[4] * 400)
    assert reason(make_view(asked_twice, np.vstack([logits[:200], logits[:200]]))) is None
    two = rng.integers(0, 2, 2_000)
    coarse = np.round(8 * skilled_logits(rng, two, 2, 2.0)) / 8
    assert reason(make_view(item_set(two, 2), coarse)) is None


@pytest.mark.parametrize(("low", "high", "words"), [(-9, 2, "highest"), (-1, 9, "lowest"), (-0.5, 1, "lowest")])
def test_clipped_logits_are_flagged(low: float, high: float, words: str) -> None:
    """Many items at the bound of all logits; log probabilities that end at 0 are no such thing, and neither are a few."""
    rng = np.random.default_rng(8)
    answers = rng.integers(0, 4, 400)
    logits = skilled_logits(rng, answers, 4, 2.0)
    assert f"the {words} of the run: logits may be clipped" in (reason(make_view(item_set(answers), logits.clip(low, high))) or "")
    sure = log_softmax(20 * logits, np.full(400, 4)).astype(np.float32)
    assert (sure.max(axis=1) == 0).mean() > 0.1 and reason(make_view(item_set(answers), sure)) is None


def test_constant_logits_are_flagged_whatever_the_answers() -> None:
    """One vector of logits for every item, in any order of the options."""
    rng = np.random.default_rng(9)
    answers = rng.integers(0, 4, 100)
    same = np.tile([3.0, 1.0, 0.5, 0.0], (100, 1))
    for logits in (same, rng.permuted(same, axis=1)):
        assert "100 of 100 items have the same logits" in (reason(make_view(item_set(answers), logits)) or "")


@pytest.mark.parametrize(("scorer", "empty"), [("lac", "top1"), ("topk", "keep")])
def test_sets_of_one_option_by_rule_are_no_fault(scorer: str, empty: str) -> None:
    """A model of accuracy 0.97 whose empty sets get the top option has sets of one option, and so has a ranking scorer."""
    rng = np.random.default_rng(10)
    answers = rng.integers(0, 4, 500)
    view = make_view(item_set(answers), skilled_logits(rng, answers, 4, 4.5))
    asked = Question(scorers=(scorer,), empty=empty)  # type: ignore[arg-type]
    cell = next(measure_run(view, scorer, asked))
    assert cell.estimates["singleton_rate"].value == pytest.approx(1.0, abs=1e-9)
    assert unreliable([cell]) is None


def test_full_sets_of_a_chance_model_are_no_fault() -> None:
    """A model that knows nothing needs every option at alpha 0.05 under a scorer of ranks."""
    rng = np.random.default_rng(11)
    answers = rng.integers(0, 4, 400)
    cell = next(measure_run(make_view(item_set(answers), rng.normal(size=(400, 4))), "topk", replace(LAC, alphas=(Fraction(1, 20),))))
    assert cell.estimates["set_size"].value == pytest.approx(4.0) and unreliable([cell]) is None


def test_a_model_that_always_says_f_is_flagged() -> None:
    """ "None of the above" on every item is below chance, and far from the dense run."""
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
