"""Encode prompts as tokens, and find the single token after `Answer:` that stands for A, B and so on.

In: a tokenizer, demonstrations, items.  Out: `Prompts`, a shared token prefix and one suffix per item; `OptionTokens`.
Every prompt is encoded as a whole; the prefix is the longest one that all token sequences have in common, if it is worth sharing. So
sharing never changes a token, however the tokenizer merges characters across the border. In some vocabularies "A" and " A" are different
tokens; the one that follows `Answer:` is found by encoding `Answer: A` and taking the last token.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from string import ascii_uppercase
from typing import Any, NamedTuple

import numpy as np

from producer.prompts.chat import Chat, render_chat
from producer.prompts.templates import CUE, render_item, render_prefix
from schemas.digest import json_digest
from schemas.errors import UsageError
from schemas.items import Item

LEAST_SHARED = 16  # tokens; for fewer, a separate attention over the prefix costs more than computing them with each item
_TEMPLATE = Item(id="0", answer="A", context="{context}", question="{question}", choices={"A": "{A}", "B": "{B}"})


@dataclass(frozen=True)
class Prompts:
    """Token ids of one run's prompts.

    prefix    : tokens that every item shares.
    suffixes  : each item's remaining tokens, at least one.
    cut       : (item,) True if the prompt was longer than the context and lost its beginning; such an item does not use `prefix`.
    n_options : (item,) number of options of each item; empty if all items have as many as there are letters.
    """

    prefix: tuple[int, ...]
    suffixes: Sequence[Sequence[int]]
    cut: Sequence[bool]
    n_options: Sequence[int] = ()

    @property
    def truncated(self) -> int:
        """Number of prompts that were truncated."""
        return sum(self.cut)

    @cached_property
    def tokens(self) -> int:
        """Number of tokens that the model processes; the shared prefix counts once."""
        return len(self.prefix) * (not all(self.cut)) + sum(map(len, self.suffixes))

    @cached_property
    def digest(self) -> str:
        """SHA-256 (64 hex digits) over the token ids of every prompt, however they are divided into prefix and suffixes.

        Everything that decides what a model is asked is in it: vocabulary, merges, special tokens, wording, items, truncation.
        """
        return digest_of_all(self.digests)

    @cached_property
    def digests(self) -> list[bytes]:
        """SHA-256 (32 bytes) over the token ids of each prompt."""
        prefix, digests = hashlib.sha256(_bytes_of(self.prefix)), []
        for suffix, is_cut in zip(self.suffixes, self.cut, strict=True):
            prompt = hashlib.sha256() if is_cut else prefix.copy()
            prompt.update(_bytes_of(suffix))
            digests.append(prompt.digest())
        return digests

    def only(self, items: Sequence[int]) -> "Prompts":
        """Return the prompts of some items, in the order given."""
        suffixes, cut = [self.suffixes[i] for i in items], [self.cut[i] for i in items]
        return Prompts(self.prefix, suffixes, cut, [self.n_options[i] for i in items] if self.n_options else ())

    def whole(self, item: int) -> list[int]:
        """Return one item's full token sequence."""
        return [*(() if self.cut[item] else self.prefix), *self.suffixes[item]]


class OptionTokens(NamedTuple):
    """Token ids and their texts in option order."""

    ids: tuple[int, ...]
    texts: tuple[str, ...]


def encode(  # noqa: PLR0913, PLR0917
    tokenizer: Any, instruction: str, demonstrations: Sequence[Item], items: Sequence[Item], context: int, chat: Chat | None = None
) -> Prompts:
    """Return the token ids of all prompts.

    context : most tokens the model takes; longer prompts keep their right end, and the begin-of-text token where there is one.
    chat    : how to lay out prompts in the tokenizer's chat template, None for prompts without one.
    """
    texts = [render_prompt(tokenizer, instruction, demonstrations, item, chat) for item in items]
    return encode_texts(tokenizer, texts, [len(item.choices) for item in items], context, special=chat is None or chat.adds_special)


