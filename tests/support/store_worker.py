"""A writer in its own process, for tests that kill it: python store_worker.py URL FIRST COUNT ACKNOWLEDGED [--unlocked].

Writes one run a commit and appends its name and digest to a file once the commit has returned.
"""

import os
import sys
from contextlib import nullcontext

from store_tiny import tiny_items, tiny_run

import store.repository.repository
from store import open_writer

N_ITEMS = 300  # large enough for chunks of their own


def work(url: str, first: int, count: int, acknowledged: str) -> None:
    """Write `count` runs, numbered from `first`, and record each that was acknowledged."""
    items = tiny_items(n_items=N_ITEMS)
    with open(acknowledged, "a", encoding="utf-8") as file, open_writer(url) as writer:
        for number in range(first, first + count):
            run = tiny_run(items, seed=number)
            name = writer.write(items, run)
            writer.commit()
            file.write(f"{name} {run.digest}\n")
            file.flush()
            os.fsync(file.fileno())


if __name__ == "__main__":
    if "--unlocked" in sys.argv:
        store.repository.repository.FileLock = lambda path: nullcontext()
    work(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
