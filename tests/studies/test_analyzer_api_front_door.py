"""The API as a notebook uses it: scorers that are functions, runs of a store as a data set and back, objects that say what they are."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from analyzer_data import make_run, skilled_logits
from polars.testing import assert_frame_equal
from store_tiny import write_runs

from analyzer.api import calibrate, compare, example_runs, logits, sensitivity, sets, view_of
from analyzer.scorers.lac import lac
from analyzer.stats.arrays import FloatArray
from schemas.errors import RunNotFoundError, UsageError
from schemas.items import Item
from schemas.itemset import build_item_set
from store import init_store, open_dataset, open_reader

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dense run and two compressed ones over 80 items, of which ten repeat a question, some with three options and one demonstration."""
    url = str(tmp_path_factory.mktemp("front") / "store")
    init_store(url)
    rng = np.random.default_rng(1)
    n_options = np.where(np.arange(80) % 5, 4, 3)
    answers = rng.integers(0, 3, 80)
    texts = [
        Item(id=str(i), question=f"{i % 70}?", choices={"ABCD"[k]: f"{k}" for k in range(count)}, answer="ABCD"[a], subject=f"s{i % 3}")
        for i, (a, count) in enumerate(zip(answers, n_options, strict=True))
    ]
    items = build_item_set("quiz", texts, demonstrations=["7"])
    dense = skilled_logits(rng, answers, 4)
    runs = [make_run(items, dense)]
    for scale, level in ((0.5, "0.3"), (2.0, "0.5")):
        noise = scale * rng.normal(size=dense.shape)
        runs.append(make_run(items, (dense + noise).astype(np.float32), method="wanda", level=level))
    own = np.arange(4) < n_options[:, None]
    runs = [replace(run, logits=np.where(own, run.logits, np.nan).astype(np.float32)) for run in runs]
    write_runs(url, items, runs)
    return url


def test_what_logits_returns_gives_the_numbers_of_the_store(address: str) -> None:
    """Clusters, demonstrations, unequal numbers of options and the snapshot come along: every column but the run's name is the same."""
    data = logits(address)
    assert dict(data.sizes) == {"run": 3, "item": 80, "option": 4} and data.attrs["snapshot"] == open_reader(address).snapshot
    assert data.level.values.tolist() == ["-", "0.3", "0.5"]
    cases = [(sets, {"alphas": [0.1, 0.3]}), (sets, {"by": "subject", "split": 5}), (compare, {}), (sets, {"scorers": "aps-rand"})]
    for function, options in cases:
        mine, theirs = (function(source, **options) for source in (data, address))  # type: ignore[operator]
        run_names = [name for name in mine.columns if "~" in str(mine[name].to_list())]
        names = [name for name in mine.columns if name not in run_names]
        assert len(run_names) <= 2
        assert_frame_equal(mine.select(names), theirs.select(names), rel_tol=1e-11, abs_tol=1e-11)  # sums over clusters in another order
    one = data.sel(run=data.level == "0.5")
    assert sets(one)["level"].unique().to_list() == ["0.5"]


def test_no_flag_is_lost_on_the_way_through_a_data_set(address: str, tmp_path: Path) -> None:
    """A run with cut prompts has the flag and the note that it has in the store; picked by number, a run is still called as it is."""
    reader, url = open_reader(address), str(tmp_path / "store")
    init_store(url)
    dense, wanda = (reader.run(name) for name in reader.catalog["name"].to_list()[:2])
    cut = replace(wanda, env=wanda.env.model_copy(update={"truncated_items": 40, "notes": ("40 prompts were cut",)}))
    write_runs(url, reader.items(dense.key.items_hash), [dense, cut])
    mine, theirs = sets(logits(url), scorers="lac"), sets(url, scorers="lac")
    assert "40 of 80 prompts were longer" in theirs["unreliable"][1]
    for column in ("unreliable", "noted"):
        assert mine[column].to_list() == theirs[column].to_list()
    assert sets(logits(url).isel(run=1), scorers="lac").select("method", "level").rows() == [("wanda", "0.3")]


def test_runs_of_other_items_or_none_are_refused(address: str, tmp_path: Path) -> None:
    """One data set has one set of items; a field that runs do not have is named."""
    with pytest.raises(UsageError, match="unknown argument 'alphas'; known: store, at, model"):
        logits(address, alphas="0.1")
    with pytest.raises(RunNotFoundError, match="no run with model 'x'"):
        logits(address, model="x")


def entropy(probs: FloatArray, *, weight: float = 0.5) -> FloatArray:
    ordered = np.sort(probs, axis=1)
    per_item = -np.nansum(ordered * np.log(np.where(ordered > 0, ordered, 1.0)), axis=1)
    return np.asarray(1 - probs + weight * per_item[:, None])


