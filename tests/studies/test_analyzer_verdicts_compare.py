"""What compare says of a pair of runs: hand-worked flips and divergences, tests against other libraries, refusals."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from analyzer_data import MemoryReader, equal_items, item_set, make_run, skilled_logits

from analyzer.compare.compare import compare
from analyzer.compare.paired import item_changes
from analyzer.compare.two_axis_verdict import (
    BOTH_DEGRADE,
    BOTH_HOLD,
    FALLS_SILENT,
    HOLDS_GROW,
    INCONCLUSIVE,
    Tolerances,
    borne_out,
    verdict,
)
from analyzer.measure.question import Question
from analyzer.runs.loading import Runs, select_runs
from analyzer.runs.pairs import Pair, Partners, pair_views
from analyzer.runs.view import view_run
from analyzer.stats.combined import difference
from analyzer.stats.estimate import Estimate, mean
from analyzer.stats.significance import detectable, holm, interval_p, mcnemar, paired_p
from analyzer.studies.sensitivity import sensitivity
from analyzer.studies.sets import sets
from schemas.errors import ComparisonError, RunNotFoundError, UsageError
from schemas.items import Item
from schemas.itemset import build_item_set
from schemas.run import Run


def reader_of(*methods: tuple[str, float], n_items: int = 400, **key: str) -> MemoryReader:
    rng = np.random.default_rng(3)
    answers = rng.integers(0, 4, n_items)
    items = item_set(answers)
    logits = skilled_logits(rng, answers, 4)
    noise = rng.normal(size=logits.shape)
    return MemoryReader([items], [make_run(items, logits + strength * noise, method=name, **key) for name, strength in methods])


def everything(reader: MemoryReader) -> Runs:
    return select_runs(reader, {})


def logit(*probs: float) -> np.ndarray:
    return np.log(np.array(probs))


def hand_pair() -> Pair:
    """Four items of two options, answers A A B B; the second run changes items 0 (to wrong) and 2 (to right)."""
    items = item_set(np.array([0, 0, 1, 1]), 2)
    dense = make_run(items, np.array([logit(0.9, 0.1), logit(0.6, 0.4), logit(0.7, 0.3), logit(0.2, 0.8)]))
    compressed = make_run(items, np.array([logit(0.4, 0.6), logit(0.6, 0.4), logit(0.1, 0.9), logit(0.2, 0.8)]), method="rtn")
    return pair_views(*(view_run(run, items, {"name": run.key.name}, "S") for run in (dense, compressed)))


def test_flips_and_divergences_equal_hand_worked_values_golden() -> None:
    """One flip each way of four items; KL both ways and Jensen-Shannon by the formula written out."""
    found = item_changes(hand_pair())
    expected = {"flips": 0.5, "flips_to_wrong": 0.25, "flips_to_right": 0.25, "answers_changed": 0.5}
    assert {name: found[name].value for name in expected} == expected
    kl = 0.9 * math.log(0.9 / 0.4) + 0.1 * math.log(0.1 / 0.6), 0.7 * math.log(0.7 / 0.1) + 0.3 * math.log(0.3 / 0.9)
    assert found["kl"].value == pytest.approx(sum(kl) / 4, rel=1e-6)
    reverse = 0.4 * math.log(0.4 / 0.9) + 0.6 * math.log(0.6 / 0.1), 0.1 * math.log(0.1 / 0.7) + 0.9 * math.log(0.9 / 0.3)
    assert found["kl_reverse"].value == pytest.approx(sum(reverse) / 4, rel=1e-6)
    to_middle = [(0.9, 0.65), (0.1, 0.35), (0.4, 0.65), (0.6, 0.35), (0.7, 0.4), (0.3, 0.6), (0.1, 0.4), (0.9, 0.6)]
    assert found["js"].value == pytest.approx(sum(p * math.log(p / m) for p, m in to_middle) / 2 / 4, rel=1e-6)
    assert math.isnan(found["option_mass_change"].value)


def test_a_wrong_answer_that_becomes_another_wrong_one_is_a_change_but_no_flip() -> None:
    """All flips count any change of answer; flips only those across right and wrong."""
    items = item_set(np.array([0]), 3)
    runs = [make_run(items, logit(0.2, 0.5, 0.3)[None]), make_run(items, logit(0.2, 0.3, 0.5)[None], method="rtn")]
    found = item_changes(pair_views(*(view_run(run, items, {"name": run.key.name}, "S") for run in runs)))
    assert (found["flips"].value, found["answers_changed"].value) == (0.0, 1.0)


def test_option_mass_changes_where_both_runs_recorded_it() -> None:
    """Options that keep their logits while the vocabulary's log-sum-exp grows by log 2 lose half their mass."""
    items = item_set(np.array([0, 1]), 2)
    run = make_run(items, np.zeros((2, 2)))
    runs = [Run(run.key, run.logits, np.full(2, np.log(scale), np.float32), run.top_token) for scale in (2.0, 4.0)]
    pair = pair_views(*(view_run(one, items, {"name": "r"}, "S") for one in runs))
    assert item_changes(pair)["option_mass_change"].value == pytest.approx(-0.5, abs=1e-6)


