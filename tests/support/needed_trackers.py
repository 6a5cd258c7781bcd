"""Whether a tracker's library is here: where `make test-trackers` runs the tests, an absent one fails them instead of skipping."""

import os
from importlib.util import find_spec

import pytest


def need(module: str) -> None:
    """Skip the test, or fail it, if a module of a tracker's library is not installed."""
    if all(find_spec(".".join(module.split(".")[: i + 1])) for i in range(module.count(".") + 1)):
        return
    if "HEDGEMARK_TRACKERS" in os.environ:
        pytest.fail(f"{module} is not installed in the environment of `make test-trackers`")
    pytest.skip(f"{module} is not installed: make test-trackers")
