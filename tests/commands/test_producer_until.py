"""Asking stops when the gate has decided: which items are asked, how many, what is stored, and what is refused."""

import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from producer_standin import URN, save_standin, write_items

import analyzer.cli.main
import producer.backends.transformers as backend
from analyzer.api import gate
from analyzer.gate.gate import outcome
from producer.cli.main import main
from producer.methods import METHODS
from producer.run import until
from producer.run.until import Decision, check_judged_once
from producer.tasks.source import TaskItems, in_looks
from schemas.errors import UsageError
from schemas.items import Item
from schemas.levels import parse_level
from schemas.run import Run
from store import open_reader

pytestmark = pytest.mark.producer
LOOKS = (20, 40, 80)
GATE_OF_ITS_OWN = until._gate
POLICY = f"[limits]\nflips = {{limit}}\n[looks]\nitems = {list(LOOKS)}\n"


def questions(n_items: int) -> list[dict[str, Any]]:
    """Return items that differ, of three subjects of unlike sizes."""
    colours = ("red", "blue", "green", "black", "white")
    words = [(a, b, c) for a in colours for b in colours for c in colours]
    subjects = ["one", "one", "one", "two", "two", "three"]
    return [
        URN | {"id": i, "question": f"Which urn gave {' '.join(word)}?", "subject": subjects[i % 6]}
        for i, word in enumerate(words[:n_items])
    ]


class Produce:
    """The command on the stand-in, at magnitude 0.5, until a policy decides; `asked` counts what the backend was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, list[int]()
        self._model = save_standin(folder / "standin")
        self._task = write_items(folder / "quiz.json", questions(100))

    def __call__(self, *arguments: str, limit: float = 0.5, policy: str = POLICY, level: str = "0.5") -> Result:
        self.asked.clear()
        path = self.folder / "policy.toml"
        path.write_text(policy.format(limit=limit))
        fixed = ["--model", str(self._model), "--task", str(self._task), "--method", "magnitude", "--level", level, "--until", str(path)]
        return CliRunner().invoke(main, [*fixed, "--store", str(self.folder / "store"), *arguments])

    def runs(self) -> dict[tuple[str, int], Run]:
        """Return the runs of the store by method and number of items."""
        reader = open_reader(str(self.folder / "store"))
        found = [reader.run(name) for name in reader.catalog["name"]]
        return {(run.key.method, len(run.logits)): run for run in found}


@pytest.fixture
def produce(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Produce:
    command, real = Produce(tmp_path), backend.answer

    def counting(model: Any, prompts: Any, *rest: Any, **more: Any) -> Any:
        command.asked.append(len(prompts.suffixes))
        return real(model, prompts, *rest, **more)

    monkeypatch.setenv("HEDGEMARK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(backend, "answer", counting)
    monkeypatch.setattr(until, "_gate", gate_in_this_process)
    return command


def gate_in_this_process(policy: Path, store: Path, tasks: Sequence[str] = ()) -> "subprocess.CompletedProcess[str]":
    """Ask `analyze gate` as `produce` does, without the start of a process, which takes seconds."""
    argv = ["gate", "--policy", str(policy), "--store", str(store), "--format", "json"]
    argv += [word for task in tasks for word in ("--task", task)]
    asked = CliRunner().invoke(analyzer.cli.main.main, argv)
    return subprocess.CompletedProcess(argv, asked.exit_code, asked.stdout, asked.stderr)


def decided(*results: str) -> Any:
    """Stand for the gate: give these results, one for each look."""
    left = list(results)

    def decide(policy: Path, looks: tuple[int, ...], look: int, answered: Any) -> Decision:
        assert len({each.items.digest for each in answered}) == 1
        assert {len(each.run.logits) for each in answered} == {looks[look - 1]}
        return Decision(left.pop(0), "flips", look, looks)

    return decide


def test_asking_stops_at_the_look_that_decides(produce: Produce, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Undecided at 20 items, decided at 40: 40 are asked, each once, and the store has the run of 40 items beside its dense run."""
    monkeypatch.setattr("producer.run.produce.decide", decided("inconclusive", "pass"))
    result = produce()
    assert result.exit_code == 0, result.output
    assert produce.asked == [80, 20, 20]
    runs = produce.runs()
    assert set(runs) == {("dense", 80), ("dense", 40), ("magnitude", 40)}
    run, dense = runs["magnitude", 40], runs["dense", 40]
    assert run.key.items_hash == dense.key.items_hash and run.key.sampling == {"limit": 40}
    note = "pass at look 2 of 3, with 40 of 80 items: flips"
    assert f"asked in looks until the gate decided: {note}" in run.env.notes
    assert any(message.endswith(note) for message in caplog.messages)
    assert "asked 1 compressed model 40 items of each task in all, where a single look asks 80" in result.stderr
    assert run.env.tokens > 0


