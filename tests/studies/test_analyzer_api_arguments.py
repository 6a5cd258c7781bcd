"""What the functions of the API do with arguments of every kind: obvious ones work, others are one sentence that names the argument."""

import inspect
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import xarray as xr
from store_tiny import tiny_items, tiny_run, write_runs

import analyzer.api
import store
from analyzer.api import calibrate, compare, cost, example_runs, gate, logits, monitor, p_values, sets, text, view_of
from analyzer.api.arguments import ACCEPTED, ARGUMENTS
from analyzer.stats.arrays import FloatArray
from schemas.errors import HedgemarkError, RunNotFoundError, UsageError

FUNCTIONS = [getattr(analyzer.api, name) for name in analyzer.api.__all__ if name not in ("Source", "example_runs")]
WRONG: list[Any] = [object(), 1j, b"x", int, np.zeros((2, 2)), pl.DataFrame({"a": [1]}), [None], [[object()]], xr.Dataset(), {1: object()}]
ANSWERS_LETTERS = {"answer": ("item", np.array(list("ABCD"))[example_runs()[0]["answer"].to_numpy()])}


@pytest.fixture
def address(tmp_path: Path) -> str:
    """A store with one run."""
    url = str(tmp_path / "store")
    store.init_store(url)
    items = tiny_items()
    write_runs(url, items, [tiny_run(items)])
    return url


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: str(function.__name__))
def test_a_value_of_another_kind_is_one_sentence_that_names_the_argument(function: Any, tmp_path: Path) -> None:
    """Every argument of every function, those of `**options` too; no TypeError comes from within."""
    named = {name: one for name, one in inspect.signature(function).parameters.items()}
    others = next((name for name, one in named.items() if one.kind is one.VAR_KEYWORD), "")
    needed = {name: example_runs()[0] for name in ("source", "data") if name in named}
    needed |= {name: tmp_path / "none" for name in ("store", "figures", "log", "logits") if name in named}
    needed |= {"predictor": calibrate(example_runs()[0])} if function.__name__ in ("predict", "monitor") else {}
    needed |= {"subject_mix": {"law": 1.0}, "prices": {"review": 1.0}} if function.__name__ in ("weighted", "cost") else {}
    needed = {name: value for name, value in needed.items() if name in named}
    for name in [name for name in named if name != others] + list(ACCEPTED.get(others, ())):
        for value in WRONG:
            if name == "cluster" and isinstance(value, dict):
                continue  # any ids and clusters are taken as texts
            if name in ("source", "data") and isinstance(value, xr.Dataset):
                continue  # one without anything in it, which is said when its arrays are read
            with pytest.raises(UsageError, match=rf"^{name}( is |: )"):
                function(**{**needed, name: value})


def test_every_argument_has_a_kind() -> None:
    """A new argument is read like all others, or this fails."""
    for function in FUNCTIONS:
        named = {name for name, one in inspect.signature(function).parameters.items() if one.kind is not one.VAR_KEYWORD}
        assert named | set(ACCEPTED["options"]) <= set(ARGUMENTS), function.__name__


@pytest.mark.parametrize("value", ["no", 1, 0, None, [], np.array([True])])
def test_only_true_and_false_are_true_or_false(value: Any) -> None:
    """ "no" is not taken for yes."""
    with pytest.raises(UsageError, match=r"average is .*; expected True or False"):
        sets(example_runs()[0], average=value)


def test_obvious_forms_of_the_same_argument_give_the_same_figures() -> None:
    """Numbers of numpy, fractions and decimals, columns of a table, a level as a number, and None for no choice."""
    runs = example_runs()
    plain = sets(runs, alphas=[0.1, 0.2], scorers="lac", level="0.5")
    for alphas in (np.array([0.1, 0.2]), pl.Series([0.1, 0.2]), (Fraction(1, 10), Decimal("0.2")), iter(["0.1", np.float32(0.2)])):
        assert sets(runs, alphas=alphas, scorers=np.array(["lac"]), level=0.5, model=None, by=None).equals(plain)
    assert compare(runs, scorers="lac", average=np.bool_(False), accuracy_tolerance="0.02").equals(compare(runs, scorers="lac"))
    assert sets(runs[0], split=np.int64(3), scorers="lac").equals(sets(runs[0], split="3", scorers="lac"))
    assert gate(runs, {"kl": np.float32(2)}, scorers="lac").equals(gate(runs, {"kl": 2}, scorers="lac"))


def test_a_store_may_be_named_by_a_path(address: str) -> None:
    """Also where a store is opened without the API; several stores at once are refused."""
    assert sets(Path(address), scorers="lac").equals(sets(address, scorers="lac"))
    assert logits(Path(address)).attrs["store"] == address
    name = store.open_reader(Path(address)).catalog["name"][0]
    assert store.open_dataset(Path(address), name).attrs["name"] == name
    with pytest.raises(UsageError, match=r"^source is .* one or several xarray data sets"):
        sets([address])


