"""Protocols: named bundles of rules, `--protocol`. One file each, one line here."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from analyzer.measure.cell import Cell
from analyzer.measure.measure_run import measure_run
from analyzer.measure.question import Question
from analyzer.protocols import tong2026, ye2024
from analyzer.runs.view import RunView
from schemas.errors import UsageError


@dataclass(frozen=True)
class Protocol:
    """A protocol: the question it asks by default, which of its fields a user may not change, and how it is answered.

    choose  : view -> the part of it that the protocol uses.
    measure : (view, scorer, question) -> one cell per alpha.
    """

    default: Question
    choose: Callable[[RunView], RunView]
    measure: Callable[[RunView, str, Question], Iterator[Cell]]
    fixed: tuple[str, ...] = ()
    scorers: tuple[str, ...] = ()  # the only scorers it knows; () means all


YE2024_FIXED = ("split", "calibration_fraction", "empty", "reliability", "stratify", "by", "mondrian", "sizes", "quantiles", "parameters")

PROTOCOLS: dict[str, Protocol] = {
    "exact": Protocol(Question(), lambda view: view, measure_run),
    "ye2024": Protocol(ye2024.DEFAULT, ye2024.choose, ye2024.measure, YE2024_FIXED, ("lac", "aps")),
    "tong2026": Protocol(tong2026.DEFAULT, tong2026.choose, measure_run),
}


def protocol_named(name: str) -> Protocol:
    """Return a protocol by name. Raises UsageError that lists the known ones."""
    if name not in PROTOCOLS:
        raise UsageError(f"unknown protocol {name!r}; known: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
