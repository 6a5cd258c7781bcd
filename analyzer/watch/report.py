"""`analyze monitor`: the state of the watch, as one record per test, per group, and per promised figure.

The tests of statistics that need no answer share one half of delta, the tests of misses the other half. A group whose misses exceed alpha
is reported but raises no alarm, because one threshold for all questions promises nothing for groups. Thresholds by subject promise
coverage within each subject, so each of them is tested.
A threshold made for another mix of subjects has no exact law of misses; there the second half of delta is for the confidence sequence of
the share of misses, and for those of the subjects' shares, which the mix states.
"""

import math
from collections.abc import Iterator, Sequence

from analyzer.measure.records import Record
from analyzer.predictor.document import DECISIONS
from analyzer.watch.miscoverage import miss_share_range
from analyzer.watch.mix import MIX_TOLERANCE
from analyzer.watch.mix_change import MixChange, mix_change
from analyzer.watch.monitor import ALL, Watch
from schemas.numbers import check_tolerance

HOLDS, ALARM, UNDECIDED, QUIET = "holds", "alarm", "not enough yet", "quiet"
SHARE = "share of questions"  # of a subject
EXIT_CODES = {HOLDS: 0, ALARM: 1, UNDECIDED: 3}
TOLERANCE = 0.02  # of coverage, unless another is given
ENOUGH = 500  # questions, without answers, after which a shift worth reporting would have been detected: see validity.md


def report(watch: Watch, tolerance: float) -> list[Record]:
    """Return one record per test, per group, and per promised figure.

    tolerance : by how much coverage may be below 1 - alpha and still count as holding.
    """
    check_tolerance(tolerance, "the tolerance of coverage")
    tests = [*_look_records(watch), *_miss_records(watch)]
    records = [*tests, *_group_records(watch, tolerance), *_share_records(watch), *_promise_records(watch)]
    outcome = _outcome(watch, records)
    return [record | {"outcome": outcome} for record in records]


def explanation(watch: Watch, records: Sequence[Record], tolerance: float) -> MixChange | None:
    """Return whether a changed mix of subjects explains an alarm; None if there is no alarm, or subjects are not known."""
    return mix_change(watch, tolerance) if records and records[0]["outcome"] == ALARM else None


def last_line(watch: Watch, records: Sequence[Record], change: MixChange | None) -> str:
    """Return the state of the watch in one line; for an alarm, also what changed, when it began, and whether the mix of subjects did it."""
    counts = watch.groups[ALL]
    counted = f"{counts['n']:,} questions, {counts['answered']:,} with answers"
    alarmed = [one for one in records if one["result"] == ALARM]
    moved = [f"{_name(one)} ({one['calibrated']:.3g} to {one['live']:.3g}{_since(one)})" for one in alarmed]
    outcome = records[0]["outcome"] if records else UNDECIDED
    because = f"; {change}" if change else ""
    wanted = "; the answers so far do not show that coverage holds" if counts["answered"] else f"; {ENOUGH} without an alarm are enough"
    more = wanted if outcome == UNDECIDED else ""
    return f"monitor: {outcome} after {counted}{'; moved: ' if moved else ''}{', '.join(moved)}{because}{more}"


def _name(record: Record) -> str:
    return f"{record['check']} of {record['group']}" if record["check"] == SHARE else str(record["check"])


def _since(record: Record) -> str:
    return f", since {record['began']}" if record["began"] else ""


def _outcome(watch: Watch, records: Sequence[Record]) -> str:
    """Return an alarm if any test reached its limit; holds if coverage is known to hold or, without answers, after enough questions."""
    if any(record["result"] == ALARM for record in records):
        return ALARM
    counts = watch.groups[ALL]
    if not counts["answered"]:
        return HOLDS if counts["n"] >= ENOUGH else UNDECIDED
    [overall] = [record for record in records if record["check"] == "misses" and record["group"] == ALL]
    return HOLDS if overall["result"] == HOLDS else UNDECIDED


