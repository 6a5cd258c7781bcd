"""`python -m producer.cli.cell_worker N`: run the cells that a sweep sends, one after the other, in one process.

In: on stdin, for each cell a line of JSON with the arguments of its `produce` command.  Out: on stdout, what `produce` prints, and a line
with its exit code. One process imports torch once, and loads a model once for all its cells where the memory of the host, which N processes
share, allows it.
"""

import gc
import json
import os
import sys
from collections.abc import Callable, Iterator

from producer.sweep.process import ENDED, end_with_sweep
from store.command import INTERRUPTED, SIGNALLED


def serve(run: Callable[[list[str]], None]) -> None:
    """Call `run` with the arguments of each cell, until there are no more or a signal has stopped one."""
    for line in _lines_of_stdin():
        code = _exit_code(run, json.loads(line))
        _free_memory()
        sys.stdout.flush()
        print(f"\n{ENDED} {code}", flush=True)
        if code > SIGNALLED:
            break


def _lines_of_stdin() -> Iterator[str]:
    """Yield the lines of stdin, which is empty for everybody else: a library that reads it would take the next cell."""
    with os.fdopen(os.dup(sys.stdin.fileno()), encoding="utf-8") as lines, open(os.devnull, encoding="utf-8") as nothing:
        os.dup2(nothing.fileno(), sys.stdin.fileno())
        yield from lines


def _exit_code(run: Callable[[list[str]], None], arguments: list[str]) -> int:
    """Return what Python would end with, if nothing but this were run."""
    try:
        run(arguments)
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr, flush=True)
            return 1
        return ended.code or 0
    return 0


def _free_memory() -> None:
    """Free what the cell leaves behind, so that processes beside this one find it free on the device too."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _begin(n_processes: int) -> None:
    from producer.backends.loaded_models import LOADED
    from producer.cli.main import main

    LOADED.keep_for_cells(n_processes)
    serve(lambda arguments: main(arguments, prog_name="produce"))


if __name__ == "__main__":
    end_with_sweep()
    try:
        _begin(int(sys.argv[1]))
    except KeyboardInterrupt:  # between two cells
        sys.exit(INTERRUPTED)
