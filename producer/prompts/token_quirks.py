"""Name what a tokenizer takes from items: characters that it does not know, texts that it reads as special tokens, texts it reads alike.

In: a tokenizer, items and their prompts.  Out: sentences, to be stored with the run. Such a model was not asked what its reader sees.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from producer.prompts.encode import Prompts
from producer.prompts.templates import render_item
from schemas.items import Item


def describe_token_quirks(tokenizer: Any, items: Sequence[Item], prompts: Prompts) -> Iterator[str]:
    """Yield a sentence for each kind of items that the tokenizer does not read as they are written, with their number."""
    texts = [render_item(item) for item in items]
    counts = {
        "have characters that it does not know": _unknown(tokenizer, prompts),
        "have text in them that it reads as a special token": _special(tokenizer, texts),
        "have different options that it reads alike": sum(_options_alike(tokenizer, item) for item in items),
        "are read like another item of different text": _items_alike(texts, prompts),
    }
    yield from (f"{number} of {len(items)} items {what}" for what, number in counts.items() if number)


def _unknown(tokenizer: Any, prompts: Prompts) -> int:
    """Return in how many prompts the unknown token stands; a tokenizer may give that name to another of its special tokens."""
    unknown = tokenizer.unk_token_id
    if unknown is None or unknown in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        return 0
    if unknown in prompts.prefix:
        return len(prompts.suffixes)
    return sum(unknown in suffix for suffix in prompts.suffixes)


def _special(tokenizer: Any, texts: Sequence[str]) -> int:
    return sum(any(token in text for token in tokenizer.all_special_tokens) for text in texts)


def _options_alike(tokenizer: Any, item: Item) -> bool:
    texts = list(dict.fromkeys(item.choices.values()))
    read = tokenizer([f" {text}" for text in texts], add_special_tokens=False)["input_ids"]
    return len(set(map(tuple, read))) < len(texts)


def _items_alike(texts: Sequence[str], prompts: Prompts) -> int:
    read: dict[tuple[int, ...], str] = {}
    return sum(
        read.setdefault((*suffix, cut), text) != text for text, suffix, cut in zip(texts, prompts.suffixes, prompts.cut, strict=True)
    )
