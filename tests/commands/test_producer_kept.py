"""A command that was killed goes on: what it has answered is found again, and the store ends as an undisturbed one."""

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from producer_standin import save_standin
from stored_runs import same, stored

import producer.backends.transformers as backend
from producer.cli.main import main
from producer.engine.checkpoints import Clock
from producer.machine import journal
from producer.methods.shared import finished_layers
from producer.run import kept
from schemas.run import Run
from store import open_reader
from store.backend import user_cache
from store.backend.user_cache import cache_folder

pytestmark = pytest.mark.producer
AT_ONCE = ("--checkpoint-every", "0s")
KILLS = 20
# Runs `produce` in a process that kills itself after it has kept answers, or compressed layers, so many times. It writes down the items of
# each layer's batches, and "layer" for each layer that it compresses.
HOOKED = """
import itertools, os, signal, sys
from producer.engine import checkpoints, prefill
from producer.cli.main import main
from producer.methods.shared.finished_layers import FinishedLayers
last, counted = int(sys.argv.pop(1)), os.open(sys.argv.pop(1), os.O_APPEND | os.O_CREAT | os.O_WRONLY)
last_layer, compressed, finish = int(sys.argv.pop(1)), itertools.count(1), FinishedLayers.add
adds, add, run_layer = itertools.count(1), checkpoints.Clock.add, prefill.run_layer

def killing(self, items, output):
    add(self, items, output)
    if next(adds) == last:
        os.kill(os.getpid(), signal.SIGKILL)

def counting(layer, window, rotary, batch, shared):
    if batch.items:
        os.write(counted, f"{len(batch.items)}\\n".encode())
    return run_layer(layer, window, rotary, batch, shared)

def finishing(self, layer, inputs):
    finish(self, layer, inputs)
    os.write(counted, b"layer\\n")
    if next(compressed) == last_layer:
        os.kill(os.getpid(), signal.SIGKILL)

checkpoints.Clock.add, prefill.run_layer, FinishedLayers.add = killing, counting, finishing
# A model this small takes about as long for what each wave does anew as for its items, so that its waves would not be cut.
prefill.WaveTime = lambda period, n_layers, *_: checkpoints.WaveTime(period, n_layers, 0.0, 0.0)
main()
"""
ORDERS = {"in memory": (), "layer by layer": ("--device-memory", "8M")}


class Killed(BaseException):
    """Ends a command as a kill does: nothing but what is on disk remains."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_standin(tmp_path_factory.mktemp("models") / "standin")


class Produce:
    """The command `produce` on the stand-in model, in small batches: what the backend is asked, and a way to kill the command.

    asked : prompts that the backend was asked by the last command.
    """

    def __init__(self, model: Path, folder: Path) -> None:
        self.asked = list[tuple[int, ...]]()
        self._model, self._folder, self._left = model, folder, 0

    def __call__(self, *arguments: str, store: str = "store", limit: int = 60) -> Result:
        self.asked.clear()
        fixed = ["--model", str(self._model), "--task", "urn", "--limit", str(limit), "--batch-tokens", "64", *AT_ONCE]
        return CliRunner().invoke(main, [*fixed, "--store", str(self._folder / store), *arguments])

    def killed(self, after: int, *arguments: str) -> int:
        """Kill the command after it has kept answers so many times; return how many answers its journal then has."""
        self._left, before = after, set(journals())
        with pytest.raises(Killed):
            self(*arguments)
        self._left = 0
        (path,) = set(journals()) - before
        return kept_in(path)

    def run(self, store: str = "store") -> Run:
        """Return the only run of a store."""
        return stored(self._folder / store)

    def patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Count what the backend is asked, and end the command where it is to be killed."""
        answer, add = backend.answer, Clock.add

        def counting(model: Any, prompts: Any, *rest: Any, **more: Any) -> Any:
            self.asked += [tuple(prompts.whole(item)) for item in range(len(prompts.suffixes))]
            return answer(model, prompts, *rest, **more)

        def killing(clock: Clock, items: Any, output: Any) -> None:
            add(clock, items, output)
            self._left -= 1
            if not self._left:
                raise Killed

        monkeypatch.setattr(backend, "answer", counting)
        monkeypatch.setattr(Clock, "add", killing)


