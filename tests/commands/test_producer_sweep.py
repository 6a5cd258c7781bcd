"""Sweeps: what a file means, which commands it becomes, and that a failed cell does not stop the rest."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from producer.cli.main import main
from producer.engine.settings import Settings
from producer.machine.interrupt import Interrupted
from producer.request.request import Request, request_of
from producer.sweep import process
from producer.sweep.cells import FLAGS, SCALARS, Command, split
from producer.sweep.emit import FORMS, emit
from producer.sweep.local import run_local
from producer.sweep.on_ray import run_ray
from producer.sweep.sweep_file import Block, read_sweep
from schemas.errors import UsageError

pytestmark = pytest.mark.producer
SWEEP = """
limit = 20
task = ["urn", "facts"]

[[sweep]]
model = ["ref-s", "ref-m"]
method = ["dense", "magnitude"]
level = ["0.3", "0.5"]

[[sweep]]
model = "bayes"
method = "bayes"
task = "urn"
"""


WORKER = "from producer.cli.cell_worker import serve; serve(lambda arguments: exec(arguments[0], {}))"


def scripts(*texts: str) -> list[Command]:
    """Cells that run some Python instead of `produce`, in a process started as `WORKER` says."""
    return [Command(f"cell {number}", (text,)) for number, text in enumerate(texts)]


@pytest.fixture(autouse=True)
def _python_in_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "WORKER", (sys.executable, "-c", WORKER))


def write_sweep(tmp_path: Path, text: str = SWEEP) -> Path:
    path = tmp_path / "sweep.toml"
    path.write_text(text)
    return path


def test_a_sweep_file_is_requests_with_shared_defaults(tmp_path: Path) -> None:
    """Blocks inherit the top level and override it; what the command line gives comes before both."""
    first, second = read_sweep(write_sweep(tmp_path), {"limit": 5})
    assert first == Request(
        models=("ref-s", "ref-m"), methods=("dense", "magnitude"), levels=("0.3", "0.5"), tasks=("urn", "facts"), limit=5
    )
    assert (second.models, second.tasks, second.limit) == (("bayes",), ("urn",), 5)


def test_a_block_says_how_it_is_run(tmp_path: Path) -> None:
    """A block may set every option of the command that says what is asked or how it is run."""
    text = "self-check = 4\n[[sweep]]\nmodel = 'a'\nbatch_tokens = 64\n[[sweep]]\nmodel = 'b'\ndevice-memory = '2K'\nreplace = true"
    first, second = read_sweep(write_sweep(tmp_path, text), {})
    assert first == Request(models=("a",), settings=Settings(batch_tokens=64, self_check=4))
    assert second == Request(models=("b",), replace=True, settings=Settings(device_memory=2048, self_check=4))
    fields = {each.name for kind in (Request, Settings) for each in dataclasses.fields(kind)} - {"settings", "looks"}
    assert set(Block.model_fields) == fields | {"recipe"}  # which stands for a method, a level and a setting


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model = ", "cannot read sweep file"),
        ("model = " + "[" * 100_000, "it is nested too deeply"),
        ("[[sweep]]\nmodel = 'a'\nlevle = '0.5'", "block 1: unknown key 'levle'; did you mean level\\? known: model, method"),
        ("[[sweep]]\nmodel = 'a'\n[[sweep]]\nmethod = 'rtn'", "block 2: no model"),
        ("model = 'a'\nlimit = 'ten'", "'limit': must be a whole number, not 'ten'"),
        ("model = 'a'\nlimit = true", "'limit': must be a whole number, not True"),
        ("model = 'a'\nlimit = -5", "block 1: 'limit': -5 is not in the range"),
        ("model = 'a'\nseed = -1", "'seed': -1 is not in the range"),
        ("model = 'a'\nreplace = 'yes'", "'replace': must be true or false"),
        ("model = 'a'\nprompt-file = 'nowhere.toml'", "'prompt-file': file 'nowhere.toml' does not exist"),
        ("model = 'a'\nhost-memory = '0'", "--host-memory 0 leaves no memory at all"),
        ("model = 'a'\ntensor-parallel = 2", "block 1: --tensor-parallel 2 has no effect without --backend vllm"),
        ("model = 'a'\nbackend = 'vllm'\nbatch-tokens = 9", "--batch-tokens 9 has no effect without --backend transformers"),
        ("model = 'a'\nmethod = []", "'method': is an empty list"),
        ("model = []", "'model': is an empty list"),
        ("model = [1]", "'model': must be a string or a list of strings"),
        ("sweep = 3", "must be blocks"),
    ],
)
def test_a_broken_sweep_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """Broken TOML, unknown keys, wrong kinds and missing models are named with their block."""
    with pytest.raises(UsageError, match=message):
        read_sweep(write_sweep(tmp_path, text), {})


def test_all_problems_of_a_sweep_file_are_named_at_once(tmp_path: Path) -> None:
    """Two broken blocks, one of them with two mistakes, make one message with three sentences."""
    text = "[[sweep]]\nmodel = 'a'\nlevle = '0.5'\nlimit = -5\n[[sweep]]\nmethod = 'rtn'"
    with pytest.raises(UsageError, match=r"block 1: 'limit': -5 is not .*; .*'levle'; did you mean level\? .*; block 2: no model"):
        read_sweep(write_sweep(tmp_path, text), {})


def test_a_sweep_is_one_command_per_model_method_and_level(tmp_path: Path) -> None:
    """Levels go to the methods that take them, and tasks and prompts stay together in one command."""
    commands = split(read_sweep(write_sweep(tmp_path), {"self_check": 8}), "my-store")
    names = [command.name for command in commands]
    assert names == [f"ref-{size} {rest}" for size in "sm" for rest in ("dense", "magnitude 0.3", "magnitude 0.5")] + ["bayes"]
    expected = "--model ref-s --method magnitude --level 0.3 --store my-store --task urn --task facts --prompt base --limit 20"
    assert " ".join(commands[1].arguments) == f"{expected} --self-check 8"


def test_a_cell_has_the_settings_of_its_own_method() -> None:
    """Of two methods in a block each is given the setting that it has; one without any is given none."""
    request = Request(models=("m",), methods=("awq", "smoothquant", "rtn"), chosen=("clip=none", "smoothing=0.5"))
    awq, smoothquant, rtn = (" ".join(command.arguments) for command in split([request], "s"))
    assert "--set clip=none" in awq and "smoothing" not in awq
    assert "--set smoothing=0.5" in smoothquant and "clip" not in smoothquant
    assert "--set" not in rtn


def test_a_command_of_a_sweep_means_the_same_to_the_command_line(tmp_path: Path) -> None:
    """A cell's arguments parse back to the request they came from."""
    request = Request(models=("m",), tasks=("urn",), limit=3, seed=7, dtype="bfloat16", device="cpu", allow_nonfinite=True, data=tmp_path)
    (command,) = split([dataclasses.replace(request, settings=Settings(batch_tokens=100))], "s")
    parsed = main.make_context("produce", list(command.arguments)).params
    assert (parsed["models"], parsed["limit"], parsed["seed"], parsed["batch_tokens"]) == (("m",), 3, 7, 100)
    assert (parsed["dtype"], parsed["allow_nonfinite"], parsed["data"]) == ("bfloat16", True, tmp_path)


