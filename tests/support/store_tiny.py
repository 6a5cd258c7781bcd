"""Small item sets, runs and stores for the store's tests."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.items import Item
from schemas.itemset import ItemSet, build_item_set
from schemas.run import Environment, Run, RunKey
from store import init_store, open_writer

N_ITEMS = 12
# RLE blocks of 128 KiB behind a window of as much, which every decoder accepts, and an announced size: 65 kB
ZSTD_2_GB = b"\x28\xb5\x2f\xfd\x80\x38\x00\x00\x00\x80" + b"\x02\x00\x10\x00" * 16_383 + b"\x03\x00\x10\x00"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep catalogs of test stores out of the user's cache."""
    monkeypatch.setenv("HEDGEMARK_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def store_url(tmp_path: Path) -> Iterator[str]:
    """Return the address of an empty local store."""
    address = str(tmp_path / "store")
    init_store(address)
    yield address


def tiny_items(task: str = "urn", n_items: int = N_ITEMS) -> ItemSet:
    """Return items of three and four options in two subjects."""
    items = []
    for i in range(n_items):
        choices = {letter: f"{letter}{i}" for letter in "ABCD"[: 3 + i % 2]}
        items.append(Item(id=str(i), answer="ABC"[i % 3], question=f"{task} {i}: naïve?", choices=choices, subject=f"s{i % 2}"))
    return build_item_set(task, items, revision="seed:1", demonstrations=("1",))


def tiny_run(items: ItemSet, model: str = "ref-s", seed: int = 0, logit_seed: int | None = None, **key: Any) -> Run:
    """Return a run of random logits; `logit_seed` changes the content and not the key."""
    rng = np.random.default_rng([seed, logit_seed or 0, len(model)])
    width = int(items.n_options.max())
    logits = rng.normal(size=(len(items), width)).astype(np.float32)
    logits[np.arange(width) >= items.n_options[:, None]] = np.nan
    fields = {"method": "dense", "prompt": "base", **key}
    run_key = RunKey(model=model, task=items.task, items_hash=items.digest, seed=seed, **fields)
    return Run(
        run_key,
        logits,
        (np.log(np.nansum(np.exp(logits), axis=1)) + np.abs(rng.normal(size=len(items)))).astype(np.float32),
        rng.integers(0, 99, len(items), dtype=np.int32),
        env=Environment(libraries={"numpy": "2.0"}, created="2026-01-02T03:04:05+00:00", duration_s=1.5),
    )


def write_runs(url: str, items: ItemSet, runs: list[Run]) -> str:
    """Write runs in one commit and return the snapshot id."""
    with open_writer(url) as writer:
        for run in runs:
            writer.write(items, run)
        return writer.commit()
