"""A compression that was killed goes on at the layer where it was, and its model is the undisturbed one, bit by bit."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from producer_tiny import AT_HAND, tiny, tiny_data, tiny_level

from producer.methods import METHODS
from producer.methods.shared import finished_layers
from producer.methods.shared.contract import Applied
from producer.methods.shared.finished_layers import FinishedLayers
from producer.models.weights_hash import tensors_hash
from store.backend.user_cache import cache_folder

pytestmark = pytest.mark.producer
METHODS_BY_LAYER = [name for name in ("gptq", "sparsegpt", "awq", "wanda", "smoothquant", "autoround") if name in AT_HAND]
N_LAYERS = 3


class Killed(BaseException):
    """Ends a compression as a kill does: nothing but what is on disk remains."""


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("HEDGEMARK_CACHE", str(tmp_path / "cache"))
    yield


def compressed(name: str, finished: FinishedLayers, layout: str = "llama", **chosen: str) -> Applied:
    """Return the tiny model compressed to a method's default level; the process's lock goes as it does when a process ends."""
    method = METHODS[name].with_chosen(chosen)
    try:
        return next(method.sweep(tiny(layout), [tiny_level(name)], tiny_data(), 0, None, lambda _: finished))
    finally:
        if finished._folder:
            finished._lock.release()


def killed(name: str, after: int, layout: str = "llama", identity: Any = "model", **chosen: str) -> None:
    """Kill a compression behind a layer that was written to disk."""
    finished = FinishedLayers(identity, 0)
    add = finished.add

    def killing(layer: Any, inputs: Any) -> None:
        add(layer, inputs)
        if finished.n == after:
            raise Killed

    finished.add = killing  # type: ignore[method-assign]
    with pytest.raises(Killed):
        compressed(name, finished, layout, **chosen)


def same(one: Applied, other: Applied) -> None:
    """Compare two compressed models bit by bit, and what was measured on them."""
    assert tensors_hash(one.model) == tensors_hash(other.model)
    for (name, tensor), (_, expected) in zip(one.model.state_dict().items(), other.model.state_dict().items(), strict=True):
        assert tensor.equal(expected), name
    assert one.conditions == other.conditions


@pytest.mark.parametrize("after", [1, 2, 3])
@pytest.mark.parametrize("name", METHODS_BY_LAYER)
def test_a_resumed_model_is_the_undisturbed_one(name: str, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed behind any layer, a compression goes on there: the same tensors and post-conditions, and no layer compressed twice."""
    killed(name, after)
    finished = FinishedLayers("model", 0)
    again = list[Any]()
    monkeypatch.setattr(finished, "add", lambda layer, inputs: again.append(layer))
    resumed = compressed(name, finished)
    assert len(again) == N_LAYERS - after
    same(resumed, compressed(name, FinishedLayers()))
    finished._hold_folder()
    finished.discard()
    assert not list((cache_folder(finished_layers.FOLDER)).glob("*"))


@pytest.mark.parametrize(
    ("name", "layout", "chosen"),
    [("gptq", "qwen3_moe", {}), ("sparsegpt", "qwen3_moe", {}), ("smoothquant", "llama", {"smoothing": "search"}), ("quarot", "llama", {})],
)
def test_what_belongs_to_the_layers_is_resumed_with_them(name: str, layout: str, chosen: dict[str, str]) -> None:
    """Experts that saw all tokens, exponents that were searched, and rotations are those of the undisturbed compression."""
    killed(name, 2, layout, **chosen)
    resumed = compressed(name, FinishedLayers("model", 0), layout, **chosen)
    same(resumed, compressed(name, FinishedLayers(), layout, **chosen))


def test_a_compression_killed_at_every_layer_comes_to_its_end() -> None:
    """Each command goes on from where the one before was, also from layers that an even earlier one kept."""
    for after in range(1, N_LAYERS + 1):
        killed("wanda", after)
    same(compressed("wanda", FinishedLayers("model", 0)), compressed("wanda", FinishedLayers()))


def test_another_model_takes_nothing() -> None:
    """What determines the model is in the name of its folder."""
    killed("wanda", 2)
    finished = FinishedLayers("other", 0)
    same(compressed("wanda", finished), compressed("wanda", FinishedLayers()))
    assert len(list(cache_folder(finished_layers.FOLDER).glob("*/*.json"))) == 2


@pytest.mark.parametrize("damage", ["layer-1.safetensors", "inputs-2.safetensors", "manifest.json", "missing", "of another shape"])
def test_a_damaged_file_is_computed_again(damage: str, caplog: pytest.LogCaptureFixture) -> None:
    """A changed bit, a missing file, or layers of another shape: a warning says so, and all layers are compressed again."""
    killed("wanda", 2)
    (folder,) = (path for path in cache_folder(finished_layers.FOLDER).glob("*") if path.is_dir())
    if damage == "missing":
        (folder / "layer-0.safetensors").unlink()
    elif damage != "of another shape":
        content = bytearray((folder / damage).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / damage).write_bytes(content)
    layout = "odd" if damage == "of another shape" else "llama"
    same(compressed("wanda", FinishedLayers("model", 0), layout), compressed("wanda", FinishedLayers(), layout))
    assert any("cannot be used" in message and "compressed from its first layer" in message for message in caplog.messages)


def test_fresh_takes_nothing() -> None:
    """What a killed command left is deleted where nothing of it is wanted."""
    killed("wanda", 2)
    finished = FinishedLayers("model", 0, fresh=True)
    assert finished.restore(tiny().model.layers, "cpu") is None


def test_a_second_process_keeps_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """While one process has a model's folder, another one compresses the same model without it."""
    killed("wanda", 2)
    first, second = FinishedLayers("model", 0), FinishedLayers("model", 0)
    assert first._hold_folder()
    same(compressed("wanda", second), compressed("wanda", FinishedLayers()))
    assert not second.on_disk
    assert any("another process compresses the same model" in message for message in caplog.messages)
    assert compressed("wanda", first).model is not None


def test_no_room_costs_a_warning_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where layers would fill the disk, the model is compressed all the same."""
    monkeypatch.setattr(finished_layers, "LARGEST_SHARE", 0.0)
    finished = FinishedLayers("model", 0)
    same(compressed("wanda", finished), compressed("wanda", FinishedLayers()))
    assert not finished.on_disk


def test_layers_are_written_when_they_are_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers finished since the last time are written together once half of the time that may be lost has passed."""
    times = iter([0.0, 0.0, 100.0, 301.0, 301.0, 302.0])
    monkeypatch.setattr(finished_layers.time, "monotonic", lambda: next(times))
    finished = FinishedLayers("model", 600)
    layers = list(tiny().model.layers)
    finished.restore(layers, "cpu")
    finished.add(layers[0], [])
    assert not finished.on_disk
    finished.add(layers[1], [])
    finished.add(layers[2], [])
    assert sorted(path.name for path in finished._folder.iterdir()) == [  # type: ignore[union-attr]
        "inputs-2.safetensors", "layer-0.safetensors", "layer-1.safetensors", "manifest.json",
    ]  # fmt: skip
