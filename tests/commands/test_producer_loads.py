"""A model is loaded once for all that one process makes of it, and what is made of it is the same as if it were loaded each time."""

import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import producer.backends.loaded_models
from producer.backends.loaded_models import LOADED
from producer.cli.main import main
from producer.engine.settings import Settings
from producer.methods import METHODS
from producer.request.request import Request
from producer.sweep import process
from producer.sweep.cells import split
from producer.sweep.local import run_local
from schemas.run import CHECKPOINT, DENSE
from store import open_reader

pytestmark = pytest.mark.producer
METHODS_OF_CELLS = ("rtn", "magnitude", "gptq")
COUNTING = """
from producer.backends.loaded_models import LOADED
from producer.cli.cell_worker import serve
from producer.cli.main import main
LOADED.keep_for_cells(1)
def run(arguments):
    try:
        main(arguments, prog_name="produce")
    finally:
        print("loads", LOADED.n_loaded)
serve(run)
"""


def produced(store: Path, models: tuple[str, ...], methods: tuple[str, ...], *levels: str) -> int:
    """Make runs in this process, and return how often weights were loaded for them."""
    before = LOADED.n_loaded
    words = [
        *(("--model", model) for model in models),
        *(("--method", method) for method in methods),
        *(("--level", each) for each in levels),
    ]
    request = [word for pair in words for word in pair]
    result = CliRunner().invoke(main, [*request, "--task", "urn", "--limit", "12", "--fresh", "--store", str(store)])
    assert result.exit_code == 0, result.output
    return LOADED.n_loaded - before


def assert_equal_runs(one: Path, other: Path, n_runs: int) -> None:
    """Assert that both stores have the same runs, to the last bit of the weights that answered and of the logits."""
    readers = open_reader(str(one)), open_reader(str(other))
    names = sorted(readers[0].catalog["name"])
    assert names == sorted(readers[1].catalog["name"]) and len(names) == n_runs
    for name in names:
        first, second = (reader.run(name) for reader in readers)
        assert first.env.post_conditions.get("model_sha256") == second.env.post_conditions.get("model_sha256")
        np.testing.assert_array_equal(first.logits, second.logits)


@pytest.mark.parametrize("model", ["ref-moe", pytest.param("ref-s", marks=pytest.mark.slow)])  # a sweep below takes ref-s
def test_methods_of_a_command_share_one_load(model: str, tmp_path: Path) -> None:
    """Three methods and the dense model come of one load, and equal those that were loaded apart; nothing is kept afterwards."""
    methods = (DENSE, "rtn", "magnitude", "wanda")
    assert produced(tmp_path / "together", (model,), methods) == 1
    assert LOADED._kept is None
    assert sum(produced(tmp_path / "apart", (model,), (method,)) for method in methods) == len(methods)
    assert_equal_runs(tmp_path / "together", tmp_path / "apart", len(methods))


def test_nothing_is_kept_for_a_method_that_is_stored(tmp_path: Path) -> None:
    """The plan has another method of the same model, which then needs no model since its run is stored."""
    produced(tmp_path / "store", ("ref-s",), ("magnitude",))
    assert produced(tmp_path / "store", ("ref-s",), ("rtn", "magnitude")) == 1
    assert LOADED._kept is None


def test_each_model_is_loaded_once(tmp_path: Path) -> None:
    """The second model takes the place of the first."""
    assert produced(tmp_path / "store", ("ref-s", "ref-moe"), ("rtn", "magnitude")) == 2


def test_a_host_without_room_loads_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a model and its two copies do not fit, none is kept."""
    monkeypatch.setattr(producer.backends.loaded_models, "free_memory", lambda _: 1000)
    assert produced(tmp_path / "store", ("ref-s",), ("rtn", "magnitude")) == 2


def test_cells_of_a_sweep_share_one_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four cells of a model load it once, two of another load that; all runs equal those of a command each."""
    monkeypatch.setattr(process, "WORKER", (sys.executable, "-c", COUNTING))
    asked = {"ref-s": (DENSE, *METHODS_OF_CELLS), "ref-moe": (DENSE, METHODS_OF_CELLS[0])}
    fresh = Settings(fresh=True)
    requests = [Request(models=(model,), methods=methods, tasks=("urn",), limit=12, settings=fresh) for model, methods in asked.items()]
    finished = run_local(split(requests, str(tmp_path / "sweep")), lambda _: None)
    assert [cell.reason for cell in finished] == [""] * 6
    assert [cell.runs[-1] for cell in finished] == ["1"] * 6  # one process, and one load, for each model
    for model, methods in asked.items():
        for method in methods:
            produced(tmp_path / "apart", (model,), (method,))
    assert_equal_runs(tmp_path / "sweep", tmp_path / "apart", 6)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["ref-m", "ref-moe"])
def test_every_method_makes_the_same_of_a_shared_load(model: str, tmp_path: Path) -> None:
    """All methods that run on this machine, one after the other in one process, twice: what one leaves behind does not change the next."""
    config = CliRunner().invoke(main, ["--list", "methods"])
    assert config.exit_code == 0
    methods = [name for name, method in METHODS.items() if name not in {CHECKPOINT, "recipe"} and not method.missing_library()]
    apart = [name for name in methods if makes(model, name, tmp_path / "apart")]
    assert len(apart) >= 10
    assert produced(tmp_path / "together", (model,), tuple(reversed(apart))) == 1
    assert_equal_runs(tmp_path / "together", tmp_path / "apart", len(apart))


def makes(model: str, method: str, store: Path) -> bool:
    """Return whether the method can compress the model, and if so make its run."""
    result = CliRunner().invoke(
        main, ["--model", model, "--method", method, "--task", "urn", "--limit", "12", "--fresh", "--store", str(store)]
    )
    assert result.exit_code == 0 or "does not support model" in result.output, result.output
    return result.exit_code == 0