@pytest.fixture
def produce(model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Produce:
    monkeypatch.setenv("HEDGEMARK_CACHE", str(tmp_path / "cache"))
    command = Produce(model, tmp_path)
    command.patch(monkeypatch)
    return command


def journals() -> list[Path]:
    return sorted(cache_folder(journal.FOLDER).glob("*/*"))


def kept_in(path: Path) -> int:
    """Return how many answers a file of the journal holds."""
    return sum(1 for _ in journal._records(path, path.parent.name)) - 1  # the first record says under which circumstances


def hooked(last: int, counted: Path, store: Path, order: str, *more: str, layers: int = 0) -> "subprocess.Popen[bytes]":
    """Start `produce` on ref-s in a process that kills itself after keeping answers `last` times or compressing `layers`, 0 for never."""
    asked = ["--model", "ref-s", "--task", "urn", "--store", str(store), *AT_ONCE, *ORDERS[order], *more]
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "HEDGEMARK_CACHE": str(counted.parent / "cache")}
    argv = [sys.executable, "-c", HOOKED, str(last), str(counted), str(layers), *asked]
    return subprocess.Popen(argv, env=settings, stdout=subprocess.DEVNULL)


def work(counted: Path) -> int:
    """Return items times layers, as the engine computed them."""
    return sum(int(line) for line in counted.read_text().split() if line != "layer")


@pytest.mark.parametrize("order", ["in memory", pytest.param("layer by layer", marks=pytest.mark.slow)])
def test_a_run_killed_at_several_moments_ends_as_an_undisturbed_one(order: str, tmp_path: Path) -> None:
    """SIGKILL after answers were kept once, and then three times: the store equals the undisturbed one, no question is asked twice."""
    words = ("--limit", "200", "--batch-tokens", "512")
    assert hooked(0, tmp_path / "alone", tmp_path / "undisturbed", order, *words).wait() == 0
    for last in (1, 3):
        assert hooked(last, tmp_path / "counted", tmp_path / "store", order, *words).wait() == -signal.SIGKILL
        assert not (tmp_path / "store").exists()
    assert hooked(0, tmp_path / "counted", tmp_path / "store", order, *words).wait() == 0
    run = stored(tmp_path / "store")
    same(run, stored(tmp_path / "undisturbed"))
    assert any("of 200 answers are those to an earlier command, which was cut off" in note for note in run.env.notes)
    assert work(tmp_path / "counted") == work(tmp_path / "alone")
    assert not list((tmp_path / "cache" / journal.FOLDER).rglob("*.answers"))


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
def test_a_run_killed_at_twenty_random_moments_asks_little_twice(order: str, tmp_path: Path) -> None:
    """Kill -9 at 20 random moments within one run: the store equals the undisturbed one, and below 10 % of the work is done twice."""
    words = ("--limit", "2000", "--batch-tokens", "256")
    assert hooked(0, tmp_path / "alone", tmp_path / "undisturbed", order, *words).wait() == 0
    moments, whole, counted = random.Random(0), work(tmp_path / "alone"), tmp_path / "counted"
    counted.touch()
    for _ in range(KILLS):
        moment = work(counted) + moments.uniform(0, whole / KILLS)  # in work, since seconds say little on a busy machine
        process = hooked(0, counted, tmp_path / "store", order, *words)
        while work(counted) <= moment and process.poll() is None:
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.01))
        process.kill()
        assert process.wait() == -signal.SIGKILL, "it came to its end too soon to be killed 20 times"
    assert hooked(0, counted, tmp_path / "store", order, *words).wait() == 0
    same(stored(tmp_path / "store"), stored(tmp_path / "undisturbed"))
    twice = work(counted) / whole - 1
    print(f"{order}: {twice:.1%} of the work done twice over {KILLS} kills")
    assert 0 <= twice < 0.1


@pytest.mark.slow
def test_a_command_killed_while_it_compresses_goes_on_at_the_layer(tmp_path: Path) -> None:
    """SIGKILL behind the first layer and while the compressed model answers: the run is the undisturbed one, and nothing is left."""
    words = ("--method", "wanda", "--level", "0.5", "--limit", "200", "--batch-tokens", "512", "--compression-data", "embedded:8x64")
    alone, counted = tmp_path / "alone", tmp_path / "counted"
    assert hooked(0, alone, tmp_path / "undisturbed", "in memory", *words).wait() == 0
    assert hooked(0, counted, tmp_path / "store", "in memory", *words, layers=1).wait() == -signal.SIGKILL
    assert hooked(2, counted, tmp_path / "store", "in memory", *words).wait() == -signal.SIGKILL
    assert hooked(0, counted, tmp_path / "store", "in memory", *words).wait() == 0
    assert counted.read_text().count("layer") == alone.read_text().count("layer")
    run, undisturbed = stored(tmp_path / "store"), stored(tmp_path / "undisturbed")
    same(run, undisturbed)
    assert run.env.post_conditions == undisturbed.env.post_conditions
    assert not [path for path in (tmp_path / "cache" / finished_layers.FOLDER).iterdir() if path.is_dir()]


