"""Export one snapshot as a zip file of plain Zarr v3, which xarray opens, and import such a file again bit for bit.

In: keys, or a received file.  Out: a file, or `ZipKeys`. Members are stored without compression, since chunks are compressed already; so
the size that a member declares is its true size, and it is checked before the member is read.
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path

from schemas.errors import StoreInvalidError
from schemas.layout import ITEMS, RUNS
from store.exchange.push_pull import NO_WISH, Transfer, Wish, copy_keys
from store.exchange.whole_file import whole_file
from store.format.keys import MAX_STORED_CHUNK, Keys
from store.format.packed_run import pack_stored_run
from store.format.root import check_root, read_root, root_document, without_tag
from store.reading.catalog import read_records

EPOCH = (1980, 1, 1, 0, 0, 0)  # the date of all members, so that the same snapshot always gives the same file


def write_zip(keys: Keys, path: Path) -> int:
    """Write all runs of a snapshot and their items to a zip file, completely or not at all, and return the number of runs."""
    records = read_records(keys)
    with whole_file(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        written: set[str] = set()
        _put(archive, "zarr.json", root_document(without_tag(read_root(keys))))
        for name in (f"{ITEMS}/zarr.json", f"{RUNS}/zarr.json"):
            _put(archive, name, keys.get_many([name])[0] or b"")
        for name, record in records.items():
            packed = pack_stored_run(keys, name, record)
            new = record.key.items_hash not in written
            written.add(record.key.items_hash)
            for key, value in [*(packed.items() if new else ()), *packed.nodes]:
                _put(archive, key, value)
    return len(records)


def import_zip(path: Path, target: str, wish: Wish = NO_WISH) -> Transfer:
    """Copy the runs that a store lacks from an exported file, in one commit; those removed from the store only if the wish names them.

    Raises StoreInvalidError if the file is damaged or not an export; nothing is written then.
    """
    keys = ZipKeys(path)
    try:
        return copy_keys(keys, target, wish, whole=True)
    finally:
        keys.close()


class ZipKeys:
    """The keys of an exported file; close it after use. Raises StoreInvalidError if the file is not an export."""

    def __init__(self, path: Path) -> None:
        self.where = str(path)
        try:
            self._archive = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise StoreInvalidError(f"{path} is not an exported store: {str(error)[:120]}") from error
        self._members = {member.filename: member for member in self._archive.infolist()}
        if len(self._members) != len(self._archive.infolist()):
            raise StoreInvalidError(f"{path} holds two members of one name")
        check_root(self)

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the bytes at each key, None for an absent key."""
        return [self._get(key) for key in keys]

    def children(self, group: str) -> list[str]:
        """Return the sorted names directly under a group."""
        prefix = f"{group}/" if group else ""
        names = {name.removeprefix(prefix).split("/")[0] for name in self._members if name.startswith(prefix)}
        return sorted(names - {"zarr.json", ""})

    def close(self) -> None:
        """Close the file."""
        self._archive.close()

    def _get(self, key: str) -> bytes | None:
        member = self._members.get(key)
        if member is None:
            return None
        if member.compress_type != zipfile.ZIP_STORED or member.file_size > MAX_STORED_CHUNK or member.flag_bits & 1:
            raise StoreInvalidError(f"{self.where}: member {key[:120]!r} is compressed, encrypted or larger than a chunk")
        try:
            return self._archive.read(member)
        except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError, EOFError) as error:
            raise StoreInvalidError(f"{self.where}: member {key[:120]!r} is damaged: {str(error)[:120]}") from error


def _put(archive: zipfile.ZipFile, name: str, value: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, EPOCH), value)
