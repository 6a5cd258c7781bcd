"""Groups under one threshold and under thresholds of their own, against brute force over splits and against plain counts."""

import math
from dataclasses import replace
from fractions import Fraction
from itertools import combinations, product

import numpy as np
import pytest
from analyzer_data import equal_items, item_set, make_view, skilled_logits, toy
from scipy.special import ndtri
from scipy.stats import binom

from analyzer.conformal.ranks import threshold_rank
from analyzer.conformal.splits import parse_split
from analyzer.measure.cell import Cell
from analyzer.measure.groups import on_members
from analyzer.measure.measure_run import measure_run
from analyzer.measure.question import Question
from analyzer.measure.temperature import fit_temperature
from analyzer.runs.view import RunView
from analyzer.scorers import RANDOM, SCORERS
from analyzer.stats.combined import average, difference
from analyzer.stats.estimate import Estimate, mean, student
from analyzer.stats.significance import paired_p
from schemas.errors import UsageError
from schemas.items import Item
from schemas.itemset import build_item_set

LAC = Question(scorers=("lac",), alphas=(Fraction(1, 4),))


def small(seed: int, n_items: int = 8, n_options: int = 3) -> RunView:
    rng = np.random.default_rng(seed)
    answers = rng.integers(0, n_options, n_items)
    logits = np.round(skilled_logits(rng, answers, n_options), 0)
    return make_view(item_set(answers, n_options, subjects=2), logits)


def by_group(view: RunView, question: Question) -> dict[str, Cell]:
    return {cell.group: cell for cell in measure_run(view, "lac", question)}


def lac_scores(view: RunView) -> tuple[np.ndarray, np.ndarray]:
    scores = 1.0 - view.probs
    return scores, scores[np.arange(view.n_items), view.answer]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("by", ["subject", "label", "size"])
def test_group_coverage_equals_brute_force_over_all_splits(seed: int, by: str) -> None:
    """Expected covered and expected tested members, over all splits, give each group's coverage."""
    view, n = small(seed), 4
    scores, of_answer = lac_scores(view)
    k = threshold_rank(n, LAC.alphas[0])
    covered: dict[str, float] = {}
    tested: dict[str, float] = {}
    for calibration in combinations(range(view.n_items), n):
        threshold = sorted(of_answer[list(calibration)])[k - 1]
        for item in set(range(view.n_items)) - set(calibration):
            size = int((scores[item] <= threshold).sum())
            group = {"subject": f"s{item % 2}", "label": "ABC"[view.answer[item]], "size": str(size)}[by]
            covered[group] = covered.get(group, 0) + (of_answer[item] <= threshold)
            tested[group] = tested.get(group, 0) + 1
    found = by_group(view, replace(LAC, by=by))
    for group, count in tested.items():
        assert found[group].estimates["coverage"].value == pytest.approx(covered[group] / count, abs=1e-12)


def test_a_group_has_the_interval_of_its_own_items() -> None:
    """Six of six right among 2,000 items: the interval is that of six items alone, and Wilson's lower end is n / (n + t^2)."""
    rng = np.random.default_rng(0)
    answers = rng.integers(0, 4, 2_000)
    logits = skilled_logits(rng, answers, 4)
    logits[:6] = 0
    logits[np.arange(6), answers[:6]] = 9
    items = [Item(id=str(i), answer="ABCD"[a], subject="rare" if i < 6 else "common") for i, a in enumerate(answers)]
    view = make_view(build_item_set("quiz", items, n_options=[4] * len(items)), logits)
    right = by_group(view, replace(LAC, by="subject"))["rare"].estimates["accuracy"]
    assert right.value == 1 and right.items == 6
    assert right.interval() == pytest.approx((6 / (6 + student(5) ** 2), 1.0))
    assert Estimate(1.0, np.zeros(2_000), share=True, items=6)._wilson(float(ndtri(0.975))).low == pytest.approx(0.610, abs=5e-4)


def test_a_mean_over_members_has_the_error_of_the_members_alone() -> None:
    """Laying the influence of seven items out over 900 changes neither the error nor the interval, of a mean, a share or a change."""
    rng = np.random.default_rng(1)
    member = np.arange(900) < 7
    for values, share in ((rng.normal(size=7), False), (np.arange(7) < 3, True), (np.ones(7), True)):
        own = mean(values, share=share)
        laid_out = on_members(own, member, None)
        assert laid_out.error == pytest.approx(own.error)
        assert laid_out.interval() == pytest.approx(own.interval())
        change, own_change = (difference(one, replace(one, value=one.value / 2)) for one in (laid_out, own))
        assert change.interval() == pytest.approx(own_change.interval())
        assert paired_p(change) == pytest.approx(paired_p(own_change), nan_ok=True)
        assert average([laid_out, laid_out]).interval() == pytest.approx(own.interval())


