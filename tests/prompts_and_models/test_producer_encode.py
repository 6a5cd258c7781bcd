"""Encoding: what is shared is found in the tokens, what is too long is cut on the left and counted."""

import copy
import io
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from producer_standin import save_standin, urn_rows
from sentencepiece import SentencePieceTrainer
from tokenizers import normalizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from producer.models.find import find_model
from producer.models.load import load_tokenizer
from producer.prompts.encode import Prompts, encode, option_tokens, prompt_hash
from producer.prompts.templates import render_item, render_prefix
from schemas.errors import UsageError
from schemas.items import Item, parse_items

pytestmark = pytest.mark.producer
ITEMS = parse_items(urn_rows(8), "test")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(save_standin(tmp_path_factory.mktemp("model")))


class Pairs:
    """A tokenizer that merges two characters into one token, across any border in the text."""

    bos_token_id = None

    def __call__(self, texts: list[str], add_special_tokens: bool = True) -> dict[str, list[list[int]]]:
        return {"input_ids": [[hash(text[i : i + 2]) % 10**6 for i in range(0, len(text), 2)] for text in texts]}


@given(questions=st.lists(st.text("abc ", min_size=1, max_size=9), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_sharing_never_changes_a_token_properties(questions: list[str]) -> None:
    """Prefix and suffix together are the encoding of the whole prompt, even if tokens straddle their border."""
    items = [ITEMS[0].model_copy(update={"question": q}) for q in questions]
    prompts = encode(Pairs(), "Say.", ITEMS[6:7], items, 10_000)
    whole = Pairs()([render_prefix("Say.", ITEMS[6:7]) + render_item(item) for item in items])["input_ids"]
    assert [prompts.whole(i) for i in range(len(items))] == whole
    assert all(len(suffix) > 0 for suffix in prompts.suffixes)


def test_demonstrations_are_shared_and_counted_once(tokenizer: PreTrainedTokenizerFast) -> None:
    """The rendered demonstrations are in the prefix, and tokens count them once for all items."""
    prompts = encode(tokenizer, "", ITEMS[:3], ITEMS[3:], 512)
    assert len(prompts.prefix) >= len(tokenizer(render_prefix("", ITEMS[:3]))["input_ids"])
    assert prompts.tokens == len(prompts.prefix) + sum(map(len, prompts.suffixes))
    assert prompts.truncated == 0


def test_prompts_know_how_many_options_an_item_has(tokenizer: PreTrainedTokenizerFast) -> None:
    """Items of one task may have different numbers of options."""
    fewer = ITEMS[3].model_copy(update={"choices": {"A": "ash", "B": "elm"}})
    assert encode(tokenizer, "", [], [*ITEMS[:2], fewer], 512).n_options == [6, 6, 2]


def test_a_few_shared_tokens_stay_with_the_items(tokenizer: PreTrainedTokenizerFast) -> None:
    """Without demonstrations items share a word or two, which is not worth a prefix; every prompt is still what it was."""
    prompts = encode(tokenizer, "", [], ITEMS[:4], 10_000)
    assert prompts.prefix == ()
    assert prompts.whole(0) == tokenizer(render_prefix("", []) + render_item(ITEMS[0]))["input_ids"]


def test_a_single_item_keeps_a_token_of_its_own(tokenizer: PreTrainedTokenizerFast) -> None:
    """With one item everything is shared but the last token, which is the one that is read."""
    assert len(encode(tokenizer, "", [], ITEMS[:1], 512).suffixes[0]) == 1


def test_long_prompts_lose_their_left_and_keep_the_first_token(tokenizer: PreTrainedTokenizerFast) -> None:
    """A cut prompt is as long as the context, begins with the begin-of-text token and ends as it did."""
    whole = encode(tokenizer, "", ITEMS[:3], ITEMS[3:], 512)
    longest = max(len(whole.whole(i)) for i in range(5))
    prompts = encode(tokenizer, "", ITEMS[:3], ITEMS[3:], longest - 1)
    assert 0 < prompts.truncated < 5
    for i in range(5):
        own = prompts.whole(i)
        assert len(own) <= longest - 1
        assert own[0] == tokenizer.bos_token_id
        assert own[1:] == whole.whole(i)[1:][-(len(own) - 1) :]


def test_the_digest_of_prompts_is_of_their_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    """It is the same however prompts are divided, and another one where a token, an item or the truncation differs."""
    prompts = encode(tokenizer, "", ITEMS[:3], ITEMS[3:], 512)
    whole = Prompts((), [prompts.whole(i) for i in range(5)], [False] * 5)
    first_cut = Prompts(prompts.prefix, [prompts.whole(0), *prompts.suffixes[1:]], [True] + [False] * 4)
    assert prompts.prefix and prompts.digest == whole.digest == first_cut.digest
    longest = max(map(len, whole.suffixes))
    others = [encode(tokenizer, "", ITEMS[:3], ITEMS[3:7], 512), encode(tokenizer, "", ITEMS[:2], ITEMS[3:], 512)]
    others += [
        encode(tokenizer, "", ITEMS[:3], ITEMS[3:], longest - 1),
        replace(whole, suffixes=[[1, *whole.suffixes[0][1:]], *whole.suffixes[1:]]),
    ]
    assert len({prompts.digest, *(other.digest for other in others)}) == 5


@pytest.mark.parametrize("change", ["lower", "bos"])
def test_another_tokenizer_is_another_digest(tokenizer: PreTrainedTokenizerFast, change: str) -> None:
    """Whatever part of a tokenizer was corrected, prompts whose tokens changed have another digest."""
    prompts = [encode(tokenizer, "", ITEMS[:3], ITEMS[3:], 512)]
    other = copy.deepcopy(tokenizer)
    if change == "lower":
        other.backend_tokenizer.normalizer = normalizers.Lowercase()
    else:
        other.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A")
    prompts.append(encode(other, "", ITEMS[:3], ITEMS[3:], 512))
    assert prompts[0].whole(0) != prompts[1].whole(0) and prompts[0].digest != prompts[1].digest


def test_the_prompt_hash_follows_wording_and_demonstrations() -> None:
    """Another instruction or another demonstration is another prompt."""
    hashes = {prompt_hash(None, *each) for each in (("", []), ("Say.", []), ("", ITEMS[:1]), ("", ITEMS[1:2]))}
    assert len(hashes) == 4


def test_option_tokens_are_those_after_the_cue(tokenizer: PreTrainedTokenizerFast) -> None:
    """The token of an option is the one that follows `Answer:`, blank included."""
    assert option_tokens(tokenizer, 6).texts == (" A", " B", " C", " D", " E", " F")


def test_an_unknown_option_letter_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    """The reference tokenizer has no G; a task of seven options cannot be asked."""
    with pytest.raises(UsageError, match=r"option G|G is not one token"):
        option_tokens(tokenizer, 7)


class Letters:
    """A tokenizer given by a table, in the shape of the real ones."""

    unk_token_id = 0

    def __init__(self, after_cue: dict[str, list[int]], end: tuple[int, ...] = ()) -> None:
        self.after_cue, self.end = after_cue, end

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        letter = text.removeprefix("Answer:").strip()
        ids = [7, 8, *(self.after_cue[letter] if letter else [])]
        return {"input_ids": [*ids, *(self.end if add_special_tokens else ())]}

    def convert_ids_to_tokens(self, ids: list[int] | int) -> list[str] | str:
        return f"<{ids}>" if isinstance(ids, int) else [f"<{i}>" for i in ids]


@pytest.mark.parametrize(
    ("tokenizer_", "message"),
    [
        (Letters({"A": [30, 1], "B": [30, 2]}), "A is not one token of its own"),
        (Letters({"A": [1], "B": [1]}), "options A and B share the token '<1>'"),
        (Letters({"A": [1], "B": [0]}), "does not know option B"),
    ],
)
def test_tokenizers_that_cannot_name_an_option_are_refused(tokenizer_: Letters, message: str) -> None:
    """A letter split off, two letters in one token, or an unknown letter: refused with the reason."""
    with pytest.raises(UsageError, match=message):
        option_tokens(tokenizer_, 2)


def test_an_end_of_text_is_taken_off(tokenizer: PreTrainedTokenizerFast) -> None:
    """A tokenizer that ends every text with a special token gives the prompts of one that does not, begin-of-text included."""
    ending = copy.deepcopy(tokenizer)
    bos, eos = (tokenizer.bos_token, tokenizer.bos_token_id), ("</s>", 5)
    single = f"{bos[0]} $A {eos[0]} {eos[0]}"
    ending.backend_tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=[bos, eos])
    assert ending("Answer:")["input_ids"][-2:] == [5, 5]
    expected, found = (encode(each, "", ITEMS[:3], ITEMS[3:], 512) for each in (tokenizer, ending))
    assert [found.whole(i) for i in range(3)] == [expected.whole(i) for i in range(3)]
    assert option_tokens(ending, 6) == option_tokens(tokenizer, 6)


def test_a_tokenizer_that_reads_nothing_is_named() -> None:
    """Files of two tokenizers side by side may load and encode every text as nothing; option tokens are refused with that reason."""

    def nothing(text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": [1] if add_special_tokens else []}

    with pytest.raises(UsageError, match=r"encodes 'Answer:' as no token at all, .*config of qwen2"):
        option_tokens(nothing, 2)


def test_options_that_are_one_token_each_are_taken() -> None:
    """The same table with distinct tokens is accepted."""
    assert option_tokens(Letters({"A": [1], "B": [2]}), 2).ids == (1, 2)


def test_the_item_template_ends_in_the_cue() -> None:
    """Every prompt ends in `Answer:`, the text the option token follows."""
    assert render_item(Item(id="1", answer="A", question="q", choices={"A": "x", "B": "y"})).endswith("\nAnswer:")


def test_a_folder_is_enough_for_a_tokenizer(tmp_path: Path) -> None:
    """The stand-in's folder loads through the same call as any model's."""
    from producer.models.find import find_model
    from producer.models.load import load_tokenizer

    assert len(load_tokenizer(find_model(str(save_standin(tmp_path))))) > 200


def test_a_tokenizer_model_alone_is_a_tokenizer(tmp_path: Path) -> None:
    """A folder of the Llama 2 kind, with SentencePiece's tokenizer.model and no tokenizer.json, is read; options are told apart."""
    folder = save_standin(tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    text = [f"Answer: {letter} {letter} {letter} Which urn gave red blue green?" for letter in "ABCDEF"] * 20
    trained = io.BytesIO()
    SentencePieceTrainer.train(sentence_iterator=iter(text), model_writer=trained, vocab_size=64, model_type="bpe", minloglevel=2)
    (folder / "tokenizer.model").write_bytes(trained.getvalue())
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "unk_token": "<unk>", "add_bos_token": true}'
    )
    read = load_tokenizer(find_model(str(folder)))
    assert option_tokens(read, 6).texts == tuple(f"\u2581{letter}" for letter in "ABCDEF")
    assert encode(read, "", [], ITEMS[:1], 512).whole(0)[0] == read.bos_token_id
