"""Compression data: the text from which a compression method collects its statistics; it must not contain the evaluation items.

In: a name (`embedded`, `packaged`, `c4`, `wikitext2`, `pileval`) or a text file, a tokenizer, a seed.  Out: `CompressionData`.
A size may follow the name: `packaged:16x128` is 16 sequences of 128 tokens.

    embedded   newly drawn items of the tasks `urn` and `facts` as prompts, for the small vocabulary of the reference models
    packaged   three stories of The Adventures of Sherlock Holmes (1892, public domain), shipped with the package
    c4, wikitext2, pileval   text of the Hub, cut as the papers cut it: `producer.methods.shared.hub_text`
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from producer.methods.shared.architectures import linear_shapes
from producer.methods.shared.hub_text import HUB, Size, draw_hub_text, hub_answers
from producer.prompts.templates import PROMPTS, instruction_for, render_item, render_prefix
from schemas.digest import json_digest
from schemas.errors import UsageError
from schemas.items import Item

EMBEDDED_TASKS = ("urn", "facts")
PACKAGED = Path(__file__).parent / "text" / "holmes.txt"
ITEMS_PER_SEQUENCE = 24  # more than 256 tokens of the reference tokenizer; longer texts are truncated
MAX_UNKNOWN = 0.3  # largest accepted share of tokens unknown to the tokenizer
FEWEST_TOKENS = 8  # in a sequence
LONG_QUESTION = 60  # characters without spaces; a shorter question may occur in a text by chance, so its options are compared too


@dataclass(frozen=True)
class CompressionData:
    """A sample of text as token ids.

    input_ids : (sequence, token), all sequences of the same length.
    text      : the text that it was drawn from, in which `check_overlap` searches for evaluation items.
    """

    name: str
    seed: int
    input_ids: tuple[tuple[int, ...], ...]
    text: str = ""

    @cached_property
    def digest(self) -> str:
        """SHA-256 over source, seed and tokens; part of the run key."""
        return json_digest([_source(self.name), self.seed, self.input_ids])


SIZES = {"embedded": Size(128, 192), "packaged": Size(64, 256)}
PAPERS = Size(128, 2048)  # as in the papers on GPTQ, SparseGPT and Wanda
NAMES = (*SIZES, *HUB)
FILE = "file"  # stands for any text file in digests and seeds


def draw_compression_data(name: str, tokenizer: Any, *, seed: int = 0, sequences: int = 0, length: int = 0) -> CompressionData:
    """Return a seeded sample of a named source or a text file.

    sequences, length : 0 means the size in the name, or if it has none the source's default (embedded 128 x 192, packaged 64 x 256,
                        others 128 x 2048, shorter if the model's context is shorter; pileval 128 documents).
    Raises UsageError for an unknown name, too little text, or text with too many tokens that are unknown to the tokenizer.
    """
    name, named_size = _split_size(name)
    rng = np.random.default_rng([seed, *_source(name).encode()])
    if name in HUB:
        ids, text = draw_hub_text(name, tokenizer, named_size or (Size(sequences, length) if sequences and length else None), seed, rng)
        _check_known(tokenizer, ids, name)
        return CompressionData(name, seed, tuple(map(tuple, ids)), text)
    size = named_size or SIZES.get(name, PAPERS._replace(length=min(PAPERS.length, tokenizer.model_max_length)))
    size = Size(sequences or size.sequences, length or size.length)
    if name == "embedded":
        texts = embedded_texts(rng, size.sequences)
        ids = [tokenizer(text, truncation=True, max_length=size.length)["input_ids"] for text in texts]
    else:
        texts = [_read(name)]
        ids = _windows(tokenizer, texts[0], size, rng, name)
    if any(len(row) != size.length for row in ids):
        raise UsageError(f"compression data {name!r} has no sequences of {size.length} tokens; use shorter ones")
    _check_known(tokenizer, ids, name)
    return CompressionData(name, seed, tuple(map(tuple, ids)), "\n".join(texts))


def default_source(task: str) -> str:
    """Return the default source of compression data for runs of a task: the papers', if the Hub answers, but for the embedded tasks."""
    return "embedded" if task in EMBEDDED_TASKS else "c4" if hub_answers() else "packaged"


