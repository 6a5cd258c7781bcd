"""Keep the answers of a run under way, so that a command that was killed goes on where it was.

In: a planned run, answers as its model gives them.  Out: the answers that an earlier command left, put into `KnownAnswers`.

Answers wait in a journal in the cache folder (`producer.machine.journal`) until their run is in the store. They are found again by what
determines an answer, as answers of stored runs are (`producer.run.known_answers`), and by the tokens of prompt and options. They are taken
only where the libraries, the device and the weights of a compressed model are the same, so that what a run records of them holds for all
its answers. Two processes that make one run have a file each; the first that stores the run deletes what it took, and the other asks what
it has not got.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from producer.backends.base import MODEL_HASH, Ready
from producer.engine.checkpoints import Keep
from producer.engine.head import HeadOutput
from producer.machine.environment import device_name, versions
from producer.machine.journal import Journal, question_id, remove_journals
from producer.request.planned import PlannedRun, PromptedTask
from producer.run.known_answers import KnownAnswers, answered_by
from schemas.run import RunKey

log = logging.getLogger(__name__)


class KeptAnswers:
    """The answers to a planned run's questions that earlier commands left, and a place for those of this one.

    fresh : whether to take none.
    taken : the items whose answers were taken.
    """

    def __init__(self, planned: PlannedRun, ready: Ready, *, fresh: bool) -> None:
        assert planned.key is not None, "weights are fetched before a run is made"
        self.taken: list[int] = []
        self._prompted = planned.prompted
        answering = {
            "libraries": versions(),
            "device": device_name(planned.prompted.model.device),
            "model": ready.conditions.get(MODEL_HASH),
        }

        def accept(given_under: Any) -> bool:
            return not fresh and all(given_under.get(name) == value for name, value in answering.items())

        self._journal = Journal(answered_by(planned.key), {"run": planned.key.name, **answering}, accept)
        if self._journal.left_out and not fresh:
            log.warning(
                "%d answers that a killed command left are not used: it had other versions of libraries, another device, or a compressed "
                "model with other weights",
                self._journal.left_out,
            )
        self._ids = list(_question_ids(planned.prompted))
        self.remove = self._journal.remove

    def put_into(self, known: KnownAnswers) -> None:
        """Add the answers that earlier commands left to those of stored runs."""
        answers = {item: answer for item, name in enumerate(self._ids) if (answer := self._journal.answer(name)) is not None}
        items = [item for item in known.missing if item in answers]
        if not items:
            return
        logits, logsumexp, top = zip(*(answers[item] for item in items), strict=True)
        shown = np.full((len(items), known.logits.shape[1]), np.nan, np.float32)
        for row, values in enumerate(logits):
            shown[row, : len(values)] = values
        known.logits[items] = self._prompted.only(items).in_own_order(shown)
        known.logsumexp[items], known.top_token[items], known.is_known[items] = logsumexp, top, True
        self.taken = items

    def take_back(self, known: KnownAnswers) -> None:
        """Take the answers out again that `put_into` added, so that their items are asked."""
        known.is_known[self.taken], known.logits[self.taken] = False, np.nan
        self.taken = []

    def notes(self) -> Iterator[str]:
        """Yield where answers come from that this command did not ask for, to be stored with the run."""
        if self.taken:
            yield f"{len(self.taken):,} of {len(self._ids):,} answers are those to an earlier command, which was cut off"

    def keeping(self, every: float, asked: Sequence[int]) -> Keep:
        """Return how to keep the answers to some of the run's items.

        every : seconds of work that may be lost. asked : the items by their numbers in the run.
        """

        def add(items: Sequence[int], output: HeadOutput) -> None:
            self._journal.add(dict(self._records([asked[item] for item in items], output)))

        return Keep(every, add)

    def _records(self, items: Sequence[int], output: HeadOutput) -> Iterator[tuple[str, Any]]:
        """Yield question and answer of each item whose answer is complete; the others are asked again."""
        for row, item in enumerate(items):
            logits = output.logits[row, : len(self._prompted.task.items[item].choices)]
            if np.isfinite(logits).all() and np.isfinite(output.logsumexp[row]):
                yield self._ids[item], [logits.tolist(), float(output.logsumexp[row]), int(output.top_token[row])]


def remove_kept(key: RunKey) -> None:
    """Delete the answers that a command left which was killed after it had stored this run."""
    remove_journals(answered_by(key), lambda given_under: given_under.get("run") == key.name)


def _question_ids(prompted: PromptedTask) -> Iterator[str]:
    """Yield the name of each item's question; one that a task has twice is asked twice, as without a journal."""
    seen: Counter[str] = Counter()
    for prompt, item in zip(prompted.prompts.digests, prompted.task.items, strict=True):
        name = question_id(prompt.hex(), list(prompted.options.ids[: len(item.choices)]))
        yield question_id(name, seen[name]) if seen[name] else name
        seen[name] += 1
