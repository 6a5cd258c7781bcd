"""What a step of the device check is given and what it reports.

In: the device under test, whether sizes are those of a rehearsal.  Out: `Finding`s, one for each thing that was tried.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Where(NamedTuple):
    """The device under test, and whether to run in small: seconds on a CPU instead of the sizes that a GPU is measured with."""

    device: str
    small: bool


class Finding(NamedTuple):
    """One thing that was tried: its figures by name, and what is wrong with them ("" if nothing is)."""

    name: str
    figures: Mapping[str, Any]
    fault: str = ""

    def line(self) -> str:
        """Return the finding in one line."""
        details = [self.fault] if self.fault else []
        details += [f"{name} {shown(value)}" for name, value in self.figures.items() if not isinstance(value, list | dict)]
        return f"{self.name}: {'FAILED' if self.fault else 'ok'}, {'; '.join(details) or 'nothing to measure'}"


Step = Callable[[Where], Iterator[Finding]]


@dataclass
class Measured:
    """Figures by name, and sentences on those that are not as they should be."""

    figures: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def at_most(self, name: str, value: float, most: float) -> None:
        """Keep a figure, and a fault if it is larger than `most` or NaN."""
        self.figures[name] = value
        if not value <= most:
            self.faults.append(f"{name} is {shown(value)}, and at most {shown(most)} is accepted")

    def require(self, holds: bool, otherwise: str) -> None:
        """Keep a fault if something does not hold."""
        if not holds:
            self.faults.append(otherwise)


def attempt(name: str, measure: Callable[[], Measured]) -> Finding:
    """Return what a measurement found; whatever it raises becomes the finding's fault, so that the next one can go on."""
    try:
        measured = measure()
    except Exception as error:  # the point of the check is to find out what fails on a device that was never tried
        return Finding(name, {}, f"{type(error).__name__}: {' '.join(str(error).split())[:400]} ({_file_and_line(error)})")
    return Finding(name, measured.figures, "; ".join(measured.faults))


def shown(value: Any) -> str:
    """Return a figure as it is printed: three significant digits, thousands with commas."""
    if not isinstance(value, float) or not math.isfinite(value):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _file_and_line(error: BaseException) -> str:
    """Return file and line of the innermost frame of ours, and of the innermost frame of all, of an error's traceback."""
    frames, trace = [], error.__traceback__
    while trace is not None:
        frames.append(f"{trace.tb_frame.f_globals.get('__name__', '?')}:{trace.tb_lineno}")
        trace = trace.tb_next
    own_frames = [frame for frame in frames if frame.startswith("producer.")]
    return " <- ".join(dict.fromkeys([*frames[-1:], *own_frames[-2:][::-1]]))
