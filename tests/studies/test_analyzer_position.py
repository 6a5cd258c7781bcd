"""Position bias and means over orders of options."""

from pathlib import Path

import numpy as np
import pytest
from analyzer_data import MemoryReader, item_set, make_run, skilled_logits
from click.testing import CliRunner
from store_tiny import write_runs

from analyzer.cli.main import main
from analyzer.compare.compare import compare
from analyzer.measure.question import Question
from analyzer.runs.loading import select_runs
from analyzer.runs.orders import mean_over_orders
from analyzer.studies.position import position
from analyzer.studies.sets import sets
from schemas.errors import ComparisonError, RunNotFoundError, UsageError
from schemas.items import Item
from schemas.itemset import ItemSet, build_item_set
from schemas.run import Run
from store import init_store

ONE = Question(scorers=("lac",))
ADDED = ["I don't know", "None of the above"]


def texts(n_items: int, seed: int = 0, added: bool = False) -> ItemSet:
    """Items of four options that turn, with or without the two that do not."""
    answers = np.random.default_rng(seed).integers(0, 4, n_items)
    options = ["w", "x", "y", "z", *(ADDED if added else [])]
    choices = dict(zip("ABCDEF", options, strict=False))
    return build_item_set("quiz", [Item(id=str(i), question=f"{i}?", choices=choices, answer="ABCD"[a]) for i, a in enumerate(answers)])


def asked(items: ItemSet, bias: list[float], n_orders: int, seed: int = 1, skill: float = 1.0, **key: str) -> list[Run]:
    """Runs of a model that likes places: an option's logit is its own in every order, plus the bias of the place at which it stands."""
    rng = np.random.default_rng(seed)
    own = skilled_logits(rng, items.answer, int(items.n_options[0]), skill)
    runs = []
    for order in range(n_orders):
        logits = own.copy()
        for option in range(4):
            logits[:, option] += bias[(option + order) % 4]
        runs.append(make_run(items, logits, **({"prompt": f"base@{order}" if order else "base"} | key)))
    return runs


def test_bias_is_counted_by_place() -> None:
    """Against a naive loop over items and orders; options that stay last belong to no place."""
    items = texts(60, added=True)
    runs = asked(items, [0.0, 1.5, 0.0, -0.5], 4)
    records = [record for record in position(select_runs(MemoryReader([items], runs), {}), ONE) if record["by"] == "position"]
    assert [record["part"] for record in records] == list("ABCD")
    for number, record in enumerate(records):
        chosen = there = right = 0
        for order, run in enumerate(runs):
            for item in range(60):
                option, answer = int(np.argmax(run.logits[item])), int(items.answer[item])
                place = {o: (o + order) % 4 if o < 4 else o for o in range(6)}
                chosen += place[option] == number
                there += place[answer] == number
                right += place[answer] == number and option == answer
        assert record["chosen"] == pytest.approx(chosen / 240) and record["answer_there"] == pytest.approx(there / 240) == 0.25
        assert record["bias"] == pytest.approx((chosen - there) / 240) and record["accuracy"] == pytest.approx(right / there)
        assert record["bias_low"] < record["bias"] < record["bias_high"]
    assert records[1]["bias_low"] > 0 > records[3]["bias_high"]


def test_no_bias_is_no_spread() -> None:
    """A model that gives every option its own logit wherever it stands: bias within noise, orders alike, spread from 0 on."""
    items = texts(400)
    records = position(select_runs(MemoryReader([items], asked(items, [0.0] * 4, 4)), {}), ONE)
    (whole,) = [record for record in records if record["by"] == "all"]
    assert (whole["accuracy_spread"], whole["accuracy_spread_low"], whole["answered_alike"]) == (0, 0, 1)
    assert whole["accuracy_spread_high"] < 0.02
    assert all(record["accuracy_change"] in (None, 0) for record in records if record["by"] == "order")


@pytest.mark.simulation
def test_spread_covers_every_pair_of_orders() -> None:
    """Of a model without bias, but with other noise in each order, the simultaneous interval reaches down to 0 in at least 95 %."""
    reached = 0
    for seed in range(60):
        items, rng = texts(120, seed), np.random.default_rng(seed)
        runs = [make_run(items, skilled_logits(rng, items.answer, 4, 1.0), prompt=f"base@{k}" if k else "base") for k in range(4)]
        (whole,) = [record for record in position(select_runs(MemoryReader([items], runs), {}), ONE) if record["by"] == "all"]
        reached += whole["accuracy_spread_low"] == 0
        assert whole["accuracy_spread"] <= whole["accuracy_spread_high"]
    assert reached >= 55  # P(fewer than 55 of 60 at 95 %) is 2 %, and Bonferroni's intervals are wider


def test_mean_over_orders_is_the_mean_of_probabilities() -> None:
    """And of option mass, where it is recorded; a bias of places is gone, since every option stood everywhere."""
    items = texts(50)
    runs = asked(items, [0.0, 2.0, 0.0, -1.0], 4)
    for run in runs:
        run.logsumexp[:] = np.log(np.exp(run.logits).sum(axis=1)) + 0.3
    found = mean_over_orders(runs, items)
    probs = np.mean([np.exp(run.logits) / np.exp(run.logits).sum(axis=1, keepdims=True) for run in runs], axis=0)
    assert np.allclose(np.exp(found.logits), probs, atol=1e-6)
    assert np.allclose(np.exp(found.logits - found.logsumexp[:, None]).sum(axis=1), np.exp(-0.3), atol=1e-6)
    assert found.key.prompt == "base@mean4"


