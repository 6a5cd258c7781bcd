"""Write imported runs into a store: all runs of an import in one commit, or none.

In: (item set, run) pairs.  Out: the names written and the snapshot id.
"""

import math
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from schemas.errors import HedgemarkError, UsageError
from schemas.itemset import ItemSet
from schemas.run import Run
from store.exchange.progress import Tell, silent, told
from store.repository.repository import init_store
from store.writing.writer import open_writer


class Words(NamedTuple):
    """What an import says: its commit what was imported, with a note by the user, and `tell` now and then how far it is."""

    message: str
    note: str = ""
    tell: Tell = silent


class Imported(NamedTuple):
    """Names of the imported runs, and the id of the snapshot that holds them."""

    names: list[str]
    snapshot: str


def import_runs(
    url: str, pairs: Iterable[tuple[ItemSet, Run]], words: Words, *, allow_nonfinite: bool = False, replace: bool = False
) -> Imported:
    """Write every pair in one commit; an absent store is created once the whole input has been read.

    words : what was imported, and why, for the commit.
    Raises UsageError if two pairs are one run, and what reading or writing a pair raises; the store is then unchanged.
    """
    read = list(told(pairs, "read", words.tell))
    counts = Counter(run.key.name for _, run in read)
    if repeated := [name for name, count in counts.items() if count > 1]:
        raise UsageError(
            f"the input holds run {repeated[0]} {counts[repeated[0]]} times; import runs of several models or settings one by one, and "
            "name them with --model, --method, --level or --prompt"
        )
    for items, run in read:
        run.check(items.n_options, allow_nonfinite=allow_nonfinite)
        if disagreement := run.too_much_mass(items.n_options):
            raise HedgemarkError(f"run {run.key.name}: {disagreement}")
    init_store(url)
    with open_writer(url, interval_s=math.inf, note=words.note) as writer:
        try:
            to_write = told(read, "wrote", words.tell, len(read))
            names = [writer.write(items, run, allow_nonfinite=allow_nonfinite, replace=replace) for items, run in to_write]
        except HedgemarkError:
            writer.discard()
            raise
        return Imported(names, writer.commit(words.message))
