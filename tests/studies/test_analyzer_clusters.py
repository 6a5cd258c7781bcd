"""`--cluster`: dependent items count as one unit in every interval, test and verdict; point estimates do not change."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import xarray as xr
from analyzer_data import MemoryReader, make_run, make_view, skilled_logits

from analyzer.api import compare, cost, example_runs, gate, guarantee, scale, sets, transfer, view_of, weighted
from analyzer.compare.compare import compare as run_compare
from analyzer.measure.measure_run import measure_run
from analyzer.measure.question import Question
from analyzer.measure.records import on_whole_set
from analyzer.protocols.ask import ask
from analyzer.runs.clustering import cluster_numbers, parse_clustering
from analyzer.runs.loading import select_runs
from analyzer.stats.clusters import clusters_of
from analyzer.stats.combined import difference
from analyzer.stats.estimate import mean
from analyzer.studies.cost import Prices
from analyzer.studies.sets import sets as run_sets
from schemas.errors import UsageError
from schemas.items import Item
from schemas.itemset import ItemSet, build_item_set

PER_PASSAGE = 10


def passages(rng: np.random.Generator, n_passages: int, per_passage: int = PER_PASSAGE) -> tuple[xr.Dataset, np.ndarray]:
    """A run whose items share half of what makes them hard with the other items of their passage."""
    code = np.repeat(np.arange(n_passages), per_passage)
    ease = np.sqrt(0.5) * (rng.normal(size=n_passages)[code] + rng.normal(size=code.size))
    answer = rng.integers(0, 4, code.size)
    logits = rng.normal(size=(code.size, 4))
    logits[np.arange(code.size), answer] += 1.2 + 2.5 * ease
    return xr.Dataset({"logits": (("item", "option"), logits.astype(np.float32)), "answer": ("item", answer)}), code


@pytest.mark.simulation
def test_intervals_of_clustered_items_hold_the_truth() -> None:
    """Ten questions a passage: intervals that take items as independent hold accuracy and set size in about 70 %, these in about 95 %."""
    rng, rounds = np.random.default_rng(3), 60
    found: dict[tuple[str, bool], list[tuple[float, float, float]]] = {}
    for _ in range(rounds):
        data, code = passages(rng, 100)
        view = view_of(data)
        for clustered in (True, False):
            cell = next(measure_run(replace(view, grouping=code if clustered else None), "lac", Question()))
            for name in ("accuracy", "set_size"):
                one = cell.estimates[name]
                found.setdefault((name, clustered), []).append((one.value, *one.interval()))
    for name in ("accuracy", "set_size"):
        values, low, high = np.array(found[name, True]).T
        truth = values.mean()
        assert np.mean((low <= truth) & (truth <= high)) > 0.88
        assert np.array_equal(values, np.array(found[name, False])[:, 0])
        _, low, high = np.array(found[name, False]).T
        assert np.mean((low <= truth) & (truth <= high)) < 0.85


def test_items_that_are_each_their_own_cluster_give_the_same_numbers() -> None:
    """One cluster per item is the same table as without clusters, in every number of every command."""
    runs = example_runs()
    apart = {str(one): f"c{one}" for one in range(200)}
    for command in (sets, compare):
        assert command(runs, cluster=apart).drop("cluster").equals(command(runs).drop("cluster"))
    limits = {"accuracy_loss": 0.02, "set_size_growth": 0.1}
    assert gate(runs, limits, cluster=apart).drop("cluster").equals(gate(runs, limits).drop("cluster"))


def test_every_table_says_clusters_and_design_effect() -> None:
    """Transfer, cost, scale, guarantee and a mix of subjects say into how many units the items fall, like sets and compare."""
    runs, pairs = example_runs(), {str(one): f"c{one // 4}" for one in range(200)}
    found = [sets(runs, cluster=pairs), compare(runs, cluster=pairs), transfer(runs, cluster=pairs), scale(runs, cluster=pairs)]
    found += [cost(runs, Prices(review=1.0), cluster=pairs), weighted(runs, {"law": 1.0}, cluster=pairs)]
    for table in found:
        assert table["n_clusters"].min() < table["n_items"].max() and table["design_effect"].null_count() == 0
        assert table["n_clusters"].to_list() == [50] * len(table)
    assert guarantee(runs)["n_clusters"].to_list() == guarantee(runs)["n_items"].to_list()


def test_one_cluster_has_no_interval_and_passes_no_gate() -> None:
    """All items in one cluster: the figures stand alone, nothing is tested, and the gate says why it cannot decide."""
    runs, one = example_runs(), dict.fromkeys(map(str, range(200)), "all")
    table = compare(runs, cluster=one, scorers="lac")
    assert table["n_clusters"].unique().to_list() == [1]
    for name in ("accuracy_low", "set_size_low", "accuracy_change_low", "set_size_change_low", "kl_low", "accuracy_p", "set_size_p"):
        assert table[name].null_count() == len(table)
    checks = gate(runs, {"accuracy_loss": 0.5, "flips": 0.9}, cluster=one).filter(pl.col("limit").is_not_null())
    assert set(checks["result"]) == {"inconclusive"} and "rests on 1 cluster" in checks["reason"][0]


def test_clustered_changes_widen_and_are_tested_by_whole_clusters() -> None:
    """Ten copies of every item: the interval of the single items, not one that is narrower by the root of ten."""
    rng = np.random.default_rng(4)
    before, after = rng.random(80) < 0.7, rng.random(80) < 0.6
    code = np.repeat(np.arange(80), 10)
    clusters = clusters_of(code, 80)
    single = difference(mean(after, share=True), mean(before, share=True))
    copied = difference(mean(np.repeat(after, 10), clusters, share=True), mean(np.repeat(before, 10), clusters, share=True))
    assert copied.error == pytest.approx(single.error) and copied.interval() == pytest.approx(single.interval())
    assert copied.units == pytest.approx(80) and mean(np.repeat(after, 10), clusters, share=True).interval() == pytest.approx(
        mean(after, share=True).interval()
    )


def test_unequal_clusters_count_as_fewer() -> None:
    """A cluster with half of the items weighs as much as all others: four equal clusters would tell as much."""
    code = np.concatenate([np.zeros(500, dtype=int), np.arange(1, 501)])
    assert clusters_of(code, 501).units == pytest.approx(4, rel=0.01)


def test_estimates_with_different_clusters_cannot_be_combined() -> None:
    """The clusters of one run must be those of its partner."""
    values = np.arange(4.0)
    with pytest.raises(ValueError, match="different clusters"):
        difference(mean(values, clusters_of(np.array([0, 0, 1, 1]), 2)), mean(values, clusters_of(np.array([0, 1, 1, 1]), 2)))
    with pytest.raises(ValueError, match="different clusters"):
        difference(mean(values, clusters_of(np.array([0, 0, 1, 1]), 2)), mean(values))


def repeated(n_items: int = 60) -> ItemSet:
    """Questions of which the fourth is asked twice."""
    each = [Item(id=f"{i:04}", question=f"q{i}", choices=dict.fromkeys("ABCD", f"x{i}"), answer="ABCD"[i % 4]) for i in range(n_items)]
    each[7] = each[3].model_copy(update={"id": "0007"})
    return build_item_set("t", each)


@pytest.mark.parametrize("lost", [7, 3, 20])
@pytest.mark.parametrize("first", [True, False])
def test_a_mean_over_prompts_has_clusters_where_one_lost_the_repeated_question(lost: int, first: bool) -> None:
    """A NaN in the one item that repeats another: that prompt's items are independent, the other's are not, and both are averaged."""
    stored, rng = repeated(), np.random.default_rng(0)
    runs = []
    for prompt, broken in (("base", first), ("shared", not first)):
        dense = skilled_logits(rng, stored.answer, 4)
        compressed = dense + rng.normal(size=dense.shape)
        if broken:
            compressed[lost] = np.nan
        runs += [make_run(stored, dense, prompt=prompt), make_run(stored, compressed, prompt=prompt, method="rtn", level="w4a16-g32")]
    for record in run_compare(select_runs(MemoryReader([stored], runs), {}), Question(), average=True):
        assert record["prompt"] == "base+shared" and record["accuracy_low"] < record["accuracy"] < record["accuracy_high"]
        assert "set size has no interval" in record["set_size_note"]


def test_clusters_of_the_whole_set_give_a_mean_the_error_of_independent_items() -> None:
    """A run without the repeated question has the error of independent items, as part of a mean or alone."""
    stored, rng = repeated(), np.random.default_rng(1)
    logits = skilled_logits(rng, stored.answer, 4)
    logits[7] = np.nan
    cell = next(measure_run(make_view(stored, logits), "lac", Question()))
    alone = cell.estimates["accuracy"]
    whole = on_whole_set(alone, cell)
    assert alone.clusters is None and whole.clusters is not None
    assert (whole.error, whole.units) == (pytest.approx(alone.error), pytest.approx(alone.units))


def test_a_prompt_without_finite_logits_leaves_its_mean_without_figures() -> None:
    """One of two prompts answered nothing: their mean has no figures, and says which run broke it."""
    stored, rng = repeated(), np.random.default_rng(2)
    logits = skilled_logits(rng, stored.answer, 4)
    runs = [make_run(stored, logits, prompt="base"), make_run(stored, np.full_like(logits, np.nan), prompt="shared")]
    (record,) = run_sets(select_runs(MemoryReader([stored], runs), {}), Question(scorers=("lac",)), average=True)
    assert record["accuracy"] is None and "includes shared" in record["unreliable"]


def items(contexts: list[str], questions: list[str]) -> list[Item]:
    return [
        Item(id=f"{i:04}", context=context, question=question, choices={"A": f"x{i}", "B": f"y{i}"}, answer="A", subject="s")
        for i, (context, question) in enumerate(zip(contexts, questions, strict=True))
    ]


def test_a_passage_is_an_equal_context_or_else_an_equal_question() -> None:
    """Spaces at the ends do not count, and the same question about two passages joins nothing."""
    stored = build_item_set("t", items(["p", "p ", "r", "", "", ""], ["a", "b", "a", "a", "a", "c"]))
    assert cluster_numbers(stored, parse_clustering("context")).tolist() == [0, 0, 1, 2, 2, 3]
    assert np.unique(cluster_numbers(stored, parse_clustering("question"))).size == 5


def test_a_column_gives_clusters_by_text(tmp_path: Path) -> None:
    """Ids and clusters are texts: 0001 and 1 are two clusters; a column `task` tells equal ids apart; extra rows do not matter."""
    stored = build_item_set("t", items(["", "", ""], ["a", "b", "c"]))
    (tmp_path / "c.csv").write_text("id,passage\n0000,0001\n0001,1\n0002,0001\n0099,5\n")
    numbers = cluster_numbers(stored, parse_clustering(f"{tmp_path}/c.csv:passage"))
    assert numbers[0] == numbers[2] != numbers[1]
    (tmp_path / "t.csv").write_text("task,id,p\nt,0000,x\nu,0000,y\nt,0001,x\nt,0002,z\n")
    numbers = cluster_numbers(stored, parse_clustering(f"{tmp_path}/t.csv:p"))
    assert numbers[0] == numbers[1] != numbers[2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,p\n0000,x\n0001,\n0002,z\n", "empty in row 2"),
        ("id,p\n0000,x\n0001,NaN\n0002,z\n", "every item needs one"),
        ("id,p\n0000,x\n0000,y\n0001,x\n0002,z\n", "two clusters"),
        ("id,q\n0000,x\n", "no column 'p'"),
        ("id,p\n0000,x\n", "no cluster for 2 of the 3 items"),
    ],
)
def test_bad_columns_are_refused(tmp_path: Path, text: str, message: str) -> None:
    """A missing cluster is none, and an id has one."""
    stored = build_item_set("t", items(["", "", ""], ["a", "b", "c"]))
    (tmp_path / "c.csv").write_text(text)
    with pytest.raises(UsageError, match=message):
        cluster_numbers(stored, parse_clustering(f"{tmp_path}/c.csv:p"))


def test_unknown_clusters_are_refused() -> None:
    """The message lists the forms; what needs texts or subjects says so; a guarantee, which counts items, refuses clusters."""
    for text in ("topic", ":p", "nofile.csv:p"):
        with pytest.raises(UsageError, match="expected question, item, subject, context"):
            ask(cluster=text)
    with pytest.raises(UsageError, match="without their texts"):
        sets(example_runs()[0], cluster="context")
    with pytest.raises(UsageError, match="exchangeable one by one"):
        guarantee(example_runs()[0], cluster="subject")
