"""The command `produce`: what it writes, what it finds again, and what it refuses with one sentence."""

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from producer_standin import save_standin, urn_rows, write_items
from safetensors.torch import load_file, save_file

from producer.cli.main import main
from producer.machine.interrupt import stop_on_signal
from producer.request.request import Request
from producer.run.make_run import RunMaker
from producer.run.plan import make_plan
from producer.tasks import TASKS
from producer.tasks.urn import bayes_posterior
from schemas.items import Item
from store import open_reader

pytestmark = pytest.mark.producer
Produce = Callable[..., Result]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_standin(tmp_path_factory.mktemp("models") / "standin")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def produce(model: Path, store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Produce:
    """Run `produce` on the stand-in model and an empty store, with a cache of its own."""
    monkeypatch.setenv("HEDGEMARK_CACHE", str(tmp_path / "cache"))

    def run(*arguments: str, model_name: str = str(model)) -> Result:
        return CliRunner().invoke(main, ["--model", model_name, "--store", str(store), *arguments])

    return run


def test_a_run_is_written_once_and_found_again(produce: Produce, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second command finds the run in the store and does no forward pass."""
    first = produce("--task", "urn", "--limit", "12")
    assert first.exit_code == 0, first.output
    assert "1 run written, 0 already stored" in first.stderr
    monkeypatch.setattr("producer.backends.loaded_models.load_model", lambda *_: pytest.fail("weights were loaded"))
    second = produce("--task", "urn", "--limit", "12")
    assert second.exit_code == 0, second.output
    assert second.stdout == ""
    assert "0 runs written, 1 already stored" in second.stderr
    assert len(open_reader(str(store)).catalog) == 1


def test_a_run_records_its_circumstances(produce: Produce, store: Path) -> None:
    """Key and environment hold what a reader needs: weights hash, option tokens, sampling, tokens, libraries."""
    name = produce("--task", "urn", "--limit", "5", "--prompt", "shared").stdout.strip()
    run = open_reader(str(store)).run(name)
    assert len(run.key.weights_hash) == 64
    assert run.key.option_tokens == (" A", " B", " C", " D", " E", " F")
    assert (run.key.prompt, run.key.sampling, run.key.dtype) == ("shared", {"limit": 5}, "float32")
    assert run.env.tokens > 5
    assert run.env.parameters > 0
    assert run.env.peak_memory_bytes or run.env.throughput["process_peak_memory_bytes"]
    assert "torch" in run.env.libraries
    assert np.all(run.logsumexp > run.logits.max(1))


def test_options_sweep(produce: Produce, store: Path) -> None:
    """Every combination of method, level, task and prompt is one run; a level goes to the methods that take it."""
    sweep = "--method dense --method magnitude --level 0.5 --level 0.25 --task urn --task facts --limit 4"
    done = produce(*sweep.split())
    assert done.exit_code == 0, done.output
    catalog = open_reader(str(store)).catalog
    compressed = (("dense", "-"), ("magnitude", "0.5"), ("magnitude", "0.25"))
    expected = sorted((method, level, task) for method, level in compressed for task in ("urn", "facts"))
    assert sorted(zip(catalog["method"], catalog["level"], catalog["task"], strict=True)) == expected


def test_items_with_unlike_numbers_of_options_are_padded_with_nan(produce: Produce, store: Path, tmp_path: Path) -> None:
    """An item of two options has NaN beyond them, and the run is stored as finite."""
    rows = [*urn_rows(2), {"id": "x", "question": "red?", "choices": {"A": "ash", "B": "elm"}, "answer": "B"}]
    name = produce("--task", str(write_items(tmp_path / "mixed.json", rows))).stdout.strip()
    logits = open_reader(str(store)).run(name).logits
    assert np.isnan(logits).tolist() == [[False] * 6, [False] * 6, [False] * 2 + [True] * 4]


def test_dry_run_says_what_is_stored_and_writes_nothing(produce: Produce, store: Path) -> None:
    """The table lists runs and tokens; what an earlier command stored is marked."""
    arguments = ("--task", "urn", "--prompt", "base", "--limit", "6")
    before = produce(*arguments, "--dry-run")
    assert before.exit_code == 0, before.output
    assert not store.exists()
    assert "1 run, 1 to run" in before.stdout
    assert " kB of weights as float32 on cpu, all in memory at once" in before.stdout
    produce(*arguments)
    assert "1 run, 0 to run\n" in produce(*arguments, "--dry-run").stdout
    assert "layer by layer within 1 B" in produce(*arguments, "--dry-run", "--device-memory", "1").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "nonsense"], "known: urn, facts"),
        (["--task", ""], "--task is empty; give a name"),
        (["--task", "urn", "--model", " "], "--model is empty; give a name"),
        (["--task", "urn", "--level", ""], "--level is empty; give a name"),
        (["--task", "urn", "--method", "nonsense"], "known: dense"),
        (["--task", "urn", "--prompt", "nonsense"], "known: base, shared, task"),
        (["--task", "urn", "--backend", "nonsense"], "known: transformers"),
        (["--task", "urn", "--dtype", "float8"], "known: auto, float32"),
        (["--task", "urn", "--device", "nonsense"], "device 'nonsense' cannot be used"),
        (["--task", "urn", "--device", "meta"], "device 'meta' cannot be used"),
        (["--task", "urn", "--prompt-file", __file__], "cannot read prompt file"),
        (["--task", "urn", "--method", "magnitude", "--level", "w4a16"], "magnitude"),
        (["--task", "urn", "--method", "dense", "--level", "0.5"], "dense"),
        (["--task", "urn", "--method", "magnitude", "--level", "1.5"], r"must be in \[0, 1\)"),
        (["--task", "urn", "--limit", "0"], "limit"),
        (["--task", "mmlu", "--data", "nowhere"], "not a folder"),
        (["--task", "urn", "--seed", "-1"], "--seed"),
        (["--task", "urn", "--executor", "ray"], "--executor ray has no effect without --plan"),
        (["--task", "urn", "--workers", "2"], "--workers 2 has no effect without --plan"),
        (["--task", "urn", "--tensor-parallel", "8"], "--tensor-parallel 8 has no effect without --backend vllm"),
        (["--task", "urn", "--backend", "vllm", "--device", "cpu"], "--device cpu has no effect without --backend transformers"),
        (["--task", "urn", "--backend", "vllm", "--self-check", "3"], "--self-check 3 has no effect without --backend transformers"),
        (["--task", "urn", "--device-memory", "0"], "--device-memory 0 leaves no memory at all"),
        (["--task", "urn", "--host-memory", "0G"], "--host-memory 0G leaves no memory at all"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(produce: Produce, store: Path, arguments: list[str], message: str) -> None:
    """A name, level or folder that cannot be meant ends with exit 2, lists what is known, and leaves no store behind."""
    result = produce(*arguments)
    assert result.exit_code == 2, result.output
    assert re.search(message, result.stderr), result.stderr
    assert "Traceback" not in result.output
    assert not store.exists()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": 0, "question": "q", "choices": {"A": "x", "B": "y"}}], "answer"),
        ([{"id": 0, "question": "q", "choices": {"A": "x", "B": "y"}, "answer": "C"}], "is none of its options A, B"),
        (urn_rows(2) + urn_rows(1), "has the same id as an earlier item"),
        ([], "no items"),
    ],
)
def test_broken_items_are_refused(produce: Produce, store: Path, tmp_path: Path, rows: list[dict[str, object]], message: str) -> None:
    """Items without a usable answer, or with repeated ids, are refused before anything is loaded."""
    result = produce("--task", str(write_items(tmp_path / "broken.json", rows)))
    assert result.exit_code == 2
    assert message in result.stderr
    assert not store.exists()


@pytest.mark.parametrize("name", ["nonsense", "a/b/c"])
def test_an_unknown_model_lists_the_known_ones(produce: Produce, store: Path, name: str) -> None:
    """A model that is neither alias, Hub id nor folder is refused with the list of aliases."""
    result = produce("--task", "urn", model_name=name)
    assert result.exit_code == 2
    assert "llama3.1-70b" in result.stderr
    assert not store.exists()


@pytest.mark.parametrize("place", [("model.norm", 0, "nan"), ("lm_head", 319, "nan"), ("lm_head", 319, "inf")])
def test_nonfinite_logits_are_refused_unless_allowed(place: tuple[str, int, str], produce: Produce, store: Path, tmp_path: Path) -> None:
    """A model that says NaN, be it of a token that no option is, is an error that writes no run; --allow-nonfinite stores it, counted."""
    broken = save_standin(tmp_path / "broken", tie_word_embeddings=False)
    weights = load_file(broken / "model.safetensors")
    tensor, row, value = place
    weights[f"{tensor}.weight"][row] = float(value)
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    refused = produce("--task", "urn", "--limit", "3", model_name=str(broken))
    assert refused.exit_code == 5
    assert "--allow-nonfinite" in refused.stderr
    assert not store.exists()
    assert produce("--task", "urn", "--limit", "3", "--allow-nonfinite", model_name=str(broken)).exit_code == 0
    assert open_reader(str(store)).catalog["nonfinite"].to_list() == [3]


def test_a_violated_post_condition_writes_nothing(produce: Produce, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A method that changes nothing is caught by its check, and no run is written."""
    from producer.methods import METHODS

    monkeypatch.setitem(METHODS, "magnitude", replace(METHODS["magnitude"], compress=lambda model, job: model))
    result = produce("--task", "urn", "--limit", "3", "--method", "magnitude", "--level", "0.5")
    assert result.exit_code == 5
    assert "PostConditionError" in result.stderr
    assert not store.exists()


def test_changed_weights_or_config_are_another_run(produce: Produce, store: Path, tmp_path: Path) -> None:
    """The same name over other weights or another config is another key, so nothing stale is found again."""
    folder = save_standin(tmp_path / "changing")
    arguments = ("--task", "urn", "--limit", "3")
    names = [produce(*arguments, model_name=str(folder)).stdout]
    save_standin(folder, seed=1)
    names.append(produce(*arguments, model_name=str(folder)).stdout)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))
    names.append(produce(*arguments, model_name=str(folder)).stdout)
    assert len(set(names)) == 3


