"""Figures in the tools where a team looks already: MLflow, Weights & Biases and Trackio, through their own libraries.

In: what `gate` or `sets` returned.  Out: one run of the tool for every judged or measured run, with what it is, every figure with its
interval, and for the gate limits and outcome.

Keys come from the environment variables of each library, as do modes such as WANDB_MODE=offline.
"""

import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from importlib import import_module
from itertools import groupby
from typing import Any, NamedTuple

from analyzer.gate.ci_reports import JUDGED, title, tool
from analyzer.gate.gate import NOT_JUDGED, outcome
from analyzer.measure.records import Record
from schemas.errors import HedgemarkError, UsageError
from schemas.private import shareable
from store.shown import counted, silent

MEASURED = ("accuracy", "coverage", "set_size", "empty_rate", "singleton_rate")  # what is tracked of a run that is only measured
PATIENCE = {  # unless the user's environment says otherwise; by default MLflow asks an absent server for 270 s, wandb for 116 s
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "WANDB_INIT_TIMEOUT": "30",
}
MOST_SAID = 300  # characters of a library's message
ENDS = {"amount": "", "amount_low": " low", "amount_high": " high", "limit": " limit"}  # field of a record -> end of a metric's name


class Tracked(NamedTuple):
    """One run: its name in the store, what it is (and was judged to be), and figures by name."""

    name: str
    about: dict[str, str]
    figures: dict[str, float]


class Tool(NamedTuple):
    """How runs are written by a tool's library, what to check when that fails, and how to ask beforehand whether its server answers."""

    write: Callable[[Any, str, str, Sequence[Tracked]], None]
    check: str
    ask: Callable[[Any, str], None] | None = None


class Tracker(NamedTuple):
    """A place to track runs: tool, address (of MLflow) or project, and the tool's library."""

    tool: str
    target: str
    library: Any

    def ask(self) -> None:
        """Ask the tool's server, where it has one, whether it answers. Raises HedgemarkError."""
        if asked := TOOLS[self.tool].ask:
            self._do(lambda: asked(self.library, self.target))

    def track(self, command: str, runs: Sequence[Tracked]) -> str:
        """Write one run of the tool for each run and return a sentence that says so. Raises HedgemarkError with what the tool says.

        command : name of the command that found the figures; MLflow's experiment is called after it.
        """
        self._do(lambda: TOOLS[self.tool].write(self.library, self.target, command, runs))
        return f"{counted(len(runs), 'run')} written to {self.tool}"

    def _do(self, work: Callable[[], None]) -> None:
        try:
            with redirect_stdout(sys.stderr), silent(1):  # what these libraries and wandb's own process print is no result of ours
                work()
        except Exception as error:
            said, check = _reason(error), TOOLS[self.tool].check
            raise HedgemarkError(f"{self.tool} cannot be written to at {shareable(self.target)}: {said}; check {check}") from error


def open_tracker(text: str) -> Tracker:
    """Return the tracker of a text TOOL:TARGET, whose server answers.

    Raises UsageError for another text, and where the tool's library is not installed; HedgemarkError where the server does not answer.
    """
    name, _, target = text.partition(":")
    if name not in TOOLS or not target:
        raise UsageError(f"--track {text[:80]!r} is not mlflow:URI, wandb:PROJECT or trackio:PROJECT")
    for variable, value in PATIENCE.items():
        os.environ.setdefault(variable, value)
    try:
        tracker = Tracker(name, target, import_module(name))
    except ImportError as error:
        raise UsageError(f"--track {name} needs its library: pip install 'hedgemark[{name}]'") from error
    tracker.ask()
    return tracker


def tracked(checks: Sequence[Record]) -> list[Tracked]:
    """Return what is tracked of every run that was judged; figures that do not exist are left out."""
    runs = []
    judged = (check for check in checks if check["result"] != NOT_JUDGED)
    for name, group in groupby(judged, key=lambda check: check["run"]):
        of_run = list(group)
        about = {field: str(of_run[0][field]) for field in (*JUDGED, "n_items", "snapshot")}
        about |= {"result": outcome(of_run), "version": tool()}
        stated = [(check, field) for check in of_run for field in ENDS if check[field] is not None]
        figures = {_metric(title(check) + ENDS[field]): float(check[field]) for check, field in stated}
        about |= {_metric(f"{title(check)} result"): check["result"] for check in of_run}
        runs.append(Tracked(name, about, figures))
    return runs


def tracked_sets(records: Sequence[Record]) -> list[Tracked]:
    """Return what is tracked of every run that was measured; figures and ends of intervals that do not exist are left out."""
    runs = []
    for name, group in groupby(sorted(records, key=lambda record: record["run"]), key=lambda record: record["run"]):
        of_run = list(group)
        about = {field: str(of_run[0][field]) for field in (*JUDGED, "n_items", "snapshot")} | {"version": tool()}
        about |= {"unreliable": next((str(record["unreliable"]) for record in of_run if record["unreliable"]), "no")}
        figures: dict[str, float] = {}
        for record in of_run:
            where = f" {record['scorer']} alpha {record['alpha']:g}" + ("" if record["group"] == "all" else f" {record['group']}")
            for figure in MEASURED:
                ends = {end: record.get(f"{figure}{end}") for end in ("", "_low", "_high")}
                figures |= {_metric(f"{figure}{where}{end.replace('_', ' ')}"): float(v) for end, v in ends.items() if v is not None}
        runs.append(Tracked(name, about, figures))
    return runs


def _metric(text: str) -> str:
    return re.sub(r"[^\w. /-]", "", text)  # what MLflow allows in a name


def _reason(error: BaseException) -> str:
    """Return what the system says of a failed connection, such as "Connection refused", or else the first line of the library's message."""
    said = ""
    link: BaseException | None = error
    while link:
        said = str(link.strerror) if isinstance(link, OSError) and link.strerror else said
        link = link.__cause__ or link.__context__
    return said or next(iter(str(error).strip().splitlines()), type(error).__name__)[:MOST_SAID]


def _ask_mlflow(mlflow: Any, uri: str) -> None:
    mlflow.set_tracking_uri(uri)
    mlflow.search_experiments(max_results=1)


def _mlflow(mlflow: Any, uri: str, command: str, runs: Sequence[Tracked]) -> None:
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment(f"hedgemark {command}")
    for run in runs:
        with mlflow.start_run(run_name=run.name):
            mlflow.log_params(run.about)
            mlflow.log_metrics(run.figures)


def _wandb(wandb: Any, project: str, command: str, runs: Sequence[Tracked]) -> None:
    for run in runs:
        with wandb.init(project=project, name=run.name, config={**run.about, "command": command}, reinit="finish_previous") as opened:
            opened.summary.update(run.figures)


def _trackio(trackio: Any, project: str, command: str, runs: Sequence[Tracked]) -> None:
    for run in runs:
        trackio.init(project=project, name=run.name, config={**run.about, "command": command})
        trackio.log(run.figures)
        trackio.finish()


TOOLS = {
    "mlflow": Tool(_mlflow, "that its server runs there and lets you in (MLFLOW_TRACKING_TOKEN, or _USERNAME and _PASSWORD)", _ask_mlflow),
    "wandb": Tool(_wandb, "the network and the key (WANDB_API_KEY), or set WANDB_MODE=offline"),
    "trackio": Tool(_trackio, "that its folder (TRACKIO_DIR) can be written"),
}
