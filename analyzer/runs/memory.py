"""Runs in memory with the same interface as a store's reader: xarray data sets of a notebook, and runs made by tests."""

import json
from collections.abc import Iterable, Iterator
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analyzer.stats.arrays import AnyArray
from schemas.errors import UsageError
from schemas.fields import FIELDS, KEY_COLUMNS
from schemas.items import MAX_OPTIONS
from schemas.itemset import ItemSet
from schemas.levels import NO_LEVEL, parse_level
from schemas.run import DENSE, UNKNOWN_TOKEN, Environment, Run, RunKey
from store.reading.dataset import ARRAYS_DIGEST, arrays_digest

if TYPE_CHECKING:
    import xarray as xr

# Arrays that a data set may have, one value for each item.
OF_ITEM = ("answer", "item_id", "n_options", "subject", "question", "demonstration", "logsumexp", "top_token")
MOST_TOKEN = np.iinfo(np.int32).max
MADE_WITH = "made_with"  # coordinate of a data set that came out of a store


class MemoryReader:
    """Runs and their item sets, read by the names of the runs' keys."""

    def __init__(self, items: Iterable[ItemSet], runs: Iterable[Run], snapshot: str = "(in memory)") -> None:
        self.snapshot = snapshot
        self._items = {one.digest: one for one in items}
        self._runs = {run.key.name: run for run in runs}
        self.catalog = pl.DataFrame(
            [
                {"name": name, "parameters": run.env.parameters} | {column: getattr(run.key, column) for column in KEY_COLUMNS}
                for name, run in self._runs.items()
            ]
        )

    def run(self, name: str) -> Run:
        """Return a run by name."""
        return self._runs[name]

    def runs(self, names: Iterable[str]) -> Iterator[Run]:
        """Yield runs by name."""
        return map(self.run, names)

    def items(self, items_hash: str) -> ItemSet:
        """Return an item set by hash."""
        return self._items[items_hash]


class DataSet(NamedTuple):
    """A run and its item set."""

    items: ItemSet
    run: Run


def made_with(run: Run, data: "xr.Dataset") -> str:
    """Return how a run was made as JSON, for the coordinate `made_with` of a data set: without it no flag could tell of a cut prompt.

    data : the run's data set, whose digest tells later whether it was changed.
    """
    stored = {"key": run.key.model_dump(mode="json"), "env": run.env.model_dump(mode="json")}
    return json.dumps(stored | {ARRAYS_DIGEST: arrays_digest(data)})


def snapshot_of(data: "xr.Dataset") -> str:
    """Return the snapshot that a data set of one run came out of; "" for one of another origin, or that was changed since."""
    stated = (_read_made_with(data) if MADE_WITH in data.coords else data.attrs).get(ARRAYS_DIGEST)
    return str(data.attrs.get("snapshot", "")) if stated is not None and stated == arrays_digest(data) else ""


def with_indexes(data: "xr.Dataset") -> "xr.Dataset":
    """Return a data set whose answers are the indexes of options: letters, as in A to Z, are turned into them.

    Raises UsageError for texts that are not letters of options.
    """
    if "answer" not in data or data["answer"].dtype.kind not in "OUT":
        return data
    letters = data["answer"].to_numpy()
    known = {letter: index for index, letter in enumerate(ascii_uppercase[:MAX_OPTIONS])}
    if wrong := [letter for letter in letters.ravel().tolist() if not isinstance(letter, str) or letter not in known]:
        raise UsageError(f"answer holds {wrong[0]!r:.40}; expected the index of each correct option, from 0 on, or its letter, A to Z")
    indexes = np.array([known[letter] for letter in letters.ravel().tolist()], dtype=np.int64).reshape(letters.shape)
    return data.assign(answer=(data["answer"].dims, indexes))


def read_data_set(data: "xr.Dataset") -> DataSet:
    """Return the run of an xarray data set.

    data : a data set as `analyzer.api` describes it.
    Raises UsageError that says what is missing or invalid.
    """
    _check_dimensions(data)
    logits = _numbers(data["logits"].transpose("item", "option"))
    items = _item_set(data, logits)
    items.check()
    defaults = dict(zip(FIELDS, ("model", DENSE, NO_LEVEL, items.task, "base"), strict=True))
    names = {field: str(data.attrs.get(field, default)) for field, default in defaults.items()}
    names["level"] = parse_level(names["level"]).text
    n_items = len(items)
    made = _read_made_with(data) if MADE_WITH in data.coords else {"key": {}, "env": {}}
    key, env = RunKey(**made["key"] | names | {"items_hash": items.digest}), Environment(**made["env"])
    logsumexp = _numbers(data["logsumexp"]) if "logsumexp" in data else np.full(n_items, np.nan, np.float32)
    top_token = _whole_tokens(data) if "top_token" in data else np.full(n_items, UNKNOWN_TOKEN, np.int32)
    return DataSet(items, Run(key, logits, logsumexp, top_token, env))


def _read_made_with(data: "xr.Dataset") -> dict[str, Any]:
    try:
        made = json.loads(data[MADE_WITH].item())
        RunKey(**made["key"]), Environment(**made["env"])
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{MADE_WITH} is not what `logits` wrote there; leave it out, as in data.drop_vars({MADE_WITH!r})") from error
    return dict(made)


