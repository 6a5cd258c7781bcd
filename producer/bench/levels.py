"""What a range of levels saves: `--level 0:0.5:0.1` in one command, compared with one command per level that makes the same runs."""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence

from producer.bench.rates import spread

MODEL, METHOD, RANGE = "ref-m", "wanda", "0:0.5:0.1"
LEVELS = ("0", "0.1", "0.2", "0.3", "0.4", "0.5")
ITEMS = 40


def levels(arguments: argparse.Namespace) -> Iterator[str]:
    """Yield the ratio of processor time, start of the commands included, of six commands to one."""
    one, six = [], []
    for _ in range(arguments.rounds):
        one.append(_processor_seconds([RANGE], arguments.items or ITEMS))
        six.append(_processor_seconds(LEVELS, arguments.items or ITEMS))
    yield f"{METHOD} on {MODEL} at {len(LEVELS)} levels: a command each takes {spread(six, one)} times the processor seconds of {RANGE}"


def _processor_seconds(texts: Sequence[str], n_items: int) -> float:
    """Return the processor seconds of one `produce` command for each `--level`, all into one new store."""
    fixed = ["--model", MODEL, "--method", METHOD, "--task", "urn", "--limit", str(n_items), "--device", "cpu"]
    before = _children()
    with tempfile.TemporaryDirectory() as store:
        for text in texts:
            command = [sys.executable, "-m", "producer", *fixed, "--level", text, "--store", os.path.join(store, "store")]
            subprocess.run(command, check=True, capture_output=True)
    return _children() - before


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