def test_the_run_is_the_one_that_a_single_look_makes(produce: Produce, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked in three looks or in one, every answer is the same but for rounding, and so is the dense part."""
    monkeypatch.setattr("producer.run.produce.decide", decided("inconclusive", "inconclusive", "fail"))
    assert produce().exit_code == 0
    looks = produce.runs()
    monkeypatch.setattr("producer.run.produce.decide", decided("fail"))
    produce("--fresh", "--replace", policy=POLICY.replace(str(list(LOOKS)), "[80]"))
    once = produce.runs()
    assert set(looks) == set(once) == {("dense", 80), ("magnitude", 80)}
    np.testing.assert_allclose(looks["magnitude", 80].logits, once["magnitude", 80].logits, atol=1e-4)
    np.testing.assert_array_equal(looks["magnitude", 80].top_token, once["magnitude", 80].top_token)


def test_the_gate_decides_as_it_does_on_the_store(produce: Produce, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real policy: the decision, by a process of its own, is the gate's about the runs that are stored."""
    monkeypatch.setattr(until, "_gate", GATE_OF_ITS_OWN)
    result = produce(limit=0.001)
    assert result.exit_code == 0, result.output
    ((_, n_items),) = [key for key in produce.runs() if key[0] == "magnitude"]
    run = produce.runs()["magnitude", n_items]
    (note,) = [note for note in run.env.notes if note.startswith("asked in looks")]
    records = gate(str(produce.folder / "store"), policy=str(produce.folder / "policy.toml"))
    assert note.startswith(f"asked in looks until the gate decided: {outcome(records.to_dicts())} at look")


def test_a_second_command_asks_nothing(produce: Produce, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was decided is decided: the stored runs of its look are judged again, and no weight is loaded."""
    monkeypatch.setattr("producer.run.produce.decide", decided("inconclusive", "pass", "inconclusive", "pass"))
    produce()
    monkeypatch.setattr(backend, "load_model", lambda *_: pytest.fail("weights were loaded"))
    result = produce()
    assert result.exit_code == 0, result.output
    assert not produce.asked and "0 runs written, 2 already stored" in result.stderr


def test_a_look_has_as_many_letters_as_its_items(produce: Produce, monkeypatch: pytest.MonkeyPatch) -> None:
    """One item of a hundred has six options, the others four: the first look, without it, is the run that its 20 items alone make."""
    rows = questions(100)
    late = next(row for row in rows if str(row["id"]) in asked_by(rows, LOOKS[2]) - asked_by(rows, LOOKS[0]))
    short = {letter: URN["choices"][letter] for letter in "ABCD"}
    write_items(produce.folder / "quiz.json", [row if row is late else row | {"choices": short} for row in rows])
    monkeypatch.setattr("producer.run.produce.decide", decided("pass"))
    result = produce()
    assert result.exit_code == 0, result.output
    runs = produce.runs()
    assert runs["dense", 80].logits.shape == (80, 6)
    for run in (runs["dense", 20], runs["magnitude", 20]):
        assert run.logits.shape == (20, 4) and len(run.key.option_token_ids) == len(run.key.option_tokens) == 4
        assert np.isfinite(run.logits).all()


def asked_by(rows: list[dict[str, Any]], look: int) -> set[str]:
    """Return the ids of the items that a look asks."""
    items = [Item.model_validate(row | {"id": str(row["id"])}) for row in rows]
    return {item.id for item in in_looks(TaskItems("t", items, (), ""), look, 0).items}


def test_replace_replaces_the_dense_run_of_the_look_too(produce: Produce, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate reads the compressed run beside the dense one of its look, so both are of the command that decided."""
    monkeypatch.setattr("producer.run.produce.decide", decided("pass", "pass"))
    assert produce("--device-memory", "1G").exit_code == 0
    result = produce("--replace")
    assert result.exit_code == 0 and "3 runs written, 0 already stored" in result.stderr, result.output


def test_one_model_is_judged_once() -> None:
    """Tasks for which a model would be compressed with other data are two models; the gate would take them for one."""

    def group(method: str, *tasks: str) -> Any:
        runs = [SimpleNamespace(prompted=SimpleNamespace(task=SimpleNamespace(name=name))) for name in tasks]
        return SimpleNamespace(model=SimpleNamespace(files="m"), method=METHODS[method], runs=runs, levels=[parse_level("0.5")])

    check_judged_once([group("dense", "quiz", "urn"), group("magnitude", "quiz", "urn"), group("wanda", "urn", "facts")])
    with pytest.raises(UsageError, match=r"judges wanda 0.5 over all .* for quiz than for urn and facts; name the data with --compression"):
        check_judged_once([group("wanda", "quiz"), group("magnitude", "quiz", "urn"), group("wanda", "urn", "facts")])


def test_levels_stop_each_by_itself(produce: Produce, monkeypatch: pytest.MonkeyPatch) -> None:
    """One level fails at once, the next is asked to the end."""
    monkeypatch.setattr("producer.run.produce.decide", decided("fail", "inconclusive", "inconclusive", "inconclusive"))
    assert produce("--level", "0.25").exit_code == 0
    assert produce.asked == [80, 20, 20, 20, 40]
    assert {key for key in produce.runs() if key[0] == "magnitude"} == {("magnitude", 20), ("magnitude", 80)}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shares", [(100,), (50, 30, 20), (97, 2, 1), (1,) * 100])
def test_every_beginning_of_the_order_is_balanced(shares: tuple[int, ...], seed: int) -> None:
    """The first n items have of each subject what its share of n says, give or take two; another seed has another order."""
    subjects = [str(number) for number, count in enumerate(shares) for _ in range(count * 4)]
    items = [Item(id=str(i), question=f"q{i}", choices={"A": "a", "B": "b"}, answer="A", subject=s) for i, s in enumerate(subjects)]
    task = TaskItems("t", items, (), "")
    whole = in_looks(task, len(items), seed)
    assert sorted(whole.look_rank) == list(range(len(items))) and list(whole.items) == items and whole.limit == 0
    for n in (1, 10, 50, 199, len(items)):
        part = in_looks(task, n, seed)
        assert [item.id for item in part.items] == [item.id for item, place in zip(items, whole.look_rank, strict=True) if place < n]
        counts = Counter(item.subject for item in part.items)
        assert all(abs(counts[str(s)] - n * share / sum(shares)) <= 2 for s, share in enumerate(shares))
    assert in_looks(task, 50, seed).items != in_looks(task, 50, seed + 1).items


def test_more_looks_than_items_are_refused() -> None:
    """A look that the task cannot reach would leave the plan's error unspent, and the gate without its last look."""
    with pytest.raises(UsageError, match=r"last look of the policy is at 80 items, and task 't' has 1;"):
        in_looks(TaskItems("t", [Item(id="0", question="q", choices={"A": "a", "B": "b"}, answer="A")], (), ""), 80, 0)


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("[limits]\nflips = 0.1\n", "plans no looks"),
        ("[limits]\nflops = 0.1\n[looks]\nitems = [10, 20]\n", "unknown figure 'flops'"),
        ("[limits]\nflips = 0.1\n[looks]\nitems = [20, 10]\n", "does not rise"),
        ("[limits]\nflips = 0.1\n[looks]\nitems = [200]\n", "the last look of the policy is at 200 items"),
        ("[looks]\nitems = [20]\n", "sets no limit"),
    ],
)
def test_a_policy_that_cannot_decide_is_refused_before_anything_is_asked(policy: str, words: str, produce: Produce) -> None:
    """What the gate would refuse is refused first, in the gate's words."""
    result = produce(policy=policy)
    assert result.exit_code == 2 and words in result.stderr, result.output
    assert not produce.asked and not (produce.folder / "store").exists()


