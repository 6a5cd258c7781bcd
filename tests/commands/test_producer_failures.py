"""What fails while runs are made: everything else is made as if nothing had failed, and the failure is named at the end."""

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from producer_standin import save_standin, urn_rows, write_items
from producer_tiny import tiny, tiny_data

from producer.backends.transformers import TransformersBackend
from producer.cli.main import main
from producer.machine.failures import Failures, RunsFailedError
from producer.machine.interrupt import Interrupted
from producer.methods import METHODS
from producer.methods.shared.contract import Job
from producer.run.make_run import RunMaker
from schemas.errors import HedgemarkError, NonFiniteError, PostConditionError
from schemas.levels import parse_level
from store import open_reader

pytestmark = pytest.mark.producer
Produce = Callable[..., Result]
LEVELS = ("0.3", "0.5", "0.6")


@pytest.fixture
def produce(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Produce:
    """Run `produce` on a stand-in with a task, at three levels of magnitude, into a store by name."""
    monkeypatch.setenv("HEDGEMARK_CACHE", str(tmp_path / "cache"))
    model, task = save_standin(tmp_path / "standin"), write_items(tmp_path / "quiz.json", urn_rows())
    levels = [word for level in LEVELS for word in ("--level", level)]

    def run(store: str, *arguments: str, method: str = "magnitude") -> Result:
        fixed = ["--model", str(model), "--task", str(task), "--method", method, *levels, "--store", str(tmp_path / store)]
        return CliRunner().invoke(main, [*fixed, *arguments])

    return run


def digests(store: Path) -> dict[str, str]:
    """Return the digest of every run by its level."""
    reader = open_reader(str(store))
    return {row["level"]: reader.run(row["name"]).digest for row in reader.catalog.iter_rows(named=True)}


def fail_at(level: str, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let magnitude fail at one level, when it has changed a part of the model."""
    real = METHODS["magnitude"].compress

    def compress(model: Any, job: Job) -> Any:
        if job.level.text != level:
            return real(model, job)
        next(model.model.layers.parameters()).data.zero_()
        raise error

    monkeypatch.setitem(METHODS, "magnitude", replace(METHODS["magnitude"], compress=compress))


@pytest.mark.parametrize("error", [RuntimeError("no kernel\nmore"), PostConditionError("no kernel"), torch.OutOfMemoryError("no kernel")])
@pytest.mark.parametrize("failing", LEVELS)
def test_levels_after_one_that_fails_are_made(
    failing: str, error: Exception, produce: Produce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other levels have the runs of an undisturbed command, and the one that failed is named with its reason."""
    assert produce("undisturbed").exit_code == 0
    fail_at(failing, error, monkeypatch)
    result = produce("store")
    assert result.exit_code == 5
    expected = digests(tmp_path / "undisturbed")
    del expected[failing]
    assert digests(tmp_path / "store") == expected
    assert len(result.stdout.split()) == 2
    assert f"standin magnitude {failing}: " in result.stderr.splitlines()[-1]
    assert ("what magnitude needs" if isinstance(error, torch.OutOfMemoryError) else "no kernel") in result.stderr.splitlines()[-1]
    assert "2 runs written, 0 already stored" in result.stderr


def test_other_methods_and_models_are_made(produce: Produce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model whose weights cannot be loaded and a method that fails at every level leave the rest as it is."""
    import producer.backends.loaded_models as backend

    real = backend.load_model
    broken = save_standin(tmp_path / "broken", seed=1)

    def load(files: Any, *arguments: Any) -> Any:
        if files.name == "broken":
            raise OSError("no such weights")
        return real(files, *arguments)

    monkeypatch.setattr(backend, "load_model", load)
    fail_at("0.5", RuntimeError("no kernel"), monkeypatch)
    result = produce("store", "--model", str(broken), "--method", "dense")
    assert result.exit_code == 5
    assert set(digests(tmp_path / "store")) == {"-", "0.3", "0.6"}
    failures = result.stderr.split("everything else is in the store:")[1]
    assert [line.split(":")[0].strip() for line in failures.strip().splitlines()] == [
        "standin magnitude 0.5",
        "broken magnitude",
        "broken dense",
    ]
    assert "OSError: no such weights" in failures


def test_other_tasks_of_a_level_are_answered(produce: Produce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that must not be stored leaves the other runs of its model, and its answers are kept for the next command."""
    real, forgotten = RunMaker.answer, []

    def answer(self: RunMaker, planned: Any, *arguments: Any) -> Any:
        before = len(self.forget)
        run = real(self, planned, *arguments)
        if planned.prompted.prompt == "shared" and planned.level.text == "0.5":
            self.forget[before:] = [lambda: forgotten.append(planned)]
            raise NonFiniteError("NaN")
        return run

    monkeypatch.setattr(RunMaker, "answer", answer)
    result = produce("store", "--prompt", "shared", "--prompt", "base")
    assert result.exit_code == 5
    assert "1 failure; everything else is in the store" in result.stderr
    assert len(open_reader(str(tmp_path / "store")).catalog) == 5
    assert not forgotten


def test_a_failure_alone_is_the_error_that_it_is(produce: Produce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing else to do there is one message, that of the error itself."""
    fail_at("0.4", PostConditionError("no zeros"), monkeypatch)
    arguments = ["--model", str(tmp_path / "standin"), "--task", str(tmp_path / "quiz.json"), "--method", "magnitude", "--level", "0.4"]
    result = CliRunner().invoke(main, [*arguments, "--store", str(tmp_path / "store")])
    assert result.exit_code == 5
    assert result.stderr.splitlines()[-1] == "Error: PostConditionError: no zeros"
    assert "failed" not in result.stderr


def test_no_compressed_model_is_judged_without_its_dense_one(produce: Produce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --until, a dense run that fails leaves nothing to compare with, which is said of each compressed model."""
    policy = tmp_path / "policy.toml"
    policy.write_text("[limits]\nflips = 0.5\n[looks]\nitems = [2, 6]\n")
    real = TransformersBackend.ready

    def ready(self: Any, group: Any, *arguments: Any) -> Any:
        if group.is_dense:
            raise RuntimeError("no weights")
        return real(self, group, *arguments)

    monkeypatch.setattr(TransformersBackend, "ready", ready)
    result = produce("store", "--until", str(policy))
    assert result.exit_code == 5
    assert "standin magnitude: the gate cannot compare it with its dense model" in result.stderr
    assert not (tmp_path / "store").exists()


def test_what_stands_in_the_way_of_all_work_ends_it() -> None:
    """A signal is no failure among others."""
    failures = Failures()
    with pytest.raises(Interrupted), failures.caught("one"):
        raise Interrupted("stopped", 15)
    failures.raise_any(alone=True)


def test_failures_free_what_they_had_in_memory() -> None:
    """The frames of an error that is remembered, and of its cause, hold no model."""

    class Weights:
        pass

    alive = []

    def load() -> None:
        weights = Weights()
        alive.append(weakref.ref(weights))
        raise MemoryError("full")

    def run() -> None:
        more = Weights()
        alive.append(weakref.ref(more))
        try:
            load()
        except MemoryError as error:
            raise HedgemarkError("the memory does not hold it") from error

    failures = Failures()
    with failures.caught("one"):
        run()
    with failures.caught("two"):
        run()
    gc.collect()
    assert [reference() for reference in alive] == [None] * 4
    with pytest.raises(RunsFailedError, match="2 failures; everything else is in the store:\n  one: the memory"):
        failures.raise_any(alone=True)


def test_a_compression_that_broke_off_frees_its_model() -> None:
    """The library keeps nothing of a model that failed, so that the next level has the memory to itself."""
    wanda, data, level = METHODS["wanda"], tiny_data(), parse_level("0.3")
    model = tiny()
    model.model.layers[1].forward = lambda *_, **__: 1 / 0
    with Failures().caught("wanda"):
        wanda.compress(model, Job(level, wanda.settings(level, model.config), data, 0))
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None
