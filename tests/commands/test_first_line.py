"""No command leaves the terminal blank: what it begins with is on stderr before anything slow is imported or read."""

import subprocess
import sys

import pytest

SLOW = ("numpy", "polars", "zarr", "icechunk", "scipy", "xarray", "torch", "transformers")  # slow to import
COMMANDS = (
    ("analyzer", "compare"), ("analyzer", "report"), ("analyzer", "sets"), ("analyzer", "gate", "--limit", "flips=0.1"),
    ("analyzer", "sensitivity"), ("analyzer", "cliffs"), ("analyzer", "frontier"), ("analyzer", "study", "ye2024"), ("analyzer", "serve"),
    ("producer", "--model", "ref-s", "--task", "urn"), ("producer", "--model", "ref-s", "--task", "urn", "--dry-run"),
    ("producer", "--plan", "ye2024"), ("store", "verify"), ("store", "push", "./there"), ("store", "export", "a.zip"),
)  # fmt: skip
WATCHED = """
import builtins, importlib, os, sys
module, *arguments = {command!r}
slow, real = {slow!r}, builtins.__import__
def first_slow(name, *rest):
    if name.partition(".")[0] in slow:
        sys.stderr.write("first slow import\\n")
        sys.stderr.flush()
        os._exit(7)
    return real(name, *rest)
builtins.__import__ = first_slow
importlib.import_module(module + ".cli.main").main(arguments + ["--store", "./no-such-store"])
"""


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_first_line_comes_before_the_first_slow_import(command: tuple[str, ...]) -> None:
    """One sentence that names the store, while neither numpy nor torch has been asked for."""
    code = WATCHED.format(command=command, slow=SLOW)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    first, *others = done.stderr.splitlines()
    assert done.returncode == 7 and others == ["first slow import"], done.stderr
    assert "./no-such-store" in first and first.endswith(" ...")