def _numbers(values: "xr.DataArray") -> NDArray[np.float32]:
    if values.dtype.kind not in "fiu":
        raise UsageError(f"{values.name} holds {values.dtype} values; expected real numbers")
    with np.errstate(over="ignore"):  # a number too large for float32 becomes infinite, and its item is left out and counted
        return values.to_numpy().astype(np.float32)


def _check_dimensions(data: "xr.Dataset") -> None:
    needed = "a data set of one run has logits (item, option) and answer (item,)"
    if missing := [name for name in ("logits", "answer") if name not in data]:
        raise UsageError(f"{needed}; it lacks {missing} and has {', '.join(map(str, data.variables)) or 'nothing'}")
    expected = {"logits": {"item", "option"}} | {name: {"item"} for name in OF_ITEM if name in data}
    for name, dims in expected.items():
        if set(data[name].dims) != dims:
            raise UsageError(
                f"{name} has the dimensions {', '.join(map(str, data[name].dims)) or 'none'}; {needed}, and what else it has (item,)"
            )
    if not 2 <= data.sizes["option"] <= MAX_OPTIONS or not data.sizes["item"]:
        found = f"{data.sizes['item']} items with {data.sizes['option']} options"
        raise UsageError(f"logits are of {found}; expected at least one item and 2 to {MAX_OPTIONS} options")


def _item_set(data: "xr.Dataset", logits: AnyArray) -> ItemSet:
    n_items, width = logits.shape
    item_id, answer = _whole_numbers(data, "item_id") if "item_id" in data else np.arange(n_items), _whole_numbers(data, "answer")
    names = _subjects(data) if "subject" in data else np.full(n_items, "")
    subjects, subject = np.unique(names, return_inverse=True)
    n_options = width - np.isnan(logits)[:, ::-1].cumprod(axis=1).sum(axis=1)
    n_options = np.where(n_options == 0, width, n_options)  # an item with only NaN has broken logits, not zero options
    if "n_options" in data:
        n_options = _whole_numbers(data, "n_options")
    if (n_options > width).any():
        raise UsageError(f"n_options is up to {n_options.max()}, and logits are of {width} options")
    if (answer >= n_options).any():
        raise UsageError(f"every answer must be the index of one of its item's 2 to {MAX_OPTIONS} options")
    content = np.zeros((n_items, 32), dtype=np.uint8)
    # Without texts, items are told apart by their ids and answers; those that ask the same question begin with the id of the first of them.
    asked = _whole_numbers(data, "question") if "question" in data else np.arange(n_items)
    _, first, question = np.unique(asked, return_index=True, return_inverse=True)
    for place, part in enumerate((item_id[first[question]], item_id, answer)):
        content[:, 8 * place : 8 * place + 8] = part.astype("<u8").view(np.uint8).reshape(n_items, 8)
    demonstration = _marks(data) if "demonstration" in data else np.zeros(n_items, dtype=np.bool_)
    items = ItemSet(
        task=str(data.attrs.get("task", "task")),
        revision="",
        item_id=item_id.astype(np.uint64),
        content=content,
        answer=answer.astype(np.int16),
        n_options=n_options.astype(np.int16),
        subject=subject.astype(np.int32),
        demonstration=demonstration,
        subjects=tuple(map(str, subjects)),
    )
    vars(items)["question"] = question  # in the order of the store's numbers, by which clusters are drawn
    return items


def _subjects(data: "xr.Dataset") -> AnyArray:
    names = data["subject"].to_numpy()
    if names.dtype.kind not in "UTiu" and not all(isinstance(name, str) for name in names.tolist()):
        wrong = next(name for name in names.tolist() if not isinstance(name, str))
        raise UsageError(f"subject holds {wrong!r:.40}, which is no text; expected the name of each item's subject")
    return names.astype(str)


def _marks(data: "xr.Dataset") -> NDArray[np.bool_]:
    marks = data["demonstration"].to_numpy()
    if marks.dtype.kind not in "biu":
        raise UsageError(f"demonstration holds {marks.dtype} values; expected true or false")
    return marks.astype(np.bool_)


def _whole_tokens(data: "xr.Dataset") -> NDArray[np.int32]:
    """Return (item,) the likeliest token of each item; -1 where it is unknown, which a file may have turned into NaN."""
    tokens = data["top_token"].to_numpy()
    known = np.where(np.isnan(tokens), UNKNOWN_TOKEN, tokens) if tokens.dtype.kind == "f" else tokens
    if tokens.dtype.kind not in "fiu" or not (known == np.trunc(known)).all() or (np.abs(known) > MOST_TOKEN).any():
        raise UsageError(f"top_token holds {tokens.dtype} values that are no ids of tokens; expected whole numbers, -1 where it is unknown")
    return np.asarray(known.astype(np.int32))


def _whole_numbers(data: "xr.Dataset", name: str) -> AnyArray:
    values = data[name].to_numpy()
    if values.dtype.kind not in "iu" or (values < 0).any():
        least = f" from {values.min()} on" if values.dtype.kind in "iuf" else ""
        raise UsageError(f"{name} holds {values.dtype} values{least}; expected whole numbers of 0 or more")
    return values
