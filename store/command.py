"""What the three commands share: how they end (one sentence and an exit code, never a traceback), how they print, where the store is.

Exit codes: 0 done, gate passed; 1 gate failed, alarm; 2 wrong usage; 3 undecided; 4 store invalid; 5 any other error at run time.
"""

import codecs
import functools
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import click

from schemas.errors import HedgemarkError
from store.shown import Shown, message, printable

P = ParamSpec("P")
R = TypeVar("R")

log = logging.getLogger(__name__)

DEFAULT_STORE = "./hedgemark-store"
INTERRUPTED = 130
AS_JSON = "hedgemark-as-json"  # name of the error handler for characters that an output's encoding lacks
MOST = 300  # characters of a foreign error that are shown


class FriendlyError(click.ClickException):
    """A library error as click shows it: its message alone, with the exit code of its class."""

    def __init__(self, error: HedgemarkError) -> None:
        super().__init__(message(f"{type(error).__name__}: {error}"))
        vars(self)["exit_code"] = error.exit_code  # click declares it once for the class; ours differs by error


class _Shell(click.Command):
    """A command that ends with one sentence and our exit codes, whatever went wrong, in parsing and printing too."""

    def main(self, args: Any = None, prog_name: Any = None, complete_var: Any = None, standalone_mode: bool = True, **extra: Any) -> Any:
        """Run the command and end the process; without `standalone_mode` return or raise what it does."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=standalone_mode, **extra)
        with _shown_output() as stdout:
            try:
                _require_stdout()
                code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
                sys.stdout.flush()
            except click.ClickException as error:
                error.show()
                code = HedgemarkError.exit_code if error.exit_code == 1 else error.exit_code  # click's own 1 is our verdict of a gate
            except click.Abort:
                click.echo("Interrupted.", err=True)
                code = INTERRUPTED
            except SystemExit:
                if sys.stdout is stdout:
                    raise
                _discard_output()
                code = HedgemarkError.exit_code  # click replaced it and leaves with 1: a pipe's reader, such as `head`, has seen enough
            except Exception as error:
                code = _explain(error)
        sys.exit(code if isinstance(code, int) else 0)


class ShellCommand(_Shell):
    """A single command."""


class ShellGroup(_Shell, click.Group):
    """A command with subcommands."""


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


def log_to_stderr(level: int, form: str = "%(message)s") -> None:
    """Show log records of a level and above on stderr, each as a message that no name in it can break."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Messages(form))
    logging.basicConfig(level=level, handlers=[handler])


class _Messages(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = message(record.message)
        return super().formatMessage(record)


@contextmanager
def _shown_output() -> Iterator[Any]:
    """Let no character fail to print and none steer the terminal, and yield the stdout that does so; None where it is closed."""
    before = sys.stdout, sys.stderr
    for stream in before:
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=AS_JSON)
    sys.stdout, sys.stderr = (stream and Shown(stream) for stream in before)
    try:
        yield sys.stdout
    finally:
        sys.stdout, sys.stderr = before


def _require_stdout() -> None:
    """Refuse a closed stdout, which would lose every result without a word."""
    if sys.stdout is None:
        raise FriendlyError(HedgemarkError("stdout is closed, so no result could be shown; send it to a file or to /dev/null"))


def _explain(error: Exception) -> int:
    """Say in one line on stderr what ended the command, and return the exit code."""
    if isinstance(error, OSError):
        _discard_output()
        click.echo(message(f"Error: {error.strerror or error}{f': {error.filename}' if error.filename else ''}"), err=True)
        return HedgemarkError.exit_code
    first = (str(error).strip().splitlines() or [""])[0][:MOST]
    click.echo(f"Error: internal error, {type(error).__name__}: {printable(first)} (-v shows where)", err=True)
    log.info("what led to it", exc_info=error)
    return HedgemarkError.exit_code


def _discard_output() -> None:
    """Send what is still to be printed nowhere: Python would fail on it again at its end, with another exit code."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # stdout is no file, as in a test
        return


def _as_json(error: UnicodeError) -> tuple[str, int]:
    r"""Write what an encoding lacks as JSON does, \u0394, so that JSON stays JSON in a Windows code page."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2)), error.end


codecs.register_error(AS_JSON, _as_json)
