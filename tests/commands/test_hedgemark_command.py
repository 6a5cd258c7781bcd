"""`hedgemark` is the three commands under one name, and completes them."""

import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

import store.cli.main
from store.cli.hedgemark import HOMES, main


@pytest.mark.parametrize("name", HOMES)
def test_each_command_answers_as_under_its_plain_name(name: str) -> None:
    """The same help, but for the name in its first line."""
    under = CliRunner().invoke(main, [name, "--help"], prog_name="hedgemark")
    assert under.exit_code == 0 and f"Usage: hedgemark {name}" in under.stdout


def test_errors_and_exit_codes_are_the_same() -> None:
    """One sentence, and the code of the error."""
    for runner, words in ((store.cli.main.main, ["ls"]), (main, ["store", "ls"])):
        done = CliRunner().invoke(runner, [*words, "--store", "./no-such-store"])
        assert done.exit_code == 5 and "there is no store at ./no-such-store" in done.stderr
    assert CliRunner().invoke(main, ["other"]).exit_code == 2


def test_completion_in_the_shell() -> None:
    """What README says to put into a shell's file, and what that then asks."""
    asked = {"_HEDGEMARK_COMPLETE": "bash_complete", "COMP_WORDS": "hedgemark store lo", "COMP_CWORD": "2"}
    code = "from store.cli.hedgemark import main; main(prog_name='hedgemark')"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **asked}, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["plain,log"], done.stderr
    source = {"_HEDGEMARK_COMPLETE": "zsh_source"}
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **source}, capture_output=True, text=True, check=False)
    assert "#compdef hedgemark" in done.stdout
