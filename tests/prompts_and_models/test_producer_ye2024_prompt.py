"""`--chat --prompt ye2024`: the chat prompt of the published benchmark, token for token."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from producer_standin import save_standin, urn_rows
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import producer.request.planned
from producer.cli.main import main
from producer.prompts.chat import Chat, render_chat
from producer.prompts.encode import encode, option_tokens, ye2024_option_tokens
from producer.reference.tokenizer import build_tokenizer
from schemas.errors import UsageError
from schemas.items import Item
from store import open_reader

pytestmark = pytest.mark.producer
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
ITEMS = [
    Item(id=str(i), answer="AB"[i % 2], context=f"urn {i}", question=f"red {i}", choices={"A": "blue", "B": "green"}) for i in range(3)
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    folder = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(folder)
    read: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(folder)
    read.chat_template = TEMPLATE
    return read


@pytest.mark.parametrize("label", ["Context", "Dialogue", "Document"])
def test_the_prompt_is_the_published_one(tokenizer: PreTrainedTokenizerFast, label: str) -> None:
    """One user message: demonstrations, each with one line break behind its answer, then the item up to `Answer:`; no reply."""
    asked = [f"{label}: urn {i}\nQuestion: red {i}\nChoices:\nA. blue\nB. green\nAnswer:" for i in range(3)]
    message = f"{asked[0]} A\n{asked[1]} B\n{asked[2]}"
    text = render_chat(tokenizer, Chat(ye2024=label), "", ITEMS[:2], ITEMS[2])
    assert text == f"{tokenizer.bos_token}[user]{message}\n[assistant]"


def test_special_tokens_are_added_once_more(tokenizer: PreTrainedTokenizerFast) -> None:
    """The script encodes the rendered template like any text, so that the begin of text stands there twice."""
    prompts = encode(tokenizer, "", ITEMS[:2], ITEMS[2:], 2048, Chat(ye2024="Context"))
    text = render_chat(tokenizer, Chat(ye2024="Context"), "", ITEMS[:2], ITEMS[2])
    assert prompts.whole(0) == tokenizer(text)["input_ids"]
    assert prompts.whole(0)[:2] == [tokenizer.bos_token_id] * 2


def test_a_long_prompt_keeps_what_the_script_keeps(tokenizer: PreTrainedTokenizerFast) -> None:
    """The tokenizer's own truncation on the left, which keeps the begin of text that it adds itself."""
    cutting = copy.deepcopy(tokenizer)
    cutting.truncation_side = "left"
    text = render_chat(tokenizer, Chat(ye2024="Context"), "", ITEMS[:2], ITEMS[2])
    prompts = encode(tokenizer, "", ITEMS[:2], ITEMS[2:], 40, Chat(ye2024="Context"))
    assert prompts.truncated == 1 and prompts.whole(0) == cutting(text, truncation=True, max_length=40)["input_ids"]


def test_option_tokens_of_yi_follow_a_line_break(tokenizer: PreTrainedTokenizerFast) -> None:
    """For models named Yi the script takes the last token of a line break and the letter."""
    assert ye2024_option_tokens(tokenizer, 6, yi=False) == option_tokens(tokenizer, 6)
    assert ye2024_option_tokens(Characters(), 6, yi=True).ids == tuple(map(ord, "ABCDEF"))
    with pytest.raises(UsageError, match="does not know option A"):
        ye2024_option_tokens(tokenizer, 6, yi=True)


class Characters:
    """A tokenizer whose tokens are characters."""

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, Any]:
        assert not add_special_tokens
        return {"input_ids": [ord(letter) for letter in text]}

    @staticmethod
    def convert_ids_to_tokens(ids: list[int]) -> list[str]:
        return [chr(token) for token in ids]


def ask(tmp_path: Path, tokenizer: PreTrainedTokenizerFast, *options: str, model: str = "model", task: str = "mmlu") -> Any:
    """Ask a published task, whose file has ten items of the urn, of an untrained model."""
    if not (folder := tmp_path / model).exists():
        save_standin(folder)
        tokenizer.save_pretrained(folder)
    rows = [{**row, "id": str(number)} for number, row in enumerate(urn_rows(14))]
    (tmp_path / "data").mkdir(exist_ok=True)
    (tmp_path / "data" / "mmlu_10k.json").write_text(json.dumps(rows))
    where = ["--data", str(tmp_path / "data"), "--store", str(tmp_path / "store"), "--device", "cpu"]
    return CliRunner().invoke(main, ["--model", str(folder), "--task", task, *where, *options])


def test_a_small_option_mass_is_a_note(tmp_path: Path, tokenizer: PreTrainedTokenizerFast, caplog: Any) -> None:
    """The published prompt is asked as it is: the run is made, and warns and notes what our own chat prompt would be refused for."""
    refused = ask(tmp_path, tokenizer, "--chat")
    assert refused.exit_code == 2 and "at least 0.5 is needed" in refused.output
    done = ask(tmp_path, tokenizer, "--chat", "--prompt", "ye2024")
    assert done.exit_code == 0, done.output
    run = open_reader(str(tmp_path / "store")).run(done.stdout.strip())
    said = [note for note in run.env.notes if "the published prompt does not begin the reply" in note]
    assert run.key.prompt == "ye2024-chat" and len(said) == 1 and "'Answer:'" not in said[0] and "get 0.0" in said[0]
    assert said[0] in caplog.text and run.env.truncated_items == 0


def test_prompts_are_cut_where_the_script_cuts_them(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2,048 tokens, here fewer, whatever more the model takes."""
    assert producer.request.planned.YE2024_TOKENS == 2048
    monkeypatch.setattr(producer.request.planned, "YE2024_TOKENS", 64)
    done = ask(tmp_path, tokenizer, "--chat", "--prompt", "ye2024")
    assert done.exit_code == 0, done.output
    run = open_reader(str(tmp_path / "store")).run(done.stdout.strip())
    assert run.env.truncated_items == len(run.logits) == 9


def test_other_ways_of_asking_it_are_refused(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Without the template, with a system message or turns, another task, or a model that the benchmark asks without a template."""
    for options in ([], ["--chat", "--chat-turns"], ["--chat", "--chat-system", "Be brief."]):
        done = ask(tmp_path, tokenizer, "--prompt", "ye2024", *options)
        assert done.exit_code == 2 and "it needs --chat, without --chat-turns and --chat-system" in done.output
    chat = ("--chat", "--prompt", "ye2024")
    assert "task 'urn' is another" in ask(tmp_path, tokenizer, *chat, task="urn").output
    assert "without its chat template" in ask(tmp_path, tokenizer, *chat, model="falcon-7b-instruct").output