def test_tests_agree_with_scipy_and_statsmodels() -> None:
    """McNemar equals statsmodels' exact form, the paired t interval and p-value scipy's, Holm statsmodels' correction."""
    stats = pytest.importorskip("scipy.stats")
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    multiple = pytest.importorskip("statsmodels.stats.multitest")
    for to_wrong, to_right in [(0, 0), (3, 0), (17, 9), (60, 41), (5, 5)]:
        expected = tables.mcnemar([[50, to_wrong], [to_right, 20]], exact=True).pvalue if to_wrong + to_right else 1.0
        assert mcnemar(to_wrong, to_right) == pytest.approx(expected, rel=1e-9)
    rng = np.random.default_rng(0)
    before, after = rng.normal(size=(2, 300))
    change = Estimate(float((after - before).mean()), after - before - (after - before).mean())
    test = stats.ttest_rel(after, before)
    assert paired_p(change) == pytest.approx(test.pvalue, rel=1e-9)
    assert change.interval() == pytest.approx(test.confidence_interval(0.95), rel=1e-9)
    p_values = {"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.9}
    expected = multiple.multipletests(list(p_values.values()), method="holm")[1]
    assert [holm(p_values)[key] for key in p_values] == pytest.approx(list(expected))


def test_no_flip_among_few_items_does_not_prove_that_accuracy_held() -> None:
    """Two runs that agree on all of 50 items leave room for a change of 2 points, on all of 5,000 not."""
    for n_items, expected in ((50, INCONCLUSIVE), (5_000, BOTH_HOLD)):
        same = mean(np.arange(n_items) % 2, share=True)
        change = difference(same, same)
        assert verdict(change, change, Tolerances()) == expected


@pytest.mark.parametrize(
    ("accuracy", "set_size", "expected"),
    [
        (0.0, 0.0, BOTH_HOLD),
        (0.1, -0.5, BOTH_HOLD),
        (0.0, 0.3, HOLDS_GROW),
        (-0.1, 0.0, FALLS_SILENT),
        (-0.1, 0.3, BOTH_DEGRADE),
        (-0.021, 0.3, INCONCLUSIVE),
        (-0.1, 0.11, INCONCLUSIVE),
        (math.nan, 0.0, INCONCLUSIVE),
    ],
)
def test_verdict_follows_from_both_intervals(accuracy: float, set_size: float, expected: str) -> None:
    """Each axis counts as degraded or held only where its whole interval lies on that side of the tolerance."""
    noise = np.resize([0.2, -0.2], 2_000)
    assert verdict(Estimate(accuracy, noise), Estimate(set_size, 5 * noise), Tolerances()) == expected


def test_a_difference_below_the_detectable_one_is_inconclusive_even_without_tolerance() -> None:
    """With tolerance 0, a change of 2.2 standard errors excludes zero but is no finding; one of 3 is."""
    noise = np.resize([1.0, -1.0], 10_000)
    for errors, expected in ((2.2, INCONCLUSIVE), (3.0, HOLDS_GROW)):
        change = Estimate(errors * 0.01, noise)
        assert detectable(change) == pytest.approx(0.028, abs=2e-4)
        assert verdict(Estimate(0.5, noise), change, Tolerances(0.0, 0.0)) == expected


def test_a_negative_tolerance_is_refused() -> None:
    """A tolerance below zero or NaN cannot be meant."""
    for value in (-0.1, math.nan):
        with pytest.raises(UsageError, match="tolerance of set size"):
            Tolerances(0.0, value)


def test_compare_corrects_both_axes_over_the_table() -> None:
    """Accuracy is one test per pair, set size one per pair, scorer and alpha, and all are one family; a dense run has no test at all."""
    records = compare(everything(reader_of(("dense", 0.0), ("rtn", 0.5), ("wanda", 1.0))), Question())
    dense = next(record for record in records if record["method"] == "dense")
    assert dense["verdict"] is None and dense["accuracy_p_holm"] is None and dense["compared_with"] is None
    rest = [record for record in records if record["compared_with"]]
    p_values = {("accuracy", record["run"]): record["accuracy_p"] for record in rest}
    p_values |= {("size", record["run"], record["scorer"]): record["set_size_p"] for record in rest}
    assert len(p_values) == 2 + 4
    expected = holm(p_values)
    for record in rest:
        assert record["accuracy_p_holm"] == expected["accuracy", record["run"]]
        assert record["set_size_p_holm"] == expected["size", record["run"], record["scorer"]]


@pytest.mark.parametrize(
    ("found", "accuracy_p", "set_size_p", "expected"),
    [
        ("both degrade", 0.01, 0.05, "both degrade"),
        ("both degrade", 0.01, 0.06, "inconclusive"),
        ("accuracy holds, sets grow", 0.9, 0.01, "accuracy holds, sets grow"),
        ("accuracy holds, sets grow", 0.01, 0.2, "inconclusive"),
        ("accuracy falls, sets do not warn", None, 0.01, "inconclusive"),
        ("both hold", 1.0, None, "both hold"),
        ("inconclusive", 0.01, 0.01, "inconclusive"),
    ],
)
def test_a_verdict_claims_no_change_that_the_corrected_tests_do_not_bear_out(
    found: str, accuracy_p: float | None, set_size_p: float | None, expected: str
) -> None:
    """An axis that is said to be beyond its tolerance has a corrected p-value of 0.05 or less; one that holds needs none."""
    assert borne_out(found, accuracy_p, set_size_p) == expected


@pytest.mark.slow
@pytest.mark.parametrize(("scorer", "alpha", "n_items"), [("lac", "1/100", 200), ("aps", "1/20", 200), ("aps", "1/20", 800)])
def test_tables_without_a_true_change_rarely_find_one(scorer: str, alpha: str, n_items: int) -> None:
    """Six runs that differ from the dense one by as much noise as it has: at most 5 % of 200 tables find a change, two errors more."""
    rng, items = np.random.default_rng(5), equal_items(n_items)
    false = 0
    for _ in range(200):
        base = rng.normal(size=(n_items, 4))
        base[np.arange(n_items), items.answer] += rng.gamma(2.0, 0.8, n_items)
        runs = [make_run(items, base + 0.3 * rng.normal(size=base.shape))]
        runs += [make_run(items, base + 0.3 * rng.normal(size=base.shape), method="rtn", level=f"w{bits}a16") for bits in range(3, 9)]
        records = compare(select_runs(MemoryReader([items], runs), {}), Question(scorers=(scorer,), alphas=(Fraction(alpha),)))
        found = [record[f"{name}_p_holm"] for record in records for name in ("accuracy", "set_size") if record["compared_with"]]
        false += min(p for p in found if p is not None) <= 0.05
    assert false / 200 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 200), false


