"""The data of a report: every selected run, measured once and paired with its dense run.

In: parsed command-line options.  Out: a `Study`, from which all panels take their figures.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from typing import Any

from analyzer.compare.paired import Paired, paired
from analyzer.compare.two_axis_verdict import Tolerances, tolerances
from analyzer.gate.gate import CompressedModel, check_pairs, compressed_model, tasks_not_judged
from analyzer.gate.policy import Policy, read_policy
from analyzer.measure.question import Question
from analyzer.measure.records import Record
from analyzer.protocols.ask import ask
from analyzer.report.data.watched import read_watched
from analyzer.runs.loading import Runs, select_runs
from analyzer.runs.pairs import Partners
from analyzer.runs.view import RunView
from analyzer.studies.collector import collector_rests
from analyzer.studies.cost import Prices, read_prices
from analyzer.studies.sets import measure_runs
from schemas.errors import UsageError
from schemas.fields import FIELDS

MAX_RUNS = 600  # about 4 MB of page, and more than a person can read
EXAMPLE_PRICES = Prices(answer=0.001, ask_again=0.004, review=0.5, abstain=0.2, wrong=2.0)


@dataclass(frozen=True)
class ReportRequest:
    """What a report shows about the selected runs.

    questions : one per protocol, each with one alpha; panels that show a single protocol show the first.
    policy    : the limits and the planned looks of the release gate.
    prices    : the prices that the cost calculator starts with.
    watch     : what is known of live questions; None if no predictor is watched.
    against   : the model with whose dense runs all runs are compared; None means their own models'.
    """

    questions: Sequence[Question]
    policy: Policy
    tolerances: Tolerances = field(default_factory=Tolerances)
    prices: Prices = EXAMPLE_PRICES
    watch: Sequence[Record] | None = None
    against: str | None = None

    @property
    def parameters(self) -> str:
        """The scorers' parameters that were given, such as raps.penalty=0.2; "" if all scorers have their defaults."""
        by_scorer = self.questions[0].parameters
        return ", ".join(f"{scorer}.{name}={value:g}" for scorer, values in by_scorer.items() for name, value in values.items())

    @property
    def exact(self) -> Question | None:
        """The question under the protocol `exact` over all splits; None if only other protocols are requested."""
        return next((question for question in self.questions if question.protocol == "exact" and question.split.exact), None)


@dataclass(frozen=True)
class Study:
    """Measured runs. `cells` has for each protocol every run under every scorer, in reading order; dense runs have no partner."""

    runs: "KeptRuns"
    request: ReportRequest
    cells: Mapping[str, Sequence[Paired]]

    def pairs(self, protocol: str) -> list[Paired]:
        """Return the cells that have a dense run beside them."""
        return [cell for cell in self.cells[protocol] if cell.before]

    @property
    def exact_cells(self) -> Sequence[Paired]:
        """Cells over all splits; none if only other protocols are requested."""
        return self.cells["exact"] if self.request.exact else ()

    @property
    def exact_pairs(self) -> list[Paired]:
        """The cells over all splits that have a dense run beside them."""
        return [cell for cell in self.exact_cells if cell.before]

    @cached_property
    def checks(self) -> list[Record]:
        """The release gate's records for every compressed model that has a dense run, computed once for the page and `--track`."""
        question, policy = self.request.questions[0], self.request.policy
        cells = [cell for model in _judged_models(self.cells[question.protocol]) for cell in model]
        return check_pairs(cells, question, policy.limits, policy.looks)


@dataclass(frozen=True)
class KeptRuns(Runs):
    """Runs whose arrays are all kept in memory, by name, because every panel uses them."""

    views_by_name: Mapping[str, RunView] = field(default_factory=dict)

    def view(self, row: Mapping[str, Any]) -> RunView:
        """Return the arrays of one run."""
        return self.views_by_name[row["name"]]


def open_study(options: Mapping[str, Any]) -> Study:
    """Return the study for parsed options. Raises UsageError that quotes the invalid value."""
    runs, request = open_selected(options), report_request(options)
    if runs.rows:
        tasks_not_judged(request.policy.limits, runs, options["task"])
    return measure_study(runs, request)


def open_selected(options: Mapping[str, Any]) -> Runs:
    """Return the selected runs of a store and the dense runs that they are compared with; none if the store is still empty."""
    from store import open_reader

    reader = open_reader(options["store_url"], options["at"])
    chosen = {field: options[field] for field in FIELDS}
    return select_runs(reader, chosen, with_dense=True, against=options["against"]) if reader.catalog.height else Runs(reader, ())


def report_request(options: Mapping[str, Any]) -> ReportRequest:
    """Return what a report shows according to parsed options. Raises UsageError that quotes the invalid value."""
    allowed = tolerances(options)
    prices = read_prices(options["prices"]) if options["prices"] else EXAMPLE_PRICES
    questions = tuple(_question(name, options) for name in dict.fromkeys(options["protocols"] or ("exact",)))
    return ReportRequest(questions, _policy(options, allowed), allowed, prices, read_watched(options), options["against"])


@collector_rests()
def measure_study(runs: Runs, request: ReportRequest) -> Study:
    """Return every selected run measured under every protocol.

    Raises UsageError for more runs than fit on a page, ComparisonError if it is ambiguous which dense run belongs to a run.
    """
    if len(runs.rows) > MAX_RUNS:
        raise UsageError(f"{len(runs.rows)} runs are selected, but a page shows {MAX_RUNS} at most; select with --model, --task, --method")
    runs = runs.clustered(request.questions[0].clustering)
    views = {view.row["name"]: view for view in runs.views()}
    kept_runs = KeptRuns(runs.reader, runs.rows, runs.clustering, views)
    return Study(kept_runs, request, {question.protocol: _cells(kept_runs, question, request.against) for question in request.questions})


def _cells(runs: Runs, question: Question, against: str | None) -> list[Paired]:
    question = replace(question, sizes=question.protocol == "exact")
    partners = Partners(runs.rows, against)
    if not any(partners.of(row) for row in runs.rows):
        return [Paired(cell) for cell in measure_runs(runs, question)]
    order = {row["name"]: number for number, row in enumerate(runs.rows)}
    return sorted(paired(runs, question, partners), key=lambda cell: order[cell.row["name"]])


def _judged_models(cells: Sequence[Paired]) -> Iterator[list[Paired]]:
    """Yield the cells of each compressed model that has a dense run, in reading order."""
    order: dict[CompressedModel, int] = {}
    for cell in cells:
        order.setdefault(compressed_model(cell), len(order))
    for _, group in groupby(sorted(cells, key=lambda cell: order[compressed_model(cell)]), key=compressed_model):
        model = list(group)
        if any(cell.before for cell in model):
            yield model


def _policy(options: Mapping[str, Any], allowed: Tolerances) -> Policy:
    """Return the given policy, or one whose limits are the two tolerances if none is given."""
    texts = options["limits"]
    if not texts and not options["policy"]:
        texts = [f"accuracy_loss={allowed.accuracy}", f"set_size_growth={allowed.set_size}"]
    return read_policy(options["policy"], texts)


def _question(protocol: str, options: Mapping[str, Any]) -> Question:
    question = ask(
        alphas=options["alpha"], scorers=options["scorers"], parameters=options["parameters"], protocol=protocol, cluster=options["cluster"]
    )
    if len(question.alphas) != 1:
        raise UsageError(f"alpha {options['alpha']!r} means {len(question.alphas)} alphas; give one, the page's slider offers all others")
    return question
