"""The verdict of every compressed model: the release gate over all its tasks, prompts and scorers, and why it ended so, in words."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from analyzer.compare.paired import Paired
from analyzer.gate.gate import FAIL, INCONCLUSIVE, PASS, check_pairs, outcome
from analyzer.measure.records import Record
from analyzer.report.data.study import Study
from analyzer.report.words.check_wording import bar, broken, harm, said, worst

HOPELESS = 100_000  # questions
RANK = {PASS: 0, INCONCLUSIVE: 1, FAIL: 2}
WORDS = {PASS: "may ship", INCONCLUSIVE: "undecided", FAIL: "must not ship"}
MEANINGS = {
    PASS: "Within every limit, with 95 % confidence.",
    INCONCLUSIVE: "The questions asked are too few to tell.",
    FAIL: "Beyond a limit, with 95 % confidence.",
}


@dataclass(frozen=True)
class Card:
    """One compressed model. `checks` are the gate's records over all its runs; `why` says in one sentence how it ended so."""

    model: str
    method: str
    level: str
    result: str
    why: str
    checks: Sequence[Record]

    @property
    def name(self) -> str:
        """Method and level in one."""
        return self.method if self.level == "-" else f"{self.method} {self.level}"

    @property
    def short(self) -> str:
        """What a limit was broken by, in a few words; empty where none is."""
        return broken(self.checks)

    @property
    def bars(self) -> list[Record]:
        """The checks that have a figure, each with what draws it; the nearest to its limit, or furthest beyond, first."""
        drawn = [found for check in self.checks if (found := bar(check))]
        return sorted(drawn, key=lambda found: -found["nearness"])


def cards(study: Study) -> list[Card]:
    """Return one card per compressed model that has a dense run, those that may ship first."""
    question = study.asked.questions[0]
    found = []
    for cells in _models(study.cells[question.protocol]):
        checks = check_pairs(cells, question, study.asked.limits)
        row = cells[0].row
        result = outcome(checks)
        found.append(Card(row["model"], row["method"], row["level"], result, _why(result, checks), checks))
    return sorted(found, key=lambda card: RANK[card.result])


def _models(cells: Sequence[Paired]) -> Iterator[list[Paired]]:
    """The cells of each compressed model that has a dense run, in reading order."""

    def key(cell: Paired) -> tuple[str, str, str]:
        return cell.row["model"], cell.row["method"], cell.row["level"]

    order: dict[tuple[str, str, str], int] = {}
    for cell in cells:
        order.setdefault(key(cell), len(order))
    for _, group in groupby(sorted(cells, key=lambda cell: order[key(cell)]), key=key):
        model = list(group)
        if any(cell.before for cell in model):
            yield model


def _why(result: str, checks: Sequence[Record]) -> str:
    if result == PASS:
        return f"Every limit is kept: {worst(checks)}."
    deciding = [check for check in checks if check["result"] == result]
    first = max(deciding, key=_beyond)
    more = len(deciding) - 1
    rest = f" ({more} more check{'s' if more > 1 else ''} like this)" if more else ""
    return f"{said(first)}{rest}." + (_would_decide(deciding) if result == INCONCLUSIVE else "")


def _beyond(check: Record) -> float:
    """How far a check lies beyond its limit, in limits; one without a figure says most."""
    found = harm(check)
    return (found.amount - found.limit) / max(found.limit, 1e-9) if found else math.inf


def _would_decide(checks: Sequence[Record]) -> str:
    """How many questions would decide, of two digits: it is an estimate."""
    needed = max((check["items_needed"] or 0 for check in checks), default=0)
    if needed > HOPELESS:
        return " It is so close to the limit that more questions would hardly decide."
    return f" About {float(f'{needed:.2g}'):,.0f} questions would decide." if needed else ""