def too_few_tokens(data: CompressionData, config: Any) -> str:
    """Return a warning if the data have fewer tokens than a layer of the model has columns, or ""; then its Hessian has no full rank."""
    n_tokens = sum(map(len, data.input_ids))
    columns, name = max(((shape.columns, name) for name, shape in linear_shapes(config).items()), default=(0, ""))
    if n_tokens >= columns:
        return ""
    few = f"compression data {data.name!r} have {n_tokens:,} tokens, and {name} has {columns:,} columns"
    return f"{few}; take more, such as c4 or NAME:128x2048"


def check_overlap(data: CompressionData, items: Sequence[Item]) -> None:
    """Raise UsageError if the compression data contains an evaluation item."""
    drawn = _squeeze(data.text)
    for item in items:
        question = _squeeze(f"{item.context}{item.question}")
        needle = question if len(question) >= LONG_QUESTION else _squeeze(render_item(item))
        if item.choices and needle in drawn:
            text = f"evaluation item {item.id!r} ({item.question[:60]!r})"
            raise UsageError(f"compression data {data.name!r} contains {text}; use other text")


def embedded_texts(rng: np.random.Generator, n_prompts: int) -> list[str]:
    """Return n prompts of newly drawn items, alternating tasks and wordings; no item of the embedded tasks is among them."""
    from producer.tasks.facts import facts
    from producer.tasks.urn import urn

    sources: list[tuple[str, Callable[..., list[Item]]]] = [("urn", urn), ("facts", facts)]
    held_out = {name: {item.question_key() for item in source()} for name, source in sources}
    texts = []
    for number in range(n_prompts):
        name, source = sources[number % len(sources)]
        fresh = [item for item in source(2 * ITEMS_PER_SEQUENCE, int(rng.integers(2**31))) if item.question_key() not in held_out[name]]
        prompt = PROMPTS[number // len(sources) % len(PROMPTS)]
        texts.append(render_prefix(instruction_for(name, prompt), fresh[:ITEMS_PER_SEQUENCE]))
    return texts


def _split_size(name: str) -> tuple[str, Size | None]:
    """Return a source's name, and the size that follows it (None if no size does)."""
    match = re.fullmatch(r"(.+):(\d+)x(\d+)", name)
    if match is None:
        return name, None
    size = Size(int(match[2]), int(match[3]))
    if not (size.sequences >= 1 and size.length >= FEWEST_TOKENS):
        raise UsageError(f"the size of compression data {name!r} is too small; use at least 1 sequence of {FEWEST_TOKENS} tokens")
    return match[1], size


def _source(name: str) -> str:
    """Return a source's name for digests and seeds; all text files have the same, so that a file may be moved."""
    return name if name in NAMES else FILE


def _read(name: str) -> str:
    if name == "packaged":
        return PACKAGED.read_text(encoding="utf-8")
    try:
        text = Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        sources = ", ".join(NAMES)
        raise UsageError(f"unknown compression data {name!r}: neither one of {sources} nor a readable UTF-8 text file ({error})") from error
    if not text.strip():
        raise UsageError(f"compression data {name!r} is empty")
    return text


def _windows(tokenizer: Any, text: str, size: Size, rng: np.random.Generator, name: str) -> list[list[int]]:
    """Return randomly chosen, non-overlapping windows of the text, each preceded by the tokenizer's own first tokens (such as BOS)."""
    first = list(tokenizer("")["input_ids"])
    tokens = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    body = size.length - len(first)
    available = len(tokens) // body
    if available < size.sequences:
        raise UsageError(
            f"compression data {name!r} has text for {available} sequences of {size.length} tokens, but {size.sequences} are needed; "
            f"use fewer or shorter ones, such as {name}:{max(available, 1)}x{min(size.length, 128)}"
        )
    starts = np.sort(rng.choice(available, size=size.sequences, replace=False)) * body
    return [first + tokens[start : start + body] for start in starts]


def _check_known(tokenizer: Any, ids: Sequence[Sequence[int]], name: str) -> None:
    unknown = getattr(tokenizer, "unk_token_id", None)
    share = float(np.mean(np.asarray(ids) == unknown)) if unknown is not None else 0.0
    if share > MAX_UNKNOWN:
        raise UsageError(f"the model's tokenizer does not know {share:.0%} of compression data {name!r}; use text that the model can read")


def _squeeze(text: str) -> str:
    return "".join(text.lower().split())