def encode_texts(tokenizer: Any, texts: Sequence[str], n_options: Sequence[int], context: int, *, special: bool = True) -> Prompts:
    """Return the token ids of prompts given as texts, each with as many options as said.

    special : whether the tokenizer adds its special tokens; False where they stand in the texts.
    """
    encoded = _read(tokenizer, texts, special=special)
    cut = [len(ids) > context for ids in encoded]
    prefix = _shared([ids for ids, is_cut in zip(encoded, cut, strict=True) if not is_cut])
    suffixes = [
        _keep_right(ids, context, tokenizer.bos_token_id) if is_cut else ids[len(prefix) :]
        for ids, is_cut in zip(encoded, cut, strict=True)
    ]
    return Prompts(tuple(prefix), suffixes, cut, n_options)


def render_prompt(tokenizer: Any, instruction: str, demonstrations: Sequence[Item], item: Item, chat: Chat | None) -> str:
    """Return one prompt as text, ending in the cue."""
    if chat:
        return render_chat(tokenizer, chat, instruction, demonstrations, item)
    return render_prefix(instruction, demonstrations) + render_item(item)


def check_chat_options(tokenizer: Any, prompt: str, options: OptionTokens) -> None:
    """Raise UsageError where the option tokens are not those that follow a chat prompt.

    prompt : a whole chat prompt, ending in the cue.
    """
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    for letter, token in zip(ascii_uppercase, options.ids, strict=False):
        tokens = tokenizer(f"{prompt} {letter}", add_special_tokens=False)["input_ids"]
        if tokens != [*ids, token]:
            seen = tokenizer.convert_ids_to_tokens(tokens[len(ids) - 1 :])
            raise UsageError(f"after the chat template the tokenizer encodes '{CUE} {letter}' as {seen}, not as one more token")


def other_form(tokenizer: Any, options: OptionTokens) -> OptionTokens | None:
    """Return the tokens of the same letters written without a space before them, None where they are no single tokens or the same."""
    encoded = [tokenizer(letter, add_special_tokens=False)["input_ids"] for letter in ascii_uppercase[: len(options.ids)]]
    ids = tuple(int(each[-1]) for each in encoded)
    if any(len(each) != 1 for each in encoded) or set(ids) & set(options.ids):
        return None
    return OptionTokens(ids, tuple(map(str, tokenizer.convert_ids_to_tokens(list(ids)))))


def option_tokens(tokenizer: Any, n_options: int) -> OptionTokens:
    """Return the tokens of the first `n_options` letters.

    Raises UsageError where the letter is not exactly one token after the cue, is unknown, or two options share a token.
    """
    cue = tokenizer(CUE, add_special_tokens=False)["input_ids"]
    if not cue:
        raise UsageError(
            f"the tokenizer encodes '{CUE}' as no token at all, so it reads nothing of a prompt; its files belong to another tokenizer "
            "(such as a config of qwen2 beside the tokenizer.json of another model)"
        )
    ids = []
    for letter in ascii_uppercase[:n_options]:
        encoded = tokenizer(f"{CUE} {letter}", add_special_tokens=False)["input_ids"]
        if encoded[: len(cue)] != cue or len(encoded) != len(cue) + 1:
            seen = tokenizer.convert_ids_to_tokens(encoded)
            raise UsageError(f"the tokenizer encodes '{CUE} {letter}' as {seen}: {letter} is not one token of its own and cannot be scored")
        ids.append(int(encoded[-1]))
    texts = tuple(str(text) for text in tokenizer.convert_ids_to_tokens(ids))
    _check_distinct(ids, texts, getattr(tokenizer, "unk_token_id", None))
    return OptionTokens(tuple(ids), texts)


def label_tokens(tokenizer: Any, texts: Sequence[str], labels: Sequence[str], n_options: Sequence[int]) -> OptionTokens:
    """Return the tokens of labels that follow prompts of any wording.

    texts     : the prompts.
    labels    : what follows for each option, the white space before it included.
    n_options : number of options of each prompt, the first so many labels.
    Raises UsageError where a label is not exactly one token after every prompt, and the same one after all.
    """
    alone = _read(tokenizer, texts)
    ids = []
    for number, label in enumerate(labels):
        followed = [at for at, count in enumerate(n_options) if count > number]
        with_label = _read(tokenizer, [f"{texts[at]}{label}" for at in followed])
        for at, read in zip(followed, with_label, strict=True):
            if read[:-1] != alone[at] or read[-1] != with_label[0][-1]:
                shown = tokenizer.convert_ids_to_tokens(read[max(0, len(alone[at]) - 1) :])
                raise UsageError(
                    f"after a prompt that ends in {texts[at][-20:]!r} the tokenizer encodes option {label!r} as {shown}: it is not "
                    "one and the same token after every prompt and cannot be scored"
                )
        ids.append(with_label[0][-1])
    tokens = tuple(str(text) for text in tokenizer.convert_ids_to_tokens(ids))
    _check_distinct(ids, tokens, getattr(tokenizer, "unk_token_id", None))
    return OptionTokens(tuple(ids), tokens)