def test_no_option_of_a_sweep_is_lost_on_its_way_to_a_cell() -> None:
    """Every option of a block is passed on or refused: a cell without --fresh would take the answers that were not wanted."""
    lists = {"models", "methods", "levels", "caches", "chosen", "tasks", "prompts"}
    refused = {"save", "url", "tokenizer", "concurrency", "request_timeout"}
    assert {*Block.model_fields} == {*SCALARS, *FLAGS} | lists | refused | {"recipe"}
    given = dict.fromkeys(FLAGS, True)
    (command,) = split([request_of({"models": ("m",), **given})], "s")
    assert {f"--{name.replace('_', '-')}" for name in FLAGS} <= set(command.arguments)


def test_a_recipe_reaches_its_cell(tmp_path: Path) -> None:
    """A block's recipe is a method, a level and a setting, which the cell's command has."""
    recipe = tmp_path / "experts.toml"
    recipe.write_text('name = "mixed"\nmethod = "rtn"\n[[layers]]\nmatch = "experts"\nlevel = "nvfp4"\n')
    (request,) = read_sweep(write_sweep(tmp_path, f"model = 'ref-moe'\nrecipe = '{recipe}'"), {})
    (command,) = split([request], "s")
    assert command.arguments[2:8] == ("--method", "recipe", "--level", "mixed", "--set", f"recipe={recipe}")


