"""Ctrl-C ends every command with one sentence and exit code 130, wherever it is, and its worker processes without a word."""

import logging
import os
import signal
import subprocess
import sys
import time

import pytest
from report_stores import mixed_store

import store.cli.start

BUSY = ("--alpha", "0.01:0.5:0.001", "--split", "4000")  # minutes of work
COMMANDS = (
    ("analyzer", "compare", *BUSY), ("analyzer", "compare", "--executor", "processes", *BUSY), ("analyzer", "sets", *BUSY),
)  # fmt: skip


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return mixed_store(tmp_path_factory.mktemp("interrupted"))


@pytest.mark.parametrize("seconds", [0.0, 4.0])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_ctrl_c_is_one_sentence(command: tuple[str, ...], seconds: float, url: str) -> None:
    """A terminal sends it to the whole group of processes: while they import, and while they work."""
    asked = [sys.executable, "-m", *command, "--store", url]
    process = subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stderr is not None and process.stderr.readline().endswith(" ...\n")
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGINT)
    try:
        stdout, stderr = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode in {130, -signal.SIGINT}  # a shell says 130 of both; Python ends itself so where an extension met the signal
    assert (stdout, stderr.strip()) == ("", "Interrupted.")


LOST = """
import signal, time
import click
import store.command

class Deaf:
    def __del__(self):
        time.sleep(1)  # an error raised here is lost

@click.command(cls=store.command.ShellCommand)
def work():
    print("begun", flush=True)
    deaf = Deaf()
    del deaf
    time.sleep(60)

store.command.AGAIN_S = 1.0
work()
"""


def test_ctrl_c_that_is_lost_comes_again() -> None:
    """Where it meets a library's callback Python drops the error, which nobody need read; a second later it is raised again."""
    process = subprocess.Popen([sys.executable, "-c", LOST], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert (process.returncode, stderr.strip()) == (130, "Interrupted.")


@pytest.mark.parametrize("name", ["produce", "store", "analyze", "hedgemark"])
def test_ctrl_c_while_a_command_is_imported(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Before a command can say anything, Python has a tenth of a second to import it."""

    def interrupted(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(store.cli.start, "import_module", interrupted)
    with pytest.raises(SystemExit, match="130"):
        getattr(store.cli.start, name)()
    assert capsys.readouterr().err == "Interrupted.\n"


@pytest.mark.producer
def test_a_cell_that_was_stopped_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """The sweep says in one sentence that it was stopped; a cell that failed is an error."""
    from producer.machine.progress import progress_bar
    from producer.sweep.cells import Command, Finished
    from producer.sweep.run import Progress

    with caplog.at_level(logging.WARNING), progress_bar(3, "sweep", "cell") as bar:
        progress = Progress(bar)
        progress.ended(Finished(Command("a", ()), 130, reason="Interrupted."))
        assert not caplog.records
        progress.ended(Finished(Command("b", ()), 5, reason="no such model"))
    assert [record.getMessage() for record in caplog.records] == ["b failed: no such model"]


def test_ctrl_c_that_becomes_another_error_is_still_one() -> None:
    """An extension that is interrupted while it is imported may raise what it likes; without Ctrl-C that is an error of its own."""
    code = """
import os, signal, sys, time, click
from store.command import ShellCommand
def work():
    try:
        if sys.argv[1] == "interrupted":
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)
        raise ValueError("what else")
    except KeyboardInterrupt:
        raise ImportError("half imported") from None
ShellCommand("work", callback=work).main([])
"""
    python = (sys.executable, "-c", code)
    interrupted, alone = (subprocess.run([*python, word], capture_output=True, text=True, check=False) for word in ("interrupted", "alone"))
    assert (interrupted.returncode, interrupted.stderr) == (130, "Interrupted.\n")
    assert alone.returncode == 5 and "ValueError" in alone.stderr
