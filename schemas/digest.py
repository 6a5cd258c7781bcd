"""Digests of keys and arrays: SHA-256 over canonical JSON and little-endian bytes.

In: JSON-able values, numpy arrays.  Out: lower-case hex digits, the same on every machine for the same content.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def canonical_json(value: Any) -> str:
    """Return the canonical JSON text of a value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def json_digest(value: Any) -> str:
    """Return the SHA-256 (64 hex digits) of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def arrays_digest(key: Any, arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return the SHA-256 of a key and named arrays: names, dtypes, shapes and little-endian bytes, in name order."""
    total = hashlib.sha256(canonical_json(key).encode())
    for name, array in sorted(arrays.items()):
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        total.update(canonical_json([name, little.dtype.str, list(little.shape)]).encode())
        total.update(little.tobytes())
    return total.hexdigest()
