"""What the three commands share: errors as one sentence and an exit code instead of a traceback, printing, and the option --store.

Exit codes: 0 done, gate passed; 1 gate failed, alarm; 2 wrong usage; 3 undecided; 4 store invalid; 5 any other error at run time.
"""

import codecs
import functools
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, ParamSpec, TypeVar

import click

from schemas.errors import HedgemarkError
from store.shown import Shown, message, printable

P = ParamSpec("P")
R = TypeVar("R")

log = logging.getLogger(__name__)

DEFAULT_STORE = "./hedgemark-store"
SIGNALLED = 128  # exit codes above it are signals
INTERRUPTED = 130
COMPLETING = ("_HEDGEMARK_COMPLETE", "_PRODUCE_COMPLETE", "_STORE_COMPLETE", "_ANALYZE_COMPLETE")  # by which a shell asks click
FILE = click.Path(dir_okay=False, path_type=Path)  # type of an option: a file to be read or written
EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
AS_JSON = "hedgemark-as-json"  # name of the error handler for characters that an output's encoding lacks
COLORED = {"auto": None, "always": True, "never": False}
AGAIN_S = 5.0  # after which a Ctrl-C that was lost is raised again
MOST = 300  # characters shown of an unexpected error's message


class FriendlyError(click.ClickException):
    """A HedgemarkError as click shows it: only its message, with the exit code of its class; what a signal ended is no error."""

    def __init__(self, error: HedgemarkError) -> None:
        super().__init__(message(f"{type(error).__name__}: {error}"))
        vars(self)["exit_code"] = error.exit_code  # click declares it for the whole class; here it differs by error

    def show(self, file: Any = None) -> None:
        """Print the message on stderr."""
        if self.exit_code > SIGNALLED:
            click.echo(self.message, err=True)
        else:
            super().show(file)


class _Shell(click.Command):
    """A command that reports any failure, also in parsing and printing, as one sentence with one of our exit codes."""

    def main(self, args: Any = None, prog_name: Any = None, complete_var: Any = None, standalone_mode: bool = True, **extra: Any) -> Any:
        """Run the command and end the process; without `standalone_mode` return what it returns and raise what it raises."""
        if any(name in os.environ for name in COMPLETING):
            return super().main(args, prog_name, complete_var, standalone_mode=True, **extra)  # a shell asks, in bytes
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=standalone_mode, **extra)
        with _shown_output() as stdout, _noted_interrupts() as interrupts:
            try:
                _require_stdout()
                code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
                sys.stdout.flush()
            except click.ClickException as error:
                error.show()
                code = HedgemarkError.exit_code if error.exit_code == 1 else error.exit_code  # click's 1 is our failed gate
            except HedgemarkError as error:
                FriendlyError(error).show()
                code = error.exit_code
            except click.Abort:
                click.echo("Interrupted.", err=True)
                code = INTERRUPTED
            except SystemExit:
                if sys.stdout is stdout:
                    raise
                _discard_output()
                code = HedgemarkError.exit_code  # the reader of a pipe (such as `head`) closed it, on which click exits with 1
            except Exception as error:
                if interrupts:  # an extension, or an import, has made another error of it
                    click.echo("Interrupted.", err=True)
                code = INTERRUPTED if interrupts else _explain(error)
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


def begin(work: str) -> None:
    """Say on stderr what a command begins with. Called before anything slow is imported or read, so that the terminal is not blank."""
    click.echo(message(f"{work} ..."), err=True)


def color_option(command: Callable[P, R]) -> Callable[P, R]:
    """Add `--color auto|always|never` to a click command; `colored` reads it."""
    text = "Colour verdicts: on a terminal (auto; not where $NO_COLOR is set), always, or never. [auto]"
    option = click.option("--color", type=click.Choice([*COLORED]), default="auto", help=text, callback=_set_color, expose_value=False)
    return option(command)


def _set_color(ctx: click.Context, _: click.Parameter, value: str) -> None:
    ctx.color = COLORED[value]


