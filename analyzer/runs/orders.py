"""Means over orders of options: runs `base`, `base@1`, .. as one run `base@mean4`, for analyses that ask for this prompt by name.

In: a reader of stored runs, the prompts asked for.  Out: a reader that also has the means. The probability of an option is the mean of its
probabilities over the orders, so where it stands no longer matters; every analysis takes such a run like a stored one.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import polars as pl

from analyzer.stats.probs import log_softmax
from schemas.errors import ComparisonError
from schemas.fields import KEY_COLUMNS, name_in_order, split_prompt_name
from schemas.itemset import ItemSet
from schemas.options import own_options
from schemas.run import UNKNOWN_TOKEN, Run

log = logging.getLogger(__name__)

MEAN = "mean"
NOT_OF_A_MEAN = ("digest", "nonfinite")  # columns of a catalog that are not known before the mean is computed
Row = Mapping[str, Any]


class Reader(Protocol):
    """The part of `store.Reader` that analyses use."""

    @property
    def snapshot(self) -> str:
        """Id of the snapshot."""

    @property
    def catalog(self) -> pl.DataFrame:
        """One row per run."""

    def run(self, name: str) -> Run:
        """Return a run by name."""

    def runs(self, names: Iterable[str]) -> Iterator[Run]:
        """Yield many runs in order; a store's reader prefetches them."""

    def items(self, items_hash: str) -> ItemSet:
        """Return an item set by hash."""


class MeansOverOrders:
    """A reader with the runs of another one, and further runs that are means of several; `members` has the latter's runs by name."""

    def __init__(self, reader: Reader, means: Sequence[Row], members: Mapping[str, Sequence[str]]) -> None:
        self._reader, self._members = reader, members
        self.snapshot = reader.snapshot
        self.catalog = pl.concat([reader.catalog, pl.DataFrame(means, reader.catalog.schema)])

    def run(self, name: str) -> Run:
        """Return a run by name; a mean is computed."""
        if name not in self._members:
            return self._reader.run(name)
        runs = list(self._reader.runs(self._members[name]))
        return mean_over_orders(runs, self.items(runs[0].key.items_hash))

    def runs(self, names: Iterable[str]) -> Iterator[Run]:
        """Yield runs by name."""
        return map(self.run, names)

    def items(self, items_hash: str) -> ItemSet:
        """Return an item set by hash."""
        return self._reader.items(items_hash)


def with_means_over_orders(reader: Reader, prompts: Sequence[str]) -> Reader:
    """Return a reader that also has the means over orders that these names of prompts ask for, such as base@mean4; see `MeansOverOrders`.

    A run that lacks one of the orders is left out with a warning.
    """
    asked = {name: split_prompt_name(name) for name in prompts}
    means_asked = {name: (prompt, int(order.removeprefix(MEAN))) for name, (prompt, order) in asked.items() if order.startswith(MEAN)}
    if not means_asked:
        return reader
    rows, members = [], {}
    for name, (prompt, n_orders) in means_asked.items():
        for row_of in (by_order for key, by_order in runs_by_order(reader.catalog.to_dicts()).items() if key[-1] == prompt):
            missing = [order for order in range(n_orders) if order not in row_of]
            if missing:
                listed = ", ".join(name_in_order(prompt, order) for order in missing)
                log.warning("%s has no mean over %d orders: it was not asked in %s", row_of[min(row_of)]["name"], n_orders, listed)
                continue
            together = [row_of[order]["name"] for order in range(n_orders)]
            unknown = {column: None for column in NOT_OF_A_MEAN if column in row_of[0]}
            rows.append({**row_of[0], **unknown, "name": "+".join(together), "prompt": name, "tokens_hash": ""})
            members[rows[-1]["name"]] = together
    return MeansOverOrders(reader, rows, members)


def mean_over_orders(runs: Sequence[Run], items: ItemSet) -> Run:
    """Return the run whose probabilities are the mean of those of runs in several orders of options; its logits are their logarithms.

    Its option mass is the mean as well. An item without finite logits in one of the orders has none.
    Raises ComparisonError if the runs differ in more than their order.
    """
    first = runs[0]
    apart = {"prompt": "", "tokens_hash": ""}
    for run in runs[1:]:
        if run.key.model_copy(update=apart) != first.key.model_copy(update=apart):
            raise ComparisonError(
                f"runs {first.key.name} and {run.key.name} differ in more than the order of options, so they have no mean"
            )
    option_mask = own_options(items.n_options, first.logits.shape[1])
    with np.errstate(invalid="ignore", divide="ignore"):
        stacked = np.stack([log_softmax(run.logits, items.n_options) for run in runs])
        logits = np.where(option_mask, np.logaddexp.reduce(stacked, axis=0) - np.log(len(runs)), np.nan)
        mass = [_log_mass(run, option_mask) for run in runs]
        logsumexp = np.log(len(runs)) - np.logaddexp.reduce(np.stack(mass), axis=0)
    prompt = name_in_order(split_prompt_name(first.key.prompt).prompt, f"{MEAN}{len(runs)}")
    env = first.env.model_copy(
        update={
            "notes": tuple(dict.fromkeys(note for run in runs for note in run.env.notes)),
            "truncated_items": max(run.env.truncated_items for run in runs),
        }
    )
    key = first.key.model_copy(update={"prompt": prompt, "tokens_hash": ""})
    top_token = np.full(len(items), UNKNOWN_TOKEN, np.int32)
    return Run(key, logits.astype(np.float32), logsumexp.astype(np.float32), top_token, env)


def _log_mass(run: Run, option_mask: np.ndarray[Any, np.dtype[np.bool_]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the logarithm of the options' share of the vocabulary's probability, (item,)."""
    raw = np.where(option_mask, run.logits, -np.inf).astype(np.float64)
    return np.asarray(np.logaddexp.reduce(raw, axis=1) - run.logsumexp)


def runs_by_order(rows: Iterable[Row]) -> dict[tuple[Any, ...], dict[int, Row]]:
    """Return the rows by order of options, for each prompt and run that differ in nothing else; a key ends in the prompt's name.

    Where two runs of one order differ in what a catalog does not show, all orders of that prompt are left out with a warning.
    """
    rows_by_key: dict[tuple[Any, ...], dict[int, list[Row]]] = defaultdict(lambda: defaultdict(list))
    same = [column for column in KEY_COLUMNS if column not in ("prompt", "tokens_hash")]
    for row in rows:
        prompt, order = split_prompt_name(row["prompt"])
        if not order.startswith(MEAN):
            rows_by_key[*(row[column] for column in same), prompt][int(order)].append(row)
    by_order = {}
    for key, orders in rows_by_key.items():
        doubled = [both for both in orders.values() if len(both) > 1]
        if doubled and len(orders) > 1:
            names = " and ".join(row["name"] for row in doubled[0])
            log.warning("%s are runs of one order that differ in wording or settings: orders of %s are not put together", names, key[0])
            continue
        by_order[key] = {order: each[0] for order, each in sorted(orders.items())}
    return by_order
