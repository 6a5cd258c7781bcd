"""What `--track` writes for `analyze gate`, `report` and `sets`, read back from the local files of each tool; no network and no account."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from analyzer_data import MemoryReader, item_set, make_run, skilled_logits
from click.testing import CliRunner
from needed_trackers import need
from report_stores import FEW, family, quiz, write

from analyzer.cli.main import main
from analyzer.gate.gate import NOT_JUDGED, check_pairs, gate
from analyzer.gate.policy import read_policy
from analyzer.protocols.ask import ask
from analyzer.runs.loading import Runs, select_runs
from analyzer.studies.sets import sets
from analyzer.tracking.trackers import TOOLS, Tool, Tracked, Tracker, open_tracker, tracked, tracked_sets
from schemas.errors import HedgemarkError, UsageError


@pytest.fixture(scope="module")
def runs() -> Runs:
    """A dense run of 600 items, and one with a little noise."""
    rng = np.random.default_rng(0)
    items = item_set(rng.integers(0, 4, 600))
    logits = skilled_logits(rng, items.answer, 4)
    noisy = make_run(items, logits + 0.1 * rng.normal(size=logits.shape), method="rtn", level="w4a16")
    return select_runs(MemoryReader([items], [make_run(items, logits), noisy]), {})


@pytest.fixture(scope="module")
def checks(runs: Runs) -> list[dict[str, object]]:
    """Both checks of the noisy run pass."""
    return gate(runs, ask(scorers=["lac"]), read_policy(None, ["accuracy_loss=0.9", "set_size_growth=0.5"]).limits)


def test_every_figure_has_its_interval_and_limit(checks: list[dict[str, object]]) -> None:
    """One run, named as in the store; MLflow takes no parentheses or commas in a metric's name."""
    (run,) = tracked(checks)
    assert run.name == checks[0]["run"] and run.about["result"] == "pass" and run.about["method"] == checks[0]["method"]
    of_accuracy = next(check for check in checks if check["check"] == "accuracy_loss")
    ends = {"": "amount", " low": "amount_low", " high": "amount_high", " limit": "limit"}
    assert {end: run.figures[f"accuracy_loss{end}"] for end in ends} == {end: of_accuracy[name] for end, name in ends.items()}
    assert tracked([*checks, {**checks[0], "run": "smaller", "result": NOT_JUDGED}]) == [run]
    assert "set_size_growth lac alpha 0.1 limit" in run.figures and run.about["accuracy_loss result"] == "pass"


@pytest.mark.parametrize("text", ["mlflow", "mlflow:", "tensorboard:runs", ":x", ""])
def test_what_names_no_tool_and_target_is_refused(text: str) -> None:
    """Exit 2, before any run is read."""
    with pytest.raises(UsageError, match=r"is not mlflow:URI, wandb:PROJECT or trackio:PROJECT"):
        open_tracker(text)


def test_a_measured_run_has_its_figures_at_every_alpha_and_scorer(runs: Runs) -> None:
    """Every run by its name, dense ones too; the figures are those of `analyze sets`, with their intervals."""
    records = sets(runs, ask(scorers=["lac", "aps"], alphas=["0.1", "0.2"]))
    written_runs = tracked_sets(records)
    assert [run.name for run in written_runs] == sorted({record["run"] for record in records})
    for run in written_runs:
        of_run = {(record["scorer"], record["alpha"]): record for record in records if record["run"] == run.name}
        assert len(of_run) == 4 and run.about["unreliable"] == "no" and run.about["n_items"] == "600"
        for (scorer, alpha), record in of_run.items():
            for figure in ("accuracy", "coverage", "set_size"):
                ends = {"": record[figure], " low": record[f"{figure}_low"], " high": record[f"{figure}_high"]}
                assert {end: run.figures[f"{figure} {scorer} alpha {alpha:g}{end}"] for end in ends} == ends


