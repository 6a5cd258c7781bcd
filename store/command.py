"""What the three commands share: errors become one sentence and an exit code; where the store is by default."""

import functools
import os
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import click

from schemas.errors import HedgemarkError

P = ParamSpec("P")
R = TypeVar("R")

DEFAULT_STORE = "./hedgemark-store"


class FriendlyError(click.ClickException):
    """A library error as click shows it: its message alone, with the exit code of its class."""

    def __init__(self, error: HedgemarkError) -> None:
        super().__init__(f"{type(error).__name__}: {error}")
        vars(self)["exit_code"] = error.exit_code  # click declares it once for the class; ours differs by error


def friendly_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Decorate a click command so that a HedgemarkError ends it with one message and its exit code, without a traceback."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except HedgemarkError as error:
            raise FriendlyError(error) from error

    return wrapped


def default_store() -> str:
    """Return the store's address: $HEDGEMARK_STORE, else ./hedgemark-store."""
    return os.environ.get("HEDGEMARK_STORE", DEFAULT_STORE)


def store_option(command: Callable[P, R]) -> Callable[P, R]:
    """Add `--store URL` to a click command."""
    text = "Store to use. [$HEDGEMARK_STORE, else ./hedgemark-store]"
    return click.option("--store", "store_url", default=default_store, metavar="URL", help=text)(command)