def test_the_level_at_which_an_interval_begins_to_hold_zero() -> None:
    """Of a normal change it is the p-value of Student's t within 1 %; of one that holds 0 at every level it is 1."""
    noise = np.tile([1.0, -1.0], 200)
    for value in (0.02, 0.1, 0.2):
        assert interval_p(Estimate(value, noise)) == pytest.approx(paired_p(Estimate(value, noise)), rel=0.011)
    assert interval_p(Estimate(0.0, noise)) == 1.0 and interval_p(Estimate(5.0, noise)) == 1e-6


def test_average_gives_one_verdict_per_method_and_task() -> None:
    """The mean over scorers is the mean of the records, with an interval that keeps the pairing."""
    runs = everything(reader_of(("dense", 0.0), ("rtn", 0.5)))
    single = [record for record in compare(runs, Question()) if record["method"] == "rtn"]
    (mean_record,) = [record for record in compare(runs, Question(), average=True) if record["method"] == "rtn"]
    assert mean_record["scorer"] == "lac+aps"
    assert mean_record["set_size_change"] == pytest.approx(np.mean([record["set_size_change"] for record in single]))
    assert mean_record["verdict"] is not None


@pytest.mark.parametrize(
    ("key", "together"),
    [({"prompt": "shared"}, True), ({"prompt": "base-chat"}, False), ({"seed": 1}, False), ({"weights_hash": "f" * 64}, False)],
)
def test_an_average_is_over_wordings_only(key: dict[str, Any], together: bool) -> None:
    """Runs of another wording are averaged; those in a chat template, of another seed or of other weights under one name are not."""
    rng = np.random.default_rng(0)
    items = item_set(rng.integers(0, 4, 50), 4)
    kinds = [{"method": method} | more for more in ({}, key) for method in ("dense", "rtn")]
    source = select_runs(MemoryReader([items], [make_run(items, skilled_logits(rng, items.answer, 4), **kind) for kind in kinds]), {})
    assert len(sets(source, Question(scorers=("lac",)), average=True)) == (2 if together else 4)
    if "weights_hash" in key:
        return  # a store's models of one name are told apart before they are compared; a reader in memory refuses them
    compared = [record for record in compare(source, Question(scorers=("lac",)), average=True) if record["compared_with"]]
    assert len(compared) == (1 if together else 2)


