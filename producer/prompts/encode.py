"""From prompts to tokens: what all items share is found in the tokens, never in the text.

In: a tokenizer, demonstrations, items.  Out: `Prompts`: a shared token prefix and one suffix per item.
Every prompt is encoded whole; the prefix is the longest one that all token sequences have in common, if it is worth sharing. So sharing
can never change a token, however the tokenizer merges across the border.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from producer.prompts.templates import render_item, render_prefix
from schemas.digest import json_digest
from schemas.items import Item

LEAST_SHARED = 16  # tokens; attending to fewer apart from an item's own costs more than computing them again
_TEMPLATE = Item(id="0", answer="A", context="{context}", question="{question}", choices={"A": "{A}", "B": "{B}"})


@dataclass(frozen=True)
class Prompts:
    """Token ids of one run's prompts.

    prefix    : tokens that every item shares.
    suffixes  : own tokens by item, at least one each.
    cut       : (item,) True where the prompt was longer than the context and lost its left; such an item does not use `prefix`.
    n_options : (item,) options of each item; empty where all have as many as there are letters.
    """

    prefix: tuple[int, ...]
    suffixes: Sequence[Sequence[int]]
    cut: Sequence[bool]
    n_options: Sequence[int] = ()

    @property
    def truncated(self) -> int:
        """How many prompts were cut."""
        return sum(self.cut)

    @cached_property
    def tokens(self) -> int:
        """Tokens pushed through the model, the shared prefix once."""
        return len(self.prefix) * (not all(self.cut)) + sum(map(len, self.suffixes))

    def whole(self, item: int) -> list[int]:
        """Return one item's full token sequence."""
        return [*(() if self.cut[item] else self.prefix), *self.suffixes[item]]


def encode(tokenizer: Any, instruction: str, demonstrations: Sequence[Item], items: Sequence[Item], context: int) -> Prompts:
    """Return the token ids of all prompts.

    context : most tokens the model takes; longer prompts keep their right end, and the begin-of-text token where there is one.
    """
    shown = render_prefix(instruction, demonstrations)
    logging.getLogger("transformers.tokenization_utils_base").setLevel(logging.ERROR)  # it warns of long prompts, which are cut below
    encoded: list[list[int]] = tokenizer([shown + render_item(item) for item in items])["input_ids"]
    cut = [len(ids) > context for ids in encoded]
    prefix = _shared([ids for ids, is_cut in zip(encoded, cut, strict=True) if not is_cut])
    suffixes = [
        _keep_right(ids, context, tokenizer.bos_token_id) if is_cut else ids[len(prefix) :]
        for ids, is_cut in zip(encoded, cut, strict=True)
    ]
    return Prompts(tuple(prefix), suffixes, cut, [len(item.choices) for item in items])


def prompt_hash(instruction: str, demonstrations: Sequence[Item]) -> str:
    """Return the SHA-256 of the rendered prefix and the item template."""
    return json_digest([render_prefix(instruction, demonstrations), render_item(_TEMPLATE)])


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
