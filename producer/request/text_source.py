"""Texts for `--text`: a name or a file, as documents.

    wikitext2    the test split of WikiText-2 (raw), one document per article
    embedded     newly drawn prompts of the tasks urn and facts, for the small vocabulary of the embedded models
    FILE.jsonl   one document per line, in its field "text"
    FILE         one document per part; parts are separated by two or more empty lines, or a form feed

In: a name or path.  Out: `Text`. Intervals over a text count documents, since the tokens of one document depend on each other.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from schemas.errors import HedgemarkError, UsageError
from schemas.items import Item
from schemas.itemset import ItemSet, build_item_set
from schemas.json_text import read_text

WIKITEXT2, EMBEDDED = "wikitext2", "embedded"
NAMES = (WIKITEXT2, EMBEDDED)
PREFIX = "text:"  # of the task of a run over a text
N_EMBEDDED, SEED = 64, 20260602  # documents of text `embedded`, and the seed that draws them
_HUB = ("Salesforce/wikitext", "wikitext-2-raw-v1/test-00000-of-00001.parquet")
_HEADING = re.compile(r"^ = [^=].*[^=] = $")
_PARTS = re.compile(r"\f|\n[ \t\r]*\n[ \t\r]*\n\s*")


@dataclass(frozen=True)
class Text:
    """A text as documents, none of them empty."""

    name: str
    documents: tuple[str, ...]

    @property
    def task(self) -> str:
        """The name of the task of its runs."""
        return f"{PREFIX}{self.name}"

    def item_set(self) -> ItemSet:
        """Return the documents as items, each with itself as its one option; the text is not kept, its SHA-256 tells it apart."""
        items = [Item(id=str(number), answer="A", source=_digest(document)) for number, document in enumerate(self.documents)]
        revision = f"sha256:{_digest(chr(12).join(self.documents))}"
        return build_item_set(self.task, items, revision=revision, n_options=[1] * len(items))


def load_text(name: str) -> Text:
    """Return a text. Raises UsageError for a name that is neither known nor a readable file, or that has no text."""
    if name == WIKITEXT2:
        return Text(name, tuple(_articles(_wikitext2())))
    if name == EMBEDDED:
        from producer.tasks.facts import facts
        from producer.tasks.urn import urn

        return Text(name, tuple(_embedded_documents(np.random.default_rng(SEED), (urn, facts))))
    path = Path(name)
    try:
        content = read_text(path)
    except ValueError as error:
        raise UsageError(f"unknown text {name!r}: neither one of {', '.join(NAMES)} nor a readable UTF-8 file ({error})") from error
    documents = [part.strip("\n") for part in (_lines(content, path) if path.suffix == ".jsonl" else _PARTS.split(content)) if part.strip()]
    if not documents:
        raise UsageError(f"text {name!r} is empty")
    return Text(path.stem, tuple(documents))


def _lines(content: str, path: Path) -> Iterator[str]:
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        try:
            text = json.loads(line)["text"]
        except (ValueError, TypeError, KeyError, RecursionError):
            text = None
        if not isinstance(text, str):
            raise UsageError(f"text {path}, line {number}: expected a JSON object with a field 'text'")
        yield text


def _wikitext2() -> list[str]:
    from datasets import load_dataset

    repository, file = _HUB
    try:
        return [row["text"] for row in load_dataset(repository, data_files=file, split="train")]
    except Exception as error:  # the client raises a dozen different classes if the Hub cannot be reached
        raise HedgemarkError(f"cannot read {file} of {repository} from the Hub ({error}); offline, give a text file") from error


def _articles(lines: list[str]) -> Iterator[str]:
    """Yield the articles of WikiText, each from its heading of the first level to the next."""
    article: list[str] = []
    for line in lines:
        if _HEADING.match(line.rstrip("\n")) and any(part.strip() for part in article):
            yield "".join(article)
            article = []
        article.append(line)
    if any(part.strip() for part in article):
        yield "".join(article)


def _embedded_documents(rng: np.random.Generator, sources: Sequence[Callable[..., list[Item]]]) -> Iterator[str]:
    """Yield prompts of items that neither task has, alternating tasks."""
    from producer.prompts.templates import PROMPTS, instruction_for, render_prefix

    held_out = [{item.question_key() for item in source()} for source in sources]
    for number in range(N_EMBEDDED):
        which = number % len(sources)
        drawn = sources[which](48, int(rng.integers(2**31)))
        fresh = [item for item in drawn if item.question_key() not in held_out[which]]
        prompt = PROMPTS[number // len(sources) % len(PROMPTS)]
        yield render_prefix(instruction_for(("urn", "facts")[which], prompt), fresh[:12])


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()
