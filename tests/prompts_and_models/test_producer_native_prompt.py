"""`--prompt native`: the prompts and option texts of lm-evaluation-harness itself, on local tasks and data."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from producer_standin import save_standin

from producer.cli.main import main
from producer.prompts.encode import encode_texts, label_tokens
from producer.tasks.lm_eval_task import load_lm_eval
from producer.tasks.source import draw, load_task
from schemas.errors import UsageError
from store import open_reader

pytestmark = [pytest.mark.producer]
pytest.importorskip("lm_eval")
N = 12
LETTERS = (
    'doc_to_text: "{{question}}\\nA. {{options[0]}}\\nB. {{options[1]}}\\nC. {{options[2]}}\\nAnswer:"\n'
    'doc_to_choice: ["A", "B", "C"]\ndoc_to_target: right\n'
)
SHOTS = 'description: "Say the letter.\\n\\n"\nnum_fewshot: 2\nfewshot_split: dev\n'
YES_NO = 'doc_to_text: "{{question}} Is it so?"\ndoc_to_choice: ["no", "yes"]\ndoc_to_target: so\n'
TEXTS = 'doc_to_text: "{{question}}\\nAnswer:"\ndoc_to_choice: "{{options}}"\ndoc_to_target: right\n'
LONG = 'doc_to_text: "{{question}}\\nAnswer:"\ndoc_to_choice: ["A, B", "A, C"]\ndoc_to_target: so\n'
ACC = "metric_list: [{metric: acc}]\n"


def documents(first: int) -> list[dict[str, Any]]:
    return [
        {"question": f"Count {i}.", "options": [f"{i + k} red" for k in range(3)], "right": i % 3, "so": i % 2}
        for i in range(first, first + N)
    ]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with local data, and a data sets cache of its own."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    for split, first in (("test", 0), ("dev", 100)):
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, documents(first))))
    return tmp_path


def write_task(folder: Path, name: str, body: str) -> str:
    data = f"dataset_kwargs: {{data_files: {{test: {folder}/test.jsonl, dev: {folder}/dev.jsonl}}}}"
    head = f"task: {name}\ndataset_path: json\n{data}\ntest_split: test\noutput_type: multiple_choice\n"
    (folder / f"{name}.yaml").write_text(f"{head}{body}{ACC}")
    return str(folder / f"{name}.yaml")


def harness_requests(folder: Path, name: str) -> list[tuple[str, str]]:
    """What the harness itself would send for a task, with its default seed: (context, continuation) pairs."""
    from lm_eval.tasks import TaskManager

    task = TaskManager(include_path=str(folder), include_defaults=False).load([name])["tasks"][name]
    task.set_fewshot_seed(seed=1234)
    task.build_all_requests()
    return [request.arguments for request in task.instances]


@pytest.mark.parametrize(("name", "body"), [("letters", LETTERS), ("shots", LETTERS + SHOTS), ("blank", LETTERS.replace(':"\n', ': "\n'))])
def test_the_texts_are_those_that_the_harness_sends(folder: Path, name: str, body: str) -> None:
    """Context and continuation of every option equal the harness's own requests; only a blank between them may have moved."""
    native = load_lm_eval(write_task(folder, f"local_{name}", body), native=True).native
    assert native is not None and native.answer_shown == 0
    expected = [f"{context}{continuation}" for context, continuation in harness_requests(folder, f"local_{name}")]
    assert [f"{context}{label}" for context in native.contexts.values() for label in native.labels] == expected
    assert all(context.endswith("Answer:") for context in native.contexts.values())


def test_description_and_demonstrations_are_asked(folder: Path) -> None:
    """The description comes first, then two answered documents of the other split, drawn alike for all and for some of the items."""
    path = write_task(folder, "local_shots", LETTERS + SHOTS)
    whole = load_task(f"lm-eval:{path}", native=True)
    assert whole.native is not None
    text = whole.native.contexts["0"]
    assert text.startswith("Say the letter.\n\nCount 1") and text.count("Answer: ") == 2 and text.endswith("C. 2 red\nAnswer:")
    some = draw(load_task(f"lm-eval:{path}", native=True), 4, 0)
    assert some.native == whole.native


def test_an_item_among_its_own_demonstrations_is_counted(folder: Path) -> None:
    """Where questions and demonstrations come from one validation split, the harness may show an item with its answer."""
    body = (LETTERS + SHOTS).replace("fewshot_split: dev", "fewshot_split: again").replace("num_fewshot: 2", f"num_fewshot: {N}")
    path = Path(write_task(folder, "local_same", body))
    path.write_text(path.read_text().replace("dev:", "again:").replace("dev.jsonl", "test.jsonl"))
    native = load_lm_eval(str(path), native=True).native
    assert native is not None and native.answer_shown == N


def test_options_that_are_texts_are_refused_with_the_reason(folder: Path) -> None:
    """They differ from document to document; without --prompt native the same task is asked as before."""
    path = write_task(folder, "local_texts", TEXTS)
    with pytest.raises(UsageError, match=r"'local_texts'.*scores the texts of its options.*elsewhere.*ask it with --prompt base"):
        load_lm_eval(path, native=True)
    assert load_lm_eval(path).native is None


def test_labels_of_several_tokens_are_refused(folder: Path, ask: Any) -> None:
    """The same in every document, but two tokens long: only the first would be read."""
    done = ask(write_task(folder, "local_long", LONG), "--prompt", "native")
    assert done.exit_code == 2 and "cannot ask task 'lm-eval:local_long'" in done.output and "cannot be scored" in done.output


