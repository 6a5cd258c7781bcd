"""Answers that stored runs hold are found: only the rest is asked, and nothing that was asked in another way comes in."""

import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from producer_standin import URN, save_standin, write_items
from safetensors.torch import load_file, save_file

import producer.backends.transformers as backend
from producer.backends.base import MODEL_HASH
from producer.cli.main import main
from schemas.run import Run
from store import init_store, open_reader, open_writer

pytestmark = pytest.mark.producer
Produce = Callable[..., Result]
COMPRESSED = ("--method", "magnitude", "--level", "0.5")


class Asked:
    """What the backend was asked: the whole prompts of each call."""

    def __init__(self) -> None:
        self.prompts: list[tuple[int, ...]] = []

    def __len__(self) -> int:
        return len(self.prompts)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_standin(tmp_path_factory.mktemp("models") / "standin")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    """Count the items that the backend answers, not those that a log speaks of."""
    seen, real = Asked(), backend.answer

    def counting(model: Any, prompts: Any, *rest: Any, **more: Any) -> Any:
        seen.prompts += [tuple(prompts.whole(item)) for item in range(len(prompts.suffixes))]
        return real(model, prompts, *rest, **more)

    monkeypatch.setattr(backend, "answer", counting)
    yield seen


@pytest.fixture
def produce(model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, asked: Asked) -> Produce:
    """Run `produce` on the stand-in model, and forget what was asked before."""
    monkeypatch.setenv("HEDGEMARK_CACHE", str(tmp_path / "cache"))

    def run(*arguments: str, model_name: Path = model, store: str = "store") -> Result:
        asked.prompts.clear()
        result = CliRunner().invoke(main, ["--model", str(model_name), "--store", str(tmp_path / store), *arguments])
        assert result.exit_code == 0, result.output
        return result

    return run


def questions(n_items: int) -> list[dict[str, Any]]:
    """Return items that differ, as the stand-in's tokenizer reads them."""
    seen = itertools.islice(itertools.product(("red", "blue", "green", "black"), repeat=3), n_items)
    return [URN | {"id": i, "question": f"Which urn gave {' '.join(colours)}?"} for i, colours in enumerate(seen)]


def stored(folder: Path, result: Result) -> Run:
    return open_reader(str(folder)).run(result.stdout.strip())


def same(one: Run, other: Run) -> None:
    """Compare two runs of one key: the same answers but for rounding."""
    assert one.key == other.key
    np.testing.assert_allclose(one.logits, other.logits, atol=1e-4)
    np.testing.assert_allclose(one.logsumexp, other.logsumexp, atol=1e-4)
    np.testing.assert_array_equal(one.top_token, other.top_token)


