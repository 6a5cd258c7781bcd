"""Open a stored run as an xarray data set. `xarray.open_zarr` can open it too, but without verifying any digest."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from schemas.fields import FIELDS
from schemas.layout import TOKEN_ARRAYS
from store.format.runs import check_fit
from store.reading.reader import open_reader

if TYPE_CHECKING:
    import xarray as xr

ARRAYS_DIGEST = "arrays_digest"  # attribute of a data set, or part of its coordinate `made_with`
# What figures are computed from, with the type in which each is compared: a file format may have given it another one.
DIGESTED = {
    **{"logits": "<f4", "logsumexp": "<f4", "top_token": "<i8", "answer": "<i8", "n_options": "<i8"},
    **{"demonstration": "<i8", "question": "<i8", "item_id": "<u8", "subject": "str"},
}


def open_dataset(url: str | Path, name: str, at: str | None = None) -> "xr.Dataset":
    """Return a run and its items as one xarray data set in memory, after verifying every digest.

    xarray alone would show a chunk that was replaced by another run's without an error; here it is an error.

    Parameters
    ----------
    url : address of a store, such as ./hedgemark-store or s3://bucket/logits.
    name : name of a run, as `store ls` lists it.
    at : tag or snapshot id; None is the newest snapshot.

    Returns
    -------
    Data set with `logits` (item, option) float32, NaN beyond an item's own options; `logsumexp`, `top_token`, `answer` (index of the
    correct option), `n_options`, `subject` and `demonstration` (item,), and the coordinate `item_id`. Its attributes are the fields that
    name the run (model, method, level, task, prompt), `name`, `snapshot`, `digest`, all that was recorded as `key` and `env`, and
    `arrays_digest`, by which a data set that was changed afterwards is told from what the snapshot holds.

    Raises
    ------
    RunNotFoundError if the snapshot has no such run, StoreNotFoundError, StoreInvalidError if anything is damaged.

    Examples
    --------
    >>> import tempfile, numpy as np, store
    >>> from schemas.items import Item
    >>> from schemas.itemset import build_item_set
    >>> from schemas.run import Run, RunKey
    >>> folder = tempfile.TemporaryDirectory()
    >>> url = folder.name + "/logits"
    >>> store.init_store(url)
    >>> questions = [Item(id=str(i), answer="A", question=f"{i} + 1 = ?", choices={"A": str(i + 1), "B": "7"}) for i in range(3)]
    >>> items = build_item_set("sums", questions)
    >>> key = RunKey(model="m", method="dense", task="sums", items_hash=items.digest, prompt="base")
    >>> unknown = np.full(3, np.nan, np.float32), np.full(3, -1, np.int32)
    >>> with store.open_writer(url) as writer:
    ...     name = writer.write(items, Run(key, np.array([[2, 0], [1, 0], [0, 3]], np.float32), *unknown))
    >>> data = store.open_dataset(url, name)
    >>> dict(data.sizes), float((data.logits.argmax("option") == data.answer).mean().round(2))
    ({'item': 3, 'option': 2}, 0.67)
    >>> folder.cleanup()
    """
    import xarray as xr

    reader = open_reader(url, at)
    run = reader.run(name)
    items = reader.items(run.key.items_hash)
    check_fit(run, items, f"store {url}")
    variables = {
        "logits": (("item", "option"), run.logits),
        **{field: ("item", getattr(run, field)) for field in ("logsumexp", "top_token")},
        **{field: ("item", getattr(items, field)) for field in ("answer", "n_options", "demonstration")},
        "subject": ("item", np.array(items.subjects, dtype=np.str_)[items.subject]),
    }
    if run.tokens:
        variables |= {name: (spec.dims, run.tokens.arrays()[name]) for name, spec in TOKEN_ARRAYS.items()}
    attributes = {
        **{field: getattr(run.key, field) for field in FIELDS},
        **{"name": name, "snapshot": reader.snapshot, "digest": run.digest},
        **{"key": run.key.model_dump(mode="json"), "env": run.env.model_dump(mode="json")},
    }
    data = xr.Dataset(variables, coords={"item_id": ("item", items.item_id)}, attrs=attributes)
    return data.assign_attrs({ARRAYS_DIGEST: arrays_digest(data)})


def arrays_digest(data: "xr.Dataset") -> str:
    """Return the SHA-256 (64 hex digits) of the arrays of a run in a data set, its answers and logits among them."""
    total = hashlib.sha256()
    for name, dtype in DIGESTED.items():
        if name in data:
            values = data[name].to_numpy()
            content = json.dumps(values.astype(str).tolist()).encode() if dtype == "str" else values.astype(dtype).tobytes()
            total.update(f"{name} {values.shape} ".encode() + content)
    return total.hexdigest()
