"""Saved models: how far the answers of a checkpoint are from those in memory, and what `--models` saves when a prompt is added.

In: SmolLM2-135M and compression data of a stated size.  Out: for every method that can be saved, at levels that are packed in different
ways, the largest change of an option logit and the bytes of the weight files; for each method the command's peak memory; for gptq and
sparsegpt the processor seconds of one more prompt with the kept model and with compressing again.
Each command is a process of its own, as on a user's machine.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from producer.bench.rates import spread
from producer.methods import METHODS
from producer.saved.library import RECORD
from producer.saved.packing import rounds_integers
from schemas.errors import HedgemarkError
from schemas.levels import parse_level
from store import open_reader

MODEL, TASK, ITEMS = "smollm2-135m", "urn", 16
DATA = "packaged:8x128"  # far less than a user would take: recompressing is even dearer than it is shown
SAVEABLE = {
    "rtn": ("w4a16-g32", "w3a16-g32", "w8a16", "nvfp4", "mxfp8", "w8a8-fp8-static"),
    "gptq": ("w4a16-g32", "mxfp4"),
    "awq": ("w4a16-g32",),
    "autoround": ("w4a16-g32",),
    "smoothquant": ("w8a8", "w6a6"),
    "recipe": ("nvfp4-fp8",),
    "magnitude": ("2:4",),
    "wanda": ("0.5",),
    "sparsegpt": ("0.5",),
}
LEVELS_ASKED_AGAIN = {"gptq": "w4a16-g32", "sparsegpt": "0.5"}


class Used(NamedTuple):
    """What a command used: processor seconds, and its peak memory in bytes."""

    seconds: float
    peak: int


class Setup(NamedTuple):
    """The folder that everything is written to, the model, and the number of items that every run asks."""

    folder: Path
    model: str
    n_items: int

    @property
    def models_folder(self) -> Path:
        """The folder of the saved models."""
        return self.folder / "kept"


def saved(arguments: argparse.Namespace) -> Iterator[str]:
    """Yield a line for each method and each saved model, and one for each method of which a prompt was added."""
    model, methods = (arguments.model or [MODEL])[0], arguments.method or [name for name in SAVEABLE if not METHODS[name].missing_library()]
    with tempfile.TemporaryDirectory() as scratch:
        setup = Setup(Path(scratch), model, arguments.items or ITEMS)
        yield f"{model} in float32, {setup.n_items} items of {TASK}, compression data {DATA}"
        for method in methods:
            levels = SAVEABLE[method]
            used = _produce(setup, [model], "made", *_compressing(method, *levels), "--models", str(setup.models_folder))
            yield f"    {method} {', '.join(levels)}: peak memory {used.peak / 2**20:,.0f} MiB"
        yield from (f"    {line}" for line in _again(setup))
        for method in methods:
            if method in LEVELS_ASKED_AGAIN:
                yield "    " + _another_prompt(setup, method, LEVELS_ASKED_AGAIN[method], arguments.rounds)


def _again(setup: Setup) -> Iterator[str]:
    """Run every checkpoint as somebody else's, and say how far its run is from the one that was made in memory."""
    records = {path.parent: json.loads(path.read_text(encoding="utf-8")) for path in setup.models_folder.glob(f"*/{RECORD}")}
    _produce(setup, [str(folder) for folder in records], "again", "--method", "checkpoint")
    made, again = (open_reader(str(setup.folder / name)) for name in ("made", "again"))
    name_of = {row["model"]: row["name"] for row in again.catalog.to_dicts()}
    for folder, record in sorted(records.items(), key=lambda pair: _order(pair[1])):
        identity, compared = record["identity"], record["loaded_again"]
        change = float(np.nanmax(np.abs(made.run(record["runs"][0]).logits - again.run(name_of[folder.name]).logits)))
        integers = rounds_integers(parse_level(identity["level"]))
        rounded = f" ({compared['largest_logit_change']:.1e} with our rounding of the inputs)" if integers else ""
        yield (
            f"{identity['method']} {identity['level']}: largest change of an option logit {change:.1e}{rounded}, {compared['allowed']:.1e} "
            f"allowed; {record['bytes'] / 1e6:,.1f} MB, {record['format']}"
        )


def _another_prompt(setup: Setup, method: str, level: str, rounds: int) -> str:
    """Ask a second prompt, with the kept model and without it."""
    loaded: list[float] = []
    compressed: list[float] = []
    for number in range(rounds):
        for seconds, more in ((loaded, ("--models", str(setup.models_folder))), (compressed, ())):
            words = (*_compressing(method, level), "--prompt", "shared", *more)
            seconds.append(_produce(setup, [setup.model], f"{method}-prompt-{number}-{len(more)}", *words).seconds)
    return (
        f"{method} {level}, one more prompt: {statistics.median(loaded):.0f} processor seconds with --models, "
        f"{statistics.median(compressed):.0f} with compressing again, {spread(compressed, loaded)} times as many"
    )


def _compressing(method: str, *levels: str) -> tuple[str, ...]:
    return ("--method", method, *(word for level in levels for word in ("--level", level)), "--compression-data", DATA)


def _order(record: dict[str, Any]) -> int:
    """Return the place of a saved model in the order in which they were made."""
    each = [(method, level) for method, levels in SAVEABLE.items() for level in levels]
    return each.index((record["identity"]["method"], record["identity"]["level"]))


def _produce(setup: Setup, models: Sequence[str], store: str, *words: str) -> Used:
    """Run `produce` into a store of the folder. Raises HedgemarkError with its last line if it fails."""
    named = [word for model in models for word in ("--model", model)]
    fixed = ["--task", TASK, "--limit", str(setup.n_items), "--device", "cpu", "--store", str(setup.folder / store)]
    with tempfile.TemporaryFile() as stderr:
        command = subprocess.Popen([sys.executable, "-m", "producer", *named, *fixed, *words], stdout=subprocess.DEVNULL, stderr=stderr)
        _, status, usage = os.wait4(command.pid, 0)
        command.returncode = os.waitstatus_to_exitcode(status)
        stderr.seek(0)
        lines = stderr.read().decode().strip().splitlines()
    if command.returncode:
        raise HedgemarkError(f"produce {' '.join(words)} failed: {lines[-1] if lines else command.returncode}")
    return Used(usage.ru_utime + usage.ru_stime, 1024 * usage.ru_maxrss)