@pytest.mark.parametrize("form", FORMS)
def test_emitted_sweeps_hold_every_command(tmp_path: Path, form: str) -> None:
    """Each form names every cell; the shell in it has no syntax error."""
    commands = split(read_sweep(write_sweep(tmp_path), {}), "a store's name")
    text = emit(commands, form)
    assert all(text.count(f"--level {level}") or f'"{level}"' in text for level in ("0.3", "0.5"))
    script = text if form == "sbatch" else ""
    if form == "k8s":
        job = json.loads(text)
        assert job["spec"]["completions"] == len(commands)
        script = job["spec"]["template"]["spec"]["containers"][0]["command"][2]
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    if form == "json":
        assert [cell["command"][1:] for cell in json.loads(text)] == [list(command.arguments) for command in commands]


def test_emitted_sweeps_ask_the_scheduler_for_what_it_gives() -> None:
    """Slurm refuses GPUs per task without a number of tasks, and signals the batch shell, which is `produce`, after "B:" alone."""
    commands = split([Request(models=("m",), backend="vllm", settings=Settings(tensor_parallel=4))], "s")
    asked = [line.split()[1] for line in emit(commands, "sbatch").splitlines() if line.startswith("#SBATCH")]
    assert asked == ["--job-name=hedgemark", "--array=0-0", "--ntasks=1", "--gpus=4", "--signal=B:TERM@120"]
    pod = json.loads(emit(commands, "k8s"))["spec"]["template"]["spec"]
    assert (pod["containers"][0]["resources"]["limits"], pod["terminationGracePeriodSeconds"]) == ({"nvidia.com/gpu": 4}, 120)


def test_an_emitted_array_runs_its_cell(tmp_path: Path) -> None:
    """The shell of an array job starts exactly the command of its index, with names quoted as given."""
    commands = split([Request(models=("a b", "it's"))], str(tmp_path))
    produce = tmp_path / "produce"
    produce.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    produce.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_ARRAY_TASK_ID": "1"}
    done = subprocess.run(["bash"], input=emit(commands, "sbatch"), env=environment, text=True, capture_output=True, check=True)
    assert done.stdout.splitlines() == list(commands[1].arguments)


def test_a_cell_names_every_run_that_failed() -> None:
    """The reason is the whole error message, without what was logged before it."""
    said = "import sys; sys.exit('rtn a failed, the rest goes on: x\\nError: 2 failures; the rest is stored:\\n  rtn a: x\\n  rtn b: y')"
    (finished,) = run_local(scripts(said), lambda _: None)
    assert finished.reason == "Error: 2 failures; the rest is stored: rtn a: x rtn b: y"


def test_a_failed_cell_does_not_stop_the_rest() -> None:
    """Every cell ends with its exit code and the last line it said; a killed one with its signal."""
    cells = scripts("print('run-a')", "import sys; sys.exit('no such model')", "import os; os.kill(os.getpid(), 9)", "print('run-b')")
    seen: list[str] = []
    finished = run_local(cells, lambda cell: seen.append(cell.command.name), workers=2)
    assert [cell.exit_code for cell in finished] == [0, 1, -9, 0]
    assert [cell.reason for cell in finished] == ["", "no such model", "killed by SIGKILL", ""]
    assert [cell.runs for cell in finished] == [("run-a",), (), (), ("run-b",)]
    assert sorted(seen) == [cell.name for cell in cells]


