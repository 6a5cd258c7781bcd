"""`produce --options-order N`: every item in N cyclic orders of its options, its logits stored in its own order."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from producer_standin import save_standin, urn_rows, write_items

from producer.cli.main import main
from producer.request.request import Request
from producer.sweep.cells import split
from store import open_reader

pytestmark = pytest.mark.producer
TURNED = {  # the letters of an item's own options, as they are listed in each order
    4: {1: "DABCEF", 2: "CDABEF", 3: "BCDAEF"},
    3: {1: "CAB", 2: "BCA"},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_standin(tmp_path_factory.mktemp("models") / "standin")


def rows() -> list[dict[str, Any]]:
    """Six options of which four turn, and three that all turn."""
    short = [
        {"id": f"s{i}", "question": f"Which urn gave {colour}?", "choices": {"A": "ash", "B": "elm", "C": "oak"}, "answer": "C"}
        for i, colour in enumerate(("red", "blue"))
    ]
    return [*urn_rows(5), *short]


def turned_by_hand(row: dict[str, Any], order: int) -> dict[str, Any]:
    listed = TURNED[4 if len(row["choices"]) == 6 else 3][order]
    return row | {
        "choices": {letter: row["choices"][own] for letter, own in zip("ABCDEF", listed, strict=False)},
        "answer": "ABCDEF"[listed.index(row["answer"])],
    }


def ask(model: Path, items: Path, store: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["--model", str(model), "--task", str(items), "--store", str(store), "--device", "cpu", *options])


def logits_of(store: Path) -> dict[str, np.ndarray]:
    reader = open_reader(str(store))
    return {row["prompt"]: reader.run(row["name"]).logits for row in reader.catalog.to_dicts()}


def test_each_order_is_the_items_written_in_that_order(model: Path, tmp_path: Path) -> None:
    """The logits of order k are those of a file whose options stand so, with each option's logit under its own letter."""
    done = ask(model, write_items(tmp_path / "own.json", rows()), tmp_path / "store", "--options-order", "3")
    assert done.exit_code == 0, done.output
    found = logits_of(tmp_path / "store")
    assert sorted(found) == ["base", "base@1", "base@2"]
    for order in (1, 2):
        by_hand = write_items(tmp_path / f"turned{order}.json", [turned_by_hand(row, order) for row in rows()])
        assert ask(model, by_hand, tmp_path / f"store{order}").exit_code == 0
        shown = logits_of(tmp_path / f"store{order}")["base"]
        for number, row in enumerate(rows()):
            listed = TURNED[4 if len(row["choices"]) == 6 else 3][order]
            for place, own in enumerate(listed):
                assert found[f"base@{order}"][number, "ABCDEF".index(own)] == pytest.approx(shown[number, place], abs=1e-5)
    assert np.abs(found["base"] - found["base@1"])[:5].max() > 1e-3


def test_orders_answer_the_same_items_and_are_resumed(model: Path, tmp_path: Path) -> None:
    """All orders have one item set and the key of their order only; one more order asks for that order alone."""
    items = write_items(tmp_path / "own.json", urn_rows(5))
    for options in ((), ("--options-order", "2"), ("--options-order", "4")):
        done = ask(model, items, tmp_path / "store", *options)
        assert done.exit_code == 0, done.output
    assert "2 runs written, 2 already stored" in done.stderr
    catalog = open_reader(str(tmp_path / "store")).catalog
    assert catalog["items_hash"].n_unique() == 1 and catalog["tokens_hash"].n_unique() == 4
    planned = ask(model, items, tmp_path / "store", "--options-order", "4", "--dry-run")
    assert "base@3" in planned.stdout and "4 runs, 0 to run" in planned.stdout


def test_more_orders_than_options_are_refused(model: Path, tmp_path: Path) -> None:
    """The first item would be asked twice in one order; the sentence has the most that is possible."""
    done = ask(model, write_items(tmp_path / "own.json", rows()), tmp_path / "store", "--options-order", "4")
    assert done.exit_code == 2 and not (tmp_path / "store").exists()
    assert "item 's0' of task 'own' has: 3 of its 3 options change places; the most is --options-order 3" in done.output


def test_options_that_speak_of_others_are_noted(model: Path, tmp_path: Path) -> None:
    """'All of the above' is untrue at the top: the runs of another order say how many items have such an option."""
    odd = urn_rows(4)
    odd[2] |= {"choices": odd[2]["choices"] | {"D": "All of the above"}}
    assert ask(model, write_items(tmp_path / "own.json", odd), tmp_path / "store", "--options-order", "2").exit_code == 0
    reader = open_reader(str(tmp_path / "store"))
    noted = {row["prompt"]: " ".join(reader.run(row["name"]).env.notes) for row in reader.catalog.to_dicts()}
    assert "1 of 4 items have an option that speaks of others" in noted["base@1"] and "speaks of others" not in noted["base"]


def test_cells_of_a_sweep_ask_in_every_order() -> None:
    """The number of orders reaches the command of each cell."""
    command = split([Request(models=("ref-s",), options_order=4)], "s")[0]
    assert command.arguments[command.arguments.index("--options-order") + 1] == "4"


def test_the_posterior_is_the_same_in_every_order(tmp_path: Path) -> None:
    """The model bayes has a partner in every order."""
    run = CliRunner().invoke(
        main,
        ["--model", "bayes", "--method", "bayes", "--task", "urn", "--limit", "5", "--options-order", "2", "--store", str(tmp_path / "s")],
    )
    assert run.exit_code == 0, run.output
    found = logits_of(tmp_path / "s")
    assert np.array_equal(found["base"], found["base@1"])
