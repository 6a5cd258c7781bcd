"""`analyze gate`: may this compressed model be released? Every limit of a policy is compared with the two ends of an interval.

A check passes if the interval's end towards the limit is within the limit, fails if the other end is beyond the limit, and is inconclusive
otherwise. A compressed model (all its tasks, prompts and scorers) passes only if all its checks pass, so the end that decides a pass needs
no correction for several checks: its error is at most 2.5 %. The model fails if any check fails, so the ends that decide a failure share
2.5 % among the model's checks (Bonferroni). Selecting further models changes neither. Statements about several models together use a
second result, `result_together`, for which all models share both errors. If the policy plans several looks at rising numbers of items,
each look has a part of both errors (`analyzer.gate.looks`).
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from analyzer.compare.compare import pair_unreliable
from analyzer.compare.paired import Paired, paired
from analyzer.gate.bounds import Bounded, at_worst, too_few_clusters
from analyzer.gate.items_needed import MOST, Needed, items_needed
from analyzer.gate.looks import LaterLook, Look, Looks, look_at
from analyzer.gate.policy import FIGURES, Limit, Limitable, limits_for
from analyzer.measure.question import Question
from analyzer.measure.records import Record, identity, provenance
from analyzer.measure.unreliable import cell_faults, run_reasons
from analyzer.runs.answer_metrics import dependence
from analyzer.runs.clustering import QUESTION
from analyzer.runs.loading import Runs
from analyzer.runs.pairs import Partners
from analyzer.runs.superseded import superseded
from analyzer.stats.estimate import Interval
from schemas.errors import RunNotFoundError, UsageError
from schemas.known_names import known
from schemas.run import DENSE

PASS, FAIL, INCONCLUSIVE = "pass", "fail", "inconclusive"
SUPERSEDED = "superseded"  # the check of a run that is not judged, since a run over the same questions and more is
NOT_JUDGED = "not judged"  # a compressed model none of whose runs has a dense run says nothing about those that were judged
EXIT_CODES = {PASS: 0, FAIL: 1, INCONCLUSIVE: 3}
TAIL = 0.025  # the chance that a model at a limit passes, and that one fails
EVERY = "-"
NEARLY = 0.8  # how alike two names are of which one is taken to be misspelt
NO_DIGITS = str.maketrans("", "", "0123456789")
REPEATED = 0.9  # share of independent units among items below which new items may mostly repeat questions

CompressedModel = tuple[str, str, str]


@dataclass(frozen=True)
class Check:
    """One figure of a pair of runs and its limit; both are None for the checks that there is a dense run and that the runs are reliable.

    look   : how much both ends may err now.
    reason : why the check cannot pass, whatever its figure is.  broken : whether this is a fault of the compressed run itself.
    left_out : whether the run is not judged, since a larger one is.
    """

    cell: Paired
    name: str
    look: Look
    subject: str | None = None
    limit: Limit | None = None
    amount: Bounded | None = None
    reason: str | None = None
    broken: bool = False
    left_out: bool = False

    @property
    def model(self) -> CompressedModel:
        """Model, method and level; all checks of one compressed model share one error."""
        return compressed_model(self.cell)


def gate(
    runs: Runs, question: Question, limits: Sequence[Limit], partners: Partners | None = None, looks: Looks | None = None
) -> list[Record]:
    """Return one record per check; `outcome` summarises them.

    looks : the planned looks of the policy; None means that the gate is asked once.
    Raises RunNotFoundError if no selected run has a dense run to be compared with, or if none is of the task that a predictor is for;
    UsageError if no limit is for a task of the selected runs.
    """
    for limit in limits:
        if limit.measure and all(row["task"] != limit.task for row in runs.rows):
            raise RunNotFoundError(f"no selected run is of task {limit.task}, which the predictor is for; select one")
    selected = {row["task"] for row in runs.rows}
    if selected and not any(limits_for(task, limits) for task in selected):
        theirs = ", ".join(sorted({limit.task for limit in limits})) or "no task"
        ours = ", ".join(sorted(selected))
        raise UsageError(f"the policy limits {theirs} only, and the selected runs are of {ours}: nothing would be judged")
    return check_pairs(paired(runs, question, partners), question, limits, looks)


def tasks_not_judged(limits: Sequence[Limit], runs: Runs, tasks: Sequence[str] = ()) -> list[str]:
    """Return the tasks that have limits of their own and no selected run, so that these limits are not judged.

    tasks : the tasks that were selected by name, whose policy may also be that of other stores; without any, limits are meant for tasks
            of this store.
    Raises UsageError where a limit is for a task that no run of the store is of, unless tasks were selected and none has a name like it.
    """
    selected, stored = {row["task"] for row in runs.rows}, sorted(set(runs.reader.catalog["task"]))
    missing = sorted({limit.task for limit in limits if limit.task and not limit.measure} - selected)
    if unknown := [task for task in missing if task not in stored and (not tasks or _misspelt(task, stored))]:
        raise UsageError(f"the policy has limits on task {unknown[0]!r}, and no run is of it; {known(unknown[0], stored)}")
    return missing


def _misspelt(task: str, stored: Sequence[str]) -> bool:
    """Whether a name is nearly that of a stored task; names that differ in digits alone, such as quiz1 and quiz2, are different tasks."""
    letters = task.translate(NO_DIGITS)
    return any(name.translate(NO_DIGITS) != letters for name in get_close_matches(task, stored, cutoff=NEARLY))


def check_pairs(cells: Iterable[Paired], question: Question, limits: Sequence[Limit], looks: Looks | None = None) -> list[Record]:
    """Return the records of `gate` for cells that are already measured."""
    pairs = list(_by_pair(cells))
    larger = superseded(pair[0].after.view for pair in pairs if pair[0].before)
    checks = [check for pair in pairs for check in _checks(pair, question, limits, looks, larger.get(pair[0].row["name"]))]
    n_checks = Counter(check.model for check in checks if check.amount is not None)
    judged = {check.model for check in checks if check.cell.before}
    return [_record(check, question, n_checks[check.model], max(len(judged), 1)) | _stray(check, judged) for check in checks]


def _stray(check: Check, judged: set[CompressedModel]) -> Record:
    """Return the result of what was not judged: a run that a larger one replaces, and a model none of whose runs has a dense run.

    A model of which only some runs have a dense run stays undecided.
    """
    not_judged = check.left_out or (judged and check.model not in judged)
    return {"result": NOT_JUDGED, "result_together": NOT_JUDGED} if not_judged else {}


def questions_repeat(record: Record) -> bool:
    """Whether so many items repeat a question, and count as one unit with it, that nobody knows how many units more items would add."""
    return bool(record["cluster"] == QUESTION and record["n_clusters"] < REPEATED * record["n_items"])


def compressed_model(cell: Paired) -> CompressedModel:
    """Return what is judged as one model: the name, method and level, over all tasks, prompts and scorers."""
    return cell.row["model"], cell.row["method"], cell.row["level"]


def outcome(records: Iterable[Record], result: str = "result") -> str:
    """Return `fail` if any check fails, else `inconclusive` if any is, else `pass`; reads the field `result` or `result_together`.

    Models that were not judged do not count; without any other there is no outcome but `not judged`.
    """
    results = {record[result] for record in records}
    return next((one for one in (FAIL, INCONCLUSIVE, PASS) if one in results), NOT_JUDGED)


def _by_pair(cells: Iterable[Paired]) -> Iterator[list[Paired]]:
    """Group the cells by run; a dense run is left out unless it is compared with another run."""
    cells_by_run: dict[str, list[Paired]] = {}
    for cell in cells:
        if cell.row["method"] != DENSE or cell.before:
            cells_by_run.setdefault(cell.row["name"], []).append(cell)
    return iter(cells_by_run.values())


def _checks(cells: list[Paired], question: Question, limits: Sequence[Limit], looks: Looks | None, larger: str | None) -> Iterator[Check]:
    """Yield the checks of one run. larger : the run that answers the same questions and more, which is judged instead; None without one."""
    first = cells[0]
    look = look_at(looks, first.after.view.n_items, TAIL)
    if larger:
        yield Check(first, SUPERSEDED, look, reason=f"{larger} answers the same questions and more", left_out=True)
        return
    if first.before is None:
        yield Check(first, "dense run", look, reason="there is no matching dense run")
        return
    yield Check(first, "reliable", look, reason=pair_unreliable(cells), broken=_broken(cells))
    for limit in limits_for(first.row["task"], limits):
        for cell in cells if FIGURES[limit.figure].by_sets else cells[:1]:
            for subject, amount in _amounts(cell, question, limit):
                problem = look.problem or amount.undecided or too_few_clusters(amount.estimate)
                yield Check(cell, limit.figure, look, subject, limit, amount, problem)


def _amounts(cell: Paired, question: Question, limit: Limit) -> Iterator[tuple[str | None, Bounded]]:
    """Yield the limited figure of all items, or the subjects and the figure of each."""
    figure = FIGURES[limit.figure]
    amounts = _by_subject(cell, question, figure) if limit.worst_subject else [(None, (limit.measure or figure.amount)(cell, question))]
    for subject, amount in amounts:
        yield subject, at_worst(amount, limit.worst_value, limit.figure) if figure.unbounded else amount


def _broken(cells: Sequence[Paired]) -> bool:
    """Whether the compressed run itself is faulty; too few items for an alpha are not a fault."""
    return any(run_reasons(cell.after.view) or cell_faults(cell.after) for cell in cells)


def _by_subject(cell: Paired, question: Question, figure: Limitable) -> Iterator[tuple[str | None, Bounded]]:
    """Yield the figure of each subject: the worst subject is within the limit if and only if all are."""
    view = cell.after.view
    subject = view.items.subject[view.position]
    for number, name in enumerate(view.items.subjects):
        chosen = subject == number
        if figure.of_subject and chosen.any():
            yield name or "(no subject)", figure.of_subject(cell, question, chosen)


def _record(check: Check, question: Question, n_checks: int, n_models: int) -> Record:
    by_sets = check.limit is not None and FIGURES[check.limit.figure].by_sets
    record = identity([check.cell.after]) | ({} if by_sets else {"scorer": EVERY, "alpha": None})
    ends = _ends(check, n_checks)
    env = check.cell.after.view.env
    result, units = _result(check, ends), dependence(check.cell.after.view) | {"cluster": question.clustering.text}
    return (
        record
        | {"check": check.name, "subject": check.subject, "limit": check.limit.value if check.limit else None}
        | {"worst_value": check.limit.worst_value if check.limit and FIGURES[check.limit.figure].unbounded else None}
        | {"amount": _finite(check.amount.estimate.value if check.amount else math.nan)}
        | {"amount_low": _finite(ends.low), "amount_high": _finite(ends.high), "n_checks": n_checks, "n_models": n_models}
        | {"result": result, "result_together": _together(check, result, n_checks, n_models)}
        | check.look.fields
        | _needed(check, result, n_checks, questions_repeat(record | units))
        | {"reason": _reason(check, result), "compared_with": check.cell.before.view.row["name"] if check.cell.before else None}
        | {"made": env.created[:10] or None, "libraries": ", ".join(f"{name} {number}" for name, number in sorted(env.libraries.items()))}
        | units
        | {"unreliable": pair_unreliable([check.cell])}
        | provenance([check.cell.after], question)
    )


def _ends(check: Check, n_checks: int) -> Interval:
    """Return the deciding ends: a pass has its own error, a failure a share of the error that all checks of the model divide.

    There are none where nothing may be concluded from them, such as at a threshold that a few questions would move far.
    """
    if check.limit is None or check.amount is None or check.reason:
        return Interval(math.nan, math.nan)
    tail = check.look.tail
    low_tail, high_tail = (tail, tail / n_checks) if FIGURES[check.limit.figure].at_least else (tail / n_checks, tail)
    return Interval(check.amount.low(low_tail), check.amount.high(high_tail))


def _result(check: Check, ends: Interval) -> str:
    if check.limit is None or check.amount is None:
        if check.reason is None:
            return PASS
        return FAIL if check.broken else INCONCLUSIVE  # a missing or broken dense run says nothing against the compressed one
    if check.reason:
        return INCONCLUSIVE
    limit = check.limit.value
    if FIGURES[check.limit.figure].at_least:
        return PASS if ends.low >= limit else FAIL if ends.high < limit else INCONCLUSIVE
    return PASS if ends.high <= limit else FAIL if ends.low > limit else INCONCLUSIVE


def _together(check: Check, result: str, n_checks: int, n_models: int) -> str:
    """Return the result if all models share the error of the end that decided it; an inconclusive result stays inconclusive."""
    if n_models == 1 or result == INCONCLUSIVE or check.limit is None or check.amount is None:
        return result
    tail = check.look.tail / n_models / (1 if result == PASS else n_checks)
    high_decides = (result == PASS) != FIGURES[check.limit.figure].at_least
    ends = Interval(-math.inf, check.amount.high(tail)) if high_decides else Interval(check.amount.low(tail), math.inf)
    return _result(check, ends)


def _reason(check: Check, result: str) -> str | None:
    if check.reason or check.amount is None or result != INCONCLUSIVE:
        return check.reason
    return check.amount.open_end


def _needed(check: Check, result: str, n_checks: int, repeats: bool) -> Record:
    """Return how many items would decide an inconclusive check, the range of that number, the result they would give, and the next look.

    repeats : whether many items repeat a question. Then there is no number: more items of the same source mostly enlarge the clusters.
    With planned looks, the number is that of the first later look that has enough items for its own error, or else of the last look.
    """
    look, needed = check.look, None
    if result == INCONCLUSIVE and not check.look.problem and not repeats:
        for later in look.later if look.looks else (LaterLook(MOST, look.tail),):
            needed = _enough(check, later.tail, n_checks)
            if needed and needed.items <= later.items * _share(check):
                break
    return {
        "items_needed": needed.items if needed else None,
        "items_needed_low": needed.low if needed else None,
        "items_needed_high": needed.high if needed else None,
        "items_needed_to": (PASS if needed.passes else FAIL) if needed else None,
        "next_look": look.later[0].items if look.later and check.limit and result == INCONCLUSIVE else None,
    }


def _enough(check: Check, tail: float, n_checks: int) -> Needed | None:
    if check.limit is None or check.amount is None:
        return None
    at_least = FIGURES[check.limit.figure].at_least
    return items_needed(check.amount, check.limit.value, at_least=at_least, pass_tail=tail, fail_tail=tail / n_checks)


def _share(check: Check) -> float:
    """Return which share of a run's items the check is about: those of its subject."""
    return check.amount.estimate.items / check.cell.after.view.n_items if check.amount and check.subject else 1.0


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
