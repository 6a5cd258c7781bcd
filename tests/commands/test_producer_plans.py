"""Named plans: the published studies as sweeps, their parts, and a rehearsal with the embedded models standing in for the real ones."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

import analyzer.cli.main
from producer.cli.main import main
from producer.methods import METHODS
from producer.models.find import HUB
from producer.prompts.templates import PROMPTS
from producer.run.device_kinds import DeviceKind, Workload, by_device_kind
from producer.run.levels import choose_levels
from producer.sweep.cells import Command, Finished, split
from producer.sweep.named_plans import PLANS
from producer.sweep.run import EXECUTORS
from producer.sweep.sweep_file import read_head, read_sweep
from schemas.benchmark import BENCHMARK
from schemas.errors import UsageError
from schemas.fields import YE2024
from store import open_reader

pytestmark = pytest.mark.producer
STAND_INS = ("--model", "ref-s", "--model", "ref-moe", "--task", "urn", "--limit", "60")


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_names_only_what_exists(name: str) -> None:
    """Models, methods, levels, tasks and prompts of every plan are known here, and it lists what its paper leaves open."""
    requests = read_sweep(Path(name), {})
    assert requests and "arXiv:" in read_head(Path(name)).about and len(read_head(Path(name)).open) >= 4
    for request in requests:
        assert choose_levels(request.methods, request.levels).keys() == set(request.methods) <= set(METHODS)
        assert all(model in HUB or model.count("/") == 1 for model in request.models)
        assert all(task in BENCHMARK or task.startswith("lm-eval:") for task in request.tasks)
        assert set(request.prompts) <= {*PROMPTS, YE2024}


def test_tong2026_has_twelve_models_and_2000_items() -> None:
    """The plan asks 2,000 items of each of five tasks in three prompts of twelve models, each of them dense as well."""
    requests = read_sweep(Path("tong2026"), {})
    assert all((len(request.tasks), len(request.prompts), request.limit, request.seed) == (5, 3, 2000, 0) for request in requests)
    assert len({model for request in requests for model in request.models}) == 12
    assert len(next(request.models for request in requests if request.methods == ("dense",))) == 12
    levels = {(method, level.text) for request in requests for method, found in choose_levels(request.methods, request.levels).items()
              for level in found}  # fmt: skip
    assert {("wanda", "0.5"), ("slicegpt", "0.2"), ("quarot", "w4a4"), ("wanda", "0.1")} <= levels
    cells = split(requests, "store")
    assert len(cells) == 12 * (1 + 3 + 2 + 3 + 9) + 4 * 5  # of Wanda's six levels 0.5 is a cell of the pruning part already


@pytest.mark.parametrize(
    ("only", "n_cells"),
    [
        (["progressive"], 4 * 6),
        (["progressive", "llama3.1-8b"], 6),
        (["wanda"], 12 + 4 * 5),
        (["dense", "wanda"], 12 + 12 + 4 * 5),
        (["weight-only", "precision", "llama2-7b"], 3 + 9),
        (["structured", "slicegpt", "mmlu"], 12),
    ],
)
def test_only_takes_a_part(only: list[str], n_cells: int) -> None:
    """Names of one kind are alternatives, and names of different kinds apply together."""
    requests = read_sweep(Path("tong2026"), {"only": tuple(only)})
    assert len(split(requests, "store")) == n_cells
    assert "mmlu" not in only or all(request.tasks == ("mmlu",) for request in requests)


@pytest.mark.parametrize(
    ("only", "message"),
    [
        (["wandda"], "--only wandda is no part of this plan; it has parts: uncompressed, pruning"),
        (["precision", "wanda"], "no run of this plan has all of --only precision, wanda"),
        (["gpt2"], "models: llama2-7b"),
    ],
)
def test_only_refuses_what_the_plan_has_not(only: list[str], message: str) -> None:
    """A name that is nowhere in the plan, or a combination without any run, is a sentence and never an empty plan."""
    with pytest.raises(UsageError, match=message.replace("(", r"\(")):
        read_sweep(Path("tong2026"), {"only": tuple(only)})


@pytest.mark.parametrize(
    ("only", "asked"),
    [
        (["mmlu"], {"qwen3-8b": {"mmlu"}, "llama3.1-8b": {"mmlu"}}),
        (["urn"], {"ref-s": {"urn"}}),
        (["urn", "mmlu"], {"ref-s": {"urn"}, "qwen3-8b": {"mmlu"}, "llama3.1-8b": {"mmlu"}}),
        (["wanda"], {"ref-s": {"urn", "facts"}, "qwen3-8b": set(BENCHMARK)}),
        (["facts", "llama3.1-8b"], None),
    ],
)
def test_only_sees_the_tasks_that_a_block_does_not_name(only: list[str], asked: dict[str, set[str]] | None, tmp_path: Path) -> None:
    """A block without a task has the default tasks of each of its models, and `--only mmlu` takes it; one of a text has none."""
    path = tmp_path / "sweep.toml"
    path.write_text(
        "[[sweep]]\nmodel = ['ref-s', 'qwen3-8b']\nmethod = ['wanda']\n[[sweep]]\nmodel = 'llama3.1-8b'\ntask = ['mmlu', 'hellaswag']\n"
        "[[sweep]]\nmodel = 'ref-m'\ntext = 'embedded'\n"
    )
    if asked is None:
        with pytest.raises(UsageError, match="no run of this plan has all of"):
            read_sweep(path, {"only": tuple(only)})
        return
    tasks: dict[str, set[str]] = {}
    for request in read_sweep(path, {"only": tuple(only)}):
        for model in request.models:
            tasks.setdefault(model, set()).update(request.tasks)
    assert tasks == asked


def test_only_needs_a_plan() -> None:
    """`--only` without a plan would do nothing, and is refused."""
    result = CliRunner().invoke(main, ["--model", "ref-s", "--only", "wanda"])
    assert result.exit_code == 2 and "--only" in result.stderr and "--plan" in result.stderr


def test_a_file_that_is_named_as_a_plan_is_reached_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`tong2026` is the plan whatever lies in the folder; a file of that name is `./tong2026`, and faults of its head are told."""
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text("about = 3\nmodel = 'ref-s'")
    assert len(read_sweep(Path("tong2026"), {})) == 6
    with pytest.raises(UsageError, match="'about'"):
        read_sweep(Path("mine.toml"), {})
    Path("mine.toml").write_text("[[sweep]]\npart = 3\nmodel = 'ref-s'")
    with pytest.raises(UsageError, match="'part' must be a string"):
        read_sweep(Path("mine.toml"), {})
    Path("mine.toml").write_text("[[sweep]]\npart = 'dense'\nmodel = 'ref-s'\nmethod = 'dense'")
    with pytest.raises(UsageError, match="both a part and a method"):
        read_sweep(Path("mine.toml"), {"only": ("dense",)})