@pytest.mark.parametrize("case", [((), 500, 2000), (("--method", "magnitude", "--level", "0.5"), 100, 400)])
def test_only_the_rest_is_asked(
    case: tuple[tuple[str, ...], int, int], produce: Produce, asked: Asked, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A run of few items and then one of many ask many items in all, and the second is the run that nothing came before.

    A model that is compressed again is asked four of them for comparison.
    """
    method, few, many = case
    words = ("--task", "urn", *method)
    first = produce(*words, "--limit", str(few)).stdout.strip()
    assert len(asked) == few
    planned = produce(*words, "--limit", str(many), "--dry-run").stdout
    assert f"{many:,} items: {few} found, {many - few:,} asked" in planned
    assert " items: " not in produce(*words, "--limit", str(many), "--dry-run", "--fresh").stdout
    second = produce(*words, "--limit", str(many))
    assert len(asked) == many - few + 4 * bool(method)
    assert f"{many:,} items: {few} found, {many - few:,} asked" in caplog.messages
    run = stored(tmp_path / "store", second)
    notes = [note for note in run.env.notes if "taken from" in note]
    assert notes == [f"{few} of {many:,} answers are taken from run {first}"]
    assert any("differ by rounding" in note for note in run.env.notes)
    alone = produce(*words, "--limit", str(many), store="alone")
    assert len(asked) == many
    same(run, stored(tmp_path / "alone", alone))


def test_a_model_that_is_asked_nothing_is_not_loaded(
    produce: Produce, asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A smaller draw after a larger one is written from stored answers, with what was measured on the model then."""
    words = ("--task", "urn", "--method", "magnitude", "--level", "0.5", "--limit")
    larger = stored(tmp_path / "store", produce(*words, "40"))
    with monkeypatch.context() as patched:
        patched.setattr(backend, "load_model", lambda *_: pytest.fail("weights were loaded"))
        run = stored(tmp_path / "store", produce(*words, "10", "--self-check", "4"))
    assert "10 items: 10 found, 0 asked" in caplog.messages
    assert any(message.endswith("is not loaded: stored runs hold all answers") for message in caplog.messages)
    assert (run.env.post_conditions, run.env.parameters) == (larger.env.post_conditions, larger.env.parameters)
    assert (run.env.tokens, run.env.throughput, run.env.noise_floor) == (0, {}, {})
    assert any("noise floor is not measured" in note for note in run.env.notes)
    same(run, stored(tmp_path / "alone", produce(*words, "10", store="alone")))


def test_a_run_is_put_together_from_several(produce: Produce, asked: Asked, tmp_path: Path) -> None:
    """Items of three files, two of which were asked: answers come from both runs, in the order of the third file."""
    rows = questions(30)
    one = produce("--task", str(write_items(tmp_path / "one.json", rows[:10]))).stdout.strip()
    two = produce("--task", str(write_items(tmp_path / "two.json", rows[8:20][::-1]))).stdout.strip()
    three = write_items(tmp_path / "three.json", rows[::-1])
    run = stored(tmp_path / "store", produce("--task", str(three)))
    assert len(asked) == 10
    assert [note.split(" answers")[0] + note.split(" run")[1] for note in run.env.notes if "taken from" in note] == [
        f"12 of 30 {two}",
        f"8 of 30 {one}",
    ]
    same(run, stored(tmp_path / "alone", produce("--task", str(three), store="alone")))


def changed_choices(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the same questions with their first two options exchanged: the same ids, other prompts."""
    return [{**row, "choices": {**row["choices"], "A": row["choices"]["B"], "B": row["choices"]["A"]}, "answer": "A"} for row in rows]


@pytest.mark.parametrize(
    "change",
    [
        ("--prompt", "shared"), ("--dtype", "bfloat16"), ("--options-order", "2"), ("--kv", "int8"), ("--fresh",),
        ("--method", "magnitude", "--level", "0.25"), ("--method", "rtn", "--level", "w4a16-g32"),
    ],
)  # fmt: skip
def test_another_way_of_asking_asks_all(change: tuple[str, ...], produce: Produce, asked: Asked) -> None:
    """Answers to another prompt, order or model, or in another dtype, are not taken."""
    produce("--task", "urn", "--limit", "10")
    produce("--task", "urn", "--limit", "20", *change)
    assert len(asked) == (30 if "--options-order" in change else 20)  # the items' own order is found in part


def test_other_weights_ask_all(model: Path, produce: Produce, asked: Asked, tmp_path: Path) -> None:
    """One weight that is another makes another model, whatever its name; the same weights under another name are the same."""
    other, copy = (shutil.copytree(model, tmp_path / part / "standin") for part in ("other", "copy"))
    weights = load_file(other / "model.safetensors")
    weights["model.norm.weight"][0] += 1
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    produce("--task", "urn", "--limit", "10")
    produce("--task", "urn", "--limit", "20", model_name=other)
    assert len(asked) == 20
    produce("--task", "urn", "--limit", "20", model_name=copy.rename(tmp_path / "renamed"))
    assert len(asked) == 10


@pytest.mark.parametrize("change", ["options", "context", "question"])
def test_other_items_are_asked(change: str, produce: Produce, asked: Asked, tmp_path: Path) -> None:
    """An item with its options in another order, another context or question is another item; one beside it is found."""
    rows = questions(12)
    other = [dict(row) for row in rows]
    if change == "options":
        other[1:] = changed_choices(rows[1:])
    else:
        other[1:] = [{**row, change: f"In short: {row.get(change, '')}"} for row in rows[1:]]
    produce("--task", str(write_items(tmp_path / "quiz.json", rows)))
    produce("--task", str(write_items(tmp_path / "quiz.json", other)))
    assert len(asked) == 11


def test_a_corrected_answer_key_asks_nothing(produce: Produce, asked: Asked, tmp_path: Path) -> None:
    """Which option is correct is not part of the prompt: the logits are found, and the new items have the new answers."""
    rows = questions(12)
    corrected = [{**row, "answer": "B" if row["answer"] == "A" else "A", "subject": "new"} for row in rows]
    before = stored(tmp_path / "store", produce("--task", str(write_items(tmp_path / "quiz.json", rows))))
    after = stored(tmp_path / "store", produce("--task", str(write_items(tmp_path / "quiz.json", corrected))))
    assert not len(asked)
    np.testing.assert_array_equal(before.logits, after.logits)
    assert before.key.items_hash != after.key.items_hash


def test_a_seed_draws_other_items_of_the_same_model(produce: Produce, asked: Asked) -> None:
    """Of a model run as it is, items of another draw are found; a method that compresses has another seed and asks all."""
    words = ("--task", "urn", "--limit", "400", "--seed")
    produce(*words, "0")
    produce(*words, "1")
    assert 0 < len(asked) < 400
    compressed = ("--method", "magnitude", "--level", "0.5")
    produce(*words, "0", *compressed)
    produce(*words, "1", *compressed)
    assert len(asked) == 400


def rewritten(tmp_path: Path, name: str, change: Callable[[Run], Run], texts: bool = True) -> None:
    """Write a run of the store anew, changed, into a store of its own called `changed`, with or without the texts of its items."""
    reader = open_reader(str(tmp_path / "store"))
    run = reader.run(name)
    items = reader.items(run.key.items_hash)
    init_store(str(tmp_path / "changed"))
    with open_writer(str(tmp_path / "changed")) as writer:
        writer.write(items if texts else replace(items, texts=()), change(run), allow_nonfinite=True)


def changed_key(**fields: Any) -> Callable[[Run], Run]:
    return lambda run: Run(run.key.model_copy(update=fields), run.logits, run.logsumexp, run.top_token, run.env)


@pytest.mark.parametrize(
    "fields",
    [
        {"compression_data_hash": "1" * 64}, {"tokens_hash": ""}, {"tokens_hash": "2" * 64}, {"prompt_hash": "3" * 64}, 
        {"backend": "vllm"}, {"option_token_ids": (1, 2, 3, 4, 5, 6)}, {"method_settings": {"x": 1}}, {"weights_hash": ""},
        {"level": "0.5"}, {"dtype": "float16"},
    ],
)  # fmt: skip
def test_a_run_whose_key_says_otherwise_gives_nothing(fields: dict[str, Any], produce: Produce, asked: Asked, tmp_path: Path) -> None:
    """Each field that says who answered or how, and each digest over what was asked, must agree; else all is asked."""
    name = produce("--task", "urn", "--limit", "10").stdout.strip()
    rewritten(tmp_path, name, changed_key(**fields))
    produce("--task", "urn", "--limit", "20", store="changed")
    assert len(asked) == 20


def test_a_model_that_compresses_otherwise_is_asked_all(
    produce: Produce, asked: Asked, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where a stored run is of a model that was compressed otherwise under the same settings, as on a GPU, its answers are not mixed in."""
    words = ("--task", "urn", "--method", "magnitude", "--level", "0.5", "--limit")
    name = produce(*words, "10").stdout.strip()
    rewritten(tmp_path, name, lambda run: replace(run, logits=run.logits[:, ::-1].copy()))
    run = stored(tmp_path / "changed", produce(*words, "20", store="changed"))
    assert len(asked) == 24
    assert "10 stored answers are not used: the model, compressed again, gives others" in caplog.messages
    assert not any("taken from" in note for note in run.env.notes)
    same(run, stored(tmp_path / "alone", produce(*words, "20", store="alone")))


def of_other_weights(run: Run, digest: str | None = "0" * 64) -> Run:
    """Return a run that states that other weights answered, or no weights if `digest` is None."""
    others = {name: value for name, value in run.env.post_conditions.items() if name != MODEL_HASH}
    stated = others | ({MODEL_HASH: digest} if digest else {})
    return replace(run, env=run.env.model_copy(update={"post_conditions": stated}))


def with_two_runs(tmp_path: Path, produce: Produce, change: Callable[[Run], Run]) -> tuple[str, list[dict[str, Any]]]:
    """Write a store `changed` with runs of a compressed model over items 0 to 19, and over 20 to 29 after a change; return the whole."""
    rows = questions(30)
    names = [
        produce("--task", str(write_items(tmp_path / f"{part}.json", some)), *COMPRESSED).stdout.strip()
        for part, some in (("one", rows[:20]), ("two", rows[20:]))
    ]
    reader = open_reader(str(tmp_path / "store"))
    init_store(str(tmp_path / "changed"))
    with open_writer(str(tmp_path / "changed")) as writer:
        for name, changed in zip(names, (lambda run: run, change), strict=True):
            run = reader.run(name)
            writer.write(reader.items(run.key.items_hash), changed(run))
    return names[0], rows


@pytest.mark.parametrize("digest", ["0" * 64, None])
def test_runs_of_two_compressed_models_are_not_joined(
    digest: str | None, produce: Produce, asked: Asked, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where two runs state other weights, or one states none, the answers of one are taken and the rest is asked."""
    first, rows = with_two_runs(tmp_path, produce, lambda run: of_other_weights(run, digest))
    run = stored(tmp_path / "changed", produce("--task", str(write_items(tmp_path / "all.json", rows)), *COMPRESSED, store="changed"))
    assert len(asked) == 10 + 4
    assert any(f"is not joined with {first}: they do not state the same weights" in message for message in caplog.messages)
    assert [note for note in run.env.notes if "taken from" in note] == [f"20 of 30 answers are taken from run {first}"]


def test_runs_of_one_compressed_model_are_joined(produce: Produce, asked: Asked, tmp_path: Path) -> None:
    """Where two runs state the same weights, all answers are found, and the run that is written states them too."""
    _, rows = with_two_runs(tmp_path, produce, lambda run: run)
    run = stored(tmp_path / "changed", produce("--task", str(write_items(tmp_path / "all.json", rows)), *COMPRESSED, store="changed"))
    assert not len(asked)
    assert len(run.env.post_conditions[MODEL_HASH]) == 64
    same(run, stored(tmp_path / "alone", produce("--task", str(tmp_path / "all.json"), *COMPRESSED, store="alone")))


def test_answers_of_other_weights_are_asked_again(produce: Produce, asked: Asked, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A model that is compressed again and has other weights than a stored run states is asked all, though its answers agree."""
    words = ("--task", "urn", *COMPRESSED, "--limit")
    rewritten(tmp_path, produce(*words, "10").stdout.strip(), of_other_weights)
    produce(*words, "20", store="changed")
    assert len(asked) == 20
    assert "10 stored answers are not used: the model, compressed again, has other weights" in caplog.messages


def test_nan_answers_are_asked_again(produce: Produce, asked: Asked, tmp_path: Path) -> None:
    """An answer without a finite logit, log-sum-exp or top token is no answer; those beside it are found."""

    def broken(run: Run) -> Run:
        logits, logsumexp, top = run.logits.copy(), run.logsumexp.copy(), run.top_token.copy()
        logits[2, 1], logsumexp[4], top[6] = np.nan, np.nan, -1
        return Run(run.key, logits, logsumexp, top, run.env)

    name = produce("--task", "urn", "--limit", "10").stdout.strip()
    rewritten(tmp_path, name, broken)
    run = stored(tmp_path / "changed", produce("--task", "urn", "--limit", "20", store="changed"))
    assert len(asked) == 13
    same(run, stored(tmp_path / "alone", produce("--task", "urn", "--limit", "20", store="alone")))


@pytest.mark.parametrize("change", ["imported", "too much mass"])
def test_doubtful_runs_give_nothing(change: str, produce: Produce, asked: Asked, tmp_path: Path) -> None:
    """An imported run, whose key anybody wrote, and one whose options hold more than all probability are not used."""

    def doubtful(run: Run) -> Run:
        env = run.env.model_copy(update={"origin": "table: x.csv"} if change == "imported" else {})
        return Run(run.key, run.logits, run.logsumexp - np.float32(50 if change != "imported" else 0), run.top_token, env)

    name = produce("--task", "urn", "--limit", "10").stdout.strip()
    rewritten(tmp_path, name, doubtful)
    produce("--task", "urn", "--limit", "20", store="changed")
    assert len(asked) == 20


def test_items_without_text_are_found_by_their_content(produce: Produce, asked: Asked, tmp_path: Path) -> None:
    """A stored item set without texts proves its prompts where all its items are asked for, and gives nothing elsewhere."""
    name = produce("--task", "urn", "--limit", "10").stdout.strip()
    rewritten(tmp_path, name, lambda run: run, texts=False)
    produce("--task", "urn", "--limit", "5", store="changed")
    assert len(asked) == 5
    produce("--task", "urn", "--limit", "20", store="changed")
    assert len(asked) == 10


def test_a_damaged_run_is_named_and_asked_again(
    produce: Produce, asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A run whose arrays are not what was written gives nothing; the reader's message says which."""
    from store.format import runs

    name = produce("--task", "urn", "--limit", "10").stdout.strip()
    real = runs.read_arrays

    def damaged(*arguments: Any) -> Any:
        arrays = real(*arguments)
        return {**arrays, "logits": arrays["logits"] + 1}

    monkeypatch.setattr(runs, "read_arrays", damaged)
    produce("--task", "urn", "--limit", "20")
    assert len(asked) == 20
    assert any(name in message and "is not what was written" in message for message in caplog.messages)


def test_orders_and_cut_prompts_are_found_in_their_own(produce: Produce, asked: Asked, model: Path, tmp_path: Path) -> None:
    """Each order of options is found in the runs of that order, also where prompts lost their beginning."""
    short = shutil.copytree(model, tmp_path / "short")
    config = json.loads((short / "config.json").read_text())
    (short / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 40}))
    words = ("--task", "urn", "--options-order", "2", "--limit")
    for each in (model, short):
        produce(*words, "10", model_name=each)
        found = produce(*words, "20", model_name=each)
        assert len(asked) == 20
        alone = produce(*words, "20", model_name=each, store="alone")
        assert len(asked) == 40
        readers = [open_reader(str(tmp_path / folder)) for folder in ("store", "alone")]
        for one, other in zip(found.stdout.split(), alone.stdout.split(), strict=True):
            same(readers[0].run(one), readers[1].run(other))
            assert (each == short) == bool(readers[0].run(one).env.truncated_items)
