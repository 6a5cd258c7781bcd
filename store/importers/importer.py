"""The definition of an importer: a function that yields item sets with their runs, and the options of its command.

The command `store import NAME` is built from it.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from schemas.digest import json_digest
from schemas.itemset import ItemSet
from schemas.levels import NO_LEVEL, parse_level
from schemas.private import shareable
from schemas.run import DENSE, UNKNOWN_TOKEN, Environment, FloatArray, Run, RunKey

log = logging.getLogger(__name__)

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@dataclass(frozen=True)
class Importer:
    """An importer for one kind of file.

    Parameters
    ----------
    read : generator of (item set, run) pairs, which takes the command's parameters by name. Logits are (item, option) float32 in the order
        of the items, NaN for options that an item does not have.
    help : help text of the command: one sentence, then `Example: store import ...`.
    parameters : click parameters of the command, besides those that every import has (--store, --allow-nonfinite, --replace).
    described : whether the user names model, method, level, task and prompt by options; `read` then takes a `Description` as `described`.

    Raises
    ------
    UsageError, ItemError
        From `read`, for a file that is not of this kind, or that contradicts itself; the message names file and line.

    Examples
    --------
    >>> from schemas.items import Item
    >>> from schemas.itemset import build_item_set
    >>> from store.command import EXISTING_FILE
    >>> def read(file, described):
    ...     rows = [line.split() for line in file.read_text().splitlines()]
    ...     items = build_item_set(described.task, [Item(id=i, answer=a) for i, a, *_ in rows], n_options=[len(row) - 2 for row in rows])
    ...     yield items, imported_run(described, items, np.array([row[2:] for row in rows], np.float32), origin_of("plain", file))
    >>> plain = Importer(read, "Import lines of id, answer and logits.", [click.Argument(["file"], type=EXISTING_FILE)], described=True)
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "logits.txt")
    ...     _ = file.write_text("q1 B 0.5 2.0")
    ...     [(items, run)] = plain.read(file=file, described=Description(model="m", task="quiz"))
    >>> run.key.model, run.logits.tolist()
    ('m', [[0.5, 2.0]])
    """

    read: Callable[..., Iterator[tuple[ItemSet, Run]]]
    help: str
    parameters: Sequence[click.Parameter]
    described: bool = False


@dataclass(frozen=True)
class Description:
    """Names for a run whose file does not contain them."""

    model: str = ""
    method: str = DENSE
    level: str = NO_LEVEL
    task: str = ""
    prompt: str = "imported"


def description_options() -> list[click.Parameter]:
    """Return the options that fill a `Description`."""
    helps = {
        "model": "Name of the model, if the file does not contain it.",
        "method": "How the model was compressed.",
        "level": "How much it was compressed, such as 0.5 or int4.",
        "task": "Name of the task, if the file does not contain it.",
        "prompt": "Name of the prompt.",
    }
    return [
        click.Option([f"--{name}"], default=default, show_default=bool(default), help=helps[name])
        for name, default in vars(Description()).items()
    ]


def imported_run(described: Description, items: ItemSet, logits: FloatArray, origin: str) -> Run:
    """Return a run of imported logits; log-sum-exp and top token, which need the full vocabulary, are marked as unknown."""
    if described.method == DENSE and parse_level(described.level).text != NO_LEVEL:
        name, level = described.model, described.level
        log.warning("%s at level %s is stored as a dense run, with which others are compared; else set --method", name, level)
    key = RunKey(
        model=described.model,
        method=described.method,
        level=parse_level(described.level).text,
        task=described.task,
        items_hash=items.digest,
        prompt=described.prompt,
        dtype="unknown",
        backend="imported",
    )
    unknown = np.full(len(items), np.nan, dtype=np.float32), np.full(len(items), UNKNOWN_TOKEN, dtype=np.int32)
    return Run(key, logits, *unknown, env=Environment(origin=origin))


def in_32_bits(logits: NDArray[np.float64], where: str) -> FloatArray:
    """Return (item, option) logits in float32; too large ones become infinite, and a warning counts most likely options that now tie."""
    with np.errstate(over="ignore"):
        stored = logits.astype(np.float32)
    filled = (np.where(np.isnan(each), -np.inf, each).argmax(axis=1) for each in (logits, stored))
    if moved := int(np.not_equal(*filled).sum()):
        log.warning("%s: in %d items the two likeliest options are equal to 32 bits; the first of them counts", where, moved)
    return stored


def origin_of(kind: str, *paths: Path) -> str:
    """Return the origin recorded with an imported run: format, file names and SHA-256 (for several files, over their digests)."""
    digests = [sha256(path.read_bytes()).hexdigest() for path in paths]
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return f"{kind} {shareable(paths[0].name)}{more} sha256:{digests[0] if len(paths) == 1 else json_digest(digests)}"