@pytest.mark.parametrize(("more", "words"), [(("--limit", "9"), "--limit 9 has no effect"), (("--kv", "int8"), "--method kv --level int8")])
def test_what_says_otherwise_is_refused(more: tuple[str, ...], words: str, produce: Produce) -> None:
    """The policy alone says how many items are asked."""
    result = produce(*more)
    assert result.exit_code == 2 and words in result.stderr


def test_a_gate_that_breaks_is_no_decision(produce: Produce, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any other exit code than pass, fail and undecided ends the command; nothing of the model is stored."""
    real = until._gate

    def broken(policy: Path, store: Path, tasks: Sequence[str] = ()) -> Any:
        return until.subprocess.CompletedProcess([], 5, "", "Error: no memory\n") if store.name == "store" else real(policy, store, tasks)

    monkeypatch.setattr(until, "_gate", broken)
    result = produce()
    assert result.exit_code == 5 and "analyze gate could not decide at 20 items: Error: no memory" in result.stderr
    assert {method for method, _ in produce.runs()} == {"dense"}


def test_limits_on_other_tasks_do_not_keep_the_gate_from_deciding(produce: Produce) -> None:
    """A policy for all tasks of a release is asked about the one that is run."""
    result = produce(limit=0.9, policy=POLICY + "[task.another]\nflips = 0.01\n")
    assert result.exit_code == 0 and "asked 1 compressed model 20 items of each task in all" in result.stderr