def _look_records(watch: Watch) -> Iterator[Record]:
    limit = 2 * len(watch.tests) / watch.delta
    for name, one in watch.tests.items():
        highest, (calibrated, live) = float(one.bets.highest), one.means()
        alarmed = highest >= limit
        record = _record(name, ALL, one.bets.steps, calibrated, live if alarmed else one.live_mean())
        yield record | _tested(highest, limit, one.began)


def _tested(highest: float, limit: float, began: str) -> Record:
    alarmed = highest >= limit
    return {"e_value": highest, "limit": limit, "result": ALARM if alarmed else QUIET, "began": began if alarmed else None}


def _miss_records(watch: Watch) -> Iterator[Record]:
    limit = 2 * len(watch.misses) / watch.delta
    for subject, one in watch.misses.items():
        if not one.n or not one.watched:
            continue
        threshold, highest = one.threshold, float(one.bets.highest)
        promised = (threshold.n + 1 - threshold.k) / (threshold.n + 1)
        record = _record("exchangeable misses", ALL if subject is None else f"subject {subject}", one.n, promised, one.misses / one.n)
        yield record | _tested(highest, limit, one.began)


def _group_records(watch: Watch, tolerance: float) -> Iterator[Record]:
    alpha = float(watch.predictor.document.alpha)
    for name, counts in watch.groups.items():
        n, missed = counts["answered"], counts["missed"]
        if not n:
            continue
        low, high = miss_share_range(missed, n, watch.delta)
        within = HOLDS if high <= alpha + tolerance else "above" if low > alpha + tolerance else UNDECIDED
        if name == ALL and watch.predictor.document.weighted and miss_share_range(missed, n, watch.delta / 4).low > alpha + tolerance:
            within = ALARM
        yield _record("misses", name, n, alpha, missed / n) | {"low": low, "high": high, "result": within}


def _share_records(watch: Watch) -> Iterator[Record]:
    """Yield the subjects whose share moved; under a threshold that was made for a mix, more than it bears is an alarm."""
    if watch.mix is None or watch.predictor.subjects:
        return
    is_promised = watch.predictor.document.weighted
    for moved in watch.mix.moved(watch.delta / 4):
        low, high = moved.range
        beyond = low > moved.calibrated + MIX_TOLERANCE or high < moved.calibrated - MIX_TOLERANCE
        record = _record(SHARE, f"subject {moved.subject}", int(watch.mix.live.sum()), moved.calibrated, moved.live)
        yield record | {"low": low, "high": high, "result": ALARM if is_promised and beyond else "moved"}


def _promise_records(watch: Watch) -> Iterator[Record]:
    promised, counts = watch.predictor.document.value["promised"], watch.groups[ALL]
    if not counts["n"] or not promised:
        return
    yield _record("set size", ALL, counts["n"], float(promised["set_size"]), counts["options"] / counts["n"])
    for decision in DECISIONS:
        yield _record(decision, ALL, counts["n"], float(promised["decisions"][decision]), counts[decision] / counts["n"])
    if counts["answered"]:
        wrong = counts["alone_wrong"] / counts["answered"]
        yield _record("alone and wrong", ALL, counts["answered"], float(promised["alone_wrong"]), wrong)
        if watch.predictor.document.value["rules"]["prices"] is not None:
            shares = {decision: counts[decision] / counts["n"] for decision in DECISIONS}
            cost = watch.predictor.cost_per_1000(shares, wrong)
            yield _record("cost per 1,000", ALL, counts["n"], float(promised["cost_per_1000"]), cost)


def _record(check: str, group: str, n: int, promised: float, live: float) -> Record:
    empty = dict.fromkeys(("low", "high", "e_value", "limit", "result", "began"))
    return {"check": check, "group": group, "n_items": n, "calibrated": promised, "live": None if math.isnan(live) else live} | empty
