"""Chat prompts: the template's own text around the item, the same option tokens, and a stop where a model does not answer with letters."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from producer_standin import save_standin, urn_rows, write_items
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import producer.run.ready_checks
from producer.cli.main import main
from producer.prompts.chat import Chat, has_template, render_chat
from producer.prompts.encode import check_chat_options, encode, option_tokens, other_form, prompt_hash
from producer.reference.tokenizer import build_tokenizer
from producer.tasks.urn import urn
from schemas.errors import UsageError
from store import open_reader

pytestmark = pytest.mark.producer
ITEMS = urn()[:6]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% if enable_thinking is false %}(){% endif %}{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    folder = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(folder)
    read: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(folder)
    read.chat_template = TEMPLATE
    return read


def test_the_item_stands_in_the_template(tokenizer: PreTrainedTokenizerFast) -> None:
    """System message, instruction, a demonstration and the item, written out by hand; thinking is off and the reply begun."""
    demonstration, item = ITEMS[0], ITEMS[1]
    text = render_chat(tokenizer, Chat("Be brief."), "Say the letter.", [demonstration], item)
    options = ["\n".join(f"{letter}. {option}" for letter, option in each.choices.items()) for each in (demonstration, item)]
    asked = [f"Question: {each.question}\nChoices:\n{shown}" for each, shown in zip((demonstration, item), options, strict=True)]
    one = f"Say the letter.\n\n{asked[0]}\nAnswer: {demonstration.answer}\n\n{asked[1]}"
    start = f"{tokenizer.bos_token}[system]Be brief.\n"
    assert text == f"{start}[user]{one}\n[assistant]()Answer:"
    turns = render_chat(tokenizer, Chat("Be brief.", turns=True), "Say the letter.", [demonstration], item)
    reply = f"[assistant]Answer: {demonstration.answer}"
    assert turns == f"{start}[user]Say the letter.\n\n{asked[0]}\n{reply}\n[user]{asked[1]}\n[assistant]()Answer:"


def test_special_tokens_are_the_templates_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    """The template writes the begin-of-text token, and the tokenizer does not add a second one."""
    prompts = encode(tokenizer, "", ITEMS[:2], ITEMS[2:], 2048, Chat())
    for item in range(4):
        ids = prompts.whole(item)
        assert ids.count(tokenizer.bos_token_id) == 1 and ids[0] == tokenizer.bos_token_id
    assert prompts.prefix and tokenizer.decode(prompts.whole(0)).endswith("Answer:")


def test_every_part_of_a_chat_is_in_the_hash(tokenizer: PreTrainedTokenizerFast) -> None:
    """Template, system message, layout and wording: each changes the hash, and the hash of a prompt without a template stays its own."""
    other = copy.deepcopy(tokenizer)
    other.chat_template = TEMPLATE.replace("[assistant]", "[model]")
    chats = [Chat(), Chat(turns=True), Chat("Be brief.")]
    hashes = [prompt_hash(tokenizer, "", ITEMS[:1], chat) for chat in (None, *chats)]
    hashes += [prompt_hash(other, "", ITEMS[:1], Chat()), prompt_hash(tokenizer, "Say.", ITEMS[:1], Chat())]
    assert len(set(hashes)) == len(hashes) == 6
    assert prompt_hash(other, "", ITEMS[:1]) == hashes[0]


def test_a_template_with_a_date_gives_the_same_prompt_every_day(tokenizer: PreTrainedTokenizerFast) -> None:
    """Llama's and gpt-oss' templates write today's date; a run made tomorrow would otherwise have another key."""
    dated = copy.deepcopy(tokenizer)
    dated.chat_template = "{{ strftime_now('%Y-%m-%d') }} {{ date_string }} {{ messages[0].content }}"
    assert render_chat(dated, Chat(), "", [], ITEMS[0]).startswith("2025-01-01 01 Jan 2025 Question")


def test_a_refused_system_message_is_one_sentence(tokenizer: PreTrainedTokenizerFast) -> None:
    """Gemma's template has no system message and raises an error of its own."""
    strict = copy.deepcopy(tokenizer)
    strict.chat_template = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    with pytest.raises(UsageError, match="refuses messages of system and user: System role not supported"):
        render_chat(strict, Chat("Be brief."), "", [], ITEMS[0])


def test_option_tokens_are_checked_behind_the_template(tokenizer: PreTrainedTokenizerFast) -> None:
    """The letters after a real chat prompt are one token each, the ones that are scored."""
    options, prompt = option_tokens(tokenizer, 6), render_chat(tokenizer, Chat(), "", [], ITEMS[0])
    check_chat_options(tokenizer, prompt, options)
    with pytest.raises(UsageError, match="after the chat template the tokenizer encodes 'Answer: A'"):
        check_chat_options(tokenizer, prompt, options._replace(ids=options.ids[::-1]))
    bare = other_form(tokenizer, options)
    assert bare is None or not set(bare.ids) & set(options.ids)


@pytest.fixture
def folder(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    made = save_standin(tmp_path / "model")
    tokenizer.save_pretrained(made)
    return made


def ask(folder: Path, tmp_path: Path, *options: str) -> Any:
    items = write_items(tmp_path / "items.json", urn_rows(6))
    where = ["--store", str(tmp_path / "store"), "--device", "cpu"]
    return CliRunner().invoke(main, ["--model", str(folder), "--task", str(items), *where, *options])


def test_a_chat_run_is_another_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """Its prompt is named base-chat; the run without the template says so on stderr and in its notes."""
    monkeypatch.setattr(producer.run.ready_checks, "LEAST_MASS", 0.0)
    plain, chat = ask(folder, tmp_path), ask(folder, tmp_path, "--chat")
    assert (plain.exit_code, chat.exit_code) == (0, 0), plain.output + chat.output
    reader = open_reader(str(tmp_path / "store"))
    first, second = (reader.run(done.stdout.strip()) for done in (plain, chat))
    assert (first.key.prompt, second.key.prompt) == ("base", "base-chat")
    assert first.key.option_token_ids == second.key.option_token_ids and not np.array_equal(first.logits, second.logits)
    assert [("--chat applies it" in note) for note in first.env.notes].count(True) == 1
    assert not any("--chat" in note for note in second.env.notes)
    assert "has a chat template" in caplog.text


def test_letters_without_probability_stop_the_run(folder: Path, tmp_path: Path) -> None:
    """An untrained model spreads its probability: the sentence has the mass, and a cure, and nothing is stored."""
    done = ask(folder, tmp_path, "--chat")
    assert done.exit_code == 2
    assert "get 0.0" in done.output and "of the probability on the first 6 items" in done.output and "leave --chat out" in done.output


def test_options_of_a_chat_need_a_chat(folder: Path, tmp_path: Path) -> None:
    """Without --chat they would do nothing; without a template there is no chat."""
    for option in (["--chat-turns"], ["--chat-system", "Be brief."]):
        done = ask(folder, tmp_path, *option)
        assert done.exit_code == 2 and "has no effect without --chat" in done.output
    bare = save_standin(tmp_path / "bare")
    assert not has_template(AutoTokenizer.from_pretrained(bare))
    assert "has no chat template; leave --chat out" in ask(bare, tmp_path, "--chat").output
