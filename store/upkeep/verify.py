"""Verify a store: read every byte that a reader could read, and list all problems.

In: a store's address.  Out: a `Report`. Nothing that a store says about itself is trusted, and a problem does not end the verification.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from schemas.errors import HedgemarkError, StoreInvalidError
from schemas.itemset import ItemSet
from schemas.layout import ITEM_ARRAYS, ITEMS, RUNS, TEXT_ARRAYS
from schemas.run import Run
from store.backend.failures import readable
from store.backend.session_keys import SessionKeys
from store.format.documents import group_attributes
from store.format.item_sets import read_items
from store.format.root import MANIFEST, TAG, check_root, check_tag, check_untagged, contents_digest, read_root
from store.format.runs import check_fit, parse_run_record, read_run
from store.repository.repository import BRANCH, Repository, open_repository
from store.upkeep.signature import check_signature, check_signed_names


@dataclass
class Report:
    """What a verification has read, the problems it found, and notes that are no problems."""

    snapshots: list[str] = field(default_factory=list)
    runs: int = 0
    item_sets: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def verify_store(url: str, at: str | None = None, key_file: Path | None = None) -> Report:
    """Read a snapshot in full, or without `at` the newest one and every tagged one.

    key_file : public key of the signature that the snapshot (without `at` the newest) must have.
    Raises only if the store cannot be opened; damage is listed in the report.
    """
    report = Report()
    repository = open_repository(url)
    for snapshot in _snapshots(repository, at):
        try:
            _verify_snapshot(repository, snapshot, report)
        except HedgemarkError as error:
            report.problems.append(str(error))
    if at is None:
        report.problems += _branch_problems(repository)
    for tag, tagged in repository.tags().items():
        if at in (None, tag):
            report.problems += _tag_problems(repository, tag, tagged, report)
    if key_file is not None:
        _check_signatures(repository, at, key_file, report)
    return report


def _check_signatures(repository: Repository, at: str | None, key_file: Path, report: Report) -> None:
    """Check the signature, and if it is valid the history and the tags that it covers."""
    try:
        signatures = [check_signature(repository.keys(at)[1], key_file)]
        if not signatures[0].problems:
            signatures.append(check_signed_names(repository, at))
    except StoreInvalidError as error:
        report.problems.append(str(error))
        return
    for signature in signatures:
        report.problems += signature.problems
        report.notes += signature.notes


def _snapshots(repository: Repository, at: str | None) -> list[str]:
    if at is not None:
        return [repository.session(at).snapshot_id]
    return list(dict.fromkeys([repository.session().snapshot_id, *repository.tags().values()]))


def _branch_problems(repository: Repository) -> list[str]:
    """Check that the newest snapshot is not one that only a tag leads to."""
    try:
        check_untagged(repository.keys_of(repository.session()), BRANCH)
    except HedgemarkError as error:
        return [str(error)]
    return []


def _tag_problems(repository: Repository, tag: str, snapshot: str, report: Report) -> list[str]:
    """Compare a tag with what the snapshot that it names records about it."""
    try:
        keys = repository.keys_of(repository.session(snapshot))
        check_tag(keys, tag)
        root = read_root(keys)
        if TAG not in root:
            report.notes.append(f"tag {tag}: it was made by an earlier version, which did not record what a tag names")
        elif root.get(MANIFEST) != contents_digest(keys):
            return [f"tag {tag}: snapshot {snapshot} does not hold what was tagged"]
    except HedgemarkError as error:
        return [str(error)]
    return []


def _verify_snapshot(repository: Repository, snapshot: str, report: Report) -> None:
    """Verify one snapshot in full, since a run with the same name and digest as in another snapshot may be stored in other chunks."""
    report.snapshots.append(snapshot)
    session = repository.session(snapshot)
    keys = repository.keys_of(session)
    check_root(keys)
    with readable(repository.address):
        report.problems += [f"virtual chunk at {location[:120]!r}: refused" for location in session.all_virtual_chunk_locations()]
    report.problems += [f"unknown group or array {name[:120]!r} at the root" for name in keys.children("") if name not in (ITEMS, RUNS)]
    report.problems += list(_folder_problems(keys))
    item_sets = {digest: _verified_items(keys, digest, report) for digest in keys.children(ITEMS)}
    for name in keys.children(RUNS):
        report.problems += list(_run_problems(keys, name, item_sets, report))


def _folder_problems(keys: SessionKeys) -> Iterator[str]:
    """Yield a problem for each of the groups `items` and `runs` that has attributes, since Hedgemark writes none there."""
    for kind in (ITEMS, RUNS):
        try:
            if group_attributes(keys.get_many([f"{kind}/zarr.json"])[0], f"store {keys.where}: {kind}", seal=False):
                yield f"group {kind} has attributes; a store has none there"
        except StoreInvalidError as error:
            yield str(error)


def _verified_items(keys: SessionKeys, digest: str, report: Report) -> ItemSet | None:
    report.item_sets += 1
    try:
        items = read_items(keys, digest)
        _ = items.items  # raises if a text is not that of its item
    except HedgemarkError as error:
        report.problems.append(str(error))
        return None
    unknown = [name for name in keys.children(f"{ITEMS}/{digest}") if name not in {**ITEM_ARRAYS, **TEXT_ARRAYS}]
    report.problems += [f"item set {digest}: unknown array {name[:120]!r}" for name in unknown]
    return items


def _run_problems(keys: SessionKeys, name: str, item_sets: dict[str, ItemSet | None], report: Report) -> Iterator[str]:
    try:
        record = parse_run_record(keys.get_many([f"{RUNS}/{name}/zarr.json"])[0], name, keys.where)
        run = read_run(keys, name, record)
    except StoreInvalidError as error:
        yield str(error)
        return
    report.runs += 1
    yield from (f"run {name}: unknown array {child[:120]!r}" for child in keys.children(f"{RUNS}/{name}") if child not in record.specs())
    if run.key.items_hash not in item_sets:
        yield f"run {name}: its item set {run.key.items_hash[:64]!r} is not in the store"
    elif (items := item_sets[run.key.items_hash]) is not None:
        yield from _logit_problems(run, items, record.nonfinite, report)


def _logit_problems(run: Run, items: ItemSet, recorded: int, report: Report) -> Iterator[str]:
    try:
        check_fit(run, items, f"snapshot {report.snapshots[-1]}", recorded)
    except StoreInvalidError as error:
        yield str(error)
        return
    if disagreement := run.too_much_mass(items.n_options):
        report.notes.append(f"run {run.key.name}: {disagreement}; analyses flag it")
    if recorded:
        report.notes.append(f"run {run.key.name}: {recorded} items have NaN or infinite logits, stored on purpose and flagged")
