"""Hidden states that wait: in memory up to the budget, beyond it in a file that leaves nothing behind."""

import resource
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from producer_prefill import OPTIONS, run, some_prompts
from producer_tiny import VOCABULARY, tiny

from producer.bench.peak import peak_memory
from producer.engine.layer_source import Target
from producer.engine.memory_needs import measure_needs
from producer.engine.memory_plan import MemoryPlan, plan_memory
from producer.engine.prefill import prefill
from producer.engine.settings import Settings
from producer.engine.wave_storage import StatesOnDisk, WaveStorage
from producer.prompts.encode import Prompts
from schemas.errors import HedgemarkError
from store.backend.user_cache import existing_cache_folder

pytestmark = pytest.mark.producer
MIB = 2**20
ROOM_FOR_SOME = {"streamed": True, "wave_tokens": 10_000, "disk_tokens": 9_950}
NO_ROOM = {"streamed": True, "wave_tokens": 10_000, "disk_tokens": 10_000}


def long_prompts(n_items: int, n_own: int) -> Prompts:
    ids = np.random.default_rng(0).integers(1, VOCABULARY, (n_items, n_own)).tolist()
    return Prompts((3, 5, 8), ids, [False] * n_items)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("where", [ROOM_FOR_SOME, NO_ROOM])
def test_states_that_waited_on_disk_are_the_same(dtype: torch.dtype, where: dict[str, Any]) -> None:
    """What comes back from the file is what went there, bit by bit: the logits equal those of a wave held in memory."""
    model, prompts = tiny(dtype=dtype), some_prompts(20)
    in_memory = MemoryPlan(streamed=True, batch_tokens=24, wave_tokens=10_000, states_device="cpu", head_rows=64)
    plans = (in_memory, replace(in_memory, **where))
    expected, found = (prefill(model, prompts, OPTIONS, plan, Target("cpu", dtype), lambda _: None).logits for plan in plans)
    np.testing.assert_array_equal(found, expected)


def test_out_of_memory_halves_a_batch_that_waits_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each half goes back to its own part of the file."""
    import producer.engine.prefill as engine

    real, model, prompts = engine.run_layer, tiny(), some_prompts(20)
    expected = run(model, prompts, 10_000).logits

    def scarce(layer: Any, window: int | None, rotary: Any, batch: Any, shared: Any) -> Any:
        if len(batch.items) > 3 and layer.self_attn.layer_idx == 1:
            raise torch.OutOfMemoryError("injected")
        return real(layer, window, rotary, batch, shared)

    monkeypatch.setattr(engine, "run_layer", scarce)
    np.testing.assert_allclose(run(model, prompts, 10_000, **NO_ROOM).logits, expected, atol=2e-5)


def test_a_wave_never_exceeds_its_tokens() -> None:
    """Slabs join a wave while it has room; the first one always may, however large."""
    storage = WaveStorage(MemoryPlan(True, 8, wave_tokens=20, states_device="cpu", head_rows=64, disk_tokens=12))
    hidden = torch.zeros(2, 4, 3)
    assert storage.has_room(1000)
    assert not isinstance(storage.store(hidden), StatesOnDisk)
    assert isinstance(storage.store(hidden), StatesOnDisk)
    assert not storage.has_room(8)
    assert storage.has_room(4)
    storage.start_wave()
    assert storage.has_room(1000)
    storage.close()


def test_the_host_budget_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """20 MiB of hidden states take the memory that they may, and wait in the file where that is little."""
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", str(MIB // 16))  # what is freed goes back at once, so that what is in use is measured
    with get_context("spawn").Pool(1) as fresh:  # where no earlier test left free memory that would hide what is taken now
        tight, ample = fresh.map(peak_with, [1 * MIB, 22 * MIB], chunksize=2)
    assert tight < 9 * MIB
    assert 15 * MIB < ample < 30 * MIB


def peak_with(host_memory: int) -> int:
    """Return the most memory (bytes) that 20 MiB of hidden states took beside 8 MiB of device memory."""
    model, prompts = tiny(), long_prompts(1250, 64)
    settings = Settings(device_memory=8 * MIB, host_memory=host_memory, batch_tokens=512)
    needs = replace(measure_needs(model, torch.float32, prompts), weights=100 * MIB)  # as if the model were too large
    plan = plan_memory(needs, "cpu", settings, loaded=False)
    run(model, some_prompts(), streamed=True)  # what libraries take once is no part of the budget
    with peak_memory() as peak:
        prefill(model, prompts, OPTIONS, plan, Target("cpu", torch.float32), lambda _: None)
    return peak[0]


def test_the_file_has_no_name_and_a_full_disk_is_one_sentence() -> None:
    """Nothing lies in the cache folder while a run is under way, and a file that may not grow is an error that says what to do."""
    seen: set[Path] = set()
    run(tiny(), some_prompts(20), done=lambda _: seen.update(existing_cache_folder().iterdir()), **NO_ROOM)
    assert not seen
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, hard))
    try:
        with pytest.raises(HedgemarkError, match="--host-memory"):
            run(tiny(), long_prompts(500, 64), **{**NO_ROOM, "wave_tokens": 10**6, "disk_tokens": 10**6})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not any(existing_cache_folder().iterdir())