def colored(*, err: bool = False) -> bool:
    """Return whether text for stdout (or stderr) may have colours."""
    context = click.get_current_context(silent=True)
    if context is not None and context.color is not None:
        return context.color
    stream = sys.stderr if err else sys.stdout
    return bool(stream) and stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def echo_colored(text: str, *, err: bool = False) -> None:
    """Print text with colours of ours, past the filter that would remove them; every name in it must be `printable` already."""
    stream = sys.stderr if err else sys.stdout
    click.echo(text, file=stream.stream if isinstance(stream, Shown) else stream, color=True)


def default_store() -> str:
    """Return the store's address: $HEDGEMARK_STORE, else ./hedgemark-store."""
    return os.environ.get("HEDGEMARK_STORE", DEFAULT_STORE)


def store_option(command: Callable[P, R]) -> Callable[P, R]:
    """Add `--store URL` to a click command."""
    text = "Store: a folder, s3://BUCKET/PREFIX?endpoint_url=URL, gs://, az://, https:// or hf://. [$HEDGEMARK_STORE or ./hedgemark-store]"
    return click.option("--store", "store_url", default=default_store, metavar="URL", help=text)(command)


def note_option(command: Callable[P, R]) -> Callable[P, R]:
    """Add `--message TEXT` to a click command that commits."""
    text = "Note for `store log`, such as 'after the fix of the prompt'; $HEDGEMARK_AUTHOR is recorded as its author."
    return click.option("--message", "note", default="", metavar="TEXT", help=text)(command)


def add_options(options: Sequence[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    """Return a decorator that gives a command these options; its help shows them in their order."""

    def add(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def log_to_stderr(level: int, form: str = "%(message)s") -> None:
    """Print log records of a level and above on stderr, with control characters in names made harmless."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Messages(form))
    logging.basicConfig(level=level, handlers=[handler])


class _Messages(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = message(record.message)
        return super().formatMessage(record)


@contextmanager
def _noted_interrupts() -> Iterator[list[int]]:
    """Yield a list that gets an entry for each Ctrl-C, which raises KeyboardInterrupt as well; always empty outside the main thread.

    The error is raised again every few seconds until the command ends, since Python drops it where it meets a library's callback or import;
    what Python prints of a dropped one would be a traceback beside the sentence.
    """
    interrupts: list[int] = []
    again = hasattr(signal, "setitimer")  # not on Windows

    def note(number: int, frame: FrameType | None) -> None:
        interrupts.append(number)
        if again:
            signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
        signal.default_int_handler(number, frame)

    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not ours:
        yield interrupts
        return

    def print_dropped(dropped: "sys.UnraisableHookArgs") -> None:
        if not (again and isinstance(dropped.exc_value, KeyboardInterrupt)):
            print_any(dropped)

    numbers = (signal.SIGINT, signal.SIGALRM) if again else (signal.SIGINT,)
    before = [signal.signal(number, note) for number in numbers]
    print_any, sys.unraisablehook = sys.unraisablehook, print_dropped
    try:
        yield interrupts
    finally:
        sys.unraisablehook = print_any
        if again:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def _shown_output() -> Iterator[Any]:
    """Replace stdout and stderr by streams that print every character safely, and yield the new stdout; None if it is closed."""
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
    """Refuse a closed stdout, which would silently lose the results."""
    if sys.stdout is None:
        raise FriendlyError(HedgemarkError("stdout is closed, so no result could be shown; send it to a file or to /dev/null"))


def _explain(error: Exception) -> int:
    """Print on stderr in one line what ended the command, and return the exit code."""
    if isinstance(error, OSError):
        _discard_output()
        click.echo(message(f"Error: {error.strerror or error}{f': {error.filename}' if error.filename else ''}"), err=True)
        return HedgemarkError.exit_code
    first = (str(error).strip().splitlines() or [""])[0][:MOST]
    click.echo(f"Error: internal error, {type(error).__name__}: {printable(first)} (-v shows where)", err=True)
    log.info("traceback", exc_info=error)
    return HedgemarkError.exit_code


def _discard_output() -> None:
    """Discard buffered output, since Python would try to write it again at exit, fail, and change the exit code."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # stdout is not a file, as in a test
        return


def _as_json(error: UnicodeError) -> tuple[str, int]:
    r"""Replace characters that an encoding lacks by JSON escapes such as \u0394, so that JSON stays valid in a Windows code page."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2)), error.end


codecs.register_error(AS_JSON, _as_json)