@pytest.mark.parametrize(
    ("visible", "each", "expected"),
    [("4,5", 1, {"4", "5"}), ("GPU-b3, GPU-a1", 1, {"GPU-a1", "GPU-b3"}), ("", 1, {"0", "1"}), ("6,7,-1,8", 2, {"6,7"})],
)
def test_cells_share_out_the_devices_seen_here(visible: str, each: int, expected: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells get the entries of this process's own CUDA_VISIBLE_DEVICES, numbers or UUIDs, as many as each takes."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    show = "import os, time; time.sleep(0.3); print(os.environ['CUDA_VISIBLE_DEVICES'])"
    finished = run_local([Command("cell", (show,), each) for _ in range(4)], lambda _: None)
    assert {run for cell in finished for run in cell.runs} == expected


def test_a_cell_that_takes_more_devices_than_there_are_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is started where not even one cell finds its devices."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(UsageError, match="--tensor-parallel 4 needs 4 devices for each cell, but there are only 2"):
        run_local([Command("cell", ("",), 4)], lambda _: None)


def test_cells_of_a_model_run_in_one_process() -> None:
    """One device runs a model's cells in one process, in order; a killed process costs its own cell alone."""
    show = "import os; print(os.getpid())"
    texts = [
        ("a", show),
        ("b", show),
        ("a", show),
        ("b", "import os; os.kill(os.getpid(), 9)"),
        ("b", show),
        ("a", "raise SystemExit(3)"),
        ("a", show),
    ]
    finished = run_local([Command("cell", (text,), model=model) for model, text in texts], lambda _: None)
    assert [cell.exit_code for cell in finished] == [0, 0, 0, -9, 0, 3, 0]
    (a, b, again, _, after, _, last) = (cell.runs for cell in finished)
    assert a == again == last != b != after


def test_each_device_begins_with_a_model_of_its_own(tmp_path: Path) -> None:
    """Of two devices the second one begins with the second model, although more cells of the first come before."""
    again = tmp_path / "again"
    show = "import os; print(os.getpid())"
    touch = f"import os, pathlib; print(os.getpid()); pathlib.Path({str(again)!r}).touch()"
    wait = f"import os, pathlib, time\nwhile not pathlib.Path({str(again)!r}).exists(): time.sleep(0.02)\nprint(os.getpid())"
    cells = [Command(model, (text,), model=model) for model, text in (("a", show), ("a", touch), ("b", wait))]
    first, second, other = (cell.runs for cell in run_local(cells, lambda _: None, workers=2))
    assert first == second != other


def test_a_cell_that_reads_takes_no_other_cell() -> None:
    """The standard input of a cell is empty, for Python and for what it calls."""
    read = "import os, sys; print(len(os.read(0, 9)), len(sys.stdin.read()))"
    first, second = run_local(scripts(read, "print('run')"), lambda _: None)
    assert (first.runs, second.runs) == (("0", "0"), ("run",))


def test_a_process_that_ends_without_an_answer_is_a_failure() -> None:
    """A library that ends the process as if all were well has not run the cell."""
    ended, after = run_local(scripts("import os; os._exit(0)", "print('run')"), lambda _: None)
    assert (ended.exit_code, ended.reason, after.runs) == (process.NO_ANSWER, "exit 5", ("run",))


def test_a_signal_reaches_the_cells_and_starts_no_more(tmp_path: Path) -> None:
    """SIGTERM is handed on to the cell under way; cells that wait are not started."""
    wait = f"import pathlib, time; pathlib.Path({str(tmp_path / 'started')!r}).touch(); time.sleep(60)"
    never = f"import pathlib; pathlib.Path({str(tmp_path / 'never')!r}).touch()"

    def send() -> None:
        while not (tmp_path / "started").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=send, daemon=True).start()
    with pytest.raises(Interrupted):
        run_local(scripts(wait, never), lambda _: None, workers=1)
    assert not (tmp_path / "never").exists()


def test_a_cell_is_out_of_reach_of_the_terminal() -> None:
    """A cell has a process group of its own: Ctrl-C comes to it once, handed on by the sweep, and once means to finish the batch."""
    cell_process = process.CellProcess({})
    try:
        assert os.getpgid(cell_process.pid) == cell_process.pid
    finally:
        cell_process.close()


