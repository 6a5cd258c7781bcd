"""What is known of the live questions so far: read from logs row by row, and saved from one nightly call to the next.

In: a predictor, the new rows of a log, and the saved state.  Out: a `Watch`. A log with rows that would be counted wrongly, such as a
question logged twice, is refused before any of its rows is counted.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from analyzer.predictor import Predictor
from analyzer.predictor.document import ANSWER
from analyzer.predictor.looks import looks_of
from analyzer.predictor.runtime import Judged
from analyzer.stats.arrays import AnyArray
from analyzer.watch.exchangeability import STREAM, LookWatch
from analyzer.watch.live_log import UNKNOWN, LiveLog, read_log
from analyzer.watch.miscoverage import MissWatch
from analyzer.watch.mix import MixWatch
from analyzer.watch.state import PENDING, id_hash, pack_answers, read_state, sole_use, unpack_answers, write_state
from schemas.digest import json_digest
from schemas.errors import UsageError
from schemas.options import option_mass

ALL = "all"
MOST_ROUNDING = 2.0**-7  # relative error of 16-bit logits, whose options and vocabulary may come from separate products


class Watch:
    """The tests and counts of all live questions so far."""

    def __init__(self, predictor: Predictor, delta: float) -> None:
        self.predictor, self.delta = predictor, delta
        value = predictor.document.value
        self.seed = int(value["digest"][:12], 16)
        self.looks: dict[str, LookWatch] | None = None  # the first log decides which statistics are watched, and whether by subject too
        self.mix: MixWatch | None = None
        thresholds = () if predictor.document.weighted else predictor.document.thresholds
        self.misses = {one.subject: MissWatch(one, self.seed + (16 + i) * STREAM) for i, one in enumerate(thresholds)}
        self.groups: dict[str, Counter[str]] = {ALL: Counter()}
        self.answers: dict[int, int] = {}  # by hash of the question's id; PENDING until the answer is known
        self.pending: dict[int, dict[str, Any]] = {}
        self.logs: dict[str, dict[str, Any]] = {}

    @property
    def tests(self) -> Mapping[str, LookWatch]:
        """The tests that raise an alarm: a threshold made for another mix of subjects is for questions that are alike within subjects."""
        if self.predictor.document.weighted:
            return self.mix.looks if self.mix else {}
        return self.looks or {}

    def rows_read(self, name: str) -> int:
        """Return how many rows of the log with this name were read before."""
        return int(self.logs.get(name, {}).get("rows", 0))

    def see(self, log: LiveLog) -> None:
        """Count the new rows of a log.

        Raises UsageError, before any row is counted, for missing values, a question logged twice, answers that contradict each other, and
        an answer to a question that was not logged.
        """
        rows = np.flatnonzero(log.n_options > 0)
        if not log.complete[rows].all():
            row = log.first_row + int(rows[~log.complete[rows]][0])
            raise UsageError(f"{log.name} row {row} lacks values; the watch needs the logit of every option, at_most will not do")
        self._check_ids(log)
        subject = [log.subject[row] for row in rows.tolist()] if log.subject else None
        judged = self.predictor.judge(log.logits[rows], log.n_options[rows], subject if self.predictor.subjects else None)
        self._check_subjects(log, rows, subject)
        self._see_looks(log, rows, judged, subject)
        decisions = self.predictor.decisions(judged)
        position_of = {int(row): number for number, row in enumerate(rows)}
        for row in range(len(log)):
            key = id_hash(log.ids[row]) if log.ids else None
            if row in position_of:
                question = self._question(log, row, judged, position_of[row], str(decisions[position_of[row]]))
                self._count(question)
            else:
                assert key is not None
                question = self.pending.pop(key)
            if log.answer[row] != UNKNOWN:
                self._answer(question, int(log.answer[row]), _label(log, row))
            if key is not None:
                self.answers[key] = int(log.answer[row]) if log.answer[row] != UNKNOWN else PENDING
                if log.answer[row] == UNKNOWN:
                    self.pending[key] = question
        self.logs[log.name] = {"rows": log.first_row - 1 + len(log), "last": last_row(log)}

    def _check_ids(self, log: LiveLog) -> None:
        """Raise UsageError for a question that is logged twice, answered twice, or answered before it was asked."""
        logged: dict[int, tuple[int, str]] = {}
        belongs = {key: (question["subject"], question["group"]) for key, question in self.pending.items()}
        counts = {key: int(question["n_options"]) for key, question in self.pending.items()}
        for row in range(len(log)):
            has_logits, answer = log.n_options[row] > 0, int(log.answer[row])
            where = f"{log.name} row {log.first_row + row}"
            if log.ids is None:
                if not has_logits:
                    raise UsageError(f"{where} has an answer without logits, and the log has no column id to say of which question")
                continue
            name, key = log.ids[row], id_hash(log.ids[row])
            before, logged_at = logged.get(key, (self.answers.get(key, UNKNOWN), "an earlier log"))
            is_logged = key in logged or key in self.answers
            if not is_logged and not has_logits:
                raise UsageError(f"{where} answers question {name!r:.60}, which was not logged before it")
            if is_logged and answer not in (UNKNOWN, before) and before not in (UNKNOWN, PENDING):
                new, old = self.predictor.letters[answer], self.predictor.letters[before]
                raise UsageError(f"{where} says that the answer of {name!r:.60} is {new}, but {logged_at} says {old}")
            if is_logged and (has_logits or before not in (UNKNOWN, PENDING)):
                raise UsageError(f"{where} repeats question {name!r:.60} of {logged_at}; every question counts once")
            counts.setdefault(key, int(log.n_options[row]))
            row_groups = (log.subject[row] if log.subject else None, log.group[row] if log.group else None)
            for what, now, was in zip(("subject", "group"), row_groups, belongs.setdefault(key, row_groups), strict=True):
                if now is not None and now != was:
                    raise UsageError(f"{where} says that the {what} of {name!r:.60} is {now!r:.60}, but it was logged with {was!r:.60}")
            if answer >= counts[key]:
                raise UsageError(f"{where} has an answer that is none of its question's options")
            logged[key] = (PENDING if answer == UNKNOWN else answer, f"row {log.first_row + row}")

    def _check_subjects(self, log: LiveLog, rows: AnyArray, subject: list[str] | None) -> None:
        """Raise UsageError for questions of which the threshold's mix has none, and for a log without subjects where they are needed."""
        if not rows.size:
            return
        if subject is None:
            if self.predictor.document.weighted or self.mix is not None:
                why = "the threshold is for a mix of subjects" if self.predictor.document.weighted else "earlier logs had it"
                raise UsageError(f"{log.name} has no column subject; {why}, so say it in every row")
            return
        parts = self.predictor.document.parts
        other = next((row for row, name in zip(rows.tolist(), subject, strict=True) if name not in parts), None)
        if other is not None and self.predictor.document.weighted:
            assert log.subject is not None
            where = f"{log.name} row {log.first_row + other}"
            raise UsageError(f"{where} is of subject {log.subject[other]!r:.60}, which the mix of the predictor's threshold does not have")

    def _see_looks(self, log: LiveLog, rows: AnyArray, judged: Judged, subject: list[str] | None) -> None:
        counted = self.predictor.document.value["looks"]
        if not rows.size:
            return
        mass = None
        if log.logsumexp is not None and np.isfinite(log.logsumexp[rows]).all():
            mass = option_mass(log.logits[rows], log.n_options[rows], log.logsumexp[rows])
            beyond = np.log(mass) > MOST_ROUNDING * (1 + np.abs(np.nanmax(log.logits[rows], axis=1)))
            if beyond.any():
                row = log.first_row + int(rows[beyond][0])
                raise UsageError(f"{log.name} row {row} has a logsumexp below that of its options alone; it goes over the whole vocabulary")
        bins = looks_of(judged.probs, self.predictor.document.alpha, mass)
        names = [name for name in counted if name in bins]
        parts = self.predictor.document.parts
        if self.looks is None:
            n = len(parts) + 1
            self.looks = {name: LookWatch(name, [counted[name]], self.seed + i * STREAM, n) for i, name in enumerate(names)}
            self.mix = MixWatch(parts, names, self.seed) if subject is not None and parts else None
        if missing := sorted(set(self.looks) - set(names)):
            raise UsageError(f"{log.name} has no finite logsumexp in every row, which {missing[0]} needs and earlier logs had")
        labels = [_label(log, int(row)) for row in rows]
        numbers = self.mix.numbers(subject) if self.mix and subject is not None else np.full(rows.size, len(parts), dtype=np.int64)
        for name, watch in self.looks.items():
            watch.see(bins[name], numbers, labels)
        if self.mix:
            self.mix.see(bins, numbers, labels)

    def _question(self, log: LiveLog, row: int, judged: Judged, position: int, decision: str) -> dict[str, Any]:
        """Return what must be remembered of a question until its answer is known."""
        n = int(log.n_options[row])
        alone = int(judged.sets[position].argmax()) if judged.sets[position].sum() == 1 else int(np.nanargmax(judged.probs[position]))
        return {
            "n_options": n,
            "scores": judged.scores[position, :n].tolist(),
            "set": judged.sets[position, :n].astype(int).tolist(),
            "subject": log.subject[row] if log.subject else None,
            "group": log.group[row] if log.group else None,
            "decision": decision,
            "alone": alone if decision == ANSWER else UNKNOWN,
        }

    def _count(self, question: Mapping[str, Any]) -> None:
        for counts in self._groups_of(question):
            counts["n"] += 1
            counts["options"] += sum(question["set"])
            counts[question["decision"]] += 1

    def _answer(self, question: Mapping[str, Any], answer: int, label: str) -> None:
        missed = not question["set"][answer]
        if not self.predictor.document.weighted:
            threshold_of = question["subject"] if self.predictor.subjects else None
            self.misses[threshold_of].see(float(question["scores"][answer]), missed, label)
        if self.mix:
            self.mix.answered[self.mix.numbers([question["subject"]])] += 1
        for counts in self._groups_of(question):
            counts["answered"] += 1
            counts["missed"] += missed
            counts["alone_wrong"] += question["alone"] not in (UNKNOWN, answer)

    def _groups_of(self, question: Mapping[str, Any]) -> Iterator[Counter[str]]:
        yield self.groups[ALL]
        if question["group"] is not None:
            yield self.groups.setdefault(f"group {question['group']}", Counter())

    def to_json(self) -> dict[str, Any]:
        """Return the watch as JSON, which `from_json` reads."""
        return {
            "predictor": self.predictor.document.value["digest"],
            "delta": repr(self.delta),
            "looks": None if self.looks is None else {name: watch.to_json() for name, watch in self.looks.items()},
            "mix": None if self.mix is None else self.mix.to_json(),
            "misses": [watch.to_json() for watch in self.misses.values()],
            "groups": {name: dict(counts) for name, counts in self.groups.items()},
            "answers": pack_answers(self.answers),
            "pending": {str(key): question for key, question in self.pending.items()},
            "logs": self.logs,
        }

    @classmethod
    def from_json(cls, predictor: Predictor, delta: float, value: Mapping[str, Any]) -> "Watch":
        """Return the watch that `to_json` described."""
        watch = cls(predictor, delta)
        counted = predictor.document.value["looks"]
        if value["looks"] is not None:
            named = enumerate(value["looks"].items())
            watch.looks = {name: LookWatch.from_json(name, [counted[name]], watch.seed + i * STREAM, one) for i, (name, one) in named}
        if value["mix"] is not None:
            watch.mix = MixWatch.from_json(predictor.document.parts, watch.seed, value["mix"])
        saved = zip(watch.misses.items(), value["misses"], strict=True)
        watch.misses = {subject: MissWatch.from_json(old.threshold, old.seed, was) for (subject, old), was in saved}
        watch.groups = {name: Counter(counts) for name, counts in value["groups"].items()}
        watch.answers = unpack_answers(value["answers"])
        watch.pending = {int(key): question for key, question in value["pending"].items()}
        watch.logs = dict(value["logs"])
        return watch