@pytest.mark.parametrize("more", [(), ("--prompt", "shared"), ("--method", "magnitude", "--level", "0.5"), ("--options-order", "1")])
def test_only_the_rest_is_asked(more: tuple[str, ...], produce: Produce, caplog: pytest.LogCaptureFixture) -> None:
    """Answers kept before a kill are not asked again; a model that is compressed again is asked four of them for comparison."""
    n_kept = produce.killed(2, *more)
    assert 0 < n_kept < 60
    assert produce(*more).exit_code == 0
    assert len(produce.asked) == 60 - n_kept + min(4, n_kept) * ("--method" in more)
    assert f"60 items: {n_kept} found, {60 - n_kept} asked" in caplog.messages
    assert not journals()
    assert f"{n_kept} of 60 answers are those to an earlier command, which was cut off" in produce.run().env.notes
    produce(*more, store="alone")
    assert len(produce.asked) == 60
    same(produce.run(), produce.run("alone"))


def test_other_orders_of_options_are_other_questions(produce: Produce, tmp_path: Path) -> None:
    """Killed in the second order of the options, the command goes on there; every logit is that of its own option."""
    words = ("--options-order", "2")
    assert produce(*words, store="alone").exit_code == 0
    n_kept = produce.killed(12, *words)
    assert produce(*words).exit_code == 0
    assert n_kept and len(produce.asked) < 120
    alone, again = (open_reader(str(tmp_path / name)) for name in ("alone", "store"))
    for name in alone.catalog["name"]:
        same(again.run(name), alone.run(name))


def test_a_larger_run_finds_what_a_killed_one_kept(produce: Produce) -> None:
    """Whatever the limit, a question is a question: 90 items ask those that the killed run of 60 had not come to, and 30 more."""
    n_kept = produce.killed(3)
    produce(limit=90)
    assert len(produce.asked) == 90 - n_kept


@pytest.mark.parametrize("more", [("--fresh",), ("--replace",), ("--dtype", "bfloat16"), ("--prompt", "shared"), ("--kv", "int8")])
def test_another_way_of_asking_asks_all(more: tuple[str, ...], produce: Produce) -> None:
    """Answers in another dtype or to another prompt or model, or that are not wanted, are not taken."""
    produce.killed(1)
    assert produce(*more).exit_code == 0
    assert len(produce.asked) == 60