def test_a_sweep_reports_what_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command ends with exit 5 and a line per failed cell, after all others have run."""
    import producer.sweep.run as sweep

    monkeypatch.setattr(sweep, "split", lambda *_: scripts("print('run-a')", "import sys; sys.exit('broken weights')"))
    result = CliRunner().invoke(main, ["--plan", str(write_sweep(tmp_path)), "--store", str(tmp_path / "store")])
    assert result.exit_code == 5
    assert "1 of 2 cells failed" in result.stderr
    assert "cell 1: broken weights" in result.stderr


def test_a_sweep_in_a_log_says_each_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where stderr is a file there is no bar but a line for each cell that has ended, with how many there are."""
    import producer.sweep.run as sweep

    monkeypatch.setattr(sweep, "split", lambda *_: scripts("print('run-a')", "print('run-b run-c')"))
    result = CliRunner().invoke(main, ["--plan", str(write_sweep(tmp_path)), "--store", str(tmp_path / "store")])
    assert result.exit_code == 0, result.output
    lines = [line.rpartition(" in ")[0] for line in result.stderr.splitlines() if line.startswith("cell ")]
    assert lines == ["cell 1 of 2, cell 0: 1 run written", "cell 2 of 2, cell 1: 2 runs written"]


def test_an_unknown_executor_is_refused(tmp_path: Path) -> None:
    """The message lists the executors there are."""
    result = CliRunner().invoke(main, ["--plan", str(write_sweep(tmp_path)), "--executor", "slurm", "--store", str(tmp_path / "store")])
    assert result.exit_code == 2
    assert "known: local, ray" in result.stderr


def test_emit_prints_and_runs_nothing(tmp_path: Path) -> None:
    """`--emit json` on a plain request prints its cells and makes no store."""
    result = CliRunner().invoke(main, ["--model", "ref-s", "--emit", "json", "--store", str(tmp_path / "store")])
    assert result.exit_code == 0, result.output
    assert [cell["name"] for cell in json.loads(result.stdout)] == ["ref-s dense"]
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--emit json --workers 2", "--workers 2 has no effect without --plan"),
        ("--emit json --dry-run", "--dry-run has no effect beside --emit"),
        ("--emit json --device cuda:1", "--device cuda:1 is one device, and a sweep gives each cell its own; set CUDA_VISIBLE_DEVICES=1"),
    ],
)
def test_what_a_sweep_would_ignore_is_refused(tmp_path: Path, arguments: str, message: str) -> None:
    """An option that the cells of a sweep cannot follow ends with exit 2 and what to do instead."""
    result = CliRunner().invoke(main, ["--model", "ref-s", *arguments.split(), "--store", str(tmp_path / "store")])
    assert result.exit_code == 2, result.output
    assert message in result.stderr


def test_the_size_of_a_running_cluster_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """--workers is refused where the cells go to a Ray cluster that was there before."""
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False, init=lambda **_: None))
    with pytest.raises(UsageError, match="--workers 3 has no effect on a Ray cluster that is running"):
        run_ray(scripts("pass"), lambda _: None, workers=3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own, about itself
def test_a_signal_reaches_the_cells_of_a_cluster(tmp_path: Path) -> None:
    """SIGTERM comes to the cell under way on a Ray worker, which ends in its own time; cells that wait are not started."""
    ray = pytest.importorskip("ray")
    at_start = f"import sys; from producer.sweep import process; process.WORKER = (sys.executable, '-c', {WORKER!r})"
    (tmp_path / "sitecustomize.py").write_text(at_start)  # Python runs it in each process of the cluster
    first = f"""
import pathlib, signal, sys, time
def stop(*_):
    time.sleep(2)
    pathlib.Path({str(tmp_path / "committed")!r}).touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
pathlib.Path({str(tmp_path / "started")!r}).touch()
time.sleep(60)
"""
    never = f"import pathlib; pathlib.Path({str(tmp_path / 'never')!r}).touch()"

    def send() -> None:
        while not (tmp_path / "started").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    ray.init(num_cpus=1, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": str(tmp_path)}})
    threading.Thread(target=send, daemon=True).start()
    try:
        with pytest.raises(Interrupted):
            run_ray(scripts(first, never), lambda _: None)
    finally:
        ray.shutdown()
    assert (tmp_path / "committed").exists()
    assert not (tmp_path / "never").exists()


def test_a_sweep_of_chat_prompts_asks_chat_prompts() -> None:
    """The cells of a sweep have the chat options of the whole: without them they would be runs of plain prompts."""
    request = Request(models=("ref-m",), chat=True, chat_turns=True, chat_system="One letter.")
    (command,) = split([request], "store")
    assert {"--chat", "--chat-turns"} <= set(command.arguments)
    assert command.arguments[command.arguments.index("--chat-system") + 1] == "One letter."
