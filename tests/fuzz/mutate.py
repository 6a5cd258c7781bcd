"""Ways to damage bytes and documents, drawn from a seeded generator."""

import copy
from typing import Any

import numpy as np

HOSTILE: list[Any] = [
    None, True, -1, 0, 2**80, 10**400, 1e308, float("nan"), float("inf"), "", " ", "1e-99999999", "w999999999999a16", "nan", "null",
    "../../etc/passwd", "\ud800", "\x00", "\u202egnp.exe", "\x1b]0;title\x07", "a\nb", "A" * 70_000, [], {}, [[]], {"": None},
    [None] * 3, "0" * 5_000, "http://[::1", "s3://[bad", "file:///\x00", "<script>alert(1)</script>", "=HYPERLINK(1)", "\u2028",
    "\uff19", "1_000", "0x10", "-0.0",
]  # fmt: skip


def hostile(rng: np.random.Generator) -> Any:
    """A value that no honest writer would put there; seldom, one nested deeper than parsers recurse."""
    if rng.random() < 0.03:
        value: Any = 0
        for _ in range(5_000):
            value = [value]
        return value
    return copy.deepcopy(HOSTILE[rng.integers(len(HOSTILE))])


def damaged_bytes(rng: np.random.Generator, data: bytes) -> bytes:
    """The bytes with one thing wrong: a bit, a byte, a hole, a repetition, an end too early, another piece, or rubbish behind them."""
    if not data:
        return bytes(rng.integers(0, 256, 5, dtype=np.uint8))
    i, j = sorted(int(k) for k in rng.integers(0, len(data) + 1, 2))
    at = min(i, len(data) - 1)
    kinds = (
        lambda: data[:at] + bytes([data[at] ^ (1 << int(rng.integers(8)))]) + data[at + 1 :],
        lambda: data[:at] + bytes([int(rng.integers(256))]) + data[at + 1 :],
        lambda: data[:i] + data[j:],
        lambda: data[:j] + data[i:],
        lambda: data[:i],
        lambda: data[:i] + data[j:] + data[i:j],
        lambda: data + bytes(rng.integers(0, 256, int(rng.integers(1, 100)), dtype=np.uint8)),
        lambda: b"",
    )
    return kinds[rng.integers(len(kinds))]()


def damaged_document(rng: np.random.Generator, document: Any) -> Any:
    """The document with one value replaced, removed, repeated or renamed, at any depth."""
    root = {"": copy.deepcopy(document)}
    parent: Any = root
    key: Any = ""
    while isinstance(parent[key], dict | list) and parent[key] and rng.random() < 0.85:
        parent = parent[key]
        names = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
        key = names[rng.integers(len(names))]
    what = rng.integers(4)
    if what == 0 and parent is not root:
        del parent[key]
    elif what == 1 and isinstance(parent, list):
        parent.insert(0, copy.deepcopy(parent[key]))
    elif what == 2 and isinstance(parent, dict) and parent is not root:
        parent[str(hostile(rng))[:200]] = parent.pop(key)
    else:
        parent[key] = hostile(rng)
    return root[""]
