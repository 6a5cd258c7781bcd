"""Text of the Hub, cut into sequences as the papers cut it.

In: a name (`c4`, `wikitext2`, `pileval`), a tokenizer, a size, a source of chance.  Out: token ids, and the text that they were drawn from.

    c4          one stretch, from a random start, of each of as many documents as sequences; documents are drawn at random among those with
                more tokens than a sequence (GPTQ, SparseGPT, Wanda: 128 x 2,048)
    wikitext2   stretches from random starts of the whole training text, its lines joined by two line breaks (GPTQ: 128 x 2,048)
    pileval     documents of up to one sequence's tokens, drawn at random, one behind the other in a row that is cut into sequences; what is
                left over goes. By default 128 documents in sequences of 512 (AWQ)

The procedures are those of the authors' code; the random numbers are not. Special tokens stand where the tokenizer puts them in a document.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from schemas.errors import HedgemarkError, UsageError

BUFFER = 10_000  # documents among which the next one is drawn
ANSWER_WITHIN = 5.0  # seconds
LINES = "\n\n"  # between the lines of wikitext2


class Size(NamedTuple):
    """Number of sequences, and tokens in each."""

    sequences: int
    length: int


class HubText(NamedTuple):
    """A file of a Hub data set, as the papers' scripts take it, and the size that they take of it."""

    repository: str
    file: str
    size: Size


HUB = {
    "c4": HubText("allenai/c4", "en/c4-train.00000-of-01024.json.gz", Size(128, 2048)),
    "wikitext2": HubText("Salesforce/wikitext", "wikitext-2-raw-v1/train-00000-of-00001.parquet", Size(128, 2048)),
    "pileval": HubText("mit-han-lab/pile-val-backup", "val.jsonl.zst", Size(128, 512)),  # documents, not sequences
}


def draw_hub_text(name: str, tokenizer: Any, size: Size | None, seed: int, rng: np.random.Generator) -> tuple[list[list[int]], str]:
    """Return sequences of token ids, and the text that they were drawn from.

    size : None means the papers'.
    Raises UsageError if the text is too short for the size, HedgemarkError if the Hub cannot be read.
    """
    taken = size or HUB[name].size._replace(length=min(HUB[name].size.length, tokenizer.model_max_length))
    texts = _texts(name, seed)
    if name == "c4":
        return _one_stretch_each(texts, tokenizer, taken, rng)
    if name == "wikitext2":
        return _stretches(LINES.join(texts), tokenizer, taken, rng)
    return _row_of_documents(texts, tokenizer, taken, n_documents=0 if size else taken.sequences)


@cache
def hub_answers() -> bool:
    """Return whether the Hub can be asked from here; False if huggingface_hub is set to be offline."""
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        HfApi().dataset_info(HUB["c4"].repository, timeout=ANSWER_WITHIN)
    except Exception:  # the client raises a dozen different classes if the Hub cannot be reached
        return False
    return True


def _texts(name: str, seed: int) -> Iterator[str]:
    """Yield the documents of a source in an order drawn by the seed, those of wikitext2 as they stand."""
    from datasets import load_dataset  # type: ignore[import-untyped]

    source = HUB[name]
    try:
        rows = load_dataset(source.repository, data_files=source.file, split="train", streaming=True)
        for row in rows if name == "wikitext2" else rows.shuffle(seed=seed, buffer_size=BUFFER):
            yield row["text"]
    except Exception as error:  # as above
        where = f"{source.file} of {source.repository}"
        raise HedgemarkError(f"cannot read {where} from the Hub ({error}); offline, use 'packaged' or a text file") from error


def _one_stretch_each(texts: Iterator[str], tokenizer: Any, size: Size, rng: np.random.Generator) -> tuple[list[list[int]], str]:
    """Return one stretch of each document that is longer than a sequence, from a random start."""
    ids, used = list[list[int]](), list[str]()
    for text in texts:
        tokens = list(tokenizer(text, verbose=False)["input_ids"])
        if len(tokens) > size.length:
            start = int(rng.integers(len(tokens) - size.length))
            ids.append(tokens[start : start + size.length])
            used.append(text)
        if len(ids) == size.sequences:
            return ids, "\n".join(used)
    raise _too_short(len(ids), size)


def _stretches(text: str, tokenizer: Any, size: Size, rng: np.random.Generator) -> tuple[list[list[int]], str]:
    """Return stretches of one long text, from random starts."""
    tokens = list(tokenizer(text, verbose=False)["input_ids"])
    if len(tokens) <= size.length:
        raise _too_short(0, size)
    starts = rng.integers(len(tokens) - size.length, size=size.sequences)
    return [tokens[start : start + size.length] for start in starts], text


def _row_of_documents(texts: Iterator[str], tokenizer: Any, size: Size, n_documents: int) -> tuple[list[list[int]], str]:
    """Return the sequences into which a row of short documents is cut: of so many documents, or for 0 as many as give all sequences."""
    row, used = list[int](), list[str]()
    for text in texts:
        tokens = list(tokenizer(text.strip(), verbose=False)["input_ids"])
        if 0 < len(tokens) <= size.length:
            row += tokens
            used.append(text)
        if len(used) == n_documents if n_documents else len(row) >= size.sequences * size.length:
            break
    ids = [row[end - size.length : end] for end in range(size.length, len(row) + 1, size.length)]
    if len(ids) < (1 if n_documents else size.sequences):
        raise _too_short(len(ids), size)
    return ids if n_documents else ids[: size.sequences], "\n".join(used)


def _too_short(n_found: int, size: Size) -> UsageError:
    return UsageError(
        f"the text has {n_found} sequences of {size.length} tokens, and {size.sequences} are needed; ask for fewer or shorter ones"
    )
