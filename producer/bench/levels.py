"""What one command for a range of levels, `--level 0:0.5:0.1`, saves against one command per level that makes the same runs."""

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
    """Yield the ratio of processor time between six commands and one, including the start of each command."""
    one, six = [], []
    for _ in range(arguments.rounds):
        one.append(_processor_seconds([RANGE], arguments.items or ITEMS))
        six.append(_processor_seconds(LEVELS, arguments.items or ITEMS))
    ratio = spread(six, one)
    yield f"{METHOD} on {MODEL} at {len(LEVELS)} levels: one command per level takes {ratio} times the processor seconds of --level {RANGE}"


def _processor_seconds(texts: Sequence[str], n_items: int) -> float:
    """Return the processor seconds of one `produce` command per `--level`, all of which write to the same new store."""
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
