"""The part of a run that an analysis uses: the items that are not demonstrations and whose logits are finite."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, wraps
from typing import Any, TypeVar

import numpy as np

from analyzer.stats.arrays import BoolArray, FloatArray, IntArray, over_options
from analyzer.stats.clusters import Clusters, clusters_of
from analyzer.stats.probs import log_softmax, softmax, top_option
from schemas.itemset import ItemSet
from schemas.options import option_mass, own_options
from schemas.run import Environment, Run, RunKey
from schemas.run import FloatArray as Float32Array
from store.format.runs import check_fit

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class RunView:
    """Some items of one run.

    row        : the run's row of the catalog (name, model, method, level, task, prompt, ..).
    snapshot   : id of the snapshot that the run was read from.
    items      : the run's whole item set.
    position   : (item,) indices of the viewed items in the item set; all other arrays here have this order.
    logits     : (item, option) float32, finite for an item's own options, NaN in the other cells.
    logsumexp, top_token : (item,) as stored.
    n_nonfinite: number of items left out because an option's logit is NaN or infinite.
    disagreement : how logits and logsumexp contradict each other; "" if they do not.
    key        : everything that could change a logit: weights, wording of the prompt, option tokens.
    env        : how the run was made, such as the numbers of truncated prompts and dropped items.
    grouping   : number of the cluster of each item of the whole item set; None for the default, items that ask the same question.
    """

    row: Mapping[str, Any]
    snapshot: str
    items: ItemSet
    position: IntArray
    logits: Float32Array
    logsumexp: Float32Array
    top_token: IntArray
    n_nonfinite: int
    disagreement: str
    key: RunKey
    env: Environment
    grouping: IntArray | None = None

    def __repr__(self) -> str:
        """Say which run this is and how much of it is viewed."""
        left_out = f", {self.n_nonfinite} left out for non-finite logits" if self.n_nonfinite else ""
        return f"<RunView {self.row['name']}: {self.n_items} of {len(self.items)} items{left_out}, {self.logits.shape[1]} options>"

    @property
    def n_items(self) -> int:
        """Number of viewed items."""
        return self.position.size

    @property
    def cluster_of_set(self) -> IntArray:
        """Number of the cluster of each item of the whole item set."""
        return self.items.question if self.grouping is None else self.grouping

    @cached_property
    def clusters(self) -> Clusters | None:
        """The clusters of the viewed items; None if every item is a cluster of its own."""
        code = self.cluster_of_set[self.position]
        return None if (np.bincount(code) < 2).all() else clusters_of(code, int(self.cluster_of_set.max()) + 1)

    @property
    def set_has_clusters(self) -> bool:
        """Whether questions of the whole item set, demonstrations aside, depend on each other, even if the viewed ones do not."""
        return bool((np.bincount(self.cluster_of_set[~self.items.demonstration]) > 1).any())

    @cached_property
    def answer(self) -> IntArray:
        """Index of the correct option, (item,)."""
        return self.items.answer[self.position].astype(np.int64)

    @cached_property
    def n_options(self) -> IntArray:
        """Number of options of each item, (item,)."""
        return self.items.n_options[self.position].astype(np.int64)

    @cached_property
    def mean_options(self) -> float:
        """Mean number of options of an item."""
        return float(self.n_options.mean())

    @cached_property
    def probs(self) -> FloatArray:
        """Probability of each option, (item, option) float64; NaN for options that an item does not have."""
        return softmax(self.logits, self.n_options)

    @cached_property
    def log_probs(self) -> FloatArray:
        """Logarithm of each option's probability, (item, option); NaN for options that an item does not have."""
        return log_softmax(self.logits, self.n_options)

    @cached_property
    def rising_logits(self) -> Float32Array:
        """Logits of each item in rising order, (item, option); NaN last."""
        return np.sort(self.logits, axis=1)

    @cached_property
    def option_mass(self) -> FloatArray:
        """Sum of the options' probabilities in the full vocabulary, (item,); NaN where the run does not record it."""
        return option_mass(self.logits, self.n_options, self.logsumexp)

    @cached_property
    def top_prob(self) -> FloatArray:
        """Probability of the most likely option, (item,)."""
        return over_options(np.fmax, self.probs)

    @cached_property
    def chosen(self) -> IntArray:
        """The most likely option of each item, (item,); of tied options the first."""
        return top_option(self.probs)

    @cached_property
    def correct(self) -> BoolArray:
        """Whether the most likely option is the answer, (item,)."""
        return np.asarray(self.chosen == self.answer)

    def keep(self, chosen: BoolArray | IntArray) -> "RunView":
        """Return the view of some of its items. chosen : (item,) bool, or indices in the wanted order."""
        return replace(
            self,
            position=self.position[chosen],
            logits=self.logits[chosen],
            logsumexp=self.logsumexp[chosen],
            top_token=self.top_token[chosen],
        )


def view_run(run: Run, items: ItemSet, row: Mapping[str, Any], snapshot: str) -> RunView:
    """Return the view of a stored run without demonstrations and without items with non-finite logits, which are counted.

    Raises StoreInvalidError if the arrays do not fit the items.
    """
    check_fit(run, items, f"snapshot {snapshot}", row.get("nonfinite"))
    has_option = own_options(items.n_options, run.logits.shape[1])
    finite = over_options(np.logical_and, np.isfinite(run.logits) | ~has_option)
    is_question = ~items.demonstration
    n_nonfinite = int((is_question & ~finite).sum())
    disagreement = run.too_much_mass(items.n_options) or ""
    arrays = (run.logits, run.logsumexp, run.top_token)
    view = RunView(row, snapshot, items, np.arange(len(items)), *arrays, n_nonfinite, disagreement, run.key, run.env)
    return view.keep(is_question & finite)


def once_per_view(compute: Callable[[RunView], T]) -> Callable[[RunView], T]:
    """Return the function with its result kept beside the view and released with it: every scorer, alpha and table needs the same one."""
    name = f"{compute.__module__}.{compute.__qualname__}"

    @wraps(compute)
    def cached(view: RunView) -> T:
        attributes: dict[str, Any] = vars(view)
        if name not in attributes:
            attributes[name] = compute(view)
        result: T = attributes[name]
        return result

    return cached
