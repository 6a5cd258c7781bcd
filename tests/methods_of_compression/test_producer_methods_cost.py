"""The seconds and the memory of a compression that a run records."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from producer_standin import save_standin, urn_rows, write_items
from producer_tiny import tiny, tiny_data

from producer.cli.main import main
from producer.machine.environment import reset_peak
from producer.methods import METHODS
from producer.methods.shared.compression_cost import PEAK, SECONDS, CompressionCost
from producer.methods.shared.finished_layers import FinishedLayers
from schemas.levels import parse_level
from store import open_reader

pytestmark = pytest.mark.producer
LEVELS = [parse_level("0.2"), parse_level("0.3")]


def costs(method: Any, levels: Sequence[Any] = LEVELS, **options: Any) -> list[dict[str, float]]:
    """Return what each level records."""
    return [dict(applied.cost) for applied in method.sweep(tiny(), levels, tiny_data(), 0, **options)]


class Clock:
    """A clock that stands still, and goes on by a second when it is told to."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def slowly(self, function: Any) -> Any:
        """Return a function that takes a second longer."""

        def waiting(*arguments: Any) -> Any:
            self.now += 1
            return function(*arguments)

        return waiting


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("producer.methods.shared.compression_cost.time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


def test_only_the_method_itself_is_timed(clock: Clock) -> None:
    """Seconds of the compression count, those of the check afterwards and of whoever uses the model do not."""
    method = METHODS["magnitude"]
    for applied in replace(method, verify=clock.slowly(method.verify)).sweep(tiny(), LEVELS, None, 0):
        clock.now += 1
        assert applied.cost[SECONDS] == 0
    assert [cost[SECONDS] for cost in costs(replace(method, compress=clock.slowly(method.compress)))] == [1, 1]


def test_every_level_is_charged_for_the_statistics(clock: Clock) -> None:
    """Statistics that all levels use count for each of them, as if it were made alone."""
    method = METHODS["slicegpt"]
    slow = replace(method, collect=clock.slowly(method.collect), compress=clock.slowly(method.compress))
    assert [cost[SECONDS] for cost in costs(slow)] == [2, 2]


def test_work_done_before_leaves_the_cost_unknown() -> None:
    """Where statistics or layers come from an earlier command, nothing is recorded rather than too little."""
    method = METHODS["slicegpt"]
    collect = method.collect
    assert collect
    kept = collect(tiny(), tiny_data(), None)
    assert costs(method, kept=lambda _: kept) == [{}, {}]
    resumed = FinishedLayers()
    resumed.restored = True
    assert costs(METHODS["magnitude"], finished=lambda level: resumed if level == LEVELS[0] else FinishedLayers())[0] == {}


def test_the_peak_is_that_of_the_costliest_work() -> None:
    """Memory that the work takes and frees again is in the peak; smaller work afterwards does not change it."""
    if not reset_peak("cpu"):
        pytest.skip("the peak of a process can be reset on Linux alone")
    cost = CompressionCost("cpu")
    cost.of(lambda: bytes(range(256)) * 2**20)
    large = cost.recorded()[PEAK]
    cost.of(lambda: None)
    assert cost.recorded()[PEAK] == pytest.approx(large, rel=1e-3)  # the kernel counts pages in batches
    assert large > 256 * 2**20


def test_runs_record_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compressed runs have seconds and memory, the dense run has none, and --private leaves both out."""
    monkeypatch.setenv("HEDGEMARK_CACHE", str(tmp_path / "cache"))
    model, task = save_standin(tmp_path / "standin"), write_items(tmp_path / "quiz.json", urn_rows())
    for store, more in (("open", ()), ("private", ("--private",))):
        asked = ["--model", str(model), "--task", str(task), "--method", "dense", "--method", "rtn", "--level", "w4a16-g32"]
        result = CliRunner().invoke(main, [*asked, "--store", str(tmp_path / store), *more])
        assert result.exit_code == 0, result.output
        reader = open_reader(str(tmp_path / store))
        recorded = {run.key.method: run.env.throughput for run in map(reader.run, reader.catalog["name"])}
        assert SECONDS not in recorded["dense"]
        assert (SECONDS in recorded["rtn"]) == (store == "open")
