"""How the three commands end: with one sentence and an exit code of ours, whatever happens to their output or inside them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
from click.testing import CliRunner

from schemas.errors import HedgemarkError, StoreInvalidError, UsageError
from store.command import ShellCommand, ShellGroup, friendly_errors


def shell(script: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a line of shell in which $PRODUCE, $STORE and $ANALYZE are the commands."""
    python = sys.executable
    analyze = f"{python} -c 'from analyzer.cli.main import main; main()'"
    commands = {"PRODUCE": f"{python} -m producer", "STORE": f"{python} -m store", "ANALYZE": analyze}
    env = {**os.environ, **environment}
    for name, command in commands.items():
        script = script.replace(f"${name}", command)
    return subprocess.run(["bash", "-c", script], env=env, capture_output=True, check=False)


@pytest.mark.parametrize("command", ["$PRODUCE --list tasks", "$PRODUCE --help", "$STORE --help", "$ANALYZE sets --help"])
def test_a_full_device_is_one_sentence(command: str) -> None:
    """Output that cannot be written ends with exit 5 and the reason, help included; Python's own ending has another code."""
    done = shell(f"{command} > /dev/full")
    assert done.returncode == 5, done.stderr
    assert done.stderr.decode() == "Error: No space left on device\n"


@pytest.mark.parametrize("command", ["$PRODUCE --list tasks", "$STORE --help", "$ANALYZE --help"])
def test_a_closed_stdout_is_no_success(command: str) -> None:
    """Results that go nowhere are an error, not exit 0; nothing is done then."""
    done = shell(f"{command} >&-")
    assert done.returncode == 5
    assert b"stdout is closed" in done.stderr and done.stderr.count(b"\n") == 1


def test_a_reader_that_has_seen_enough_gets_no_message() -> None:
    """`| true` ends the command quietly, and not with the exit code of a failed gate."""
    done = shell("{ $PRODUCE --list methods; echo $? >&2; } | true")
    assert done.stderr in (b"5\n", b"0\n")  # 0 where it had written everything before the pipe closed


@click.command(cls=ShellCommand)
@click.option("--what", type=int, default=0)
@friendly_errors
def failing(what: int) -> None:
    errors: list[BaseException] = [
        HedgemarkError("ours"), UsageError("wrong"), StoreInvalidError("damaged"), OSError(28, "No space left on device", "cache"),
        ZeroDivisionError("division\nby zero"), RecursionError(), click.ClickException("click's"), click.UsageError("usage"),
        KeyboardInterrupt(),
    ]  # fmt: skip
    raise errors[what]


@pytest.mark.parametrize(
    ("what", "code", "said"),
    [
        (0, 5, "Error: HedgemarkError: ours\n"),
        (1, 2, "Error: UsageError: wrong\n"),
        (2, 4, "Error: StoreInvalidError: damaged\n"),
        (3, 5, "Error: No space left on device: cache\n"),
        (4, 5, "Error: internal error, ZeroDivisionError: division (-v shows where)\n"),
        (5, 5, "Error: internal error, RecursionError:  (-v shows where)\n"),
        (6, 5, "Error: click's\n"),
        (8, 130, "Interrupted.\n"),
    ],
)
def test_every_error_has_one_line_and_its_exit_code(what: int, code: int, said: str) -> None:
    """A crash is never read as a verdict: 1 is a failed gate's alone."""
    result = CliRunner().invoke(failing, ["--what", str(what)])
    assert (result.exit_code, result.stderr.lstrip("\n"), result.stdout) == (code, said, "")


def test_wrong_usage_is_exit_2() -> None:
    """Both what click refuses and what a command refuses."""
    assert CliRunner().invoke(failing, ["--what", "7"]).exit_code == 2
    assert CliRunner().invoke(failing, ["--what", "x"]).exit_code == 2
    assert CliRunner().invoke(failing, ["--help"]).exit_code == 0


def test_where_an_internal_error_came_from_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """With -v, which lets logs of level INFO through, the traceback is there."""
    with caplog.at_level("INFO"):
        CliRunner().invoke(failing, ["--what", "4"])
    assert "ZeroDivisionError" in caplog.text and "test_command_shell.py" in caplog.text


@pytest.mark.parametrize("encoding", ["cp1252", "cp437", "cp850", "latin-1"])
def test_every_code_page_can_print(encoding: str, tmp_path: Path) -> None:
    """What a Windows code page lacks is written as JSON does, so JSON stays JSON with the same content; nothing ends in a traceback."""
    script = tmp_path / "show.py"
    text = "Δ ≤ é 😀 \udcff"
    script.write_text(
        "import json, click\nfrom store.command import ShellCommand\n"
        "@click.command(cls=ShellCommand)\ndef main():\n"
        f"    click.echo(json.dumps({text!r}, ensure_ascii=False)); click.echo({text!r}, err=True)\nmain()\n"
    )
    done = subprocess.run([sys.executable, script], env={**os.environ, "PYTHONIOENCODING": encoding}, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.decode(encoding)) == text


def test_the_commands_are_of_this_shell() -> None:
    """All three."""
    mains = [_main(name) for name in ("analyzer.cli.main", "store.cli.main", "producer.cli.main")]
    assert [type(main) for main in mains] == [ShellGroup, ShellGroup, ShellCommand]


def _main(name: str) -> Any:
    module: ModuleType = __import__(name, fromlist=["main"])
    return module.main


def test_an_exit_code_that_a_command_chose_is_kept() -> None:
    """`analyze gate` says 1 or 3 itself; a signal's code passes too."""

    @click.command(cls=ShellCommand)
    @click.option("--by", type=click.Choice(["context", "system"]))
    def ending(by: str) -> None:
        if by == "system":
            raise SystemExit(128 + signal.SIGTERM)
        click.get_current_context().exit(3)

    assert CliRunner().invoke(ending, ["--by", "context"]).exit_code == 3
    assert CliRunner().invoke(ending, ["--by", "system"]).exit_code == 128 + signal.SIGTERM
