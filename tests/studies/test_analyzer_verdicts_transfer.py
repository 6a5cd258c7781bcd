"""Thresholds that travel: against brute force over splits, against recalibration, and with intervals that cover."""

from dataclasses import replace
from fractions import Fraction
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from analyzer_data import MemoryReader, equal_items, item_set, make_run, make_view, skilled_logits

from analyzer.conformal.ranks import threshold_rank
from analyzer.conformal.splits import Split, parse_split
from analyzer.measure.cell import Cell
from analyzer.measure.measure_run import measure_run
from analyzer.measure.question import Question
from analyzer.runs.loading import select_runs
from analyzer.runs.view import RunView
from analyzer.scorers.lac import lac
from analyzer.stats.estimate import Estimate, student
from analyzer.studies.carry_threshold import carry, carry_apart, carry_to_subject
from analyzer.studies.threshold_transfer import transfer
from analyzer.studies.weighted_conformal import read_mix, weighted
from schemas.errors import RunNotFoundError, UsageError

ALPHA = Fraction(3, 10)
ASKED = Question(alphas=(ALPHA,), scorers=("lac",))


def two_views(n_items: int, seed: int = 0, skill: float = 1.5, other: float = 1.0) -> tuple[RunView, RunView]:
    rng = np.random.default_rng(seed)
    answers = rng.integers(0, 4, n_items)
    items = item_set(answers, subjects=3)
    return tuple(make_view(items, np.round(skilled_logits(rng, answers, 4, s), 1), method=m) for s, m in ((skill, "dense"), (other, "rtn")))


def cell(view: RunView, question: Question = ASKED) -> Cell:
    return next(measure_run(view, "lac", question))


def test_a_kept_threshold_equals_brute_force_over_all_splits() -> None:
    """Calibrate one run on n items, test another on the rest: the mean over all C(9, 4) splits, ties included."""
    source, target = two_views(9)
    scores = [lac(view.probs) for view in (source, target)]
    k = threshold_rank(4, ALPHA)
    coverage, size = [], []
    for chosen in combinations(range(9), 4):
        tested = [i for i in range(9) if i not in chosen]
        threshold = sorted(scores[0][i, source.answer[i]] for i in chosen)[k - 1]
        coverage.append(np.mean([scores[1][i, target.answer[i]] <= threshold for i in tested]))
        size.append(np.mean([(scores[1][i] <= threshold).sum() for i in tested]))
    found = carry(source, target, cell(target), ASKED)
    assert found["coverage"].value == pytest.approx(np.mean(coverage), abs=1e-12)
    assert found["set_size"].value == pytest.approx(np.mean(size), abs=1e-12)


def test_a_threshold_carried_to_the_same_run_is_the_runs_own() -> None:
    """Keeping a run's own threshold is recalibrating, to the last digit, influences included."""
    view, _ = two_views(300)
    found, own = carry(view, view, cell(view), ASKED), cell(view).estimates
    for name in ("coverage", "set_size"):
        assert found[name].value == own[name].value
        np.testing.assert_array_equal(found[name].influence, own[name].influence)


def test_subjects_together_are_the_whole() -> None:
    """The figures of all subjects, weighted by size, are those of the run."""
    source, target = two_views(300)
    subject = target.items.subject[target.position]
    whole = carry(source, target, cell(target), ASKED)
    parts = [carry_to_subject(source, target, subject == s, cell(target), ASKED) for s in range(3)]
    for name in ("coverage", "set_size"):
        mean = sum(part[name].value * (subject == s).mean() for s, part in enumerate(parts))
        assert mean == pytest.approx(whole[name].value, abs=1e-9)
        influence = sum(part[name].influence * (subject == s).mean() for s, part in enumerate(parts))
        assert np.std(influence) == pytest.approx(np.std(whole[name].influence), rel=0.05)


@pytest.mark.parametrize("seed", range(3))
def test_a_kept_threshold_on_a_subject_equals_brute_force_over_all_splits(seed: int) -> None:
    """Tested members covered and their options, over tested members, summed over all C(12, 6) splits: no calibrating item counts."""
    source, target = two_views(12, seed)
    chosen, k = np.arange(12) < 5, threshold_rank(6, ALPHA)
    scores = [lac(view.probs) for view in (source, target)]
    covered = options = tested = 0
    for calibration in combinations(range(12), 6):
        threshold = sorted(scores[0][i, source.answer[i]] for i in calibration)[k - 1]
        for item in set(range(5)) - set(calibration):
            tested += 1
            covered += scores[1][item, target.answer[item]] <= threshold
            options += (scores[1][item] <= threshold).sum()
    found = carry_to_subject(source, target, chosen, cell(target), ASKED)
    assert found["coverage"].value == pytest.approx(covered / tested, abs=1e-12)
    assert found["set_size"].value == pytest.approx(options / tested, abs=1e-12)