def ye2024_option_tokens(tokenizer: Any, n_options: int, *, yi: bool) -> OptionTokens:
    """Return the tokens whose logits the published benchmark reads: the last of `Answer: A`, and for Yi's models of a line break and `A`.

    Raises UsageError where a letter has no token of its own.
    """
    if not yi:
        return option_tokens(tokenizer, n_options)
    ids = [int(tokenizer(f"\n{letter}", add_special_tokens=False)["input_ids"][-1]) for letter in ascii_uppercase[:n_options]]
    texts = tuple(str(text) for text in tokenizer.convert_ids_to_tokens(ids))
    _check_distinct(ids, texts, getattr(tokenizer, "unk_token_id", None))
    return OptionTokens(tuple(ids), texts)


def n_after_text(tokenizer: Any) -> int:
    """Return how many special tokens, such as an end of text, a tokenizer puts after a text; the option must follow the cue itself."""
    alone, whole = tokenizer(CUE, add_special_tokens=False)["input_ids"], tokenizer(CUE)["input_ids"]
    ends = [end for end in range(len(alone), len(whole) + 1) if whole[end - len(alone) : end] == alone]
    if not ends:
        raise UsageError(f"the tokenizer encodes '{CUE}' in another way where it adds special tokens, so prompts cannot end in it")
    return len(whole) - ends[-1]


def prompt_hash(tokenizer: Any, instruction: str, demonstrations: Sequence[Item], chat: Chat | None = None) -> str:
    """Return the SHA-256 of the rendered prefix and the item template; for a chat prompt, of both within the chat template."""
    if chat:
        return json_digest([render_chat(tokenizer, chat, instruction, demonstrations, _TEMPLATE)])
    return json_digest([render_prefix(instruction, demonstrations), render_item(_TEMPLATE)])


def _read(tokenizer: Any, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
    """Return the token ids of texts, without special tokens that the tokenizer puts after them."""
    logging.getLogger("transformers.tokenization_utils_base").setLevel(logging.ERROR)  # it warns of long prompts, which `encode` cuts
    after = n_after_text(tokenizer) if special else 0
    read: list[list[int]] = tokenizer(list(texts), add_special_tokens=special)["input_ids"]
    return [ids[: len(ids) - after] for ids in read]


def digest_of_all(digests: Sequence[bytes]) -> str:
    """Return the digest of all prompts, which a run's key has as `tokens_hash`, from that of each."""
    return hashlib.sha256(b"".join(digests)).hexdigest()


def _bytes_of(ids: Sequence[int]) -> bytes:
    return np.array(ids, "<i8").tobytes()


def _shared(sequences: list[list[int]]) -> list[int]:
    if not sequences:
        return []
    lowest, highest = min(sequences), max(sequences)  # what the two extremes share in lexical order, all share
    most = min(map(len, sequences)) - 1  # every suffix keeps its last token, the one that is read
    n_shared = next((i for i in range(most) if lowest[i] != highest[i]), most)
    return lowest[:n_shared] if n_shared >= LEAST_SHARED else []


def _keep_right(ids: list[int], context: int, bos: int | None) -> list[int]:
    if bos is not None and ids[0] == bos:
        return [bos, *ids[len(ids) - context + 1 :]]
    return ids[len(ids) - context :]


def _check_distinct(ids: list[int], texts: tuple[str, ...], unknown: int | None) -> None:
    for position, token in enumerate(ids):
        if token == unknown:
            raise UsageError(f"the tokenizer does not know option {ascii_uppercase[position]} (it is the unknown token)")
        if (first := ids.index(token)) != position:
            letters = f"{ascii_uppercase[first]} and {ascii_uppercase[position]}"
            raise UsageError(f"options {letters} share the token {texts[position]!r}, so they cannot be told apart")