@pytest.mark.parametrize(
    "place", ["backends.loaded_models.load_model", "methods.shared.post_conditions.dense_logits", "engine.prefill.run_layer"]
)
def test_no_memory_is_one_sentence(place: str, produce: Produce, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether loading, compressing or answering found no memory, the message says for what and what to do; nothing is written."""

    def scarce(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("injected")

    monkeypatch.setattr(f"producer.{place}", scarce)
    result = produce("--task", "urn", "--limit", "3", "--method", "magnitude", "--level", "0.5")
    assert result.exit_code == 5
    assert re.search(r"the memory of cpu does not hold .*; set --device-memory below the size of the weights", result.stderr)
    assert not store.exists()


def test_a_signal_ends_a_compression_at_once(produce: Produce, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is written there is nothing to finish: the rest of an hour's compression is not waited for."""
    from producer.methods import METHODS

    went_on: list[object] = []

    def long_work(model: object, job: object) -> object:
        signal.raise_signal(signal.SIGTERM)
        went_on.append(model)
        return model

    monkeypatch.setitem(METHODS, "magnitude", replace(METHODS["magnitude"], compress=long_work))
    result = produce("--task", "urn", "--limit", "3", "--method", "magnitude", "--level", "0.5")
    assert result.exit_code == 128 + signal.SIGTERM
    assert "0 finished runs are in the store" in result.stderr
    assert not went_on and not store.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_commits_what_is_done_and_says_how_to_go_on(
    number: signal.Signals, produce: Produce, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal in the second run, or a closed terminal, keeps the first one; the same command then makes only what is missing."""
    real, calls = RunMaker.answer, []

    def interrupted(self: object, cell: object, ready: object, found: object) -> object:
        calls.append(cell)
        if len(calls) == 2:
            signal.raise_signal(number)
        return real(self, cell, ready, found)

    arguments = ("--task", "urn", "--task", "facts", "--limit", "4")
    monkeypatch.setattr(RunMaker, "answer", interrupted)
    result = produce(*arguments)
    assert result.exit_code == 128 + number
    name = "Ctrl-C" if number == signal.SIGINT else number.name
    assert f"\nInterrupted: stopped by {name}; 1 finished run is in the store" in result.stderr and "Error" not in result.stderr
    assert "same command again" in result.stderr
    assert len(open_reader(str(store)).catalog) == 1
    assert "1 run written, 1 already stored" in produce(*arguments).stderr


def test_nohup_is_respected(produce: Produce) -> None:
    """A hangup that is ignored, as under nohup, stays ignored while runs are made, and afterwards."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signal() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop.signal_number
        assert produce("--task", "urn", "--limit", "3").exit_code == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_weights_that_cannot_be_loaded_leave_no_store(model: Path, produce: Produce, store: Path, tmp_path: Path) -> None:
    """A model whose tensors do not fit its config fails before a store is created; one that is there stays as it is."""
    broken = shutil.copytree(model, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    assert produce("--task", "urn", "--limit", "3", model_name=str(broken)).exit_code == 5
    assert not store.exists()
    assert produce("--task", "urn", "--limit", "3").exit_code == 0
    snapshot = open_reader(str(store)).snapshot
    assert produce("--task", "urn", "--limit", "3", model_name=str(broken)).exit_code == 5
    assert open_reader(str(store)).snapshot == snapshot


def test_a_store_that_cannot_be_created_is_known_before_a_model_is_run(
    produce: Produce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file in the way is named at once, not after hours of work."""
    monkeypatch.setattr("producer.backends.loaded_models.load_model", lambda *_: pytest.fail("weights were loaded"))
    (tmp_path / "file").write_text("")
    result = produce("--task", "urn", "--limit", "3", "--store", str(tmp_path / "file" / "below"))
    assert result.exit_code == 4 and "file is a file" in result.stderr


def test_the_bayes_reference_is_a_run(produce: Produce, store: Path) -> None:
    """Its logits are the log posterior of each item, floored for the option that is never right."""
    name = produce("--method", "bayes", "--task", "urn", "--limit", "9", model_name="bayes").stdout.strip()
    reader = open_reader(str(store))
    run = reader.run(name)
    assert (run.key.model, run.key.method) == ("bayes", "bayes")
    item = Item.model_validate_json(reader.items(run.key.items_hash).texts[0])
    np.testing.assert_allclose(np.exp(run.logits[0]), np.maximum(bayes_posterior(item), 1e-12), rtol=1e-5)
    assert produce("--task", "facts", model_name="bayes").exit_code == 2
    assert produce("--method", "wanda", "--task", "urn", model_name="bayes").exit_code == 2


@pytest.mark.parametrize("kind", ["models", "methods", "tasks", "prompts", "backends"])
def test_lists_name_everything(kind: str) -> None:
    """`--list` prints one line per known name."""
    result = CliRunner().invoke(main, ["--list", kind])
    assert result.exit_code == 0, result.output
    expected = {"models": "ref-moe", "methods": "wanda", "tasks": "halusum", "prompts": "shared", "backends": "transformers"}
    assert expected[kind] in result.stdout
    if kind == "tasks":
        assert [line.split()[0] for line in result.stdout.splitlines()] == [*TASKS]


def test_a_command_without_a_model_is_a_usage_error() -> None:
    """No model is exit 2 and a hint at --list models."""
    result = CliRunner().invoke(main, [])
    assert result.exit_code == 2
    assert "--list models" in result.stderr


def test_a_device_budget_streams_layers_to_the_same_logits(produce: Produce, store: Path, tmp_path: Path) -> None:
    """A model larger than --device-memory goes through layer by layer, finds its run in the store, and would write the same."""
    large = str(save_standin(tmp_path / "large", hidden_size=128, intermediate_size=512, num_hidden_layers=8))
    arguments = ("--task", "urn", "--limit", "6", "-v")
    name = produce(*arguments, model_name=large).stdout.strip()
    usual = open_reader(str(store)).run(name).logits
    streamed = produce(*arguments, "--replace", "--device-memory", "4M", model_name=large)
    assert streamed.stdout.strip() == name, streamed.output
    np.testing.assert_allclose(open_reader(str(store)).run(name).logits, usual, atol=1e-5)


def test_the_self_check_is_stored_with_the_run(produce: Produce, store: Path) -> None:
    """`--self-check N` measures the noise floor on N items; rates are stored with every run."""
    name = produce("--task", "urn", "--limit", "9", "--self-check", "4").stdout.strip()
    env = open_reader(str(store)).run(name).env
    assert env.noise_floor["items"] == 4
    assert env.noise_floor["logit_change"] < 1e-4
    assert env.throughput["items_per_s"] > 0


@pytest.mark.parametrize("arguments", [["--device-memory", "much"], ["--device-memory", "1K"]])
def test_a_budget_that_cannot_be_is_refused(produce: Produce, arguments: list[str]) -> None:
    """What is no size, or too small for one layer, is exit 2 with one sentence."""
    result = produce("--task", "urn", "--limit", "3", *arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_truncated_prompts_are_said_and_stored(
    model: Path, produce: Produce, store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A model whose config says a shorter context loses the beginning of its prompts: said once, and recorded with the run."""
    short = shutil.copytree(model, tmp_path / "short")
    config = json.loads((short / "config.json").read_text())
    (short / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 20}))
    name = produce("--task", "urn", "--limit", "5", "--prompt", "shared", model_name=str(short)).stdout.strip()
    said = "urn, prompt shared: 5 of 5 prompts are longer than the context of short and were truncated: they lost their beginning"
    assert caplog.messages == [said]
    env = open_reader(str(store)).run(name).env
    assert (env.truncated_items, env.notes) == (5, (said,))


def test_doubtful_items_are_counted_and_stored(produce: Produce, store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file with a repeated question and an empty option is asked, with one sentence that says how many there are."""
    rows = [*urn_rows(2), {"id": "x", "question": "red?", "choices": {"A": "", "B": "elm"}, "answer": "B"}]
    rows.append(rows[-1] | {"id": "y"})
    name = produce("--task", str(write_items(tmp_path / "odd.json", rows))).stdout.strip()
    said = "odd: 2 of 4 items are doubtful: 2 with an empty option, 1 repeating the question and options of an earlier one"
    assert said in caplog.messages
    assert said in open_reader(str(store)).run(name).env.notes


@pytest.mark.parametrize("missing", [0, 1, 7])
def test_tokens_without_an_embedding_are_refused(missing: int, model: Path, produce: Produce, store: Path, tmp_path: Path) -> None:
    """A model with fewer embeddings than its tokenizer uses is one sentence that names the token; one that has them all is run."""
    request = Request(models=(str(model),), tasks=("urn",), limit=3)
    prompted = make_plan(request)[0].runs[0].prompted
    largest = max(max(*prompted.options.ids, *prompted.prompts.whole(i)) for i in range(3))
    small = save_standin(tmp_path / "small", vocab_size=largest + 1 - missing)
    result = produce("--task", "urn", "--limit", "3", model_name=str(small))
    assert result.exit_code == (2 if missing else 0), result.output
    said = rf"encodes task 'urn' with token {largest} \(.*\), and the model has embeddings for {largest + 1 - missing} tokens"
    assert bool(re.search(said, result.stderr)) == (not store.exists()) == bool(missing)


@pytest.mark.parametrize("arguments", [("--task", "urn", "--limit", "3"), ("--method", "bayes", "--task", "urn", "--limit", "3")])
def test_a_run_tells_nothing_about_its_maker(
    arguments: tuple[str, ...], produce: Produce, model: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stored command has no absolute path; --private stores nothing of this machine but library versions."""
    name = str(model) if "bayes" not in arguments else "bayes"
    monkeypatch.setattr("sys.argv", ["produce", "--model", name, "--store", str(store), *arguments])
    run = produce(*arguments, model_name=name).stdout.strip()
    told = open_reader(str(store)).run(run).env
    assert told.device and " /" not in told.command and Path(name).name in told.command and arguments[0] in told.command
    run = produce(*arguments, "--private", "--seed", "1", model_name=name).stdout.strip()
    private = open_reader(str(store)).run(run).env
    assert private.libraries == told.libraries
    assert not any((private.device, private.host_os, private.command, private.created, private.throughput, private.duration_s))


@pytest.mark.parametrize("arguments", [[], ["--dry-run"]])
def test_a_base_install_says_what_to_install(arguments: list[str], tmp_path: Path) -> None:
    """Without the packages of the extra, help and lists work, and a run ends with the command that brings them."""
    code = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {{"torch", "transformers", "tqdm", "accelerate", "safetensors", "llmcompressor"}}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
from click.testing import CliRunner
from producer.cli.main import main
for line in (["-h"], ["--version"], ["--list", "methods"], ["--list", "models"]):
    assert CliRunner().invoke(main, line).exit_code == 0
result = CliRunner().invoke(main, ["--model", "ref-s", "--task", "urn", "--store", {str(tmp_path / "store")!r}, *{arguments!r}])
print(result.exit_code, result.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said = r"2 .* \.\.\.\nError: .*needs the package \w+, which is not installed: pip install 'hedgemark\[producer\]'\s*"
    assert re.fullmatch(said, done.stdout)