def test_an_item_broken_in_one_order_has_no_mean() -> None:
    """It is left out of every figure, and flagged in the run that has it."""
    items = texts(60)
    runs = asked(items, [0.0] * 4, 2)
    runs[1].logits[7, 2] = np.nan
    assert np.isnan(mean_over_orders(runs, items).logits[7]).all()
    records = position(select_runs(MemoryReader([items], runs), {}), ONE)
    assert {record["n_items"] for record in records} == {59}
    assert any("non-finite" in (record["unreliable"] or "") for record in records)


def test_a_run_without_any_finite_item_has_no_figures() -> None:
    """Nothing is counted, and every row says why."""
    items = texts(60)
    runs = asked(items, [0.0] * 4, 2)
    runs[1].logits[:] = np.nan
    records = position(select_runs(MemoryReader([items], runs), {}), ONE)
    assert {record["by"] for record in records} == {"order", "all"}
    assert all(record["accuracy"] is None for record in records if record["part"] != "0")
    assert all(record["unreliable"] for record in records)


def test_comparison_of_means() -> None:
    """`--prompt base@mean2` compares the mean of the compressed orders with that of the dense ones, in any command."""
    items = texts(200)
    dense, wanda = asked(items, [0.0, 1.0, 0.0, 0.0], 2), asked(items, [0.0, 2.0, 0.0, 0.0], 2, method="wanda", level="0.5")
    wanted = {"prompt": ["base@mean2"]}
    runs = select_runs(MemoryReader([items], dense + wanda), wanted, with_dense=True)
    (record,) = [record for record in compare(runs, ONE) if record["method"] == "wanda"]
    by_hand = [np.argmax(mean_over_orders(each, items).logits, axis=1) == items.answer for each in (wanda, dense)]
    assert record["accuracy_change"] == pytest.approx(by_hand[0].mean() - by_hand[1].mean())
    assert record["run"] == "+".join(run.key.name for run in wanda) and record["compared_with"] == "+".join(run.key.name for run in dense)


def test_orders_are_compared_within_their_order() -> None:
    """A compressed run in an order has the dense run of that order as its partner, and none where that is missing."""
    items = texts(100)
    dense, wanda = asked(items, [0.0] * 4, 3), asked(items, [0.0] * 4, 3, seed=9, method="wanda", level="0.5")
    runs = select_runs(MemoryReader([items], dense[:2] + wanda), {}, with_dense=True)
    partners = {record["prompt"]: record["compared_with"] for record in compare(runs, ONE) if record["method"] == "wanda"}
    assert partners == {"base": dense[0].key.name, "base@1": dense[1].key.name, "base@2": None}


def test_a_missing_order_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """The mean over three orders of a run with two is left out, in words; without any, the prompt is unknown."""
    items = texts(60)
    runs = asked(items, [0.0] * 4, 3) + asked(items, [0.0] * 4, 2, model="other")
    found = sets(select_runs(MemoryReader([items], runs), {"prompt": ["base@mean3"]}), ONE)
    assert [record["model"] for record in found] == ["toy"]
    assert "has no mean over 3 orders: it was not asked in base@2" in caplog.text
    with pytest.raises(RunNotFoundError, match="no run with prompt 'base@mean4'"):
        select_runs(MemoryReader([items], runs), {"prompt": ["base@mean4"]})


def test_other_wordings_have_no_mean() -> None:
    """Two orders of which one was asked in other words are not one prompt."""
    items = texts(60)
    first, second = asked(items, [0.0] * 4, 2)
    other = Run(second.key.model_copy(update={"prompt_hash": "f" * 64}), second.logits, second.logsumexp, second.top_token)
    with pytest.raises(ComparisonError, match="differ in more than the order of options"):
        mean_over_orders([first, other], items)


def test_what_cannot_be_analyzed_is_a_sentence() -> None:
    """Runs of one order, a prompt without orders, and items without texts."""
    items = texts(60)
    runs = select_runs(MemoryReader([items], asked(items, [0.0] * 4, 2)), {})
    with pytest.raises(RunNotFoundError, match="in prompt shared; produce --options-order N makes them"):
        position(runs, ONE, ["shared"])
    with pytest.raises(RunNotFoundError, match="no run was asked in several orders"):
        position(select_runs(MemoryReader([items], asked(items, [0.0] * 4, 1)), {}), ONE)
    bare = item_set(items.answer)
    with pytest.raises(UsageError, match="stored without their texts"):
        position(select_runs(MemoryReader([bare], asked(bare, [0.0] * 4, 2)), {}), ONE)


def test_the_table_of_a_store(tmp_path: Path) -> None:
    """The command prints places, orders, the mean and the spread; a mean is a prompt of every other command."""
    items, address = texts(80, added=True), str(tmp_path / "store")
    init_store(address)
    write_runs(address, items, asked(items, [1.0, 0.0, 0.0, 0.0], 4))
    done = CliRunner().invoke(main, ["position", "--store", address, "--scorer", "lac", "--prompt", "base"], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert all(word in done.stdout for word in ("position", "mean4", "4 orders", "bias", "accuracy spread"))
    done = CliRunner().invoke(main, ["sets", "--store", address, "--prompt", "base@mean4", "--scorer", "lac"])
    assert done.exit_code == 0 and "base@mean4" in done.stdout, done.output
