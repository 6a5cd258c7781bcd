"""Turn all errors of Icechunk, including panics of its Rust core, into HedgemarkErrors with a one-sentence message."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import icechunk

from schemas.errors import HedgemarkError, StoreInvalidError, StoreUnreachableError
from store.backend.address import parse_address
from store.backend.unreachable import why_unreachable

FULL = ("no space left", "file too large", "quota exceeded")
# Words in the object store client's messages that mean the server did not answer, as opposed to answering with damaged data.
UNREACHABLE = (
    *("dispatch failure", "error sending request", "connection", "timed out", "timeout", "service error"),
    *("credential", "token request", "unauthorized", "forbidden", "access denied", "permission denied", "read-only file system"),
)
# Icechunk 2 gives every error a kind. For errors of version 1, and for kinds that can mean both, the words above decide.
UNREACHABLE_KINDS = ("object-store", "throttled", "invalid-credentials")
UNCLEAR_KINDS = ("", "io", "storage-other", "unknown")
SHOWN = 300  # characters shown of a client's message, which may quote a whole page from the server


@contextmanager
def readable(address: object) -> Iterator[None]:
    """Raise every failure of Icechunk in this block as StoreInvalidError, or as StoreUnreachableError if the server is at fault.

    A full disk and another writer's commit raise a plain HedgemarkError, since what is in the store is intact.
    """
    try:
        yield
    except HedgemarkError:
        raise
    except icechunk.ConflictError as error:  # in version 1 it is not an IcechunkError
        raise HedgemarkError(f"store {address}: another writer committed meanwhile; nothing was changed, try again") from error
    except icechunk.IcechunkError as error:
        raise _translated(address, str(error), str(getattr(error, "kind", ""))) from error
    except OSError as error:
        raise StoreUnreachableError(f"store {address} cannot be reached: {error.strerror or error}: {error.filename}") from error
    except BaseException as error:
        if type(error).__name__ in ("RustPanic", "PanicException"):  # a PanicException is not a subclass of Exception
            raise StoreInvalidError(f"store {address} is damaged: reading it made icechunk panic") from error
        raise


def first_line(message: str) -> str:
    """Return the first sentence of an Icechunk message, without its trace (version 1 draws a tree, version 2 lists a context)."""
    lines = [re.sub(r"^\W*(x )?\s*", "", line) for line in message.splitlines()]
    return next((line for line in lines if line), "unknown error")


def _translated(address: object, message: str, kind: str) -> HedgemarkError:
    if "clock has drifted" in message:
        return HedgemarkError(f"store {address}: nothing was written; {first_line(message)[:SHOWN]}")
    if any(word in message.lower() for word in FULL):
        return HedgemarkError(f"store {address} cannot be written, the runs committed before are intact: {first_line(message)}")
    if kind in UNREACHABLE_KINDS or (kind in UNCLEAR_KINDS and any(word in message.lower() for word in UNREACHABLE)):
        return StoreUnreachableError(f"store {address} cannot be reached: {why_unreachable(parse_address(str(address)), message)}")
    return StoreInvalidError(f"store {address} is damaged or not a store: {first_line(message)[:SHOWN]}")