@pytest.mark.parametrize("asked", [replace(LAC, by="subject"), replace(LAC, mondrian="subject")], ids=["by", "mondrian"])
def test_the_interval_of_a_small_subject_holds_its_accuracy(asked: Question) -> None:
    """A subject of 20 among 600 items at true accuracy 0.95: the intervals of all counts that may come hold it with 93 % or more."""
    items, held = equal_items(600, subjects=30), 0.0
    of_subject = np.flatnonzero(np.arange(600) % 30 == 0)
    for right in range(14, 21):
        logits = np.random.default_rng(right).normal(size=(600, 4))
        wrong = (np.arange(20) >= right).astype(int)
        logits[of_subject, (items.answer[of_subject] + wrong) % 4] += 9
        low, high = by_group(make_view(items, logits), asked)["s0"].estimates["accuracy"].interval()
        held += (low <= 0.95 <= high) * float(binom.pmf(right, 20, 0.95))
    assert held >= 0.93


def naive_threshold(of_answer: np.ndarray) -> float:
    k = threshold_rank(of_answer.size, LAC.alphas[0])
    return float(np.sort(of_answer)[k - 1]) if k <= of_answer.size else np.inf


@pytest.mark.parametrize("mondrian", ["subject", "label"])
def test_mondrian_sets_equal_brute_force_over_all_stratified_splits(mondrian: str) -> None:
    """Every group split in every way: own thresholds, mean coverage and set size per group and together."""
    view = small(5, n_items=9, n_options=2)
    scores, of_answer = lac_scores(view)
    labels = view.answer if mondrian == "label" else np.arange(9) % 2
    members = [np.flatnonzero(labels == g) for g in (0, 1)]
    sums = {g: [0.0, 0.0, 0] for g in (0, 1)}
    for chosen in product(*(combinations(m, int(len(m) / 2)) for m in members)):
        thresholds = [naive_threshold(of_answer[list(c)]) for c in chosen]
        for g, (m, c) in enumerate(zip(members, chosen, strict=True)):
            for item in set(m) - set(c):
                judged_by = thresholds if mondrian == "label" else [thresholds[g]] * 2
                sums[g][0] += of_answer[item] <= thresholds[g]
                sums[g][1] += sum(scores[item, j] <= judged_by[j] for j in (0, 1))
                sums[g][2] += 1
    found = by_group(view, replace(LAC, mondrian=mondrian))
    names = "AB" if mondrian == "label" else ("s0", "s1")
    for g, (covered, size, tested) in sums.items():
        assert found[names[g]].estimates["coverage"].value == pytest.approx(covered / tested, abs=1e-12)
        assert found[names[g]].estimates["set_size"].value == pytest.approx(size / tested, abs=1e-12)
    weight = np.array([len(m) - int(len(m) / 2) for m in members], float)
    together = np.average([found[name].estimates["set_size"].value for name in names], weights=weight)
    assert found["all"].estimates["set_size"].value == pytest.approx(together)


def test_a_group_too_small_for_alpha_says_so() -> None:
    """A subject of three items cannot carry alpha 0.01: its sets are full, and the total names it."""
    rng = np.random.default_rng(0)
    answers = rng.integers(0, 4, 300)
    view = make_view(item_set(answers, subjects=3), skilled_logits(rng, answers, 4))
    found = by_group(view, replace(LAC, mondrian="subject", alphas=(Fraction(1, 100),)))
    assert found["s0"].note == "50 calibration items are too few for alpha 0.01: every set is full"
    assert "groups too small for alpha 0.01" in (found["all"].note or "")


def test_drawn_splits_agree_with_the_exact_group_figures() -> None:
    """Coverage of each subject over 2,000 drawn splits is that of the exact law, within 0.01."""
    view = toy(n_items=200)
    exact, drawn = (by_group(view, replace(LAC, by="label", split=parse_split(text))) for text in ("all", "2000"))
    for group in "ABCD":
        assert abs(exact[group].estimates["coverage"].value - drawn[group].estimates["coverage"].value) < 0.01


@pytest.mark.simulation
def test_group_errors_are_those_seen_over_samples() -> None:
    """Over 120 samples the stated errors of group coverage and of set size under thresholds per label match their spread within 25 %."""
    rng = np.random.default_rng(4)
    questions = {"by": replace(LAC, by="label"), "mondrian": replace(LAC, mondrian="label")}
    found: dict[str, list[Estimate]] = {name: [] for name in questions}
    for _ in range(120):
        answers = rng.integers(0, 3, 240)
        view = make_view(item_set(answers, 3), skilled_logits(rng, answers, 3))
        found["by"].append(by_group(view, questions["by"])["A"].estimates["coverage"])
        found["mondrian"].append(by_group(view, questions["mondrian"])["all"].estimates["set_size"])
    for name, estimates in found.items():
        seen = np.std([e.value for e in estimates], ddof=1)
        assert abs(np.mean([e.error for e in estimates]) / seen - 1) < 0.25, name