@pytest.mark.parametrize("value", [3, None, b"x", ["x"], np.zeros(2), pl.DataFrame()])
def test_a_store_is_opened_by_text_or_path_only(value: Any, address: str) -> None:
    """The functions of `store` name the argument too."""
    for call in (store.open_reader, store.init_store, store.open_writer):
        with pytest.raises(UsageError, match=r"^url is .*; expected the address of a store"):
            call(value)
    with pytest.raises(UsageError, match=r"^url is "):
        store.open_dataset(value, "x")
    if value is not None:
        with pytest.raises(UsageError, match=r"^at is .*; expected a tag"):
            store.open_reader(address, value)
    with pytest.raises(UsageError, match=r"^name is "):
        store.open_dataset(address, value)


@pytest.mark.parametrize(
    ("function", "arguments", "said"),
    [
        (sets, {"alpha": 0.1}, r"unknown argument 'alpha'; did you mean alphas\?"),
        (sets, {"scorer": "lac"}, r"did you mean scorers\?"),
        (calibrate, {"scorers": "lac"}, r"did you mean scorer\?"),
        (calibrate, {"split": 5}, "unknown argument 'split'"),
        (p_values, {"scorers": "lac"}, r"did you mean scorer\?"),
        (p_values, {"penalty": 0.1}, "unknown argument 'penalty'"),
        (sets, {"banana": 1}, "unknown argument 'banana'; known: source, at, average"),
        (sets, {"at": "v1"}, "only a store has snapshots"),
        (sets, {"model": []}, r"model is \[\]"),
        (sets, {"scorers": "lacc"}, r"unknown scorer 'lacc'; did you mean lac\? known: lac, aps"),
        (sets, {"protocol": "ye20"}, r"did you mean ye2024\?"),
    ],
)
def test_a_misspelt_argument_is_told_its_name(function: Any, arguments: dict[str, Any], said: str) -> None:
    """What a function cannot use is never left out without a word."""
    with pytest.raises(UsageError, match=said):
        function(example_runs()[0], **arguments)


def test_names_of_a_store_are_told_by_their_likes(tmp_path: Path) -> None:
    """A task that no run has, and an item set that no run answers; what is written must be items and a run."""
    url, items = str(tmp_path / "store"), tiny_items()
    run = tiny_run(items)
    store.init_store(url)
    write_runs(url, items, [run])
    with pytest.raises(
        RunNotFoundError, match=rf"no run with task '{run.key.task[:-1]}' .*; did you mean {run.key.task}\? known: {run.key.task}"
    ):
        sets(url, task=run.key.task[:-1])
    reader = store.open_reader(url)
    assert reader.items(items.digest).digest == items.digest
    with pytest.raises(UsageError, match=r"has the item set 'nope'; that of a run is run.key.items_hash"):
        reader.items("nope")
    for value in (None, 3, ["a"]):
        with pytest.raises(UsageError, match=r"^items_hash is .*; expected a text"):
            reader.items(value)  # type: ignore[arg-type]
    with store.open_writer(url) as writer:
        with pytest.raises(UsageError, match=r"^items is 'x'; expected an item set"):
            writer.write("x", run)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match=r"^run is None; expected a schemas.run.Run"):
            writer.write(items, None)  # type: ignore[arg-type]


def test_errors_speak_of_arguments(tmp_path: Path) -> None:
    """An option of the command line becomes the argument of the same meaning; a command keeps its options."""
    runs = example_runs()
    cases: list[tuple[Any, tuple[Any, ...], dict[str, Any], str]] = [
        (sets, (tmp_path / "none",), {}, "name yours with `source`, or create one with: store init --store"),
        (cost, (runs, {"review": 1.0}), {"by": "subject", "split": 3}, "`split` 3"),
        (gate, (runs,), {}, "give `policy` FILE or `limits` figure=value"),
        (sets, (runs[0],), {"protocol": "ye2024", "calibration_fraction": 0.2}, "leave `calibration_fraction` out"),
        (sets, (runs[0].drop_vars("subject"),), {"cluster": "subject"}, "`cluster` subject needs one"),
        (calibrate, (runs[0].assign(logits=0 * runs[0].logits),), {}, "`allow_unreliable` makes one"),
    ]
    for function, given, named, said in cases:
        with pytest.raises(HedgemarkError) as error:
            function(*given, **named)
        assert said in str(error.value)


