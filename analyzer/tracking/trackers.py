"""Figures in the tools where a team looks already: MLflow, Weights & Biases and Trackio, through their own libraries.

In: what `gate` or `sets` returned.  Out: one run of the tool for every judged or measured run, with what it is, every figure with its
interval, and for the gate limits and outcome.

Keys come from the environment variables of each library, as do modes such as WANDB_MODE=offline.
"""

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
from store.shown import counted

MEASURED = ("accuracy", "coverage", "set_size", "empty_rate", "singleton_rate")  # what is tracked of a run that is only measured
ENDS = {"amount": "", "amount_low": " low", "amount_high": " high", "limit": " limit"}  # field of a record -> end of a metric's name


class Tracked(NamedTuple):
    """One run: its name in the store, what it is (and was judged to be), and figures by name."""

    name: str
    about: dict[str, str]
    figures: dict[str, float]


class Tracker(NamedTuple):
    """A place to track runs: tool, address (of MLflow) or project, and the tool's library."""

    tool: str
    target: str
    library: Any

    def track(self, command: str, runs: Sequence[Tracked]) -> str:
        """Write one run of the tool for each run and return a sentence that says so. Raises HedgemarkError with what the tool says.

        command : name of the command that found the figures; MLflow's experiment is called after it.
        """
        try:
            with redirect_stdout(sys.stderr):  # what these libraries print is no result of ours
                WRITERS[self.tool](self.library, self.target, command, runs)
        except Exception as error:
            raise HedgemarkError(f"{self.tool} could not be written to at {self.target}: {error}") from error
        return f"{counted(len(runs), 'run')} written to {self.tool}"


def open_tracker(text: str) -> Tracker:
    """Return the tracker of a text TOOL:TARGET. Raises UsageError for another text, and where the tool's library is not installed."""
    name, _, target = text.partition(":")
    if name not in WRITERS or not target:
        raise UsageError(f"--track {text[:80]!r} is not mlflow:URI, wandb:PROJECT or trackio:PROJECT")
    try:
        return Tracker(name, target, import_module(name))
    except ImportError as error:
        raise UsageError(f"--track {name} needs its library: pip install 'hedgemark[{name}]'") from error


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


WRITERS: dict[str, Callable[[Any, str, str, Sequence[Tracked]], None]] = {"mlflow": _mlflow, "wandb": _wandb, "trackio": _trackio}
