"""Make every run of a request and put it into a store; a run already there is not made again.

In: a `Request`, a store.  Out: `Outcome`: runs written and found. Models are compressed once per level and answer all their
questions; a violated post-condition or a non-finite logit ends the command with nothing of that run written.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from producer.backends import BACKENDS
from producer.backends.base import Ready
from producer.engine.settings import Settings
from producer.machine.environment import environment, reset_peak
from producer.machine.interrupt import Interrupted, Stop, stop_on_signal
from producer.prompts.templates import PROMPTS
from producer.request.bayes import bayes_runs
from producer.request.choices import check_names
from producer.request.request import Request
from producer.run.plan import Cell, Group, make_plan
from schemas.run import Run
from store import Writer, init_store, open_writer

log = logging.getLogger(__name__)


@dataclass
class Outcome:
    """Names of the runs this command wrote and of those the store had already."""

    written: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)


class Progress:
    """What the command shows while it works; the library's own shows nothing."""

    def start(self, cell: Cell) -> Callable[[int], None]:
        """Begin a run and return what is called with the number of items finished."""
        return lambda _: None

    def finish(self) -> None:
        """End the run begun last."""


def produce(request: Request, store_url: str, settings: Settings | None = None, progress: Progress | None = None) -> Outcome:
    """Make the runs that the store does not hold.

    Raises UsageError and ItemError before anything is written, PostConditionError and NonFiniteError for a run that must not be.
    Raises Interrupted after a signal; what is complete is committed then.
    """
    check_request(request)
    references = list(bayes_runs(request))
    groups = make_plan(request)
    init_store(store_url)
    outcome = Outcome()
    with open_writer(store_url) as writer, stop_on_signal() as stop:
        for items, run in references:
            known = writer.contains(run.key)
            (outcome.found if known else outcome.written).append(writer.write(items, run, replace=request.replace))
        worker = _Worker(request, writer, stop, settings or Settings(), progress or Progress(), outcome)
        try:
            for group in groups:
                worker.run_group(group)
        except Interrupted as interrupted:
            raise _how_to_go_on(interrupted, len(outcome.written)) from interrupted
    return outcome


def check_request(request: Request) -> None:
    """Raise UsageError for an unknown prompt or backend, before anything is loaded."""
    check_names("prompt", request.prompts, PROMPTS)
    check_names("backend", [request.backend], [*BACKENDS])


def missing_cells(group: Group, writer: Writer) -> list[Cell]:
    """Return the cells of a group that the store does not hold."""
    return [cell for cell in group.cells if cell.key is None or not writer.contains(cell.key)]


def own_options(logits: NDArray[np.float32], n_options: NDArray[np.int16]) -> NDArray[np.float32]:
    """Return the logits (item, option) with NaN beyond each item's own options."""
    return np.where(np.arange(logits.shape[1]) < n_options[:, None], logits, np.float32(np.nan))


@dataclass
class _Worker:
    request: Request
    writer: Writer
    stop: Stop
    settings: Settings
    progress: Progress
    outcome: Outcome

    def run_group(self, group: Group) -> None:
        """Answer the cells of a group that are not in the store."""
        todo = list(group.cells) if self.request.replace else missing_cells(group, self.writer)
        self.outcome.found += [cell.key.name for cell in group.cells if cell.key and cell not in todo]
        levels = [level for level in group.levels() if any(cell.level == level for cell in todo)]
        if not levels:
            return
        models = BACKENDS[self.request.backend].ready(group, levels, self.settings)
        for level in levels:
            with self.stop.at_once():
                ready = next(models)
            for cell in todo:
                if cell.level == level:
                    self._run_cell(cell, ready)
            del ready  # the next level needs its memory

    def _run_cell(self, cell: Cell, ready: Ready) -> None:
        run = self._answer(cell, ready)
        name = self.writer.write(cell.question.item_set, run, allow_nonfinite=self.request.allow_nonfinite, replace=self.request.replace)
        self.outcome.written.append(name)
        log.info("%s: %d items in %.1f s%s", name, len(run.logits), run.env.duration_s, _rates(run.env.throughput))

    def _answer(self, cell: Cell, ready: Ready) -> Run:
        finished = self.progress.start(cell)

        def done(n_items: int) -> None:
            finished(n_items)
            self.stop.check()

        own_peak, clock = reset_peak(cell.question.model.device), time.monotonic()
        try:
            answers = ready.answer(cell.question, done)
        finally:
            self.progress.finish()
        assert cell.key is not None, "weights are fetched before a run is made"
        env = environment(
            cell.question.model.device,
            own_peak=own_peak,
            duration_s=time.monotonic() - clock,
            tokens=answers.tokens,
            parameters=ready.parameters,
            truncated_items=cell.question.prompts.truncated,
            post_conditions=dict(ready.conditions),
            throughput=dict(answers.throughput),
            noise_floor=dict(answers.noise_floor),
        )
        return Run(cell.key, own_options(answers.logits, cell.question.item_set.n_options), answers.logsumexp, answers.top_token, env)


def _rates(throughput: Mapping[str, float]) -> str:
    parts = (("items_per_s", "{:,.1f} items/s"), ("tokens_per_s", "{:,.0f} tokens/s"), ("share_of_peak", "{:.0%} of the matrix peak"))
    return "".join(", " + text.format(throughput[name]) for name, text in parts if name in throughput)


def _how_to_go_on(interrupted: Interrupted, n_written: int) -> Interrupted:
    finished = "1 finished run is" if n_written == 1 else f"{n_written} finished runs are"
    message = f"{interrupted}; {finished} in the store, what was under way is not; run the same command again to go on"
    return Interrupted(message, interrupted.signal_number)