def test_answers_may_be_letters() -> None:
    """A is the first option; other texts are refused."""
    data = example_runs()[0]
    assert sets(data.assign(ANSWERS_LETTERS), scorers="lac").equals(sets(data, scorers="lac"))
    assert p_values(data.assign(ANSWERS_LETTERS)).equals(p_values(data))
    for wrong in ("a", "", "1", None):
        with pytest.raises(UsageError, match="expected the index of each correct option, from 0 on, or its letter"):
            sets(data.assign(answer=("item", np.full(200, wrong, dtype=object))))


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"logits": (("item", "option"), np.full((200, 4), "x"))}, "logits holds <U1 values"),
        ({"logits": (("item", "option"), np.zeros((200, 4), bool))}, "logits holds bool values"),
        ({"answer": (("item", "option"), np.zeros((200, 4), int))}, "answer has the dimensions item, option"),
        ({"subject": ("item", np.full(200, np.nan))}, "subject holds nan, which is no text"),
        ({"n_options": ("item", np.full(200, 9))}, "n_options is up to 9, and logits are of 4 options"),
        ({"demonstration": ("item", np.full(200, "False"))}, "demonstration holds <U5 values"),
        ({"logsumexp": ("item", np.full(200, "x"))}, "logsumexp holds <U1 values"),
        ({"top_token": ("item", np.full(200, 0.5))}, "top_token holds float64 values"),
        ({"made_with": 3}, "made_with is not what `logits` wrote"),
    ],
)
def test_what_a_data_set_cannot_hold_is_named(arrays: dict[str, Any], said: str) -> None:
    """Nothing is cast to what it is not."""
    data = example_runs()[0].assign({name: value for name, value in arrays.items() if name != "made_with"})
    data = data.assign_coords({name: value for name, value in arrays.items() if name == "made_with"})
    for function in (sets, p_values, view_of):
        with pytest.raises(UsageError, match=said):
            function(data)


def test_dimensions_have_names_and_therefore_no_order() -> None:
    """A transposed data set is the same one; items without options, or options without items, are none."""
    data = example_runs()[0]
    assert sets(data.transpose("option", "item"), scorers="lac").equals(sets(data, scorers="lac"))
    for wrong in (data.isel(item=slice(0)), data.isel(option=[0])):
        with pytest.raises(UsageError, match="expected at least one item and 2 to 26 options"):
            sets(wrong)


def halves(probs: FloatArray, *, weight: float = 0.5) -> FloatArray:
    return np.asarray(1 - weight * probs)


def test_p_values_of_several_runs_and_of_a_function(address: str) -> None:
    """One run after the other, beside each other; a scorer may be a function, and items that are left out have no p-value."""
    first, second, _ = example_runs()
    second = second.copy(deep=True)
    second["logits"][7] = np.nan
    both = xr.concat([one.assign_coords(level=one.attrs["level"]) for one in (first, second)], "run", combine_attrs="drop")
    found = p_values(both, "aps", calibration_ids=[3, "5"])
    assert found.dims == ("run", "item", "option") and found["level"].values.tolist() == ["-", "0.3"]
    for number, one in enumerate((first, second)):
        xr.testing.assert_equal(found.isel(run=number, drop=True), p_values(one, "aps", calibration_ids=[3, 5]))
    assert np.isnan(found[1, 7]).all() and np.isnan(found[:, [3, 5]]).all() and not np.isnan(found[0, 7]).any()
    xr.testing.assert_equal(p_values(first, halves, weight=0.25), p_values(first, "lac"))
    assert p_values(logits(address)).shape == (1, 12, 4)
    with pytest.raises(UsageError, match="holds 2 runs, and one is expected"):
        view_of(both)


def test_a_function_that_cannot_be_a_scorer_is_refused_before_it_is_asked() -> None:
    """A parameter without a number as its default could not be recorded."""

    def unsure(probs: FloatArray, *, weight: float | None = None) -> FloatArray:
        return probs

    for call in (lambda: sets(example_runs()[0], scorers=unsure), lambda: p_values(example_runs()[0], unsure)):
        with pytest.raises(UsageError, match="unsure is no scorer: its keyword-only arguments need numbers"):
            call()


def test_prices_and_mixes_may_be_mappings() -> None:
    """A mapping is checked like a file: an unknown price, and no price at all, are refused."""
    for prices, said in (({"reviews": 2.0}, "unknown key 'reviews'"), ({"review": "x"}, "not a finite"), ({}, "nothing has a price")):
        with pytest.raises(UsageError, match=said):
            cost(example_runs(), prices)
    with pytest.raises(UsageError, match="no subject has a share above 0"):
        calibrate(example_runs()[0], subject_mix={})


def test_where_nothing_can_be_written_is_said_first(tmp_path: Path) -> None:
    """Before the log is read, as the command does; a text run needs a store."""
    with pytest.raises(HedgemarkError):
        monitor(calibrate(example_runs()[0]), tmp_path / "none.csv", mix_out=tmp_path)
    with pytest.raises(UsageError, match=r"^store is of type"):
        text(example_runs()[0])  # type: ignore[arg-type]
