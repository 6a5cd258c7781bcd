"""The check of a device: steps end at their limits and fail by themselves, and a rehearsal on the CPU passes."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from producer.bench.device_check import run as running
from producer.bench.device_check import steps
from producer.bench.device_check.finding import Finding, Measured, Where, attempt, shown
from producer.bench.device_check.run import FAILED, OK, TIME_LIMIT, run, run_all
from producer.bench.device_check.steps import STEPS, Timed

pytestmark = pytest.mark.producer
ROOT = Path(__file__).parents[2]
CPU = Where("cpu", small=True)


def test_the_limits_fit_into_eight_minutes() -> None:
    """Steps that need the machine alone run one after the other, the rest side by side."""
    alone = sum(step.limit for step in STEPS.values() if step.alone)
    assert alone + max(step.limit for step in STEPS.values() if not step.alone) <= 8 * 60


def test_what_a_measurement_raises_is_its_fault() -> None:
    """The finding names the error and the line that raised it; the next measurement goes on."""

    def fails() -> Measured:
        raise RuntimeError("expected all tensors\n on one device")

    found = attempt("a method", fails)
    assert found.fault.startswith("RuntimeError: expected all tensors on one device (")
    assert __name__ in found.fault
    assert found.line().startswith("a method: FAILED, RuntimeError")


@pytest.mark.parametrize(("value", "passes"), [(0.5, True), (1.0, True), (1.5, False), (float("nan"), False)])
def test_a_figure_is_held_against_its_bound(value: float, passes: bool) -> None:
    """NaN is beyond any bound."""
    measured = Measured()
    measured.at_most("distance", value, 1.0)
    assert not measured.faults if passes else measured.faults
    assert measured.figures["distance"] is value


@pytest.mark.parametrize(("value", "text"), [(0.123456, "0.123"), (123456.7, "123,457"), (3, "3"), ("H100", "H100"), (float("inf"), "inf")])
def test_figures_are_printed_to_three_digits(value: object, text: str) -> None:
    """Whole numbers and names stay as they are."""
    assert shown(value) == text


STEP = """
import json, sys
def found(name, fault=""):
    with open(sys.argv[sys.argv.index("--findings") + 1], "a") as stream:
        stream.write(json.dumps({{"name": name, "figures": {{}}, "fault": fault}}) + "\\n")
found("first")
{then}
"""


@pytest.fixture
def tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Let the processes of a step run a script of the test instead of the check."""
    script, real = tmp_path / "step.py", subprocess.Popen

    def start(command: list[str], **options: object) -> subprocess.Popen[str]:
        return real([sys.executable, str(script), *command[3:]], **options)

    monkeypatch.setattr(running.subprocess, "Popen", start)
    monkeypatch.setitem(steps.STEPS, "tried", Timed(lambda where: iter(()), 10))
    yield script


@pytest.mark.parametrize(
    ("then", "outcome", "said"),
    [
        ("pass", OK, ""),
        ("found('second', 'wrong')", FAILED, ""),
        ("raise SystemExit('no such device')", FAILED, "exit 1: no such device"),
        ("import os; os.kill(os.getpid(), 9)", FAILED, "exit -9: it printed nothing"),
    ],
)
def test_a_step_that_fails_keeps_what_it_found(tried: Path, tmp_path: Path, then: str, outcome: str, said: str) -> None:
    """Faults, errors and a killed process are told apart, and the findings before them are there."""
    tried.write_text(STEP.format(then=then))
    ended = run("tried", CPU, tmp_path, 1, 1.0)
    assert (ended.outcome, ended.last_line) == (outcome, said)
    assert ended.findings[0] == Finding("first", {})


def test_a_step_ends_at_its_limit(tried: Path, tmp_path: Path) -> None:
    """It is killed, counts as not passed, and keeps what it had found."""
    tried.write_text(STEP.format(then="import time; time.sleep(600)"))
    clock = time.monotonic()
    [ended] = run_all(["tried"], CPU, tmp_path, 0.3)
    assert time.monotonic() - clock < 60
    assert ended.outcome == TIME_LIMIT
    assert [found.name for found in ended.findings] == ["first"]


@pytest.mark.slow
def test_a_rehearsal_on_the_cpu_passes(tmp_path: Path) -> None:
    """Every step passes in small, the table comes last, and the file has every figure."""
    path = tmp_path / "figures.json"
    command = [
        sys.executable,
        "-m",
        "producer.bench.device_check",
        "--device",
        "cpu",
        "--small",
        "--json",
        str(path),
        "--limit-factor",
        "20",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert done.stdout.splitlines()[-1].startswith(f"{len(STEPS)} steps in ")
    assert [step["name"] for step in json.loads(path.read_text())["steps"]][:2] == ["the device", "8B in memory"]