def follow(predictor: Predictor, path: Path, *, delta: float, state: Path | None) -> Watch:
    """Return the watch after the new rows of a log; if a state file is named, the watch is loaded from it and saved to it.

    Raises UsageError if the log is not the one read before with rows appended, HedgemarkError if another monitor is using the state, and
    whatever `Watch.see` raises.
    """
    if not 0 < delta < 1:
        raise UsageError(f"delta is {delta}; expected a chance of a false alarm in (0, 1), such as 0.01")
    if state is None:
        watch = Watch(predictor, delta)
        _see_new_rows(watch, path)
        return watch
    with sole_use(state):
        old = read_state(state, predictor.document.value["digest"], repr(delta))
        watch = Watch(predictor, delta) if old is None else Watch.from_json(predictor, delta, old)
        _see_new_rows(watch, path)
        write_state(state, watch.to_json())
    return watch


def _see_new_rows(watch: Watch, path: Path) -> None:
    """Count the rows of a log that the watch has not seen, after checking that the last row it saw is still there."""
    n_read = watch.rows_read(path.name)
    log = read_log(path, watch.predictor, skip=n_read, answers_alone=True)
    if log.ids is None and not n_read:
        _check_not_a_copy(watch, path, len(log))
    if n_read:
        before = read_log(path, watch.predictor, skip=n_read - 1, most=1, answers_alone=True)
        if last_row(before) != watch.logs[path.name]["last"]:
            raise UsageError(f"{path.name} row {n_read} is not what it was when it was read; a log only grows, and each has its own name")
    watch.see(log)