@pytest.mark.parametrize("key", [{"method_settings": {"smoothing": 0.5}}, {"compression_data_hash": "f" * 64}])
def test_models_made_with_other_settings_are_not_averaged(key: dict[str, Any]) -> None:
    """Of one method and level, but of other settings or compression data, a run is another model: each has its own figures."""
    rng = np.random.default_rng(0)
    items = item_set(rng.integers(0, 4, 50), 4)
    kinds: list[dict[str, Any]] = [{"method": "dense"}, {"method": "rtn"}, {"method": "rtn"} | key]
    made = [make_run(items, skilled_logits(rng, items.answer, 4), **kind) for kind in kinds]
    source = select_runs(MemoryReader([items], made), {})
    assert len(sets(source, Question(scorers=("lac",)), average=True)) == 3
    compared = [record for record in compare(source, Question(scorers=("lac",)), average=True) if record["compared_with"]]
    assert sorted(record["run"] for record in compared) == sorted(run.key.name for run in made[1:])
    rows = [row for row in sensitivity(source, Question(scorers=("lac",))) if row["varied"] == "split"]
    assert sorted(row["run"] for row in rows) == sorted(run.key.name for run in made[1:])


def test_an_unreliable_dense_run_marks_what_is_compared_with_it() -> None:
    """A dense run with NaN logits flags every record that rests on it."""
    reader = reader_of(("dense", 0.0), ("rtn", 0.5))
    reader.run("toy~dense~quiz~base." + next(n for n in reader._runs if "dense" in n).rsplit(".", 1)[1]).logits[3] = np.nan
    rtn = next(record for record in compare(everything(reader), Question()) if record["method"] == "rtn")
    assert "compared with an unreliable run: 1 of 400 items have non-finite logits" in rtn["unreliable"]
    assert rtn["n_items"] == 399


