"""Protocols: named sets of rules for splitting, calibrating and scoring (`--protocol`). Each has its own file and one line here."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from analyzer.measure.cell import Cell
from analyzer.measure.measure_run import measure_run
from analyzer.measure.question import Question
from analyzer.protocols import tong2026, ye2024
from analyzer.runs.view import RunView
from schemas.errors import UsageError
from schemas.known_names import known


@dataclass(frozen=True)
class Protocol:
    """A protocol: the question it asks by default, which of its fields a user may not change, and how it is answered.

    Parameters
    ----------
    default : the question if the user sets no option.
    choose : view -> the part of the view that the protocol uses, such as the items that the benchmark evaluated.
    measure : (chosen view, scorer, question) -> one `Cell` per alpha, in the order of `question.alphas`.
    fixed : fields of Question that the user may not set, because the protocol defines them.
    scorers : the only scorers that the protocol has; () means all.

    Raises
    ------
    UsageError
        From `choose` and `measure`, for items to which the protocol does not apply.

    Examples
    --------
    >>> half = Protocol(Question(protocol="half"), lambda view: view.keep(view.position % 2 == 0), measure_run)
    >>> from analyzer.api import example_runs, view_of
    >>> view = half.choose(view_of(example_runs()[0]))
    >>> [cell.n_calibration for cell in half.measure(view, "lac", half.default)]
    [50]
    """

    default: Question
    choose: Callable[[RunView], RunView]
    measure: Callable[[RunView, str, Question], Iterator[Cell]]
    fixed: tuple[str, ...] = ()
    scorers: tuple[str, ...] = ()


YE2024_FIXED = ("split", "calibration_fraction", "empty", "reliability", "stratify", "by", "mondrian", "sizes", "quantiles", "parameters")

PROTOCOLS: dict[str, Protocol] = {
    "exact": Protocol(Question(), lambda view: view, measure_run),
    "ye2024": Protocol(ye2024.DEFAULT, ye2024.choose, ye2024.measure, YE2024_FIXED, ("lac", "aps")),
    "tong2026": Protocol(tong2026.DEFAULT, tong2026.choose, measure_run),
}


def protocol_named(name: str) -> Protocol:
    """Return the protocol with this name. Raises UsageError that lists the known names."""
    if name not in PROTOCOLS:
        raise UsageError(f"unknown protocol {name!r}; {known(name, PROTOCOLS)}")
    return PROTOCOLS[name]
