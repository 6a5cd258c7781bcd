"""docs/ci: the commands of the GitHub workflow and of the GitLab job, run as they stand there on the embedded models."""

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

CI = Path(__file__).parents[2] / "docs" / "ci"
INSTALL = "pip install"  # what is tested is installed already


def read(name: str) -> Any:
    return pytest.importorskip("yaml").safe_load((CI / name).read_text(encoding="utf-8"))


def shell(command: str, folder: Path) -> int:
    """Run a command as CI does, with the variables of the file but on an embedded model; return its exit code."""
    variables = {"DENSE": "ref-s", "COMPRESSED": "./compressed", "TASK": "urn", "ITEMS": "1000", "OMP_NUM_THREADS": "1"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, **variables, "PATH": path, "GITHUB_STEP_SUMMARY": str(folder / "summary.md")}
    return subprocess.run(["bash", "-e", "-o", "pipefail", "-c", command], cwd=folder, check=False, env=env, timeout=600).returncode


def github() -> tuple[Sequence[str], Sequence[str]]:
    """The commands up to the gate, and those that run whatever it says."""
    steps = [step for step in read("github.yml")["jobs"]["gate"]["steps"] if "run" in step and not step["run"].startswith(INSTALL)]
    return [step["run"] for step in steps if "if" not in step], [step["run"] for step in steps if "if" in step]


def gitlab() -> tuple[Sequence[str], Sequence[str]]:
    """The commands up to the gate, and those that run whatever it says."""
    job = read("gitlab.yml")["release-gate"]
    assert all(line.startswith(INSTALL) for line in job["before_script"])
    return job["script"], job["after_script"]


@pytest.mark.slow
@pytest.mark.producer
@pytest.mark.parametrize(
    ("commands", "compression", "expected"),
    [
        (github, "--method rtn --level w8a16-g32", (3, "gate: *inconclusive*")),
        (gitlab, "--method magnitude --level 0.7", (1, "gate: **fail**")),
    ],
)
def test_the_gate_in_ci_ends_as_it_should(commands: Any, compression: str, expected: tuple[int, str], tmp_path: Path) -> None:
    """1,000 questions do not decide on 8 bits, and a model without 70 % of its weights fails; either way the reports are there."""
    code, word = expected
    assert not shell(f"produce --model ref-s {compression} --task urn --limit 50 --store made --save compressed", tmp_path)
    until, always = commands()
    codes = [shell(command, tmp_path) for command in until]
    assert codes == [*[0] * (len(until) - 1), code]
    assert [shell(command, tmp_path) for command in always] == [0] * len(always)
    text = (tmp_path / "gate.md").read_text()
    assert word in text and ET.parse(tmp_path / "gate.xml").getroot().tag == "testsuites" and (tmp_path / "report.html").stat().st_size
    assert re.search(r"compared with `ref-s~dense~urn~[^`]+`, [\d,]+ items, made on \d{4}-\d\d-\d\d with .*torch \d", text)
    assert commands is gitlab or (tmp_path / "summary.md").read_text() == text


def test_both_files_set_what_their_commands_use_and_keep_the_reports() -> None:
    """The four variables are set; the gate's files and the report are artifacts; both files ask for the same limits."""
    job, other = read("github.yml")["jobs"]["gate"], read("gitlab.yml")["release-gate"]
    assert job["env"] == other["variables"] and set(job["env"]) == {"DENSE", "COMPRESSED", "TASK", "ITEMS"}
    kept = {*other["artifacts"]["paths"], other["artifacts"]["reports"]["junit"]}
    [uploaded] = [step["with"]["path"].split() for step in job["steps"] if "upload-artifact" in step.get("uses", "")]
    assert set(uploaded) == kept == {"gate.xml", "gate.md", "report.html"}
    lines = ["\n".join([*until, *always]) for until, always in (github(), gitlab())]
    assert len({tuple(sorted(word for word in line.split() if "=" in word)) for line in lines}) == 1


def test_the_report_is_written_whatever_happened_before(tmp_path: Path) -> None:
    """Its step runs after failed items, a failed gate and a job that ran out of time; the summary is not the reason why it stops."""
    steps = read("github.yml")["jobs"]["gate"]["steps"]
    assert [step["if"] for step in steps if step.get("name") == "Report" or "upload-artifact" in step.get("uses", "")] == ["always()"] * 2
    [report] = [step["run"] for step in steps if step.get("name") == "Report"]
    summary, command = report.strip().splitlines()
    assert "analyze report " in command and shell(summary, tmp_path) == 0 and not (tmp_path / "summary.md").exists()
    assert shell(command, tmp_path) == 0 and not (tmp_path / "report.html").exists()  # nothing was stored: the step that failed says why
    (tmp_path / "gate.md").write_text("gate: **fail**\n", encoding="utf-8")
    assert shell(summary, tmp_path) == 0 and (tmp_path / "summary.md").read_text(encoding="utf-8") == "gate: **fail**\n"
