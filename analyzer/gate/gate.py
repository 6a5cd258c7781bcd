"""`analyze gate`: may this compressed model be released? Every limit of a policy is compared with the two ends of an interval.

A check passes if the interval's end towards the limit is within the limit, fails if the other end is beyond the limit, and is inconclusive
otherwise. A compressed model (all its tasks, prompts and scorers) passes only if all its checks pass, so the end that decides a pass needs
no correction for several checks: its error is at most 2.5 %. The model fails if any check fails, so the ends that decide a failure share
2.5 % among the model's checks (Bonferroni). Selecting further models changes neither. Statements about several models together use a
second result, `result_together`, for which all models share both errors.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from analyzer.compare.compare import pair_unreliable
from analyzer.compare.paired import Paired, paired
from analyzer.gate.bounds import Bounded, at_worst
from analyzer.gate.items_needed import items_needed
from analyzer.gate.policy import FIGURES, Limit, limits_for
from analyzer.measure.question import Question
from analyzer.measure.records import Record, identity, provenance
from analyzer.measure.unreliable import cell_faults, run_reasons
from analyzer.runs.loading import Runs
from analyzer.runs.pairs import Partners
from analyzer.stats.estimate import Interval
from schemas.errors import RunNotFoundError
from schemas.run import DENSE

PASS, FAIL, INCONCLUSIVE = "pass", "fail", "inconclusive"
EXIT_CODES = {PASS: 0, FAIL: 1, INCONCLUSIVE: 3}
TAIL = 0.025  # the chance that a model at a limit passes, and that one fails
EVERY = "-"

CompressedModel = tuple[str, str, str]


@dataclass(frozen=True)
class Check:
    """One figure of a pair of runs and its limit; both are None for the checks that there is a dense run and that the runs are reliable.

    reason : why the check cannot pass, whatever its figure is.  broken : whether this is a fault of the compressed run itself.
    """

    cell: Paired
    name: str
    subject: str | None = None
    limit: Limit | None = None
    amount: Bounded | None = None
    reason: str | None = None
    broken: bool = False

    @property
    def model(self) -> CompressedModel:
        """Model, method and level; all checks of one compressed model share one error."""
        return compressed_model(self.cell)


def gate(runs: Runs, question: Question, limits: Sequence[Limit], partners: Partners | None = None) -> list[Record]:
    """Return one record per check; `outcome` summarises them.

    Raises RunNotFoundError if no selected run has a dense run to be compared with, or if none is of the task that a predictor is for.
    """
    for limit in limits:
        if limit.measure and all(row["task"] != limit.task for row in runs.rows):
            raise RunNotFoundError(f"no selected run is of task {limit.task}, which the predictor is for; select one")
    return check_pairs(paired(runs, question, partners), question, limits)


def check_pairs(cells: Iterable[Paired], question: Question, limits: Sequence[Limit]) -> list[Record]:
    """Return the records of `gate` for cells that are already measured."""
    checks = [check for pair in _by_pair(cells) for check in _checks(pair, question, limits)]
    n_checks = Counter(check.model for check in checks if check.amount is not None)
    n_models = len({check.model for check in checks})
    return [_record(check, question, n_checks[check.model], n_models) for check in checks]


def compressed_model(cell: Paired) -> CompressedModel:
    """Return what is judged as one model: the name, method and level, over all tasks, prompts and scorers."""
    return cell.row["model"], cell.row["method"], cell.row["level"]


def outcome(records: Iterable[Record], result: str = "result") -> str:
    """Return `fail` if any check fails, else `inconclusive` if any is, else `pass`; reads the field `result` or `result_together`."""
    results = {record[result] for record in records}
    return FAIL if FAIL in results else INCONCLUSIVE if INCONCLUSIVE in results else PASS


def _by_pair(cells: Iterable[Paired]) -> Iterator[list[Paired]]:
    """Group the cells by run; a dense run is left out unless it is compared with another run."""
    found: dict[str, list[Paired]] = {}
    for cell in cells:
        if cell.row["method"] != DENSE or cell.before:
            found.setdefault(cell.row["name"], []).append(cell)
    return iter(found.values())


def _checks(cells: list[Paired], question: Question, limits: Sequence[Limit]) -> Iterator[Check]:
    first = cells[0]
    if first.before is None:
        yield Check(first, "dense run", reason="there is no dense run of the same model, task and prompt to compare with")
        return
    yield Check(first, "reliable", reason=pair_unreliable(cells), broken=_broken(cells))
    for limit in limits_for(first.row["task"], limits):
        for cell in cells if FIGURES[limit.figure].by_sets else cells[:1]:
            yield from _subject_checks(cell, question, limit) if limit.worst_subject else [_check(cell, question, limit)]


def _check(cell: Paired, question: Question, limit: Limit) -> Check:
    return _of(cell, limit, None, (limit.measure or FIGURES[limit.figure].amount)(cell, question))


def _of(cell: Paired, limit: Limit, subject: str | None, amount: Bounded) -> Check:
    if FIGURES[limit.figure].unbounded:
        amount = at_worst(amount, limit.worst_value, limit.figure)
    return Check(cell, limit.figure, subject, limit, amount, amount.undecided)


def _broken(cells: Sequence[Paired]) -> bool:
    """Whether the compressed run itself is faulty; too few items for an alpha are not a fault."""
    return any(run_reasons(cell.after.view) or cell_faults(cell.after) for cell in cells)


def _subject_checks(cell: Paired, question: Question, limit: Limit) -> Iterator[Check]:
    """One check per subject: the worst subject is within the limit if and only if all are."""
    view, measure = cell.after.view, FIGURES[limit.figure].of_subject
    subject = view.items.subject[view.position]
    for number, name in enumerate(view.items.subjects):
        chosen = subject == number
        if measure and chosen.any():
            yield _of(cell, limit, name or "(no subject)", measure(cell, question, chosen))


def _record(check: Check, question: Question, n_checks: int, n_models: int) -> Record:
    by_sets = check.limit is not None and FIGURES[check.limit.figure].by_sets
    record = identity([check.cell.after]) | ({} if by_sets else {"scorer": EVERY, "alpha": None})
    ends = _ends(check, n_checks)
    result = _result(check, ends)
    return (
        record
        | {"check": check.name, "subject": check.subject, "limit": check.limit.value if check.limit else None}
        | {"worst_value": check.limit.worst_value if check.limit and FIGURES[check.limit.figure].unbounded else None}
        | {"amount": _finite(check.amount.estimate.value if check.amount else math.nan)}
        | {"amount_low": _finite(ends.low), "amount_high": _finite(ends.high), "n_checks": n_checks, "n_models": n_models}
        | {"result": result, "result_together": _together(check, result, n_checks, n_models)}
        | _needed(check, result, n_checks)
        | {"reason": _reason(check, result)}
        | {"unreliable": pair_unreliable([check.cell])}
        | provenance([check.cell.after], question)
    )


def _ends(check: Check, n_checks: int) -> Interval:
    """Return the deciding ends: a pass has its own error, a failure a share of the error that all checks of the model divide."""
    if check.limit is None or check.amount is None:
        return Interval(math.nan, math.nan)
    low_tail, high_tail = (TAIL, TAIL / n_checks) if FIGURES[check.limit.figure].at_least else (TAIL / n_checks, TAIL)
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
    tail = TAIL / n_models / (1 if result == PASS else n_checks)
    high_decides = (result == PASS) != FIGURES[check.limit.figure].at_least
    ends = Interval(-math.inf, check.amount.high(tail)) if high_decides else Interval(check.amount.low(tail), math.inf)
    return _result(check, ends)


def _reason(check: Check, result: str) -> str | None:
    if check.reason or check.amount is None or result != INCONCLUSIVE:
        return check.reason
    return check.amount.open_end


def _needed(check: Check, result: str, n_checks: int) -> Record:
    """Return how many items would decide an inconclusive check, with the range of that number, and the result they would give."""
    found = None
    if check.limit and check.amount and result == INCONCLUSIVE:
        at_least = FIGURES[check.limit.figure].at_least
        found = items_needed(check.amount, check.limit.value, at_least=at_least, pass_tail=TAIL, fail_tail=TAIL / n_checks)
    if found is None:
        return dict.fromkeys(("items_needed", "items_needed_low", "items_needed_high", "items_needed_to"))
    return {
        "items_needed": found.items,
        "items_needed_low": found.low,
        "items_needed_high": found.high,
        "items_needed_to": PASS if found.passes else FAIL,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
