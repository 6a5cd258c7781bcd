"""Encode a run as a group of the store, and read it back with all its checks.

In: a `Run`, or `Keys`.  Out: (key, bytes) pairs, or the run with its digest verified.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from schemas.errors import HedgemarkError, StoreInvalidError
from schemas.itemset import ItemSet
from schemas.json_text import json_bytes
from schemas.layout import ITEM_SIZES, RUN_ARRAYS, RUNS, SCHEMA_VERSION, TOKEN_ARRAYS, ArraySpec, group_document, sealed
from schemas.options import own_options
from schemas.run import Environment, Run, RunKey, TokenArrays, nonfinite_items
from store.format.arrays import array_keys, encode_arrays, read_arrays
from store.format.documents import check_schema, count_of, group_attributes, text_of
from store.format.keys import Keys

TOKENS_COUNTED = 4  # since this schema version runs state their number of tokens
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class RunRecord:
    """A run's attributes: everything but its arrays."""

    key: RunKey
    env: Environment
    digest: str
    nonfinite: int
    n_items: int
    n_options: int
    n_tokens: int = 0  # of a run over a text

    def specs(self) -> Mapping[str, ArraySpec]:
        """Return the specs of its arrays by name."""
        return {**RUN_ARRAYS, **TOKEN_ARRAYS} if self.n_tokens else RUN_ARRAYS

    def shapes(self) -> Shapes:
        """Return the shape of each array of the run."""
        shapes: Shapes = {"logits": (self.n_items, self.n_options), "logsumexp": (self.n_items,), "top_token": (self.n_items,)}
        if self.n_tokens:
            shapes |= dict.fromkeys(("token_logprob", "token_kl", "token_same_top"), (self.n_tokens,))
            shapes["document_offsets"] = (self.n_items + 1,)
        return shapes


def encode_run(run: Run, n_options: NDArray[np.integer[Any]]) -> Iterator[tuple[str, bytes]]:
    """Yield the keys and bytes of a run's group."""
    group = f"{RUNS}/{run.key.name}"
    attributes = {
        "schema": SCHEMA_VERSION,
        "key": run.key.model_dump(mode="json"),
        "env": run.env.model_dump(mode="json"),
        "digest": run.digest,
        "nonfinite": nonfinite_items(run.logits, n_options),
        "n_items": run.logits.shape[0],
        "n_options": run.logits.shape[1],
        "n_tokens": len(run.tokens.logprob) if run.tokens else 0,
    }
    yield f"{group}/zarr.json", json_bytes(group_document(sealed(attributes)))
    yield from encode_arrays(group, {**RUN_ARRAYS, **TOKEN_ARRAYS} if run.tokens else RUN_ARRAYS, run.arrays())


def read_run(keys: Keys, name: str, record: RunRecord) -> Run:
    """Return a run. Raises StoreInvalidError if its arrays do not have the recorded digest."""
    arrays = read_arrays(keys, f"{RUNS}/{name}", record.specs(), record.shapes())
    tokens = TokenArrays(*(arrays.pop(array) for array in TOKEN_ARRAYS)) if record.n_tokens else None
    run = Run(record.key, **arrays, env=record.env, tokens=tokens)
    if run.digest != record.digest:
        raise StoreInvalidError(f"store {keys.where}: run {name} is not what was written: its digest differs")
    return run


def check_fit(run: Run, items: ItemSet, where: str, nonfinite: int | None = None) -> None:
    """Raise StoreInvalidError if a stored run does not fit the items that it answered; NaN logits are allowed.

    nonfinite : number of items with NaN or infinite logits that the run's attributes say, if it is to be checked.
    """
    try:
        run.check(items.n_options, allow_nonfinite=True)
    except HedgemarkError as error:
        raise StoreInvalidError(f"{where}: {error}") from error
    about = f"{where}: run {run.key.name}"
    if run.key.task != items.task:
        raise StoreInvalidError(f"{about} says task {run.key.task[:80]!r}, its items are of task {items.task[:80]!r}")
    if not np.all(np.isnan(run.logits[~own_options(items.n_options, run.logits.shape[1])])):
        raise StoreInvalidError(f"{about}: an item has logits beyond its own options")
    broken = nonfinite_items(run.logits, items.n_options)
    if nonfinite not in (None, broken):
        raise StoreInvalidError(f"{about}: {broken} items have NaN or infinite logits, its attributes say {nonfinite}")


def run_bytes(record: RunRecord) -> int:
    """Return the bytes of a run's arrays in memory."""
    return sum(math.prod(shape) * ITEM_SIZES[record.specs()[name].dtype] for name, shape in record.shapes().items())


def run_keys(name: str, record: RunRecord) -> list[str]:
    """Return all keys of a run's arrays. Raises StoreInvalidError for a shape that the layout does not allow."""
    return array_keys(f"{RUNS}/{name}", record.specs(), record.shapes())


def parse_run_record(stored: bytes | None, name: str, where: str) -> RunRecord:
    """Return a run's record from its zarr.json. Raises StoreInvalidError if that is not a run's metadata, or belongs to another run."""
    about = f"store {where}: run {name[:120]!r}"
    attributes = group_attributes(stored, about)
    check_schema(attributes, about)
    try:
        key, env = RunKey.model_validate(attributes["key"]), Environment.model_validate(attributes["env"])
        counts = [count_of(attributes, field) for field in ("nonfinite", "n_items", "n_options")]
        counts.append(count_of(attributes, "n_tokens") if attributes["schema"] >= TOKENS_COUNTED else 0)
        record = RunRecord(key, env, text_of(attributes, "digest"), *counts)
    except (KeyError, ValueError, TypeError, ValidationError, RecursionError) as error:
        raise StoreInvalidError(f"{about} has attributes that are not a run's: {brief(error)}") from error
    if record.key.name != name:
        raise StoreInvalidError(f"{about} holds the key of run {record.key.name[:120]!r}")
    return record


def brief(error: Exception) -> str:
    """Return an exception's message shortened; pydantic's without its links."""
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, part['loc']))}: {part['msg']}" for part in error.errors()[:3])
    return f"{type(error).__name__} {str(error)[:120]}"
