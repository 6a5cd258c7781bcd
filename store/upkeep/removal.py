"""Remove runs from the newest snapshot, in one commit with a reason. Earlier snapshots and tags keep them.

In: a store's address, names of runs or a selection, a reason.  Out: the names removed and the new snapshot. Item sets stay, since another
writer may be adding a run of the same items. A writer that replaces one of the runs at the same time makes the removal fail, and nothing
is changed then.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from schemas.errors import UsageError
from store.reading.catalog import select_runs
from store.reading.reader import open_reader
from store.repository.repository import open_repository
from store.upkeep.describe import complete_name
from store.writing.commit_note import commit_metadata
from store.writing.removal import commit_removal


class Removal(NamedTuple):
    """Names of the removed runs, and the id of the snapshot without them; with `dry_run` the newest snapshot as it is."""

    names: list[str]
    snapshot: str


def remove_runs(url: str, names: Sequence[str], selection: Mapping[str, Sequence[str]], reason: str, *, dry_run: bool = False) -> Removal:
    """Remove runs by name, or all runs with the wanted values, in one commit.

    names     : names, or beginnings that only one run has.
    selection : field (model, method, level, task, prompt) -> accepted values; runs must have both a name and the values if both are given.
    reason    : recorded with the commit, and shown by `store log`.
    Raises UsageError without a reason (not with `dry_run`) or without a selection, RunNotFoundError if nothing matches.
    """
    if not reason.strip() and not dry_run:
        raise UsageError("a removal needs a reason, which stays in the history: --message TEXT")
    if not names and not any(selection.values()):
        raise UsageError("name the runs to remove, or select them with --model, --method, --level, --task or --prompt")
    metadata = commit_metadata({"runs": 0}, reason)
    repository = open_repository(url)
    reader = open_reader(url)
    selected = select_runs(reader.catalog, selection, "the newest snapshot")["name"].to_list()
    if names:
        completed = list(dict.fromkeys(complete_name(reader, name) for name in names))
        if outside := [name for name in completed if name not in selected]:
            raise UsageError(f"run {outside[0]} does not have the values that are asked for; nothing was removed")
        selected = completed
    if dry_run:
        repository.writable()  # raises if the store is read-only
        return Removal(selected, reader.snapshot)
    return Removal(selected, commit_removal(repository, selected, metadata))
