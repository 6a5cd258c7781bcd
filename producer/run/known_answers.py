"""Find answers that stored runs already hold, so that a model is asked only the rest.

In: a store's address, a planned run.  Out: `KnownAnswers`, the answers to the items that some stored run answered in the same way.

Two runs answer in the same way if their keys are equal but for what is asked: equal weights, method, level, settings, compression data,
dtype, backend and prompt; and an equal seed, unless the model is run as it is stored, since then nothing is drawn but the items. An item is
the same if the tokens of its prompt are, and the tokens of its options. A stored run keeps one digest over the tokens of all its prompts,
so its items are encoded again: unless that gives the same digest, or where their texts are not kept, nothing is taken from the run.
A GPU may compress otherwise the second time. So answers of a compressed model are joined from several runs only where these state the same
weights of the model that answered, and a model that is compressed again is asked some of the answers again before the rest.
Models behind a server are asked again, since nobody knows their weights.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from producer.backends.base import MODEL_HASH
from producer.machine.environment import versions
from producer.prompts.encode import digest_of_all
from producer.request.planned import PlannedRun, PromptedTask
from schemas.errors import StoreInvalidError, StoreNotFoundError
from schemas.items import Item
from schemas.itemset import ItemSet
from schemas.options import own_options
from schemas.orders import item_in_order, n_turning
from schemas.run import CHECKPOINT, DENSE, Environment, Run, RunKey
from store.format.runs import check_fit

if TYPE_CHECKING:
    from store import Reader

log = logging.getLogger(__name__)

ASKED = ("task", "items_hash", "tokens_hash", "option_token_ids", "option_tokens", "sampling")  # which items, not who answers or how
NAMES = ("model", "revision")  # the hash of the weights says which they are
AS_STORED = (DENSE, CHECKPOINT)  # methods without anything random


class Source(NamedTuple):
    """A stored run and the number of answers that are taken from it."""

    name: str
    n_items: int
    env: Environment


@dataclass
class KnownAnswers:
    """Answers of stored runs to the items of a planned run; where none was found, logits and log-sum-exp are NaN.

    logits : (item, option) float32, in the items' own order of options.  logsumexp : (item,) float32.  top_token : (item,) int32.
    is_known : (item,) bool.
    """

    logits: NDArray[np.float32]
    logsumexp: NDArray[np.float32]
    top_token: NDArray[np.int32]
    is_known: NDArray[np.bool_]
    sources: list[Source] = field(default_factory=list)

    @classmethod
    def nothing(cls, n_items: int, n_letters: int) -> "KnownAnswers":
        """Return that no answer was found."""
        return cls(
            np.full((n_items, n_letters), np.nan, np.float32),
            np.full(n_items, np.nan, np.float32),
            np.full(n_items, -1, np.int32),
            np.zeros(n_items, np.bool_),
        )

    @property
    def missing(self) -> list[int]:
        """Numbers of the items to ask."""
        return [int(item) for item in np.flatnonzero(~self.is_known)]

    def add(self, run: Run, items: NDArray[np.bool_]) -> None:
        """Add a run's answers as those to some of the items, (item,) bool, in the same order."""
        self.logits[items, : run.logits.shape[1]] = run.logits
        self.logsumexp[items], self.top_token[items] = run.logsumexp, run.top_token
        self.is_known |= items

    def __str__(self) -> str:
        return counts(len(self.is_known), int(self.is_known.sum()))

    def notes(self) -> Iterator[str]:
        """Yield where the answers come from, to be stored with the run."""
        n_items, installed = len(self.is_known), versions()
        for name, count, env in self.sources:
            others = [f"{library} {version}" for library, version in env.libraries.items() if installed.get(library) != version]
            made = f", made with {', '.join(others)}" if others else ""
            yield f"{count:,} of {n_items:,} answers are taken from run {name}{made}"
        if not self.is_known.all() and self.is_known.any():
            yield "the other items were asked in batches without these, so logits differ by rounding from a run that asks all items"


def counts(n_items: int, n_known: int) -> str:
    """Return how many items' answers are found and how many are asked, in words."""
    return f"{n_items:,} items: {n_known:,} found, {n_items - n_known:,} asked"