def test_plans_are_listed() -> None:
    """`produce --list plans` prints every plan with its paper."""
    lines = CliRunner().invoke(main, ["--list", "plans"]).stdout.splitlines()
    assert [line.split()[0] for line in lines] == [*PLANS] and all("arXiv:" in line for line in lines)


def test_hours_are_operations_over_speed() -> None:
    """7e9 weights and 1e9 tokens are 1.4e19 operations, at half of 989e12 per second; 70e9 weights do not fit 141 GB whole."""
    lines = list(by_device_kind([Workload("seven", 7 * 10**9, 10**9), Workload("seventy", 70 * 10**9, 0)]))
    h200 = next(line for line in lines if line.startswith("H200"))
    assert h200.split()[3:5] == [f"{2 * 7e9 * 1e9 / (0.5 * 989e12) / 3600:.1f}", "1"] and h200.endswith("seventy")
    assert isinstance(DeviceKind("x", 1.0, 1.0), tuple)


def test_a_dry_run_says_runs_tokens_hours_and_choices(tmp_path: Path) -> None:
    """A dry run of a plan prints what the paper leaves open, every run with its tokens, and GPU hours and memory per kind of GPU."""
    arguments = ["--plan", "tong2026", *STAND_INS, "--only", "pruning", "--only", "ref-s", "--dry-run", "--store", str(tmp_path / "store")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "open in the paper: which twelve models" in result.stdout
    assert "9 runs, 9 to run" in result.stdout  # three methods, three prompts
    assert all(name in result.stdout for name in ("GPU hours", "RTX 4090, 24 GB", "B200, 180 GB"))
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("installed", [True, False])
def test_a_missing_library_leaves_the_rest_of_a_plan(installed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """dutta2024 has levels of bitsandbytes; without the library its dry run has all others and says what to install."""
    monkeypatch.setattr("producer.methods.shared.contract.find_spec", lambda name: installed or name != "bitsandbytes")
    stand_in = ["--model", "ref-s", "--task", "urn", "--limit", "20", "--dry-run", "--store", str(tmp_path / "store")]
    result = CliRunner().invoke(main, ["--plan", "dutta2024", *stand_in])
    assert result.exit_code == 0, result.output
    levels = {line.split()[2] for line in result.stdout.splitlines() if line.startswith("ref-s  bitsandbytes")}
    assert levels == ({"int8", "nf4"} if installed else set())
    sentence = "not in this table: method 'bitsandbytes' needs a library that is not installed: pip install 'hedgemark[bitsandbytes]'"
    assert result.stdout.splitlines().count(sentence) == (not installed)
    alone = CliRunner().invoke(main, ["--plan", "dutta2024", "--only", "bitsandbytes", *stand_in])
    assert alone.exit_code == (0 if installed else 2), alone.output
    assert ("pip install 'hedgemark[bitsandbytes]'" in alone.stderr) == (not installed)


def test_a_part_is_rehearsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One command runs a part of a plan with embedded models, another shows the study; a second time nothing is left to run.

    The cells run in this process: that each has one of its own is the concern of test_producer_sweep.
    """
    monkeypatch.setitem(EXECUTORS, "local", lambda commands, report, *_: [in_this_process(command, report) for command in commands])
    store = str(tmp_path / "store")
    only = [word for name in ("ref-s", "dense", "magnitude") for word in ("--only", name)]
    part = ["--plan", "tong2026", *STAND_INS, "--store", store, "--prompt", "base", *only]
    first, again = (CliRunner().invoke(main, part) for _ in range(2))
    assert "2 runs written" in first.stderr and len(first.stdout.split()) == 2
    assert "0 runs written" in again.stderr
    shown = CliRunner().invoke(analyzer.cli.main.main, ["study", "tong2026", "--store", store, "--format", "md"])
    assert shown.exit_code == 0, shown.output
    assert "magnitude" in shown.stdout


def in_this_process(command: Command, report: Callable[[Finished], None]) -> Finished:
    """Run a cell's command as its own process would."""
    result = CliRunner().invoke(main, command.arguments)
    finished = Finished(command, result.exit_code, tuple(result.stdout.split()), result.stderr)
    report(finished)
    return finished


@pytest.mark.slow
def test_the_whole_plan_survives_being_killed(tmp_path: Path) -> None:
    """The whole of tong2026 with two embedded models: killed after a minute, it goes on, and all its cells are in the store."""
    store = str(tmp_path / "store")
    arguments = [sys.executable, "-m", "producer", "--plan", "tong2026", *STAND_INS, "--store", store, "--workers", "2"]
    first = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ, OMP_NUM_THREADS="1"))
    time.sleep(60)
    first.send_signal(signal.SIGKILL)
    first.wait()
    subprocess.run(arguments, check=True, capture_output=True, env=dict(os.environ, OMP_NUM_THREADS="1"))
    rows = open_reader(store).catalog
    assert len(rows) == 2 * 3 * (1 + 3 + 2 + 3 + 9 + 5)
    figures = tmp_path / "figures.csv"
    figures.write_text("model,method,level,task,metric,value,note\nref-s,dense,,urn,accuracy,0.5,\n")
    for form in ("html", "latex", "md"):
        out = tmp_path / f"study.{form}"
        command = ["study", "tong2026", "--store", store, "--format", form, "--out", str(out), "--reference", str(figures)]
        shown = CliRunner().invoke(analyzer.cli.main.main, command)
        assert shown.exit_code == 0, shown.output
        assert all(word in out.read_text() for word in ("quarot", "slicegpt", "w6a6"))
    assert json.loads(json.dumps(rows["model"].unique().sort().to_list())) == ["ref-moe", "ref-s"]