def my_lac(probs: FloatArray, u: FloatArray) -> FloatArray:
    assert u.shape == probs.shape[:1]
    return 1 - probs


def test_a_scorer_may_be_a_function() -> None:
    """It is called by its name, beside names; with LAC's rule it gives LAC's numbers; its keyword arguments are parameters."""
    dense, *_ = example_runs()
    table = sets(dense, scorers=["lac", my_lac], alphas=0.1)
    assert table["scorer"].to_list() == ["lac", "my_lac"] and table["set_size"].n_unique() == 1
    assert sets(dense, scorers=lac)["scorer"].unique().to_list() == ["lac"]
    plain = sets(dense, scorers=entropy)
    other = sets(dense, scorers=entropy, parameters={"entropy": {"weight": 2}})
    assert plain["set_size"][0] != other["set_size"][0] and other["parameters"].to_list() == ["weight=2"]
    assert compare(example_runs(), scorers=entropy)["verdict"].to_list()[2] == "both degrade"
    assert "entropy" in " ".join(sensitivity(example_runs(), scorers=entropy)["variants"])


def test_the_scorer_of_the_readme_orders_options_as_lac_does(address: str) -> None:
    """-log(prob) falls where 1 - prob falls, so that both make the same sets; the lines are run as they stand there."""
    (lines,) = [block for block in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL) if "def surprise" in block]
    tables: dict[str, Any] = {}
    exec(lines.replace("compare(", "table = compare(").replace("hedgemark-store", address).replace("mmlu", "quiz"), tables)
    own, of_lac = (tables["table"].filter(scorer=name)["set_size"] for name in ("surprise", "lac"))
    assert len(own) == 3 and own.to_list() == of_lac.to_list()


def test_functions_that_are_no_scorers_are_refused() -> None:
    """A name of another scorer, no name, another shape, and NaN where an item has an option."""

    def aps(probs: FloatArray) -> FloatArray:
        return probs

    def short(probs: FloatArray) -> FloatArray:
        return probs[:-1]

    def holes(probs: FloatArray) -> FloatArray:
        return np.where(probs > 0.5, np.nan, probs)

    cases: list[tuple[Any, str]] = [(aps, "a scorer called 'aps' exists"), (lambda probs: probs, "needs a name")]
    cases += [(short, "of shape"), (holes, "NaN only where")]
    for scorer, said in cases:
        with pytest.raises(UsageError, match=said):
            sets(example_runs()[0], scorers=scorer)
    with pytest.raises(UsageError, match="has no parameter 'heavy'"):
        sets(example_runs()[0], scorers=entropy, parameters={"entropy": {"heavy": 1}})


def test_objects_say_what_they_are(address: str) -> None:
    """Not a thousand lines of arrays in a notebook, and not an address in memory."""
    reader = open_reader(address)
    assert repr(reader) == f"<store.Reader of {address} at {reader.snapshot}: 3 runs; 1 model, 2 methods, 1 task, 1 prompt>"
    items = reader.items(reader.catalog["items_hash"][0])
    assert repr(items) == f"<ItemSet quiz: 80 items of 3 to 4 options, 3 subjects, {items.digest[:12]}>"
    run = reader.run(reader.catalog["name"][0])
    assert repr(run) == f"<Run {run.key.name}: logits of 80 items, 4 options>"
    assert isinstance(logits(address), xr.Dataset)
    data = example_runs()[0]
    name = "example-7b~dense~quiz~base.d11081bd"
    assert repr(calibrate(data, alpha=0.2)) == f"<Predictor of options ABCD, scorer lac, alpha 1/5: made on {name}>"
    assert repr(view_of(data)) == f"<RunView {name}: 200 of 200 items, 4 options>"
    data["logits"][3] = np.nan
    assert repr(view_of(data)).endswith(": 199 of 200 items, 1 left out for non-finite logits, 4 options>")


def test_a_changed_data_set_cites_no_snapshot(address: str, tmp_path: Path) -> None:
    """Other logits, or some of the items, are not what the snapshot holds; a choice of runs is, also after a round through a file."""
    data, snapshot = logits(address), open_reader(address).snapshot
    data.to_zarr(tmp_path / "data.zarr", zarr_format=2)
    one = open_dataset(address, str(data.run.values[1]))
    for same in (data, data.isel(run=[2, 0]), xr.open_zarr(tmp_path / "data.zarr"), one):
        assert set(sets(same, scorers="lac")["snapshot"]) == {snapshot}
    changed = [data.assign(logits=0.3 * data.logits), data.isel(item=slice(40)), data.assign(answer=(data.answer + 1) % 3)]
    for other in [*changed, one.assign(logits=0.3 * one.logits), one.assign(answer=(one.answer + 1) % 3)]:
        assert set(sets(other, scorers="lac")["snapshot"]) == {"(in memory)"}
