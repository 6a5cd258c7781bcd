"""Comparing models apart, in this process, in several, or on Ray, gives what comparing them together gives."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from analyzer_data import MemoryReader, item_set, make_run, skilled_logits

from analyzer.cli.options import EXECUTOR_NAMES
from analyzer.compare.compare import compare
from analyzer.compare.two_axis_verdict import Tolerances
from analyzer.measure.question import Question
from analyzer.runs.loading import Runs, open_runs, select_runs
from analyzer.studies.collector import collector_rests
from analyzer.studies.executors import EXECUTORS, Comparison, Measurement, compare_models, measure_models, model_sources
from analyzer.studies.sets import sets
from schemas.errors import RunNotFoundError
from store import init_store, open_writer

WORK = Comparison(Question(scorers=("lac",)), Tolerances())
METHODS = ("dense", "rtn", "wanda")


def open_models(models: tuple[str, ...], methods: tuple[str, ...] = METHODS) -> Runs:
    answers = np.random.default_rng(0).integers(0, 4, 100)
    items, runs = item_set(answers), []
    for model in models:
        rng = np.random.default_rng(ord(model))
        runs += [make_run(items, skilled_logits(rng, answers, 4), model=model, method=method) for method in methods]
    return select_runs(MemoryReader([items], runs), {})


@contextmanager
def local_ray() -> Iterator[None]:
    """A local Ray whose workers can import this file and the tests' helpers, where the runs of the test are made."""
    ray = pytest.importorskip("ray")
    here = Path(__file__)
    path = os.pathsep.join([str(here.parent), str(here.parents[1] / "support")])
    ray.init(num_cpus=1, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": path}})
    try:
        yield
    finally:
        ray.shutdown()


SLOW = pytest.mark.slow


@pytest.mark.parametrize("executor", ["plain", pytest.param("processes", marks=SLOW), pytest.param("ray", marks=SLOW)])
def test_models_apart_are_models_together(executor: str) -> None:
    """The records are equal, Holm's correction over the whole table included."""
    together = compare(open_models(("a", "b")), WORK.question)
    with local_ray() if executor == "ray" else nullcontext():
        sources = [partial(open_models, (model,)) for model in "ab"]
        assert compare_models(sources, WORK, executor) == together
        assert measure_models(sources, Measurement(WORK.question), executor) == sets(open_models(("a", "b")), WORK.question)


def test_each_model_is_opened_by_its_own_names(tmp_path: Path) -> None:
    """A method that one model lacks is no error there, and every piece of work reads the snapshot that was selected from."""
    url = str(tmp_path / "store")
    answers = np.random.default_rng(0).integers(0, 4, 50)
    items = item_set(answers)
    init_store(url)
    with open_writer(url) as writer:
        for model, method in (("a", "dense"), ("a", "rtn"), ("b", "dense"), ("b", "wanda")):
            writer.write(items, make_run(items, skilled_logits(np.random.default_rng(ord(model)), answers, 4), model=model, method=method))
    together = open_runs(url, None, {"method": ["rtn", "wanda"]}, with_dense=True)
    apart = [source() for source in model_sources(together, url)]
    assert [row["name"] for runs in apart for row in runs.rows] == [row["name"] for row in together.rows]
    assert {runs.reader.snapshot for runs in apart} == {together.reader.snapshot}


def test_a_model_without_a_pair_is_skipped_but_not_all_of_them() -> None:
    """One model without compressed runs is left out; if every model is like that, it is an error."""
    sources = [partial(open_models, ("a",), ("dense",)), partial(open_models, ("b",))]
    assert {record["model"] for record in compare_models(sources, WORK)} == {"b"}
    with pytest.raises(RunNotFoundError, match="none of 1 models"):
        compare_models(sources[:1], WORK)


def test_every_executor_is_offered() -> None:
    """The names on the command line are those of the registry."""
    assert tuple(EXECUTORS) == EXECUTOR_NAMES


def test_collector_of_cycles_rests_while_runs_are_measured_and_is_as_before_afterwards() -> None:
    """Also where measuring ends in an error, and where it was off before."""

    @collector_rests()
    def measure(fails: bool) -> bool:
        if fails:
            raise ValueError
        return gc.isenabled()

    assert gc.isenabled() and not measure(False) and gc.isenabled()
    with pytest.raises(ValueError):
        measure(True)
    assert gc.isenabled()
    with collector_rests():
        assert not measure(False) and not gc.isenabled()
    assert gc.isenabled()