def test_sets_and_report_write_what_they_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sets` writes every run and `report` the checks of its page, judged once for both; p-values of runs are refused."""
    items = quiz("quiz", 60)
    url = write(str(tmp_path / "store"), [(items, family(items, "toy", 0, levels=FEW))])
    seen: dict[str, list[Tracked]] = {}
    monkeypatch.setitem(TOOLS, "mlflow", Tool(lambda library, target, command, runs: seen.update({command: list(runs)}), "nothing"))
    monkeypatch.setitem(sys.modules, "mlflow", sys)
    judging = Mock(wraps=check_pairs)
    monkeypatch.setattr("analyzer.report.data.study.check_pairs", judging)
    for command in (["sets"], ["report", "--out", str(tmp_path / "r.html")]):
        done = CliRunner().invoke(main, [*command, "--store", url, "--track", "mlflow:x"])
        assert done.exit_code == 0 and f"{2 if command == ['sets'] else 1} run" in done.stderr and "written to mlflow" in done.stderr
    assert {run.about["method"] for run in seen["sets"]} == {"dense", "wanda"}
    assert judging.call_count == 1
    (judged,) = seen["report"]
    assert judged.about["method"] == "wanda" and judged.figures["accuracy_loss limit"] == 0.02
    refused = CliRunner().invoke(main, ["sets", "--store", url, "--track", "mlflow:x", "--p-values"])
    assert refused.exit_code == 2 and "--track writes figures of runs" in refused.stderr


@pytest.mark.parametrize("command", [["gate", "--limit", "kl=1"], ["report"], ["sets"]], ids=lambda command: command[0])
@pytest.mark.parametrize("tool", TOOLS)
def test_an_absent_library_is_named_with_the_line_that_installs_it(tool: str, command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence, exit 2, and no run is read."""
    monkeypatch.setitem(sys.modules, tool, None)
    done = CliRunner().invoke(main, [*command, "--track", f"{tool}:x", "--store", "./no-such-store"])
    assert done.exit_code == 2 and f"--track {tool} needs its library: pip install 'hedgemark[{tool}]'" in done.stderr


def test_what_a_tool_says_is_one_sentence(checks: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool that refuses is an error at run time, not a failed gate; only the first line is said, and no password of the address."""

    def refused(*_: object) -> None:
        raise ValueError("no such project\nCall init again")

    monkeypatch.setitem(TOOLS, "mlflow", Tool(refused, "the address"))
    with pytest.raises(HedgemarkError) as error:
        Tracker("mlflow", "http://me:secret@x", None).track("gate", tracked(checks))
    assert str(error.value) == "mlflow cannot be written to at http://x: no such project; check the address" and error.value.exit_code == 5


def test_what_the_system_says_of_a_connection_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries wrap it in long messages of their own."""

    def refused(*_: object) -> None:
        try:
            raise ConnectionRefusedError(111, "Connection refused")
        except OSError as error:
            raise RuntimeError("Max retries exceeded with url: /api/2.0/mlflow/experiments/search") from error

    monkeypatch.setitem(TOOLS, "mlflow", Tool(refused, "the address", ask=refused))
    monkeypatch.setitem(sys.modules, "mlflow", sys)
    with pytest.raises(HedgemarkError, match=r"^mlflow cannot be written to at http://x: Connection refused; check the address$"):
        open_tracker("mlflow:http://x")


SCRIPT = """
import json, sys
from analyzer.tracking.trackers import open_tracker, tracked
print(open_tracker(sys.argv[1]).track("gate", tracked(json.load(sys.stdin))))
"""


def written(tool: str, target: str, checks: object, folder: Path, **environment: str) -> str:
    """Write to a tool in a process of its own, since these libraries start threads and warn; return what is on stdout."""
    need(tool)
    asked = [sys.executable, "-c", SCRIPT, f"{tool}:{target}"]
    env = {**os.environ, **environment, "HOME": str(folder)}
    done = subprocess.run(asked, input=json.dumps(checks), cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_mlflow_in_a_folder(checks: list[dict[str, object]], tmp_path: Path) -> None:
    """Its file store has a file for each figure and each name."""
    assert written("mlflow", str(tmp_path / "runs"), checks, tmp_path, MLFLOW_ALLOW_FILE_STORE="true") == "1 run written to mlflow\n"
    (run,) = tracked(checks)
    (figure,) = tmp_path.glob("runs/*/*/metrics/accuracy_loss")
    assert float(figure.read_text().split()[1]) == run.figures["accuracy_loss"]
    assert (figure.parents[1] / "params" / "result").read_text() == "pass"


def test_wandb_offline(checks: list[dict[str, object]], tmp_path: Path) -> None:
    """WANDB_MODE=offline needs no key; the run's file has its name and figures."""
    assert written("wandb", "gates", checks, tmp_path, WANDB_MODE="offline") == "1 run written to wandb\n"
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    content = file.read_bytes()
    assert str(checks[0]["run"]).encode() in content and b"accuracy_loss limit" in content


def test_trackio_on_this_machine(checks: list[dict[str, object]], tmp_path: Path) -> None:
    """Its SQLite file has the figures."""
    assert written("trackio", "gates", checks, tmp_path, TRACKIO_DIR=str(tmp_path / "trackio")) == "1 run written to trackio\n"
    (file,) = (tmp_path / "trackio").glob("gates*.db")
    with sqlite3.connect(file) as database:
        rows = [str(row) for row in database.execute("select * from metrics")]
    database.close()
    assert len(rows) >= 1 and any("accuracy_loss limit" in row for row in rows)
