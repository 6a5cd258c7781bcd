"""Let the rest of a command go on where one piece of its work fails, and name what failed when all else is done.

In: pieces of work, each with a name.  Out: nothing where all succeeded, else an error that names each failure with its reason.
"""

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from producer.machine.interrupt import Interrupted
from schemas.errors import HedgemarkError, StoreInvalidError, StoreUnreachableError, UnsafeServerError
from store.shown import counted

log = logging.getLogger(__name__)
ENDS_ALL = (Interrupted, StoreInvalidError, StoreUnreachableError, UnsafeServerError)  # the next piece of work would fail as well


class RunsFailedError(HedgemarkError):
    """Some models could not be made or asked; the runs of the others are in the store."""


class Failures:
    """The failures of a command so far."""

    def __init__(self) -> None:
        self._errors: list[tuple[str, Exception]] = []
        self._n_logged = 0

    def __len__(self) -> int:
        return len(self._errors)

    @contextmanager
    def caught(self, name: str) -> Iterator[None]:
        """Remember an error of this block under a name instead of raising it, unless it stands in the way of all further work."""
        self.log_new()
        try:
            yield
        except ENDS_ALL:
            raise
        except Exception as error:
            self.add(name, error)

    def add(self, name: str, error: Exception) -> None:
        """Remember an error. Its stack frames are cleared, since they hold models that fill the memory."""
        clear_frames(error)
        self._errors.append((name, error))

    def log_new(self) -> None:
        """Log the failures since the last call; to be called when work goes on, since what fails last is said by `raise_any`."""
        for name, error in self._errors[self._n_logged :]:
            log.error("%s failed, the rest goes on: %s", name, _reason(error))
            log.info("traceback", exc_info=error)
        self._n_logged = len(self._errors)

    def raise_any(self, *, alone: bool) -> None:
        """Raise RunsFailedError with the reason of every failure, if there is one.

        alone : whether nothing else was done; a single failure is then raised as the error that it is.
        """
        if not self._errors:
            return
        if alone and len(self._errors) == 1:
            raise self._errors[0][1]
        reasons = "".join(f"\n  {name}: {_reason(error)}" for name, error in self._errors)
        raise RunsFailedError(f"{counted(len(self._errors), 'failure')}; everything else is in the store:{reasons}")


def clear_frames(error: BaseException) -> None:
    """Delete the local variables in the stack frames of an error and of those that led to it."""
    cause: BaseException | None = error
    while cause is not None:
        traceback.clear_frames(cause.__traceback__)
        cause = cause.__cause__ or cause.__context__


def _reason(error: Exception) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    return first if isinstance(error, HedgemarkError) else f"{type(error).__name__}: {first}"
