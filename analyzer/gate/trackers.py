"""The gate's checks in the tools where a team looks already: MLflow, Weights & Biases and Trackio, through their own libraries.

In: what `gate` returned.  Out: for every compressed run one run of the tool, with what was judged, every figure with its interval and
limit, and the outcome. Keys come from the environment variables of each library, as do modes such as WANDB_MODE=offline.
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

ENDS = {"amount": "", "amount_low": " low", "amount_high": " high", "limit": " limit"}  # field of a record -> end of a metric's name


class Tracked(NamedTuple):
    """One compressed run: its name in the store, what was judged with the outcome, and figures by name."""

    name: str
    about: dict[str, str]
    figures: dict[str, float]


class Tracker(NamedTuple):
    """A place to track runs: tool, address (of MLflow) or project, and the tool's library."""

    tool: str
    target: str
    library: Any

    def track(self, checks: Sequence[Record]) -> int:
        """Write one run of the tool for each compressed run and return their number. Raises HedgemarkError with what the tool says."""
        runs = tracked(checks)
        try:
            with redirect_stdout(sys.stderr):  # what these libraries print is no result of ours
                WRITERS[self.tool](self.library, self.target, runs)
        except Exception as error:
            raise HedgemarkError(f"{self.tool} could not be written to at {self.target}: {error}") from error
        return len(runs)


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


def _metric(text: str) -> str:
    return re.sub(r"[^\w. /-]", "", text)  # what MLflow allows in a name


def _mlflow(mlflow: Any, uri: str, runs: Sequence[Tracked]) -> None:
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("hedgemark gate")
    for run in runs:
        with mlflow.start_run(run_name=run.name):
            mlflow.log_params(run.about)
            mlflow.log_metrics(run.figures)


def _wandb(wandb: Any, project: str, runs: Sequence[Tracked]) -> None:
    for run in runs:
        with wandb.init(project=project, name=run.name, config=run.about, reinit="finish_previous") as opened:
            opened.summary.update(run.figures)


def _trackio(trackio: Any, project: str, runs: Sequence[Tracked]) -> None:
    for run in runs:
        trackio.init(project=project, name=run.name, config=run.about)
        trackio.log(run.figures)
        trackio.finish()


WRITERS: dict[str, Callable[[Any, str, Sequence[Tracked]], None]] = {"mlflow": _mlflow, "wandb": _wandb, "trackio": _trackio}
