"""`analyze gate`: may this compressed model ship? Every limit of a policy is checked against the bounds of an interval.

A check passes where the whole 95 % interval is within its limit, fails where the whole interval is beyond it, and is inconclusive
otherwise. A model passes only if all checks pass, so passing needs no correction; it fails if any check fails, so the intervals that
fail are widened to the number of checks (Bonferroni). Both errors stay below 5 % for the policy as a whole.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from scipy.special import ndtri

from analyzer.compare.compare import pair_unreliable
from analyzer.compare.paired import Paired, paired
from analyzer.compare.two_axis_verdict import Side, limit_side
from analyzer.gate.policy import LIMITABLE, Limit, limits_for
from analyzer.measure.question import Question
from analyzer.measure.records import Record, identity, interval_fields, provenance, unreliable
from analyzer.runs.loading import Runs
from analyzer.runs.pairs import Partners
from analyzer.stats.estimate import LEVEL, Estimate
from analyzer.stats.significance import POWER
from schemas.run import DENSE

PASS, FAIL, INCONCLUSIVE = "pass", "fail", "inconclusive"
EXIT_CODES = {PASS: 0, FAIL: 1, INCONCLUSIVE: 3}
RESULTS = {Side.WITHIN: PASS, Side.BEYOND: FAIL, Side.UNKNOWN: INCONCLUSIVE}
EVERY = "-"


@dataclass(frozen=True)
class Check:
    """One figure of one pair beside its limit; `estimate` is None for the check that the runs can be trusted at all."""

    cell: Paired
    name: str
    subject: str | None = None
    limit: Limit | None = None
    estimate: Estimate | None = None
    reason: str | None = None


def gate(runs: Runs, question: Question, limits: Sequence[Limit], partners: Partners | None = None) -> list[Record]:
    """Return one record per check; `outcome` sums them up.

    Raises RunNotFoundError where no selected run has a dense run to be compared with.
    """
    return check_pairs(paired(runs, question, partners), question, limits)


def check_pairs(cells: Iterable[Paired], question: Question, limits: Sequence[Limit]) -> list[Record]:
    """Return the same of cells that are already measured."""
    checks = [check for pair in _by_pair(cells) for check in _checks(pair, question, limits)]
    n_tests = sum(check.estimate is not None for check in checks)
    return [_record(check, question, n_tests) for check in checks]


def outcome(records: Iterable[Record]) -> str:
    """Return `fail` where any check fails, else `inconclusive` where any is, else `pass`."""
    results = {record["result"] for record in records}
    return FAIL if FAIL in results else INCONCLUSIVE if INCONCLUSIVE in results else PASS


def _by_pair(cells: Iterable[Paired]) -> Iterator[list[Paired]]:
    """The cells of each compressed run together; dense runs have nothing to pass."""
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
    yield Check(first, "reliable", reason=pair_unreliable(cells))
    for limit in limits_for(first.row["task"], limits):
        for cell in cells if LIMITABLE[limit.figure].by_sets else cells[:1]:
            yield from _subject_checks(cell, question, limit) if limit.worst_subject else [_check(cell, question, limit)]


def _check(cell: Paired, question: Question, limit: Limit) -> Check:
    return Check(cell, limit.figure, None, limit, LIMITABLE[limit.figure].amount(cell, question))


def _subject_checks(cell: Paired, question: Question, limit: Limit) -> Iterator[Check]:
    """One check per subject: the worst subject is within the limit if and only if all are."""
    view, measure = cell.after.view, LIMITABLE[limit.figure].of_subject
    subject = view.items.subject[view.position]
    for number, name in enumerate(view.items.subjects):
        chosen = subject == number
        if measure and chosen.any():
            yield Check(cell, limit.figure, name or "(no subject)", limit, measure(cell, question, chosen))


def _record(check: Check, question: Question, n_tests: int) -> Record:
    by_sets = check.limit is not None and LIMITABLE[check.limit.figure].by_sets
    record = identity([check.cell.after]) | ({} if by_sets else {"scorer": EVERY, "alpha": None})
    amount = check.estimate
    return (
        record
        | {"check": check.name, "subject": check.subject, "limit": check.limit.value if check.limit else None}
        | (interval_fields("amount", amount) if amount else dict.fromkeys(["amount", "amount_low", "amount_high"]))
        | {"result": _result(check, n_tests), "items_needed": _needed(check, n_tests), "reason": check.reason}
        | {"unreliable": pair_unreliable([check.cell])}
        | provenance([check.cell.after], question)
    )


def _result(check: Check, n_tests: int) -> str:
    if check.limit is None or check.estimate is None:
        if check.reason is None:
            return PASS
        broken = check.cell.before is not None and unreliable([check.cell.after])
        return FAIL if broken else INCONCLUSIVE  # a missing or broken dense run says nothing against the compressed one
    return RESULTS[limit_side(*_excess(check.estimate, check.limit), beyond=_fail_level(n_tests))]


def _excess(estimate: Estimate, limit: Limit) -> tuple[Estimate, float]:
    """A figure and its limit, both turned round where the limit is the least admitted value: then less is within."""
    if not LIMITABLE[limit.figure].at_least:
        return estimate, limit.value
    return (estimate.complement(), 1 - limit.value) if estimate.share else (-estimate, -limit.value)


def _fail_level(n_tests: int) -> float:
    return 1 - (1 - LEVEL) / max(n_tests, 1)


def _needed(check: Check, n_tests: int) -> int | None:
    """Items that would decide an inconclusive check with 80 % chance, were its figure exactly what it is now."""
    if check.limit is None or check.estimate is None or _result(check, n_tests) != INCONCLUSIVE:
        return None
    estimate, limit = _excess(check.estimate, check.limit)
    distance = abs(estimate.value - limit)
    if not distance > 0 or not math.isfinite(estimate.error):
        return None
    level = LEVEL if estimate.value < limit else _fail_level(n_tests)
    reach = (float(ndtri(0.5 + level / 2)) + float(ndtri(POWER))) * estimate.error / distance
    return math.ceil(max(estimate.items + 1, estimate.items * reach**2))