def test_temperature_is_fitted_on_calibration_items_alone() -> None:
    """A model that is three times too sure gets temperature 3, and test items do not move it."""
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(20_000, 4)) * 1.5
    answers = np.array([rng.choice(4, p=p) for p in np.exp(logits) / np.exp(logits).sum(1, keepdims=True)])
    view = make_view(item_set(answers), 3 * logits)
    half = np.arange(20_000) < 10_000
    fitted = fit_temperature(view, half)
    assert fitted == pytest.approx(3, rel=0.05)
    spoiled = 3 * logits
    spoiled[~half] = rng.normal(size=(10_000, 4))
    assert fit_temperature(make_view(view.items, spoiled), half) == fitted


def test_temperature_keeps_coverage_and_is_recorded() -> None:
    """Sets after temperature scaling cover 1 - alpha over drawn splits; the exact law, which has no one calibration set, refuses it."""
    view = toy(n_items=300)
    (cell,) = measure_run(view, "aps", replace(LAC, reliability="temperature", split=parse_split("10")))
    assert cell.estimates["coverage"].value == pytest.approx(0.75, abs=0.05)
    assert float(cell.facts["temperature"]) > 0
    with pytest.raises(UsageError, match="draw some with --split N"):
        list(measure_run(view, "lac", replace(LAC, reliability="temperature")))


@pytest.mark.parametrize("n_options", [2, 5, 26])
def test_conclusions_do_not_depend_on_the_order_of_items_or_options_properties(n_options: int) -> None:
    """Permuting items, or options together with answers, changes no figure (no ties here)."""
    rng = np.random.default_rng(n_options)
    answers = rng.integers(0, n_options, 120)
    logits = skilled_logits(rng, answers, n_options)
    options, items = rng.permutation(n_options), rng.permutation(120)
    views = [
        make_view(item_set(answers, n_options), logits),
        make_view(item_set(np.argsort(options)[answers], n_options), logits[:, options]),
        make_view(item_set(answers[items], n_options), logits[items]),
    ]
    for scorer in SCORERS.keys() - RANDOM:  # whose draws depend on an item's content, and so on the order of its options
        sizes = [next(measure_run(view, scorer, LAC)).estimates["set_size"].value for view in views]
        np.testing.assert_allclose(sizes, sizes[0], rtol=0, atol=1e-9)


@pytest.mark.parametrize("scorer", SCORERS)
def test_a_smaller_alpha_never_gives_smaller_sets_properties(scorer: str) -> None:
    """Set size and coverage fall along rising alpha, for every scorer."""
    alphas = tuple(Fraction(i, 50) for i in range(1, 50))
    found = list(measure_run(toy(n_items=150), scorer, replace(LAC, alphas=alphas)))
    for name in ("set_size", "coverage"):
        assert (np.diff([cell.estimates[name].value for cell in found]) <= 1e-12).all()


@pytest.mark.parametrize("mondrian", ["subject", "label"])
def test_the_cell_over_all_groups_says_nothing_of_one_groups_threshold(mondrian: str) -> None:
    """Ties at a threshold and quantiles of coverage under it are those of one group, so the whole has none; parameters hold everywhere."""
    question = replace(LAC, scorers=("raps",), mondrian=mondrian, quantiles=True, parameters={"raps": {"penalty": 0.3}})
    whole, *parts = measure_run(toy(n_items=150), "raps", question)
    assert math.isnan(float(whole.facts["threshold_ties"])) and "coverage_p50" not in whole.facts
    assert {cell.facts["parameters"] for cell in (whole, *parts)} == {"penalty=0.3 k_reg=2"}


def test_ties_at_the_threshold_are_a_mean_over_fitted_temperatures() -> None:
    """With a temperature per split, the share of tied scores is that of all splits, not of the first."""
    view = small(1, n_items=60, n_options=6)
    question = replace(LAC, reliability="temperature", split=parse_split("6"))
    (together,) = measure_run(view, "lac", question)
    alone = [next(measure_run(view, "lac", replace(question, split=parse_split(f"seed:{seed}")))) for seed in range(6)]
    ties = [float(cell.facts["threshold_ties"]) for cell in alone]
    assert len(set(ties)) > 1
    assert together.facts["threshold_ties"] == pytest.approx(np.mean(ties), abs=1e-15)