def _check_not_a_copy(watch: Watch, path: Path, n_rows: int) -> None:
    """Raise UsageError if a log without ids has the last row that was read of another log, and so holds questions that were counted."""
    for name, read in watch.logs.items():
        if 0 < read["rows"] <= n_rows:
            same = read_log(path, watch.predictor, skip=read["rows"] - 1, most=1, answers_alone=True)
            if last_row(same) == read["last"]:
                raise UsageError(
                    f"{path.name} row {read['rows']} is the last row that was read of {name}; without a column id its questions would "
                    "count twice, so keep a log's name or give its questions an id"
                )


def saved_watch(predictor: Predictor, path: Path) -> Watch:
    """Return the watch that a state file holds. Raises UsageError if there is none, or if it is damaged or belongs to another predictor."""
    value = read_state(path, predictor.document.value["digest"], None)
    if value is None:
        raise UsageError(f"there is no state {path}; analyze monitor --state writes it")
    return Watch.from_json(predictor, float(value["delta"]), value)


def last_row(log: LiveLog) -> str:
    """Return a digest of the last row, which distinguishes a log with appended rows from another log of the same name."""
    row = [log.logits[-1].tobytes().hex(), int(log.answer[-1]), log.ids[-1] if log.ids else None] if len(log) else None
    return json_digest(row)


def _label(log: LiveLog, row: int) -> str:
    """When a question came, as text: its time if the log has one, else its row."""
    return log.time[row] if log.time else f"{log.name} row {log.first_row + row}"
