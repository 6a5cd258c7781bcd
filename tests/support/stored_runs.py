"""What a store holds after a command that was killed, and whether it is what an undisturbed one stores."""

from pathlib import Path

import numpy as np

from schemas.run import Run
from store import open_reader


def stored(store: Path) -> Run:
    """Return the only run of a store."""
    reader = open_reader(str(store))
    (name,) = reader.catalog["name"].to_list()
    return reader.run(name)


def same(one: Run, other: Run) -> None:
    """Compare two runs of one key: the same answers but for rounding."""
    assert one.key == other.key
    np.testing.assert_allclose(one.logits, other.logits, atol=1e-4)
    np.testing.assert_allclose(one.logsumexp, other.logsumexp, atol=1e-4)
    np.testing.assert_array_equal(one.top_token, other.top_token)