def test_a_kept_threshold_rests_on_the_items_it_is_tested_on() -> None:
    """Coverage of a subject of 4 among 300 items rests on 4, from 200 items to 8 others on 8: never on all of them."""
    source, target = two_views(300)
    few = np.arange(300) < 4
    assert carry_to_subject(source, target, few, cell(target), ASKED)["coverage"].items == 4
    assert carry_to_subject(source, target, few, cell(target), ASKED)["coverage"].interval().low < 0.6
    there, here = source.keep(np.arange(300) < 200), target.keep(np.arange(300) >= 292)
    assert carry_apart(there, here, cell(here), ASKED)["coverage"].items == 8
    assert carry_apart(here, there, cell(there), ASKED)["coverage"].items == 8


def carried(seed: int, n_items: int) -> dict[tuple[str, str], Estimate]:
    """Coverage and set size of a compressed run under its dense run's thresholds, over the same items and over others."""
    rng = np.random.default_rng(seed)
    items = equal_items(n_items)
    question = Question(alphas=(Fraction(1, 10),), scorers=("lac",))

    def pair() -> tuple[RunView, RunView]:
        logits = skilled_logits(rng, items.answer, 4)
        return make_view(items, logits), make_view(items, 0.8 * logits + 0.5 * rng.normal(size=logits.shape), method="rtn")

    dense, compressed = pair()
    other = pair()[1]
    same = carry(dense, compressed, cell(compressed, question), question)
    apart = carry_apart(dense, other, cell(other, question), question)
    return {(how, name): found[name] for how, found in (("same", same), ("apart", apart)) for name in found}


@pytest.mark.slow
def test_intervals_of_kept_thresholds_cover_properties() -> None:
    """Nominal 95 % intervals after transfer, same items and other items, cover in 93 to 97 % of 1,500 trials of 600 items.

    The truth for thresholds of so many calibration items is the mean of the estimates. Errors are right on average (within 2 %), but
    noisy where few scores lie near the threshold: with 400 items the intervals of set size cover 92.9 and 93.5 %.
    """
    found = [carried(seed, 600) for seed in range(1_500)]
    for key in found[0]:
        truth = np.mean([one[key].value for one in found])
        held = np.mean([one[key].interval().low <= truth <= one[key].interval().high for one in found])
        assert 0.93 <= held <= 0.97, (key, held)


@pytest.mark.simulation
def test_errors_of_kept_thresholds_are_those_seen_over_samples() -> None:
    """The quick form of the above: over 150 samples, the stated standard errors are within 20 % of the spread of the estimates."""
    found = [carried(seed, 250) for seed in range(150)]
    for key in found[0]:
        stated, seen = np.mean([one[key].error for one in found]), np.std([one[key].value for one in found], ddof=1)
        assert abs(stated / seen - 1) < 0.2, (key, stated, seen)


def test_transfer_finds_lost_coverage() -> None:
    """A run with flatter probs than its dense run undercovers at the dense threshold; recalibrated it covers with larger sets."""
    rng = np.random.default_rng(0)
    answers = rng.integers(0, 4, 3_000)
    items = item_set(answers)
    logits = skilled_logits(rng, answers, 4, 3.0)
    runs = [make_run(items, logits), make_run(items, 0.5 * logits, method="rtn")]
    record = transfer(select_runs(MemoryReader([items], runs), {}), Question(scorers=("lac",)))[0]
    assert record["finding"] == "undercovers" and record["coverage_high"] < 0.85
    assert record["recalibrated_coverage"] == pytest.approx(0.9, abs=0.01)
    assert record["set_size_change_high"] < 0


@pytest.mark.parametrize(("source", "count"), [("prompt", 2), ("task", 2), ("subject", 4)])
def test_every_source_lays_kept_beside_recalibrated(source: str, count: int) -> None:
    """Two prompts, two tasks, or the two subjects of two runs give one record each way."""
    rng = np.random.default_rng(0)
    answers = rng.integers(0, 4, 200)
    one, other = item_set(answers, subjects=2), item_set(answers, task="other", subjects=2)
    second = {"prompt": {"prompt": "task"}, "task": {}, "subject": {"model": "big"}}[source]
    logits = [skilled_logits(rng, answers, 4) for _ in range(2)]
    runs = [make_run(one, logits[0]), make_run(other if source == "task" else one, logits[1], **second)]
    records = transfer(select_runs(MemoryReader([one, other], runs), {}), Question(scorers=("lac",)), source)
    assert len(records) == count
    assert all(record["recalibrated_coverage"] == pytest.approx(0.9, abs=0.02) for record in records)


