"""Check the files of a local store before Icechunk opens it, because the store may come from somebody untrusted.

In: a folder.  Out: nothing, or a StoreInvalidError. No link is followed and nothing is decompressed: links and special files are refused,
and an upper bound on the decompressed size of each metadata file is computed from its block headers alone.
"""

import mmap
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from schemas.errors import StoreInvalidError
from store.backend.ref_files import MAX_BYTES, read_reference
from store.format.keys import MAX_STORED_CHUNK

MAX_METADATA_BYTES = 256 * 2**20  # of one decompressed snapshot, manifest or transaction log; a snapshot has room for 75,000 runs
SMALL = 2048  # bytes; such a file holds at most SMALL / 4 blocks and so decompresses to at most 64 MiB
MAX_BLOCKS = 16_384
MAX_SIZES = {"refs": MAX_BYTES, "chunks": MAX_STORED_CHUNK, "": 65_536}  # bytes, by folder; files in other folders are metadata

STAGED = "#"  # in the name of a file that a writer has not finished; readers never open it

MAGIC = b"ICE\xf0\x9f\xa7\x8aCHUNK"
HEADER_BYTES = 39  # magic 12, writer 24, format version 1, file type 1, compression 1
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
BLOCK_BYTES = 128 * 1024  # largest decompressed size of a block: RFC 8878, section 3.1.1.2.4


def check_folder(root: Path) -> None:
    """Raise StoreInvalidError for a link, a special file, or a file that is too large or would be once decompressed."""
    for folder, entry in _files(os.fspath(root)):
        with suppress(FileNotFoundError):  # another process (garbage collection or a writer) has just deleted it
            _check_file(folder, entry)
    _check_references(root / "refs")


def _files(folder: str, top: str = "") -> Iterator[tuple[str, "os.DirEntry[str]"]]:
    """Yield each file with the name of the top-level folder that it is in, "" for a file at the root."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                raise StoreInvalidError(f"{entry.path} is a symbolic link; a store has none")
            if entry.is_dir(follow_symlinks=False):
                yield from _files(entry.path, top or entry.name)
            elif entry.is_file(follow_symlinks=False):
                yield top, entry
            else:
                raise StoreInvalidError(f"{entry.path} is neither a file nor a folder")


def _check_file(folder: str, entry: "os.DirEntry[str]") -> None:
    if STAGED in entry.name:
        return
    size = entry.stat(follow_symlinks=False).st_size
    if size > MAX_SIZES.get(folder, MAX_METADATA_BYTES):
        raise StoreInvalidError(f"{entry.path} has {size} bytes, more than such a file of a store ever has")
    if folder not in MAX_SIZES and size > SMALL:
        _check_metadata(entry.path)


def _check_references(folder: Path) -> None:
    """Refuse a branch or tag that cannot be read: Icechunk ignores a broken tag, so `gc` would delete the snapshot that it names."""
    for reference in sorted(folder.iterdir()) if folder.is_dir() else ():
        if reference.name.startswith("branch.") and not any(reference.iterdir()):
            continue  # an empty folder is left of a deleted branch; tags are never deleted
        if read_reference(reference) is None:
            raise StoreInvalidError(f"{reference} is damaged: a branch or tag that names no snapshot")


def _check_metadata(path: str) -> None:
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content[: len(MAGIC)] != MAGIC:
            raise StoreInvalidError(f"{path} is not an Icechunk file")
        compressed = content[HEADER_BYTES - 1]
        bound = decompressed_bound(content, HEADER_BYTES) if compressed else len(content)
    if bound is None or bound > MAX_METADATA_BYTES:
        raise StoreInvalidError(f"{path} would decompress to more than {MAX_METADATA_BYTES} bytes, or is not zstd")


def decompressed_bound(content: "mmap.mmap | bytes", position: int) -> int | None:
    """Return an upper bound on the decompressed bytes of zstd frames, from their block headers; None if they are malformed.

    Source : RFC 8878, sections 3.1.1.1 and 3.1.1.2.
    """
    total = blocks = 0
    while position < len(content):
        if content[position : position + 4] != ZSTD_MAGIC or position + 5 > len(content):
            return None
        descriptor = content[position + 4]
        position += 5 + _header_rest(descriptor)
        last = False
        while not last:
            header = int.from_bytes(content[position : position + 3], "little")
            last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
            blocks += 1
            if kind == 3 or blocks > MAX_BLOCKS or position + 3 > len(content):
                return None
            total += BLOCK_BYTES if kind == 2 else size
            position += 3 + (1 if kind == 1 else size)
        position += 4 if descriptor & 4 else 0  # content checksum
    return total


def _header_rest(descriptor: int) -> int:
    """Return the length of a frame header after its descriptor: window, dictionary id, content size."""
    single_segment = bool(descriptor & 0x20)
    size_bytes = (1 if single_segment else 0, 2, 4, 8)[descriptor >> 6]
    return (0 if single_segment else 1) + (0, 1, 2, 4)[descriptor & 3] + size_bytes