def questions(count: int, *, swapped: int = 0, offset: int = 0) -> list[Item]:
    """Items with text; the first `swapped` have their two options in the other order."""
    texts = [("yes", "no") if number >= swapped else ("no", "yes") for number in range(count)]
    return [
        Item(id=str(n + offset), question=f"q{n + offset}", choices={"A": a, "B": b}, answer="A" if a == "yes" else "B")
        for n, (a, b) in enumerate(texts)
    ]


def test_runs_of_different_items_are_refused_and_compared_on_request() -> None:
    """The error counts shared and differing questions; --common-items takes the equal ones, each with its own logits."""
    first = build_item_set("quiz", questions(40))
    second = build_item_set("quiz", questions(35, swapped=5)[::-1] + questions(3, offset=900))
    rng = np.random.default_rng(0)
    by_id = {int(i): row for i, row in zip(first.item_id, rng.normal(size=(40, 2)), strict=True)}
    dense = make_run(first, np.array([by_id[int(i)] for i in first.item_id]))
    rtn = make_run(second, np.array([by_id.get(int(i), np.zeros(2)) for i in second.item_id]), method="rtn")
    runs = everything(MemoryReader([first, second], [dense, rtn]))
    with pytest.raises(ComparisonError, match=r"share 35 questions, 5 of them with other options.*--common-items compares on the 30"):
        compare(runs, Question())
    record = compare(runs, Question(), partners=Partners(runs.rows, common_items=True))[-1]
    assert (record["method"], record["n_items"], record["kl"], record["flips"]) == ("rtn", 30, pytest.approx(0, abs=1e-9), 0.0)


@pytest.mark.parametrize(
    ("field", "values", "words"),
    [
        ("prompt_hash", ("aa", "bb"), "wording of the prompt"),
        ("option_tokens", (("A",), (" A",)), "option tokens"),
        ("revision", ("1", "2"), "revision of the weights"),
    ],
)
def test_runs_asked_differently_are_refused(field: str, values: tuple[object, object], words: str) -> None:
    """A pair whose keys disagree in what was asked is an error that says in what."""
    items = item_set(np.array([0, 1, 2, 3] * 10))
    logits = np.random.default_rng(0).normal(size=(40, 4))
    keys = [{field: value} for value in values]
    runs = everything(MemoryReader([items], [make_run(items, logits, **keys[0]), make_run(items, logits, method="rtn", **keys[1])]))
    with pytest.raises(ComparisonError, match=words):
        compare(runs, Question())


def test_another_model_can_be_the_partner() -> None:
    """With `against`, every run of every model is compared with that model's dense run, which itself has no partner."""
    items = item_set(np.array([0, 1, 2, 3] * 25))
    logits = np.random.default_rng(0).normal(size=(2, 100, 4))
    runs = everything(MemoryReader([items], [make_run(items, one, model=name) for name, one in zip("ab", logits, strict=True)]))
    a, b = compare(runs, Question(scorers=("lac",)), partners=Partners(runs.rows, "b"))
    assert a["compared_with"] == b["run"] and b["compared_with"] is None
    with pytest.raises(RunNotFoundError, match="model 'c'"):
        compare(runs, Question(), partners=Partners(runs.rows, "c"))


def test_repeated_questions_of_two_draws_are_paired_with_each_other() -> None:
    """Ids number a repeated question in the order of the draw; 40 items, 10 of them twice, are all in a larger draw in another order."""
    items = [Item(id=str(n), question=f"question {n % 30}", choices={"A": "yes", "B": "no"}, answer="AB"[n % 2]) for n in range(60)]
    few, more = build_item_set("quiz", items[:40], n_options=[2] * 40), build_item_set("quiz", items[::-1], n_options=[2] * 60)
    question = np.array([[n % 30, n % 2] for n in range(60)], np.float64)
    runs = [make_run(few, question[:40]), make_run(more, question[::-1], method="rtn", level="w4a16")]
    views = [view_run(run, of, {"name": run.key.name}, "S") for run, of in zip(runs, (few, more), strict=True)]
    pair = pair_views(*views, common_items=True)
    assert len(pair.dense.logits) == 40 and np.array_equal(pair.dense.logits, pair.compressed.logits)
    assert np.array_equal(pair.dense.answer, pair.compressed.answer)