def test_drawn_splits_and_nothing_to_transfer_are_refused() -> None:
    """Transfer is exact over all splits, and needs two runs that differ in what is asked for."""
    view_runs = select_runs(MemoryReader([items := item_set(np.array([0, 1, 2, 3] * 10))], [make_run(items, np.zeros((40, 4)))]), {})
    with pytest.raises(UsageError, match="exact over all splits"):
        transfer(view_runs, Question(split=parse_split("seed:1")), "prompt")
    for ignored in ({"reliability": "temperature"}, {"split": Split("file:ids", calibration_ids=frozenset({"1"}))}, {"stratify": True}):
        with pytest.raises(UsageError, match=f"leave --{next(iter(ignored))}.* out"):
            transfer(view_runs, replace(Question(), **ignored), "prompt")
    with pytest.raises(RunNotFoundError, match="differ only in prompt"):
        transfer(view_runs, Question(), "prompt")


@pytest.mark.simulation
def test_weights_restore_coverage_under_another_mix_of_subjects(tmp_path: Path) -> None:
    """Items are nine tenths easy; asked nine tenths hard ones, the plain threshold undercovers and the weighted one covers."""
    rng = np.random.default_rng(0)
    answers = rng.integers(0, 4, 4_000)
    items = item_set(answers, subjects=10)
    hard = items.subject == 0
    logits = np.where(hard[:, None], skilled_logits(rng, answers, 4, 0.5), skilled_logits(rng, answers, 4, 5.0))
    runs = select_runs(MemoryReader([items], [make_run(items, logits)]), {})
    path = tmp_path / "mix.toml"
    path.write_text("[subjects]\ns0 = 9\n" + "".join(f"s{n} = {1 / 9}\n" for n in range(1, 10)))
    record = weighted(runs, Question(scorers=("lac",)), read_mix(path), 0.03)[0]
    assert record["unweighted_coverage_high"] < 0.8
    assert record["coverage_low"] < 0.9 < record["coverage_high"] + 0.01 and record["coverage"] == pytest.approx(0.9, abs=0.02)
    assert record["set_size"] > record["unweighted_set_size"]


def test_a_share_under_a_mix_stays_a_share_and_rests_on_the_weighted_items() -> None:
    """Everything covered, by items of which a tenth have nine tenths of the weight: Wilson's interval of Kish's number."""
    rng = np.random.default_rng(0)
    answers = rng.integers(0, 4, 120)
    items = item_set(answers, subjects=10)
    runs = select_runs(MemoryReader([items], [make_run(items, skilled_logits(rng, answers, 4, 9.0))]), {})
    mix = {"s0": 0.9} | {f"s{i}": 0.1 / 9 for i in range(1, 10)}
    (record,) = weighted(runs, Question(scorers=("lac",), alphas=(Fraction(1, 1000),)), mix)
    assert (record["coverage"], record["coverage_high"]) == pytest.approx((1, 1)) and record["coverage_high"] <= 1
    kish = 1 / (0.9**2 / 12 + 0.1**2 / 108)
    t = student(min(kish, 25) - 1)
    assert record["coverage_low"] == pytest.approx(kish / (kish + t**2))
    assert record["finding"] == "inconclusive"


def test_the_mix_of_the_items_changes_nothing() -> None:
    """Shares equal to those among the items give weights of one, so both thresholds are the same."""
    rng = np.random.default_rng(0)
    answers = rng.integers(0, 4, 300)
    items = item_set(answers, subjects=3)
    runs = select_runs(MemoryReader([items], [make_run(items, skilled_logits(rng, answers, 4))]), {})
    record = weighted(runs, Question(scorers=("lac",)), {"s0": 2.0, "s1": 2.0, "s2": 2.0})[0]
    assert record["coverage"] == record["unweighted_coverage"] == pytest.approx(0.9, abs=0.02)
    assert record["set_size_change"] == 0


@pytest.mark.parametrize("text", ["", "[subjects]\n", "[subjects]\ns0 = -1\n", "[subjects]\ns0 = true\n", "[subjects", "subjects = 3"])
def test_a_mix_that_cannot_be_meant_is_refused(tmp_path: Path, text: str) -> None:
    """A mix is a share of 0 or more for each subject, not all of them 0."""
    path = tmp_path / "mix.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match="mix"):
        read_mix(path)


def test_a_mix_of_unknown_subjects_is_refused() -> None:
    """The message names the subject and lists those there are."""
    runs = select_runs(MemoryReader([items := item_set(np.array([0, 1, 2, 3] * 10))], [make_run(items, np.zeros((40, 4)))]), {})
    with pytest.raises(UsageError, match="no items of subject 'law'; it has: s0"):
        weighted(runs, Question(), {"law": 1.0})
