"""Open or create the Icechunk repository of a store, and check that it is a Hedgemark store with a schema that this version reads.

In: an address.  Out: a `Repository`, which gives sessions at a tag or snapshot, and the lock that commits to a local folder need.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import icechunk
from filelock import FileLock

from schemas.arguments import A_SNAPSHOT, read_argument
from schemas.errors import StoreInvalidError, StoreNotFoundError, UsageError
from store.backend.address import Address, parse_address
from store.backend.failures import first_line, readable
from store.backend.session_keys import SessionKeys
from store.backend.storage import storage
from store.format.root import TAG, check_root, check_tag, check_untagged, root_nodes
from store.safety.check_folder import check_folder
from store.safety.conditional_writes import ensure_conditional_writes, has_passed
from store.safety.screen import ensure_screened

BRANCH = "main"
LOCK_FILE = "hedgemark.lock"
# Icechunk logs to stdout, which must hold only our data; whatever it logs as an error, it also raises.
icechunk.set_logs_filter("off")


class NamedSnapshot(NamedTuple):
    """A snapshot id. `known` is true if it comes from a branch or tag, false if the user typed it; `tag` is the tag's name."""

    snapshot: str
    known: bool
    tag: str = ""


@dataclass(frozen=True)
class Repository:
    """An open store.

    trusted : the store is local and passed `check_folder`, or this user has written to it before, so it need not be screened.
    """

    address: Address
    ice: icechunk.Repository
    trusted: bool

    def session(self, at: str | None = None) -> icechunk.Session:
        """Return a read-only session at a tag or snapshot id, by default at the newest snapshot of main."""
        return self._session(self._find(at))

    def keys(self, at: str | None = None) -> tuple[str, SessionKeys]:
        """Return the snapshot id and the keys at a tag or snapshot, after checking the root and what it records about the tag.

        A tag has a commit of its own, which records it; the id is that of the snapshot which was tagged, as `store log` shows it.
        """
        named = self._find(None if at is None else read_argument("at", at, A_SNAPSHOT))
        session = self._session(named)
        keys = self.keys_of(session)
        check_root(keys)
        if named.tag:
            check_tag(keys, named.tag)
        elif at is None:
            check_untagged(keys, BRANCH)
        return self.tagged(str(session.snapshot_id)), keys

    def tagged(self, snapshot: str) -> str:
        """Return the snapshot that was tagged for the id of a tag's own commit, and any other id as it is."""
        with readable(self.address):
            info = next(iter(self.ice.ancestry(snapshot_id=snapshot)))
        is_of_tag = TAG in info.metadata and info.message == f"tag {info.metadata[TAG]}"
        return str(info.parent_id) if is_of_tag and info.parent_id else snapshot

    def _find(self, at: str | None) -> "NamedSnapshot":
        with readable(self.address):
            if at is None:
                return NamedSnapshot(self.ice.lookup_branch(BRANCH), known=True)
            try:
                return NamedSnapshot(self.ice.lookup_tag(at), known=True, tag=at)
            except icechunk.IcechunkError:  # not a tag, so a snapshot id or a mistake
                return NamedSnapshot(at, known=False)

    def _session(self, named: "NamedSnapshot") -> icechunk.Session:
        if not self.trusted:
            ensure_screened(str(self.address), named.snapshot)
        with readable(self.address):
            try:
                stored = next(iter(self.ice.ancestry(snapshot_id=named.snapshot))).id
                session = self.ice.readonly_session(snapshot_id=named.snapshot)
            except icechunk.IcechunkError as error:
                if named.known:
                    raise
                reason, tags = first_line(str(error))[:120], ", ".join(self.tags()) or "none"
                raise UsageError(f"no tag or snapshot {named.snapshot[:80]!r} in {self.address} ({reason}); tags: {tags}") from error
            if stored != named.snapshot:
                raise StoreInvalidError(f"store {self.address}: the file of snapshot {named.snapshot} holds snapshot {stored}")
            return session

    def tags(self) -> dict[str, str]:
        """Return the snapshot of each tag, sorted by tag; empty over HTTP, which cannot list files."""
        if self.address.read_only:
            return {}
        with readable(self.address):
            return {tag: self.ice.lookup_tag(tag) for tag in sorted(self.ice.list_tags())}

    def keys_of(self, session: icechunk.Session) -> SessionKeys:
        """Return the keys of a session of this store."""
        return SessionKeys(session, str(self.address), sizes_known=self.address.path is not None)

    def writable(self) -> icechunk.Session:
        """Return a session that can write to main."""
        if self.address.read_only:
            raise UsageError(f"store {self.address} is read-only: {self.address.scheme} has no way to write")
        with readable(self.address):
            if self.address.path is None:
                ensure_conditional_writes(str(self.address), self.ice, self.ice.lookup_branch(BRANCH))
            return self.ice.writable_session(BRANCH)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold a lock file during a commit to a local folder, since commits without it lost runs; remote stores need no lock."""
        with readable(self.address), FileLock(self.address.path / LOCK_FILE) if self.address.path else nullcontext():
            yield


def open_repository(url: str | Path, *, screened: bool = False) -> Repository:
    """Open an existing store. Raises StoreNotFoundError, StoreInvalidError or StoreUnreachableError.

    screened : the store has been screened already, or this process is the one that screens it.
    """
    address = parse_address(url)
    if address.path:
        _check_local(address, address.path)
    trusted = screened or address.path is not None or has_passed(str(address))
    with readable(address):
        where = storage(address)  # first, because it raises if something is wrong with the address
        if not trusted:
            ensure_screened(str(address))
        if not icechunk.Repository.exists(where):
            if address.path:
                raise StoreInvalidError(f"store {address} is damaged: its branch {BRANCH} is gone")
            raise _not_found(address)
        _check_config(address, icechunk.Repository.fetch_config(where))
        return Repository(address, icechunk.Repository.open(where), trusted)


def init_store(url: str | Path) -> None:
    """Create an empty store; an existing store is not changed.

    Parameters
    ----------
    url : address of the store, such as ./hedgemark-store, s3://bucket/prefix or gs://bucket/prefix.

    Raises
    ------
    UsageError
        For an address that is not valid, or a scheme that cannot be written (http).
    StoreInvalidError
        If the path is a file or a folder with other files, or an existing store is damaged or of a schema that this version cannot read.
    StoreUnreachableError, UnsafeServerError
        If the server does not answer, denies access, or does not support conditional writes.

    Examples
    --------
    >>> import tempfile, store
    >>> folder = tempfile.TemporaryDirectory()
    >>> store.init_store(folder.name + "/logits")
    >>> store.open_reader(folder.name + "/logits").catalog.height
    0
    >>> folder.cleanup()
    """
    address = parse_address(url)
    if address.read_only:
        raise UsageError(f"store {address} is read-only: {address.scheme} has no way to write")
    if address.path is not None:
        with readable(address):
            there = _is_repository(address.path)
        if not there:
            _create_folder(address, address.path)
        open_repository(url).keys()
        return
    _create(address)
    open_repository(url).keys()


def _check_local(address: Address, path: Path) -> None:
    with readable(address):
        if not _is_repository(path):
            raise _not_found(address)
        check_folder(path)


def _not_found(address: Address) -> StoreNotFoundError:
    return StoreNotFoundError(f"there is no store at {address}; name yours with --store, or create one with: store init --store {address}")


def _check_config(address: Address, config: icechunk.RepositoryConfig | None) -> None:
    """Refuse a store with its own configuration: we never write one, and it could redirect chunks or turn off conditional writes."""
    if config is not None and (config.virtual_chunk_containers or config.storage is not None):
        raise StoreInvalidError(f"store {address} brings its own storage settings or virtual chunks; they are not used")


def _create_folder(address: Address, path: Path) -> None:
    """Create the store under a temporary name in the same folder and then rename it, so that nobody ever sees half a store."""
    partial = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    with readable(address):
        partial.mkdir(parents=True)  # Icechunk 1 would panic if this is not permitted
    try:
        _create(replace(address, path=partial))
        partial.rename(path)
    except OSError as error:
        if not _is_repository(path):  # else another process has just created the store
            raise StoreInvalidError(f"cannot create a store at {address}: {error.strerror}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _create(address: Address) -> None:
    """Create the repository and its root group. One that a crash left without a root is completed; any other content is left alone."""
    with readable(address):
        ice = _create_or_open(storage(address))
        session = ice.writable_session(BRANCH)
        keys = SessionKeys(session, str(address))
        if keys.get_many(["zarr.json"])[0] is not None or keys.children(""):
            return
        if address.path is None:
            ensure_conditional_writes(str(address), ice, ice.lookup_branch(BRANCH))
        keys.set_many(root_nodes())
        with suppress(icechunk.ConflictError):  # another process has just written the same root
            session.commit("create the store")


def _create_or_open(where: icechunk.Storage) -> icechunk.Repository:
    if icechunk.Repository.exists(where):
        return icechunk.Repository.open(where)
    if icechunk.__version__.startswith("1."):
        return icechunk.Repository.create(where)
    return icechunk.Repository.create(where, spec_version=1)  # type: ignore[call-arg,unused-ignore]  # which Icechunk 1 reads too


def _is_repository(path: Path) -> bool:
    """Return whether a store may be at a path. Raises StoreInvalidError if something else is there."""
    if not path.exists():
        return False
    if not path.is_dir():
        raise StoreInvalidError(f"{path} is a file, not a store")
    names = {entry.name for entry in path.iterdir()} - {LOCK_FILE}
    if names and not {"refs", "snapshots"} & names:
        raise StoreInvalidError(f"{path} is not a store but a folder with other files ({', '.join(sorted(names)[:3])})")
    return bool(names)
