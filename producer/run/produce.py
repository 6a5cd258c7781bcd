"""Make every run of a request and write it into a store; runs that are already stored are skipped, answers that are stored are found.

In: a `Request`, a store.  Out: `Outcome`: runs written, and runs that were stored already. A model is compressed once per level and then
answers all its tasks and prompts; it is not loaded where stored runs hold all answers. A run with a violated post-condition or a non-finite
logit is not written. Where a level or a run fails, all others are made, and an error at the end names what failed.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import zip_longest

import numpy as np

from producer.backends import BACKENDS
from producer.backends.base import Failed, Ready
from producer.backends.loaded_models import LOADED
from producer.machine.failures import Failures
from producer.machine.interrupt import Interrupted, Stop, stop_on_signal
from producer.request.bayes import bayes_runs
from producer.request.planned import PlannedRun, PlannedText, RunGroup
from producer.request.request import Request
from producer.request.served_model import ServedModel
from producer.run.destination import Destination
from producer.run.kept import remove_kept
from producer.run.known_answers import StoredAnswers
from producer.run.make_run import RunMaker
from producer.run.names import compressed_name, group_name, level_name, run_name
from producer.run.plan import check_request, make_plan
from producer.run.ready_checks import check_same_served_model, of_same_model
from producer.run.until import Answered, Decision, at_look, check_judged_once, decide, of_look, with_looks
from producer.saved.folder import check_saving
from schemas.errors import HedgemarkError
from schemas.levels import Level
from schemas.run import Run

log = logging.getLogger(__name__)


@dataclass
class Outcome:
    """Names of the runs that this command wrote, and of those that were stored before it.

    decisions : what the gate decided of each compressed model, by its name, with `--until`.
    """

    written: list[str] = field(default_factory=list)
    already_stored: list[str] = field(default_factory=list)
    decisions: dict[str, Decision] = field(default_factory=dict)


def produce(request: Request, store_url: str, *, show_progress: bool = False, outcome: Outcome | None = None) -> Outcome:
    """Make the runs of a request that are not yet in the store; all runs if the request says `replace`.

    show_progress : whether to show a progress bar for each run, if stderr is a terminal.
    outcome       : what to add to, for a caller who wants to know what was done although this raises.
    Raises UsageError and ItemError before anything is written. When all else is done, raises RunsFailedError with the reason of each
    failure; a single failure, where nothing else was to be done, is raised itself, such as PostConditionError or NonFiniteError.
    Raises Interrupted after a signal; the finished runs are then committed.
    """
    check_request(request)
    request = with_looks(request)
    bayes = list(bayes_runs(request))
    groups = make_plan(request)
    check_saving(groups, request.settings)
    if request.looks:
        check_judged_once(groups)
    outcome = outcome or Outcome()
    author = "" if request.private else None
    with Destination(store_url, request.note, author) as destination, stop_on_signal() as stop:
        for items, run in bayes:
            names = outcome.already_stored if destination.contains(run.key) else outcome.written
            names.append(destination.write(items, run, replace=request.replace))
        maker = RunMaker(request, stop, show_progress)
        worker = _Worker(request, destination, stop, maker, outcome)
        try:
            for group in groups:
                with worker.failures.caught(group_name(group)):
                    worker.run_group(group)
        except Interrupted as interrupted:
            worker.failures.log_new()
            raise _with_advice(interrupted, len(outcome.written)) from interrupted
        finally:
            LOADED.end_command()
    for forget in maker.forget:
        forget()
    worker.failures.raise_any(alone=not (outcome.written or outcome.already_stored))
    return outcome


@dataclass
class _Worker:
    request: Request
    destination: Destination
    stop: Stop
    maker: RunMaker
    outcome: Outcome

    def __post_init__(self) -> None:
        self._stored = StoredAnswers(self.destination.url, fresh=self.request.asks_anew)
        self.failures = Failures()
        self._dense, self._made = dict[tuple[str, str, str], Answered](), dict[str, Run]()

    def run_group(self, group: RunGroup) -> None:
        """Make the runs of a group that are not in the store; with planned looks, ask a compressed model until the gate has decided."""
        if not self.request.looks:
            self._run_group(group)
        elif group.is_dense:
            failed_before = len(self.failures)
            self._run_group(group)
            if len(self.failures) == failed_before:
                self._dense |= {_asked(planned): Answered(planned, self._run_of(planned)) for planned in group.runs}
        elif any(_asked(planned) not in self._dense for planned in group.runs):
            raise HedgemarkError("the gate cannot compare it with its dense model, which has failed")
        else:
            self._run_in_looks(group)

    def _run_group(self, group: RunGroup) -> None:
        todo = [run for run in group.runs if self.request.replace or run.key is None or not self.destination.contains(run.key)]
        for run in group.runs:
            if run.key and run not in todo:
                self.outcome.already_stored.append(run.key.name)
                remove_kept(run.key)
        known = [(run, self._stored.to(run)) for run in todo]
        for run, answers in known:
            if answers.missing:
                continue
            with self._caught(run_name(run)):
                self._write(run, self.maker.from_known(run, answers))
        asked = [(run, answers) for run, answers in known if answers.missing]
        texts = [each for each in group.texts if self.request.replace or each.key is None or not self.destination.contains(each.key)]
        self.outcome.already_stored += [each.key.name for each in group.texts if each.key and each not in texts]
        saving = self.request.settings.save is not None and group.method.changes and not group.is_dense
        needed = {run.level for run, _ in asked} | {each.level for each in texts}
        levels = [level for level in group.levels if saving or level in needed]
        if not levels:
            if known:
                log.warning("%s is not loaded: stored runs hold all answers", group.model.files.name)
            return
        for ready in self._each_level(replace(group, texts=texts), levels):
            for run, answers in asked:
                if run.level != ready.level:
                    continue
                with self._caught(run_name(run)):
                    self._write(run, self.maker.answer(run, ready, of_same_model(run, ready, answers)))
            for each in texts:
                if each.level != ready.level:
                    continue
                with self._caught(f"{level_name(group, ready.level)} {each.text.text.task}"):
                    self._write_text(each, self.maker.text(each, ready, group.model))
            del ready  # frees the model's memory for the next level

    def _each_level(self, group: RunGroup, levels: Sequence[Level]) -> Iterator[Ready]:
        """Yield the group's model at each level that can be made; the caller must not keep it when it asks for the next one.

        What is kept so that a command can go on is deleted where the caller had no failure.
        """
        models = BACKENDS[self.request.backend].ready(group, levels, self.request.settings)
        for _ in levels:
            self.failures.log_new()
            with self.stop.raise_immediately():
                ready = next(models)
                if isinstance(ready, Ready) and isinstance(group.model, ServedModel) and not self.request.replace:
                    check_same_served_model(group, ready, self.destination.url)
            if isinstance(ready, Failed):
                self.failures.add(level_name(group, ready.level), ready.error)
                continue
            failed_before = len(self.failures)
            yield ready
            if len(self.failures) == failed_before:
                if ready.forget:
                    self.maker.forget.append(ready.forget)
                if ready.discard:
                    self.destination.commit()
                    ready.discard()
            del ready

    @contextmanager
    def _caught(self, name: str) -> Iterator[None]:
        """Remember an error of this block as a failure; the answers that were kept of the run stay for the next command."""
        failed_before, to_forget = len(self.failures), len(self.maker.forget)
        with self.failures.caught(name):
            yield
        if len(self.failures) > failed_before:
            del self.maker.forget[to_forget:]

    def _run_in_looks(self, group: RunGroup) -> None:
        levels = [level for level in group.levels if not self._decided_from_store(group, level)]
        for ready in self._each_level(group, levels):
            whole = [planned for planned in group.runs if planned.level == ready.level]
            with self._caught(level_name(group, ready.level)):
                self._ask_in_looks(whole, ready)
            del ready  # frees the model's memory for the next level

    def _ask_in_looks(self, whole: Sequence[PlannedRun], ready: Ready) -> None:
        answered = list[Answered]()
        for look in range(1, len(self.request.looks) + 1):
            answered = [self._next_look(planned, ready, look, before) for planned, before in zip_longest(whole, answered)]
            if (decision := self._decision(look, answered)).final:
                self._write_decided(answered, decision)
                break

    def _decided_from_store(self, group: RunGroup, level: Level) -> bool:
        """Return whether the gate decides at a look to which stored runs hold all answers; the runs of that look are then written."""
        for look, n_items in enumerate(self.request.looks, 1):
            parts = [at_look(planned, n_items) for planned in group.runs if planned.level == level]
            from_store = [self._from_store(part) for part in parts]
            if not (answered := [each for each in from_store if each]) or len(answered) < len(parts):
                return False
            if (decision := self._decision(look, answered)).final:
                self._write_decided(answered, decision)
                return True
        return False

    def _from_store(self, planned: PlannedRun) -> Answered | None:
        """Return a run to which stored runs hold all answers, None where some are missing."""
        assert planned.key is not None, "weights are fetched before a run is made"
        if self.destination.contains(planned.key) and not self.request.replace:
            return Answered(planned, self._run_of(planned))
        known = self._stored.to(planned)
        return None if known.missing else Answered(planned, self.maker.from_known(planned, known))

    def _write_decided(self, answered: Sequence[Answered], decision: Decision) -> None:
        """Write the runs of the look that decided, unless they are stored."""
        note = f"asked in looks until the gate decided: {decision}"
        for planned, run in answered:
            if self.destination.contains(run.key) and not self.request.replace:
                self.outcome.already_stored.append(run.key.name)
                continue
            noted = run.env.model_copy(update={"notes": (*run.env.notes, note)})
            self._write(planned, replace(run, env=noted))

    def _next_look(self, all_looks: PlannedRun, ready: Ready, look: int, before: Answered | None) -> Answered:
        """Return a run over the items of a look, of which those of the look before are answered."""
        planned = at_look(all_looks, self.request.looks[look - 1])
        known = of_same_model(planned, ready, self._stored.to(planned))
        if before:
            known.add(before.run, np.array(planned.prompted.task.look_rank) < len(before.items))
        run = self.maker.answer(planned, ready, known)
        if before:
            spent = {name: getattr(run.env, name) + getattr(before.run.env, name) for name in ("duration_s", "tokens")}
            run = replace(run, env=run.env.model_copy(update=spent))
        return Answered(planned, run)

    def _decision(self, look: int, answered: Sequence[Answered]) -> Decision:
        """Return what the gate says at a look; if it is the last one, the dense runs over its items are written."""
        assert self.request.until, "a request with looks has a policy"
        dense = [of_look(self._dense[_asked(planned)], self.request.looks[look - 1]) for planned, _ in answered]
        decision = decide(self.request.until, self.request.looks, look, [*answered, *dense])
        name = compressed_name(answered[0].planned)
        log.warning("%s: %s", name, decision)
        if decision.final:
            self.outcome.decisions[name] = decision
            for planned, run in dense:
                if run.key.name not in self._made and (self.request.replace or not self.destination.contains(run.key)):
                    self._write(planned, run)
        return decision

    def _write_text(self, planned: PlannedText, run: Run) -> None:
        name = self.destination.write(planned.text.item_set, run, replace=self.request.replace)
        self.outcome.written.append(name)
        log.info("%s: %d tokens in %.1f s", name, run.env.tokens, run.env.duration_s)

    def _run_of(self, planned: PlannedRun) -> Run:
        """Return a run that is in the store, or was made by this command."""
        from store import open_reader

        assert planned.key is not None, "weights are fetched before a run is made"
        return self._made.get(planned.key.name) or open_reader(self.destination.url).run(planned.key.name)

    def _write(self, planned: PlannedRun, run: Run) -> None:
        items = planned.prompted.item_set
        name = self.destination.write(items, run, allow_nonfinite=self.request.allow_nonfinite, replace=self.request.replace)
        self.outcome.written.append(name)
        if self.request.looks:
            self._made[name] = run
        log.info("%s: %d items in %.1f s%s", name, len(run.logits), run.env.duration_s, _rates(run.env.throughput))


def _asked(planned: PlannedRun) -> tuple[str, str, str]:
    """Return model, task and prompt, which a compressed run shares with its dense run."""
    return planned.prompted.model.files.name, planned.prompted.task.name, planned.prompted.prompt


def _rates(throughput: Mapping[str, float]) -> str:
    parts = (("items_per_s", "{:,.1f} items/s"), ("tokens_per_s", "{:,.0f} tokens/s"), ("share_of_peak", "{:.0%} of the matrix peak"))
    return "".join(", " + text.format(throughput[name]) for name, text in parts if name in throughput)


def _with_advice(interrupted: Interrupted, n_written: int) -> Interrupted:
    finished = "1 finished run is" if n_written == 1 else f"{n_written} finished runs are"
    message = f"{interrupted}; {finished} in the store, what an unfinished run has answered is kept; run the same command again to continue"
    return Interrupted(message, interrupted.signal_number)
