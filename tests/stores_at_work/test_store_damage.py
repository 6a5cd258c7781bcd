"""Random damage to every kind of file in a store: never a silently different number."""

import random
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from store_tiny import tiny_items, tiny_run, write_runs

from schemas.errors import HedgemarkError
from store import open_reader, open_writer
from store.cli.main import main
from store.upkeep.tags import tag_snapshot


@pytest.fixture
def original(store_url):
    """Return a store with a tag, a replaced run and two item sets, and what a reader sees in it."""
    first, second = tiny_items(n_items=200), tiny_items("facts", n_items=40)
    write_runs(store_url, first, [tiny_run(first, seed=seed) for seed in range(3)])
    tag_snapshot(store_url, "v1")
    write_runs(store_url, second, [tiny_run(second)])
    with open_writer(store_url) as writer:
        writer.write(first, tiny_run(first, logit_seed=5), replace=True)
    return store_url, _see(store_url)


def _see(address: str) -> dict[str, object]:
    """Return everything that a reader can learn from a store."""
    seen: dict[str, object] = {}
    for at in (None, "v1"):
        reader = open_reader(address, at)
        for row in reader.catalog.iter_rows(named=True):
            run = reader.run(row["name"])
            items = reader.items(run.key.items_hash)
            content = (row, run.digest, run.env, {name: array.tobytes() for name, array in run.arrays().items()}, items.digest, items.texts)
            seen[f"{at} {row['name']}"] = (*content, items.revision)
    return seen


def _damage(path: Path, rng: random.Random) -> str:
    content = bytearray(path.read_bytes())
    kind = rng.choice(["flip", "flip", "flip", "truncate", "delete"])
    if kind == "delete" or not content:
        path.unlink()
    elif kind == "truncate":
        path.write_bytes(content[: rng.randrange(len(content))])
    else:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
    return kind


def _try_damage(original: tuple[str, dict[str, object]], folder: Path, rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    address, truth = original
    rng = random.Random(20260102)
    by_kind: dict[str, list[Path]] = {}
    for path in sorted(file.relative_to(address) for file in Path(address).rglob("*") if file.is_file()):
        by_kind.setdefault(path.parts[0], []).append(path)
    assert {"refs", "snapshots", "manifests", "transactions", "chunks"} <= set(by_kind)
    noticed = 0
    for number in range(rounds):
        copy = folder / "copy"
        shutil.copytree(address, copy)
        monkeypatch.setenv("HEDGEMARK_CACHE", str(folder / f"cache{number}"))
        path = rng.choice(by_kind[rng.choice(sorted(by_kind))])
        what = f"{_damage(copy / path, rng)} of {path}"
        code = CliRunner().invoke(main, ["verify", "--store", str(copy)])
        assert code.exit_code in (0, 4), f"{what}: {code.output}"
        noticed += code.exit_code == 4
        try:
            seen = _see(str(copy))
        except HedgemarkError:
            assert code.exit_code == 4, f"{what}: verify did not report what a reader stumbled over"
        else:
            assert seen == truth, f"{what}: a reader sees something else"
        shutil.rmtree(copy)
    assert noticed > rounds // 4


def test_damage_is_reported_or_harmless(original, tmp_path, monkeypatch):
    """Flips, truncations and deletions: reported by verify with exit 4, or without effect."""
    _try_damage(original, tmp_path, 15, monkeypatch)


@pytest.mark.slow
def test_much_damage_is_reported_or_harmless(original, tmp_path, monkeypatch):
    """300 flips, truncations and deletions: reported by verify with exit 4, or without effect."""
    _try_damage(original, tmp_path, 300, monkeypatch)