class StoredAnswers:
    """The answers in the newest snapshot that a store has when they are first looked for.

    fresh : whether to find none.
    """

    def __init__(self, store_url: str, *, fresh: bool) -> None:
        self._url, self._fresh = store_url, fresh
        self._reader: Reader | None = None
        self._rows: dict[tuple[str, ...], list[dict[str, Any]]] | None = None
        self._encoded: dict[tuple[int, str], tuple[PromptedTask, _Encoded | None]] = {}
        self._damaged: set[str] = set()

    def to(self, planned: PlannedRun) -> KnownAnswers:
        """Return the answers to the items of a planned run. A damaged run is named in a warning, and its items are asked again."""
        known, key = KnownAnswers.nothing(len(planned.prompted.item_set), len(planned.prompted.options.ids)), planned.key
        if key is not None and key.weights_hash and not self._fresh:
            for name in self._alike(key):
                if not known.is_known.all() and name not in self._damaged:
                    try:
                        self._take(name, key, planned.prompted, known)
                    except StoreInvalidError as error:
                        self._damaged.add(name)
                        log.warning("%s; its answers are not used again", error)
        return known

    def _alike(self, key: RunKey) -> list[str]:
        """Return the names of the runs whose keys may be equal but for what is asked, as far as a catalog says; larger ones first."""
        if self._rows is None:
            from store import open_reader  # Zarr and Icechunk take as long to import as all that a request can be refused for

            self._rows = {}
            try:
                self._reader = open_reader(self._url)
                for row in self._reader.catalog.to_dicts():
                    self._rows.setdefault(_in_catalog(row), []).append(row)
            except StoreNotFoundError:
                pass
            except StoreInvalidError as error:
                log.warning("%s; no stored answer is used again", error)
        rows = [row for row in self._rows.get(_in_catalog(key.model_dump()), []) if not row["origin"]]
        return [row["name"] for row in sorted(rows, key=lambda row: (-row["n_items"], row["name"]))]

    def _take(self, name: str, key: RunKey, prompted: PromptedTask, known: KnownAnswers) -> None:
        assert self._reader is not None, "a name comes from its catalog"
        run = self._reader.run(name)
        n_letters = min(len(key.option_token_ids), len(run.key.option_token_ids))
        same_options = key.option_token_ids[:n_letters] == run.key.option_token_ids[:n_letters]
        if not same_options or answered_by(run.key) != answered_by(key):
            return
        if known.sources and key.method not in AS_STORED and not _of_one_model(known.sources[0].env, run.env):
            log.warning(
                "run %s is not joined with %s: they do not state the same weights of the compressed model", name, known.sources[0].name
            )
            return
        items = self._reader.items(run.key.items_hash)
        check_fit(run, items, self._url)
        if run.too_much_mass(items.n_options):
            return
        encoded = self._prompts(prompted, items)
        if encoded is None or encoded.digest != run.key.tokens_hash:
            return
        take = ~known.is_known & (encoded.row >= 0)
        take[take] = _is_whole(run, items)[encoded.row[take]]
        rows, width = encoded.row[take], min(known.logits.shape[1], run.logits.shape[1])
        known.logits[take, :width] = run.logits[rows, :width]
        known.logsumexp[take], known.top_token[take] = run.logsumexp[rows], run.top_token[rows]
        known.is_known |= take
        if len(rows):
            known.sources.append(Source(name, len(rows), run.env))

    def _prompts(self, prompted: PromptedTask, items: ItemSet) -> "_Encoded | None":
        cache_key = (id(prompted), items.digest)
        if cache_key not in self._encoded:
            # The task is kept too, since its id is only unique while it lives.
            self._encoded[cache_key] = prompted, _encode(prompted, items)
        return self._encoded[cache_key][1]


class _Encoded(NamedTuple):
    """A stored item set in the prompts of a task: the digest of all their tokens, and each item of the task's row in it, -1 for none."""

    digest: str
    row: NDArray[np.int64]


def _encode(prompted: PromptedTask, items: ItemSet) -> _Encoded | None:
    """Return a stored item set in the prompts of a task, None where it has no item of the task, or its texts are not kept.

    Items with the content of one of the task's need no text.
    """
    asked_items = prompted.item_set
    if not np.isin(asked_items.item_id, items.item_id).any():
        return None
    asked = [_question(*each) for each in zip(prompted.prompts.digests, prompted.task.items, strict=True)]
    by_content = {content.tobytes(): question for content, question in zip(asked_items.content, asked, strict=True)}
    stored = {row: by_content[content.tobytes()] for row, content in enumerate(items.content) if content.tobytes() in by_content}
    if others := [row for row in range(len(items)) if row not in stored]:
        texts = [items.items[row] for row in others] if items.texts else []
        if prompted.native or not texts or not all(item.choices for item in texts):  # only the task writes native prompts
            return None
        digests = prompted.encoded([item_in_order(item, prompted.order) for item in texts]).digests
        stored |= {row: _question(prompt, item) for row, prompt, item in zip(others, digests, texts, strict=True)}
    in_order = [stored[row] for row in range(len(items))]
    rows = {question: row for row, question in enumerate(_numbered(in_order))}
    digest = digest_of_all([question.prompt for question in in_order])
    return _Encoded(digest, np.array([rows.get(question, -1) for question in _numbered(asked)], np.int64))


class _Question(NamedTuple):
    """What makes two items the same question to a model: the tokens of the prompt, the options, and how many of them change places."""

    prompt: bytes
    n_options: int
    turning: int


def _question(prompt: bytes, item: Item) -> _Question:
    return _Question(prompt, len(item.choices), n_turning(list(item.choices.values())))


def _numbered(questions: Sequence[_Question]) -> Iterator[tuple[_Question, int]]:
    """Yield each question with how often it stood before, so that one that a task has twice is asked twice, as without stored runs."""
    seen: Counter[_Question] = Counter()
    for question in questions:
        yield question, seen[question]
        seen[question] += 1


def _of_one_model(one: Environment, other: Environment) -> bool:
    """Return whether two runs state that the weights that answered were the same."""
    stated = one.post_conditions.get(MODEL_HASH)
    return bool(stated) and stated == other.post_conditions.get(MODEL_HASH)


def _is_whole(run: Run, items: ItemSet) -> NDArray[np.bool_]:
    """Return (item,) whether a stored answer is complete: finite logits of all options, a finite log-sum-exp and a top token."""
    finite = np.all(np.isfinite(run.logits) | ~own_options(items.n_options, run.logits.shape[1]), axis=1)
    return np.asarray(finite & np.isfinite(run.logsumexp) & (run.top_token >= 0))


def _in_catalog(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(row[name] for name in ("weights_hash", "method", "level", "prompt"))


def answered_by(key: RunKey) -> dict[str, Any]:
    """Return what a run's key says of everything but which items are asked."""
    ignored = {*ASKED, *NAMES, *(["seed"] if key.method in AS_STORED else [])}
    return {name: value for name, value in key.content().items() if name not in ignored}
