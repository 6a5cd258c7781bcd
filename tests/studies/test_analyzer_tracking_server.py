"""`--track` against servers: a real MLflow server on this machine, whose runs its own client reads back, and servers that are not there."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from needed_trackers import need
from report_stores import FEW, family, quiz, write
from store_ports import reserve_ports

pytestmark = pytest.mark.slow
START_S, PATIENCE_S = 400, 230  # to start on a busy machine; to give up on MLflow, for which its own settings took 271 s
READ_BACK = """
import json, sys
from mlflow import MlflowClient
client = MlflowClient(sys.argv[1])
experiment = client.get_experiment_by_name(sys.argv[2])
runs = client.search_runs([experiment.experiment_id])
print(json.dumps({run.info.run_name: [run.info.status, run.data.params, run.data.metrics] for run in runs}))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an MLflow server with a SQLite file, which ends with the tests."""
    need("mlflow")
    need("flask")  # the server's part of MLflow, which its small client lacks
    folder = tmp_path_factory.mktemp("mlflow")
    lock, (port,) = reserve_ports(1)
    kept = ["--backend-store-uri", f"sqlite:///{folder}/runs.db", "--artifacts-destination", str(folder / "artifacts")]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", *kept]
    with lock, (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
        try:
            wait_for(f"http://127.0.0.1:{port}/health", process, folder / "log")
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # its workers too
            process.wait()


def wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when a server answers; fail with its log if it ends or takes too long."""
    began = time.monotonic()
    while process.poll() is None and time.monotonic() - began < START_S:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    pytest.fail(f"the MLflow server does not answer:\n{log.read_text()[-3000:]}")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dense run and a pruned one, 200 items."""
    items = quiz("quiz", 200)
    return write(str(tmp_path_factory.mktemp("store") / "store"), [(items, family(items, "toy", 0, levels=FEW))])


def analyze(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `analyze` as users do, for a bounded time."""
    asked = [sys.executable, "-m", "analyzer", *arguments]
    return subprocess.run(asked, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=PATIENCE_S)


def read_back(server: str, command: str) -> dict[str, tuple[str, dict[str, str], dict[str, float]]]:
    """Return status, parameters and metrics of each run of a command's experiment, by name."""
    asked = [sys.executable, "-c", READ_BACK, server, f"hedgemark {command}"]
    runs: dict[str, Any] = json.loads(subprocess.run(asked, capture_output=True, text=True, check=True).stdout)
    return runs


def test_a_gate_is_read_back(server: str, store: str) -> None:
    """Every check of the table is a parameter of its result and metrics of its figure, ends and limit, in an experiment of the command."""
    limits = ["--limit", "accuracy_loss=0.5", "--limit", "kl=9"]
    done = analyze("gate", "--store", store, "--scorer", "lac", *limits, "--format", "json", "--track", f"mlflow:{server}")
    assert done.returncode == 0 and "1 run written to mlflow" in done.stderr, done.stderr
    checks = json.loads(done.stdout)
    ((name, (status, about, figures)),) = read_back(server, "gate").items()
    assert name == checks[0]["run"] and status == "FINISHED" and about["result"] == "pass" and about["snapshot"] == checks[0]["snapshot"]
    of = {check["check"]: check for check in checks if check["limit"] is not None}
    assert set(of) == {"accuracy_loss", "kl"}
    for check, record in of.items():
        ends = {"": "amount", " low": "amount_low", " high": "amount_high", " limit": "limit"}
        assert {end: figures[check + end] for end in ends} == {end: record[field] for end, field in ends.items()}


def test_sets_are_read_back(server: str, store: str) -> None:
    """All runs, with more figures than the thousand that MLflow takes at a time."""
    asked = ["sets", "--store", store, "--scorer", "lac", "--scorer", "aps", "--alpha", "0.02:0.8:0.02", "--format", "json"]
    done = analyze(*asked, "--track", f"mlflow:{server}")
    assert done.returncode == 0 and "2 runs written to mlflow" in done.stderr, done.stderr
    records, runs = json.loads(done.stdout), read_back(server, "sets")
    assert set(runs) == {record["run"] for record in records} and len(records) == 2 * 2 * 40
    assert min(len(figures) for _, _, figures in runs.values()) > 1000
    for record in records:
        figures = runs[record["run"]][2]
        assert figures[f"coverage {record['scorer']} alpha {record['alpha']:g}"] == record["coverage"]


def test_a_report_is_read_back(server: str, store: str, tmp_path: Path) -> None:
    """The page is written too."""
    done = analyze("report", "--store", store, "--out", str(tmp_path / "r.html"), "--track", f"mlflow:{server}")
    assert done.returncode == 0 and (tmp_path / "r.html").exists(), done.stderr
    ((status, about, figures),) = read_back(server, "report").values()
    assert status == "FINISHED" and about["method"] == "wanda" and figures["accuracy_loss limit"] == 0.02


def test_an_mlflow_server_that_is_not_there_is_named_before_any_run_is_read() -> None:
    """One sentence with the address and what to check, exit 5; the store, which does not exist, was not looked for."""
    need("mlflow")
    lock, (port,) = reserve_ports(1)
    with lock:
        done = analyze("gate", "--store", "./no-such-store", "--limit", "kl=1", "--track", f"mlflow:http://127.0.0.1:{port}")
    said = f"mlflow cannot be written to at http://127.0.0.1:{port}: Connection refused; check that its server runs there"
    assert done.returncode == 5 and said in done.stderr.splitlines()[-1] and not done.stdout


def test_a_wandb_server_that_is_not_there_is_named(store: str, tmp_path: Path) -> None:
    """One sentence, exit 5; what `sets` measured has been printed."""
    need("wandb")
    lock, (port,) = reserve_ports(1)
    absent = {"WANDB_BASE_URL": f"http://127.0.0.1:{port}", "WANDB_API_KEY": 40 * "0", "WANDB_DIR": str(tmp_path), "WANDB_MODE": "online"}
    with lock:
        done = analyze("sets", "--store", store, "--scorer", "lac", "--format", "json", "--track", "wandb:gates", **absent)
    said = next(line for line in done.stderr.splitlines() if "wandb cannot be written to at gates" in line)
    assert done.returncode == 5 and "connection refused" in said and "check the network and the key" in said and json.loads(done.stdout)