@pytest.mark.parametrize("what", ["versions", "device_name"])
def test_other_libraries_or_another_device_ask_all(
    what: str, produce: Produce, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What a run says of its libraries and device holds for all its answers."""
    n_kept = produce.killed(1)
    monkeypatch.setattr(kept, what, lambda *_: "another")
    assert produce().exit_code == 0
    assert len(produce.asked) == 60
    assert any(f"{n_kept} answers that a killed command left are not used" in message for message in caplog.messages)


@pytest.mark.parametrize("damage", ["a logit", "the end"])
def test_damaged_answers_are_asked_again(damage: str, produce: Produce) -> None:
    """A changed digit, or a record that a kill or a full disk cut off, costs one answer and spoils no other."""
    n_kept, (path,) = produce.killed(1), journals()
    text = path.read_bytes()
    path.write_bytes(text.replace(b"[[", b"[[1", 1) if damage == "a logit" else text[:-20])
    assert produce().exit_code == 0
    assert len(produce.asked) == 60 - n_kept + 1


def test_a_model_that_compresses_otherwise_the_second_time_is_asked_all(
    produce: Produce, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where compressing twice gives two models, the answers of the first are not mixed with those of the second."""
    words = ("--method", "magnitude", "--level", "0.5")
    produce.killed(2, *words)
    counting = backend.answer

    def moved(model: Any, *rest: Any, **more: Any) -> Any:
        if not produce.asked:
            model.model.layers[0].self_attn.v_proj.weight.data *= 1.5
        return counting(model, *rest, **more)

    monkeypatch.setattr(backend, "answer", moved)
    assert produce(*words).exit_code == 0
    assert len(produce.asked) == 64
    assert any("compressed again, gives others" in message for message in caplog.messages)
    assert not any("cut off" in note for note in produce.run().env.notes)


def test_answers_of_other_weights_are_not_taken(
    produce: Produce, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Two commands are killed and compressed the model otherwise: only the answers of the one whose weights come out again are taken."""
    words = ("--method", "magnitude", "--level", "0.5")
    with monkeypatch.context() as patched:
        patched.setattr("producer.backends.transformers.tensors_hash", lambda _: "other")
        n_others = produce.killed(3, *words)
    n_kept = produce.killed(2, *words)
    assert produce(*words).exit_code == 0
    assert len(produce.asked) == 60 - n_kept + min(4, n_kept)
    assert any(f"{n_others} answers that a killed command left are not used" in message for message in caplog.messages)


def not_written(*_: Any) -> None:
    raise Killed


def test_all_kept_and_nothing_stored_asks_nothing(produce: Produce, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill between the last answer and the commit: the run is written from kept answers."""
    with monkeypatch.context() as patched:
        patched.setattr("producer.run.produce._Worker._write", not_written)
        with pytest.raises(Killed):
            produce()
    assert produce("--self-check", "4").exit_code == 0
    assert not produce.asked
    assert any("noise floor is not measured" in note for note in produce.run().env.notes)
    produce(store="alone")
    same(produce.run(), produce.run("alone"))


def test_what_a_run_left_that_was_stored_is_deleted(produce: Produce, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill after the commit leaves a journal; the next command, which finds the run stored, deletes it, and no other's."""
    with monkeypatch.context() as patched:
        patched.setattr(journal.Journal, "remove", lambda _: None)
        produce()
        patched.setattr("producer.run.produce._Worker._write", not_written)
        with pytest.raises(Killed):
            produce(limit=90)
    assert len(journals()) == 2
    produce()
    (left,) = journals()
    _, given_under = next(journal._records(left, left.parent.name))
    assert given_under["run"] != produce.run().key.name


def test_a_run_that_is_stored_leaves_the_answers_to_other_questions(produce: Produce) -> None:
    """What a killed run of other items kept is there when it comes back, though the same model answered in between."""
    n_kept = produce.killed(3)
    produce("--seed", "1", limit=20)
    assert len(journals()) == 1
    produce()
    assert len(produce.asked) <= 60 - n_kept and not journals()


def test_two_processes_make_one_run_without_harm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """While one command answers, another makes the same run to its end and deletes what it took: both end well, with one run."""
    monkeypatch.setenv("HEDGEMARK_CACHE", str(tmp_path / "cache"))
    real, calls = Clock.add, itertools.count(1)

    def add(self: Clock, items: Any, output: Any) -> None:
        real(self, items, output)
        if next(calls) == 2:
            monkeypatch.setattr(Clock, "add", real)
            other = subprocess.run([sys.executable, "-m", "producer", *sys.argv[1:]], check=False, capture_output=True, text=True)
            assert other.returncode == 0, other.stderr

    monkeypatch.setattr(Clock, "add", add)
    arguments = ["--model", str(tmp_path / "standin"), "--task", "urn", "--limit", "40", "--batch-tokens", "64", *AT_ONCE]
    save_standin(tmp_path / "standin")
    monkeypatch.setattr(sys, "argv", ["produce", *arguments, "--store", str(tmp_path / "store")])
    result = CliRunner().invoke(main, sys.argv[1:])
    assert result.exit_code == 0, result.output
    assert not journals()
    assert len(open_reader(str(tmp_path / "store")).catalog) == 1


def test_a_full_disk_costs_a_warning_only(produce: Produce, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Where answers cannot be kept, the run is made all the same."""
    real = Path.open

    def full(self: Path, mode: str = "r", *more: Any, **other: Any) -> Any:
        if "a" in mode:
            raise OSError(28, "No space left on device")
        return real(self, mode, *more, **other)

    user_cache._warn.cache_clear()  # it warns once in a process
    monkeypatch.setattr(Path, "open", full)
    assert produce().exit_code == 0
    assert any("No space left on device" in message for message in caplog.messages)


def test_old_and_too_many_journals_are_deleted(produce: Produce, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody came back for within 30 days goes, and the oldest where all together are too large."""
    for number, prompt in enumerate(("base", "shared", "task")):
        before = set(journals())
        produce.killed(1, "--prompt", prompt)
        (new,) = set(journals()) - before
        os.utime(new, (time.time() - (29 - number) * 86400,) * 2)
    *old, newest = sorted(journals(), key=lambda path: path.stat().st_mtime)
    os.utime(old[0], (time.time() - 31 * 86400,) * 2)
    journal.Journal("another model", None, bool)  # opening one deletes what is unused
    assert set(journals()) == {old[1], newest}
    monkeypatch.setattr(journal, "MOST_BYTES", newest.stat().st_size)
    journal.Journal("another model", None, bool)
    assert journals() == [newest]


@pytest.mark.parametrize("text", ["", "soon", "-1m", "10 d", "1e3", "nan"])
def test_what_is_no_time_is_refused(text: str, produce: Produce) -> None:
    """A time is a number with s, m or h."""
    result = produce("--checkpoint-every", text)
    assert result.exit_code == 2 and "is not a time; examples: 30s, 10m, 2h" in result.stderr
