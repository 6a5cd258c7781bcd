"""The permutation test of set sizes, drawn once for each pair of runs in a process: it takes most of the time of a small store's tables."""

import hashlib
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

KNOWN: dict[bytes, float] = {}


@pytest.fixture(scope="module")
def swaps_drawn_once() -> Iterator[None]:
    """Give a pair that was tested before its p-value of that time.

    This is for tests that ask for one store's tables again and again, to look at something else in them. A pair is found by all that its
    p-value depends on: scores, answers, the law of the threshold's rank, the generator with its state, and clusters.
    """
    from analyzer.compare import compare

    drawn = compare.swap_p

    def remembered(*given: Any) -> float:
        key = hashlib.sha256(pickle.dumps(given)).digest()
        if key not in KNOWN:
            KNOWN[key] = drawn(*given)
        return KNOWN[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "swap_p", remembered)
        yield
