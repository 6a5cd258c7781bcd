"""What a report is made from: every selected run measured once, beside its dense run. All panels take their figures from here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from analyzer.compare.paired import Paired, paired
from analyzer.compare.two_axis_verdict import Tolerances
from analyzer.gate.policy import Limit
from analyzer.measure.question import Question
from analyzer.runs.loading import Runs
from analyzer.runs.pairs import Partners
from analyzer.runs.view import RunView
from analyzer.studies.cost import Prices
from analyzer.studies.sets import measure_runs
from schemas.errors import UsageError

MAX_RUNS = 600  # about 20 MB of page; more than a person can look at
EXAMPLE_PRICES = Prices(answer=0.001, ask_again=0.004, review=0.5, abstain=0.2, wrong=2.0)


@dataclass(frozen=True)
class Asked:
    """What a report is asked.

    questions : one per protocol, each with one alpha; the first is the one of panels that know only one protocol.
    limits    : of the release gate.
    prices    : with which the cost calculator opens.
    """

    questions: Sequence[Question]
    limits: Sequence[Limit]
    tolerances: Tolerances = field(default_factory=Tolerances)
    prices: Prices = EXAMPLE_PRICES

    @property
    def exact(self) -> Question | None:
        """The question over all splits, None where only other protocols are asked for."""
        return next((question for question in self.questions if question.protocol == "exact" and question.split.exact), None)


@dataclass(frozen=True)
class Study:
    """Cell runs. `cells` holds, by protocol, every run under every scorer, in reading order; dense runs have no partner."""

    runs: Runs
    asked: Asked
    cells: Mapping[str, Sequence[Paired]]

    def pairs(self, protocol: str) -> list[Paired]:
        """Return the cells that have a dense run beside them."""
        return [cell for cell in self.cells[protocol] if cell.before]

    @property
    def exact_cells(self) -> Sequence[Paired]:
        """Cells over all splits; none where only other protocols are asked for."""
        return self.cells["exact"] if self.asked.exact else ()

    @property
    def exact_pairs(self) -> list[Paired]:
        """Those of them that have a dense run beside them."""
        return [cell for cell in self.exact_cells if cell.before]


@dataclass(frozen=True)
class KeptRuns(Runs):
    """Runs whose arrays stay in memory once they are read; every panel looks at them again."""

    kept: dict[str, RunView] = field(default_factory=dict)

    def view(self, row: Mapping[str, Any]) -> RunView:
        """Return the arrays of one run."""
        if row["name"] not in self.kept:
            self.kept[row["name"]] = super().view(row)
        return self.kept[row["name"]]


def study(runs: Runs, asked: Asked) -> Study:
    """Return every selected run measured under every protocol.

    Raises UsageError for more runs than a page can hold, ComparisonError for a run whose dense run is not clear.
    """
    if len(runs.rows) > MAX_RUNS:
        raise UsageError(f"{len(runs.rows)} runs are selected and a page holds {MAX_RUNS}; select some with --model, --task or --method")
    kept = KeptRuns(runs.reader, runs.rows)
    return Study(kept, asked, {question.protocol: _cells(kept, question) for question in asked.questions})


def _cells(runs: Runs, question: Question) -> list[Paired]:
    question = replace(question, sizes=question.protocol == "exact")
    partners = Partners(runs.rows)
    if not any(partners.of(row) for row in runs.rows):
        return [Paired(cell) for cell in measure_runs(runs, question)]
    place = {row["name"]: number for number, row in enumerate(runs.rows)}
    return sorted(paired(runs, question, partners), key=lambda cell: place[cell.row["name"]])
