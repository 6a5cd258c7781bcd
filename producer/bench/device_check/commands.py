"""The command `produce` on the device and on the CPU: several models, methods and levels in one command, run by run from the stores."""

import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from producer.bench.device_check.answers import SAME
from producer.bench.device_check.compressed import APART
from producer.bench.device_check.finding import Finding, Measured, Where, attempt
from producer.models.find import REFERENCE
from schemas.run import DENSE, Run

METHODS = ("dense", "rtn", "magnitude", "wanda")
LEVELS = ("w8a16-g32", "w4a16-g32", "0.3", "0.5")
NEEDED = ("icechunk", "zarr", "polars")


def commands(where: Where) -> Iterator[Finding]:
    """Yield the runs of one command in memory, and the dense ones within memory that the weights do not fit in."""
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        yield Finding("stores", {"not run": f"{', '.join(missing)} not installed here, so there is no store to write to"})
        return
    with tempfile.TemporaryDirectory() as folder:
        base, n_items = Path(folder), 8 if where.small else 40
        levels = [option for level in LEVELS for option in ("--level", level)]
        methods = [option for name in METHODS for option in ("--method", name)] + levels
        yield attempt("several levels in one command", partial(_compared, where, base, n_items, methods, []))
        little = [] if where.device == "cpu" else ["--device-memory", "12M"]
        yield attempt("layer by layer in one command", partial(_compared, where, base, n_items, ["--method", "dense"], little))


def _compared(where: Where, base: Path, n_items: int, methods: list[str], more: list[str]) -> Measured:
    runs = {}
    for device, options in {"cpu": [], where.device: more}.items() if where.device != "cpu" else [("cpu", more)]:
        store = base / f"{device.replace(':', '-')}{len(methods)}"
        models = [option for name in REFERENCE for option in ("--model", name)]
        fixed = f"--task urn --limit {n_items} --dtype float32 --device {device} --self-check 4".split()
        done = subprocess.run(
            [sys.executable, "-m", "producer", *models, *methods, *fixed, "--store", str(store), *options],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"produce ended with {done.returncode}: {done.stderr.strip()[-600:]}")
        runs[device] = _read(store)
    expected, on_device = runs["cpu"], runs[where.device]
    measured = Measured({"runs": len(on_device)})
    measured.require(set(on_device) == set(expected), f"other runs: {sorted(set(on_device) ^ set(expected))[:4]}")
    dense = {run.key.model: run for run in expected.values() if run.key.method == DENSE}
    farthest = {"dense": 0.0, "compressed": 0.0}
    for name in on_device:
        one, other, start = on_device[name], expected[name], dense[on_device[name].key.model]
        if one.key.method == DENSE:
            difference = float(np.nanmax(np.abs(one.logits - other.logits)) / np.nanmax(np.abs(other.logits)))
            farthest["dense"] = max(farthest["dense"], difference)
        else:
            changed = float(np.nanmean(np.abs(other.logits - start.logits)))
            farthest["compressed"] = max(farthest["compressed"], float(np.nanmean(np.abs(one.logits - other.logits))) / changed)
    measured.at_most("dense, largest difference", farthest["dense"], SAME)
    measured.at_most("compressed, farthest apart", farthest["compressed"], APART)
    return measured


def _read(store: Path) -> dict[str, Run]:
    from store import open_reader

    reader: Any = open_reader(str(store))
    return {run.key.name: run for run in reader.runs(reader.catalog["name"].to_list())}
