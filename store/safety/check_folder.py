"""Look over a local store before Icechunk opens it: a stranger may have made it.

In: a folder.  Out: nothing, or a StoreInvalidError. Nothing is followed or decompressed here: links and special files are
refused, and the size that each metadata file would decompress to is bounded from its block headers alone.
"""

import mmap
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from schemas.errors import StoreInvalidError
from store.backend.ref_files import MAX_BYTES, read_reference
from store.format.keys import MAX_STORED_CHUNK

MAX_METADATA_BYTES = 256 * 2**20  # one decompressed snapshot, manifest or transaction log; 75,000 runs fit in a snapshot
SMALL = 2048  # a file this small cannot decompress to more than SMALL / 4 blocks of 128 KiB, which is 64 MiB
MAX_BLOCKS = 16_384
MAX_SIZES = {"refs": MAX_BYTES, "chunks": MAX_STORED_CHUNK, "": 65_536}  # of plain files, by folder; others are metadata

STAGED = "#"  # in the name of a file that a writer has not finished, or never will; no reader opens it

MAGIC = b"ICE\xf0\x9f\xa7\x8aCHUNK"
HEADER_BYTES = 39  # magic 12, writer 24, format version 1, file type 1, compression 1
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
BLOCK_BYTES = 128 * 1024  # RFC 8878, section 3.1.1.2.4: no block regenerates more


def check_folder(root: Path) -> None:
    """Raise StoreInvalidError for a link, a special file, or a file that is or would become too large."""
    for folder, entry in _files(os.fspath(root)):
        with suppress(FileNotFoundError):  # another process's gc or writer was faster
            _check_file(folder, entry)
    _check_references(root / "refs")


def _files(folder: str, top: str = "") -> Iterator[tuple[str, "os.DirEntry[str]"]]:
    """Yield each file with the name of the root's folder that it is in, empty for one at the root."""
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
    """Refuse a branch or tag that cannot be read: Icechunk passes over a broken tag, and gc would take what it names."""
    for reference in sorted(folder.iterdir()) if folder.is_dir() else ():
        if reference.name.startswith("branch.") and not any(reference.iterdir()):
            continue  # what a deleted branch leaves; tags are never deleted
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
    """Return how many bytes zstd frames can decompress to at most, by their block headers; None where they are malformed.

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
