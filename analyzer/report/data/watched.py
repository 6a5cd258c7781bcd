"""The watch on the page: what `analyze monitor` says of the live questions so far, and how the evidence grew.

In: a predictor and the state that the monitor keeps.  Out: the monitor's records; those of tests have the course of their evidence too.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analyzer.measure.records import Record
from analyzer.predictor import Predictor
from analyzer.predictor.document import DECISIONS
from analyzer.watch.betting import Trace
from analyzer.watch.monitor import ALL, Watch, saved_watch
from analyzer.watch.report import SHARE, TOLERANCE, report
from schemas.errors import UsageError

SHARES = ("misses", *DECISIONS, "alone and wrong", SHARE)


def read_watched(options: Mapping[str, Any]) -> list[Record] | None:
    """Return the watch's records for parsed options; None if none is wanted.

    Raises UsageError if one of the two files is not named, or is not valid.
    """
    predictor, state = options["predictor"], options["watch"]
    if predictor is None and state is None:
        return None
    if predictor is None or state is None:
        lacking = "--watch, the state that analyze monitor keeps" if state is None else "--predictor, the predictor that is watched"
        raise UsageError(f"the panel of the watch needs two files; add {lacking}")
    return watch_records(saved_watch(Predictor.load(predictor), Path(state)))


def watch_records(watch: Watch) -> list[Record]:
    """Return the monitor's records with `test`, their name, and where they are drawn: as the course of a test or as a share of questions.

    questions, evidence : (stretch,) questions seen at its end, and the largest e-value within it over the level of an alarm; [] if no test.
    live_low, live_high : range of the live figure, where it has one.  share : whether both figures are shares of questions.
    """
    return [_drawn(watch, record) for record in report(watch, TOLERANCE)]


def _drawn(watch: Watch, record: Record) -> Record:
    trace = _trace(watch, record)
    return record | {
        "test": record["check"] if record["group"] == ALL else f"{record['check']}, {record['group']}",
        "questions": trace.questions if trace else [],
        "evidence": [e_value / record["limit"] for e_value in trace.largest] if trace else [],
        "live_low": record["low"],
        "live_high": record["high"],
        "share": record["check"] in SHARES,
    }


def _trace(watch: Watch, record: Record) -> Trace | None:
    """Return the course of the evidence of a record that is a test."""
    if record["limit"] is None:
        return None
    if record["check"] in watch.tests:
        return watch.tests[record["check"]].trace
    return watch.misses[None if record["group"] == ALL else record["group"].removeprefix("subject ")].trace
