"""Make one run: take the answers that were found, ask a model that is ready for the rest, and record what was measured.

In: a planned run, a model that is ready, the answers found in stored runs and kept by a command that was cut off.  Out: a `Run`.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from producer.backends.base import Ready
from producer.engine.checkpoints import NOTHING_KEPT
from producer.engine.prefill import nothing_asked
from producer.machine.environment import environment, reset_peak
from producer.machine.interrupt import Stop
from producer.machine.progress import progress_bar
from producer.models.weights_hash import weight_bytes
from producer.request.planned import Model, PlannedRun, PlannedText, PromptedTask
from producer.request.request import Request
from producer.request.served_model import ServedModel
from producer.run.kept import KeptAnswers
from producer.run.known_answers import AS_STORED, KnownAnswers
from producer.run.ready_checks import answers_as_before, check_option_mass
from producer.run.text_runs import text_environment, text_run
from schemas.options import own_options
from schemas.private import without_circumstances
from schemas.run import CHECKPOINT, Environment, Run

log = logging.getLogger(__name__)

UNMEASURED = "the noise floor is not measured, since no item was asked"


@dataclass
class RunMaker:
    """Makes the runs of a request.

    stop   : checked after every batch; it raises Interrupted.
    forget : what removes the kept answers of the runs made; to be called once these are in the store.
    """

    request: Request
    stop: Stop
    show_progress: bool
    forget: list[Callable[[], None]] = field(default_factory=list)

    def from_known(self, planned: PlannedRun, known: KnownAnswers) -> Run:
        """Return a run that stored runs hold all answers to; what was measured on the model is that of the one with the most."""
        log.warning("%s", known)
        prompted, model = planned.prompted, max(known.sources, key=lambda source: source.n_items).env
        here = environment(
            prompted.model.device,
            parameters=model.parameters,
            truncated_items=prompted.prompts.truncated,
            dropped_items=prompted.task.dropped,
            notes=(*prompted.notes, *known.notes(), *([UNMEASURED] if self.request.settings.self_check else [])),
            post_conditions=model.post_conditions,
        )
        return self._joined(planned, known, here.model_copy(update={"throughput": {}}))  # this process's memory says nothing of the model

    def answer(self, planned: PlannedRun, ready: Ready, known: KnownAnswers) -> Run:
        """Return a run to which a model that is ready gives the answers that are missing among those found.

        Answers that an earlier command kept when it was cut off are taken first; those given are kept every `checkpoint_every`.
        """
        assert planned.key is not None, "weights are fetched before a run is made"
        all_prompted, keep, notes = planned.prompted, NOTHING_KEPT, list[str]()
        if not ready.forget:
            kept = KeptAnswers(planned, ready, fresh=self.request.asks_anew)
            kept.put_into(known)
            self.forget.append(kept.remove)
            if kept.taken and planned.key.method not in AS_STORED and not answers_as_before(all_prompted, ready, known, kept.taken):
                log.warning("%d kept answers are not used: the model, compressed again, gives others", len(kept.taken))
                kept.take_back(known)
            keep, notes = kept.keeping(self.request.settings.checkpoint_every, known.missing), [*kept.notes()]
        with self.stop.raise_immediately():
            low_mass = check_option_mass(all_prompted, ready)
        for note in low_mass:
            log.warning("%s", note)
        missing, prompted = known.missing, all_prompted
        if known.is_known.any():
            log.warning("%s", known)
            prompted = all_prompted.only(missing)
        if self.request.settings.self_check and not missing:
            notes.append(UNMEASURED)
        peak_reset, clock = reset_peak(prompted.model.device), time.monotonic()
        with _item_bar(planned, len(missing), shown=self.show_progress) as bar:
            n_letters = len(all_prompted.options.ids)
            answers = ready.answer(prompted, self._after_batch(bar, prompted), keep) if missing else nothing_asked(n_letters)
        env = environment(
            prompted.model.device,
            peak_reset=peak_reset,
            duration_s=time.monotonic() - clock,
            tokens=answers.tokens,
            parameters=ready.parameters,
            truncated_items=all_prompted.prompts.truncated,
            dropped_items=all_prompted.task.dropped,
            notes=(*all_prompted.notes, *low_mass, *answers.notes, *notes, *known.notes()),
            post_conditions={**_file_bytes(planned), **ready.conditions},
            throughput={**answers.throughput, **ready.cost},
            noise_floor=dict(answers.noise_floor),
        )
        if missing:
            known.logits[missing] = prompted.in_own_order(answers.logits)
            known.logsumexp[missing], known.top_token[missing] = answers.logsumexp, answers.top_token
        return self._joined(planned, known, env)

    def text(self, planned: PlannedText, ready: Ready, model: Model) -> Run:
        """Return a run of what a model that is ready says of a text, token by token."""
        assert ready.read is not None, "the group has the text that is read"
        clock, windows = time.monotonic(), planned.text.windows
        with progress_bar(len(windows.windows), f"{model.files.name} {planned.text.text.task}", "window", shown=self.show_progress) as bar:

            def done(n_windows: int) -> None:
                bar.update(n_windows)
                self.stop.check()

            tokens = ready.read(planned.text, done)
        env = text_environment(planned, model, time.monotonic() - clock, ready)
        return text_run(planned, tokens, without_circumstances(env) if self.request.private else env)

    def _joined(self, planned: PlannedRun, answers: KnownAnswers, env: Environment) -> Run:
        assert planned.key is not None, "weights are fetched before a run is made"
        logits = _nan_beyond_options(answers.logits, planned.prompted.item_set.n_options)
        shared = without_circumstances(env) if self.request.private else env
        return Run(planned.key, logits, answers.logsumexp, answers.top_token, shared)

    def _after_batch(self, bar: Any, prompted: PromptedTask) -> Callable[[int], None]:
        tokens_per_item = prompted.prompts.tokens / len(prompted.task.items)

        def done(n_items: int) -> None:
            if seconds := bar.format_dict["elapsed"]:
                bar.set_postfix_str(f"{bar.n * tokens_per_item / seconds:,.0f} tokens/s", refresh=False)
            bar.update(n_items)
            self.stop.check()

        return done


def _item_bar(planned: PlannedRun, n_items: int, *, shown: bool) -> Any:
    prompted = planned.prompted
    label = " ".join(part for part in (prompted.model.files.name, planned.level.text, prompted.task.name, prompted.prompt) if part != "-")
    return progress_bar(n_items, label, "item", shown=shown)


def _file_bytes(planned: PlannedRun) -> dict[str, int]:
    """Return the bytes of the weight files of a model that somebody else compressed; its parameters do not say what it takes."""
    model, key = planned.prompted.model, planned.key
    there = key is not None and key.method == CHECKPOINT and not isinstance(model, ServedModel)
    return {"bytes": weight_bytes(model.files)} if there else {}


def _nan_beyond_options(logits: NDArray[np.float32], n_options: NDArray[np.int16]) -> NDArray[np.float32]:
    """Return the logits (item, option), with NaN for options that an item does not have."""
    return np.where(own_options(n_options, logits.shape[1]), logits, np.float32(np.nan))
