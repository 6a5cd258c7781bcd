"""What it costs to keep answers while a model answers: time and bytes with a journal that is written often, against none.

Both ways answer the same items with one model, one after the other in every round, in memory and layer by layer.
"""

import argparse
import statistics
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from uuid import uuid4

from producer.bench.cases import SHOTS, Case, make_case
from producer.bench.rates import spread, timed
from producer.engine.answer import answer
from producer.engine.checkpoints import NOTHING_KEPT, Keep
from producer.engine.head import HeadOutput
from producer.engine.layer_source import Target
from producer.engine.settings import Settings
from producer.machine.journal import ENDING, FOLDER, Journal
from producer.models.find import find_model
from producer.models.load import load_model, load_tokenizer
from producer.tasks.source import draw, load_task
from store.backend.user_cache import cache_folder

MODEL, ITEMS = "ref-l", 2000
OFTEN = 1.0  # seconds of work that may be lost, here; answers are kept every half of it
USUAL = Settings().checkpoint_every
MOST_SHARE = 0.02
ORDERS = {"in memory": True, "layer by layer": False}  # whether all weights count as being on the device


def journal(arguments: argparse.Namespace) -> Iterator[str]:
    """Yield the ratio of times, the time of keeping answers once, and bytes on disk, in memory and layer by layer."""
    files = find_model(MODEL)
    model, items = load_model(files, "float32", "cpu"), draw(load_task("urn"), arguments.items or ITEMS, 0)
    case = make_case(f"{MODEL} urn", model, files.folder, load_tokenizer(files), items, SHOTS["zero-shot"])
    for order, loaded in ORDERS.items():
        often, never, journals = list[float](), list[float](), _TimedJournals(arguments.clock)
        for _ in range(arguments.rounds):
            often.append(timed(partial(_answer, case, journals.keep(), loaded=loaded), arguments.clock)[0])
            journals.remove()
            never.append(timed(partial(_answer, case, NOTHING_KEPT, loaded=loaded), arguments.clock)[0])
        n_items = len(case.texts)
        yield f"{case.name}, {n_items:,} items, {order}, kept every {OFTEN / 2:g} s: {spread(often, never)} times the time of keeping none"
        if not journals.seconds:
            yield "    the run is too short to keep anything"
            continue
        each, most = statistics.median(journals.seconds), max(journals.n_bytes)
        yield (
            f"    {len(journals.seconds) / arguments.rounds:.0f} times {1e3 * each:.1f} ms a run; at --checkpoint-every {USUAL / 60:.0f}m "
            f"{each / (USUAL / 2):.4%} of a run, at most {MOST_SHARE:.0%} asked"
        )
        yield f"    {most:,} bytes on disk under way, {most / n_items:.0f} an item, 0 once the run is stored"


class _TimedJournals:
    """Journals, the seconds that answers took to be kept each time, and the bytes of a journal after it."""

    def __init__(self, clock: str) -> None:
        self._clock, self._journal = clock, Journal(uuid4().hex, 1, lambda _: True)
        self.seconds, self.n_bytes = list[float](), list[int]()

    def keep(self) -> Keep:
        """Return how to keep answers in a journal of its own."""
        self._journal = Journal(uuid4().hex, 1, lambda _: True)
        return Keep(OFTEN, self._timed_add)

    def remove(self) -> None:
        """Delete the journal, as `produce` does when the run is stored."""
        self._journal.remove()

    def _timed_add(self, items: Sequence[int], output: HeadOutput) -> None:
        self.seconds.append(timed(partial(self._add, items, output), self._clock)[0])
        self.n_bytes.append(sum(path.stat().st_size for path in _files()))

    def _add(self, items: Sequence[int], output: HeadOutput) -> None:
        rows = zip(output.logits.tolist(), output.logsumexp.tolist(), output.top_token.tolist(), strict=True)
        self._journal.add({f"{item:064d}": list(row) for item, row in zip(items, rows, strict=True)})


def _files() -> list[Path]:
    return list(cache_folder(FOLDER).glob(f"*/*{ENDING}"))


def _answer(case: Case, keep: Keep, *, loaded: bool) -> None:
    target = Target("cpu", case.model.dtype)
    answer(case.model, case.prompts, case.option_ids, target, Settings(), lambda _: None, keep, loaded=loaded)