def test_other_tasks_and_ways_of_asking_are_refused(folder: Path, ask: Any) -> None:
    """Only the harness has prompts of its own, and nothing else may be wrapped around them."""
    assert "task 'urn' has none of its own" in CliRunner().invoke(main, ["--model", "ref-s", "--task", "urn", "--prompt", "native"]).output
    task = write_task(folder, "local_letters", LETTERS)
    for option in (["--chat"], ["--options-order", "2"]):
        done = ask(task, "--prompt", "native", *option)
        assert done.exit_code == 2 and f"{option[0]} cannot change --prompt native" in done.output


@pytest.fixture
def ask(folder: Path) -> Any:
    model = save_standin(folder / "model")

    def run(task: str, *options: str) -> Any:
        where = ["--store", str(folder / "store"), "--device", "cpu"]
        return CliRunner().invoke(main, ["--model", str(model), "--task", f"lm-eval:{task}", *where, *options])

    return run


def test_a_run_reads_the_option_that_follows_the_harness_text(folder: Path, ask: Any) -> None:
    """Stored logits are those of a plain forward pass over the harness's context, and the run is apart from that of our prompt."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    task = write_task(folder, "local_shots", LETTERS + SHOTS)
    done = ask(task, "--prompt", "base", "--prompt", "native")
    assert done.exit_code == 0, done.output
    reader = open_reader(str(folder / "store"))
    base, native = (reader.run(name) for name in done.stdout.split())
    assert (base.key.prompt, native.key.prompt) == ("base", "native") and base.key.items_hash == native.key.items_hash
    assert len({base.key.prompt_hash, native.key.prompt_hash}) == len({base.key.tokens_hash, native.key.tokens_hash}) == 2
    model, tokenizer = (kind.from_pretrained(folder / "model") for kind in (AutoModelForCausalLM, AutoTokenizer))
    contexts = list(dict.fromkeys(context for context, _ in harness_requests(folder, "local_shots")))
    with torch.no_grad():
        last = [model(torch.tensor([tokenizer(text)["input_ids"]])).logits[0, -1] for text in contexts]
    expected = [[float(one[token]) for token in native.key.option_token_ids] for one in last]
    np.testing.assert_allclose(native.logits, expected, atol=1e-4)


def test_a_chat_model_asked_without_its_template_is_told_so(folder: Path, ask: Any, caplog: pytest.LogCaptureFixture) -> None:
    """On stderr and in the run, with a way out that exists: --chat itself is refused for the task's own prompts."""
    (folder / "model" / "chat_template.jinja").write_text("{{ messages[0].content }}")
    done = ask(write_task(folder, "local_letters", LETTERS), "--prompt", "native")
    assert done.exit_code == 0, done.output
    (note,) = [note for note in open_reader(str(folder / "store")).run(done.stdout.strip()).env.notes if "chat template" in note]
    assert "the prompts are without it; the task's own prompts have none; --prompt base --chat applies it" in note
    assert note in caplog.messages


def test_the_wording_is_in_the_hash(folder: Path) -> None:
    """Another description, number of demonstrations or delimiter is another prompt."""
    bodies = [
        LETTERS,
        LETTERS + SHOTS,
        LETTERS + SHOTS.replace("2", "1"),
        LETTERS + SHOTS.replace("Say", "Give"),
        LETTERS + 'target_delimiter: "\\n"\n',
    ]
    found = [load_lm_eval(write_task(folder, f"local_{k}", body), native=True).native for k, body in enumerate(bodies)]
    assert len({each.digest for each in found if each}) == len(bodies)


class Merging:
    """A tokenizer of characters that joins a colon with a letter behind it."""

    bos_token_id = unk_token_id = None

    def __call__(self, texts: Any, add_special_tokens: bool = True) -> dict[str, Any]:
        if isinstance(texts, str):
            return {"input_ids": self._read(texts)}
        return {"input_ids": [self._read(text) for text in texts]}

    @staticmethod
    def _read(text: str) -> list[int]:
        joined = text.replace(":A", "\u0100").replace(":B", "\u0101")
        return [ord(letter) for letter in joined]

    @staticmethod
    def convert_ids_to_tokens(ids: list[int]) -> list[str]:
        return [chr(token) for token in ids]


def test_a_label_that_merges_with_the_prompt_is_refused() -> None:
    """After "Answer:" the token would be another one than the context's own tokens lead to; a blank between them is a token too many."""
    assert label_tokens(Merging(), ["Answer>", "Well>"], ["A", "B"], [2, 2]).ids == (65, 66)
    assert label_tokens(Merging(), ["Answer>", "Well>"], ["A", "B", "C"], [2, 3]).texts == ("A", "B", "C")
    for texts, labels in ((["Answer>", "Answer:"], ["A", "B"]), (["Answer>"], [" A", " B"])):
        with pytest.raises(UsageError, match="not one and the same token after every prompt"):
            label_tokens(Merging(), texts, labels, [2] * len(texts))
    with pytest.raises(UsageError, match="share the token"):
        label_tokens(Merging(), ["Answer>"], ["A", "A"], [2])
    assert encode_texts(Merging(), ["Answer>"], [2], 4).suffixes[0] == [ord(letter) for letter in "wer>"]


def test_yes_and_no_are_labels_too(folder: Path) -> None:
    """Any label will do that is the same in every document, as in BoolQ."""
    native = load_lm_eval(write_task(folder, "local_bool", YES_NO), native=True).native
    assert native is not None and native.labels == (" no", " yes") and native.contexts["3"] == "Count 3. Is it so?"
