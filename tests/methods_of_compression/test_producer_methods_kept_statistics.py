"""Statistics of a dense model are collected once for all levels, also by processes of their own."""

import os
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from producer_tiny import tiny, tiny_data

from producer.methods import METHODS
from producer.methods.shared import kept_statistics as statistics_file
from producer.methods.shared.kept_statistics import kept_statistics
from producer.models.weights_hash import tensors_hash
from schemas.levels import parse_level
from store.backend.user_cache import cache_folder

pytestmark = pytest.mark.producer
COLLECTING = [name for name, method in METHODS.items() if method.collect]


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("HEDGEMARK_CACHE", str(tmp_path / "cache"))
    yield


def files() -> list[Path]:
    return sorted(cache_folder(statistics_file.FOLDER).glob("*.safetensors"))


def never() -> Any:
    pytest.fail("statistics were collected again")


@pytest.mark.parametrize("name", COLLECTING)
def test_another_process_compresses_with_kept_statistics_to_the_same_model(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Levels compressed one by one collect the statistics once, and each model is bit by bit the one without kept statistics."""
    levels, data, method = [parse_level("0.1"), parse_level("0.25")], tiny_data(), METHODS[name]
    alone = [tensors_hash(method.apply(tiny(), level, data, 0).model) for level in levels]
    calls, collect = list[int](), method.collect
    assert collect is not None

    def counting(*arguments: Any) -> Any:
        calls.append(1)
        return collect(*arguments)

    counted = METHODS[name].__class__(**{**vars(method), "collect": counting})
    kept = partial(kept_statistics, name)
    made = [next(counted.sweep(tiny(), [level], data, 0, kept=kept)) for level in levels]
    assert [tensors_hash(applied.model) for applied in made] == alone
    assert len(calls) == 1 and len(files()) == 1


def test_every_value_comes_back() -> None:
    """Tensors in lists, dicts and tuples come back bit by bit, in their types and devices, beside numbers and texts."""
    value = [[torch.tensor(1.5), torch.arange(3)], {"a": torch.randn(2, 3, dtype=torch.float64), "b": "text"}, 7, None]
    kept_statistics("x", lambda: value)
    (one, two), named, *rest = kept_statistics("x", never)
    assert one.equal(torch.tensor(1.5)) and two.equal(torch.arange(3)) and rest == [7, None]
    assert named["a"].equal(value[1]["a"]) and named["a"].dtype == torch.float64 and named["b"] == "text"  # type: ignore[call-overload, index]


def test_other_statistics_are_not_taken() -> None:
    """What determines them is in the name of the file; where all is to be made anew, they are collected."""
    kept_statistics("x", lambda: [1])
    assert kept_statistics("y", lambda: [2]) == [2]
    assert kept_statistics("x", lambda: [3], fresh=True) == [3]
    assert kept_statistics("x", never) == [3]


@pytest.mark.parametrize("where", [0, 40, -1])
def test_a_damaged_file_is_collected_again(where: int, caplog: pytest.LogCaptureFixture) -> None:
    """A changed bit of the checksum, the header or a tensor costs a warning and the time of collecting."""
    kept_statistics("x", lambda: [torch.ones(5)])
    content = bytearray(files()[0].read_bytes())
    content[where] ^= 1
    files()[0].write_bytes(content)
    assert kept_statistics("x", lambda: [2]) == [2]
    assert any("cannot be used" in message and "collected again" in message for message in caplog.messages)
    assert kept_statistics("x", never) == [2]


def test_a_process_waits_for_one_that_is_collecting() -> None:
    """Two that need the same statistics at one time collect them once."""
    begun, calls = threading.Event(), list[int]()

    def collect() -> Any:
        calls.append(1)
        begun.set()
        time.sleep(0.3)
        return [1]

    first = threading.Thread(target=lambda: kept_statistics("x", collect))
    first.start()
    begun.wait()
    assert kept_statistics("x", never) == [1]
    first.join()
    assert len(calls) == 1


def test_too_large_ones_and_old_ones_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """All together take no more than the limit: what was used longest ago goes first, and what is larger alone is never written."""
    for number in range(3):
        kept_statistics(number, lambda: [torch.ones(100)])
    size = files()[0].stat().st_size
    for age, path in enumerate(files()):
        os.utime(path, (time.time() - 100 * age - 1,) * 2)
    oldest = files()[2]
    monkeypatch.setattr(statistics_file, "MOST_BYTES", 3 * size)
    kept_statistics("newest", lambda: [torch.ones(100)])
    kept = files()
    assert len(kept) == 3 and oldest not in kept
    kept_statistics("large", lambda: [torch.ones(10_000)])
    assert files() == kept
