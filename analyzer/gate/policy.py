"""Policies of the release gate: which figures of a compressed run have a limit, and which.

    [limits]                       # in every task
    accuracy_loss = 0.02
    set_size_growth = 0.1
    coverage_after_transfer = 0.88
    predictor_coverage = 0.88      # under the deployed threshold: needs --predictor
    [task.mmlu]                    # in this task, instead of the limit above
    accuracy_loss = 0.01
    [worst_subject]                # in every subject of every task
    accuracy_loss = 0.1
    [worst_value]                  # assumed largest value of a single item, for figures that have none; 20 by default
    kl = 12
    [looks]                        # the gate may be asked at these numbers of items of a run, and errs no more often than if asked once
    items = [500, 1000, 2000]
    spending = "obrien-fleming"    # keeps most of the error for the last look; "pocock" spends it evenly

In: such a TOML file, and `figure=value` texts whose figure may be written `task.mmlu.accuracy_loss`.  Out: a `Policy`.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, WithJsonSchema

from analyzer.compare.paired import Paired
from analyzer.gate.bounds import Bounded, coverage_after_transfer, of_items, set_size_growth
from analyzer.gate.looks import Looks
from analyzer.measure.question import Question
from analyzer.predictor import Predictor
from analyzer.predictor.stored_run import covered
from analyzer.stats.arrays import BoolArray
from analyzer.stats.estimate import Estimate, mean
from schemas.errors import UsageError
from schemas.known_names import known
from schemas.numbers import exact_number
from schemas.toml_file import as_model, finite_number, read_toml

EVERYWHERE = "limits"
PREDICTOR_COVERAGE = "predictor_coverage"
LOSS = 0.02  # by how much coverage under a deployed threshold may fall below its promise if no limit is set
WORST_VALUE = 20.0  # nats: the compressed run gives a probability below 1e-8 to what the dense run is sure of
Amount = Callable[[Paired, Question], Bounded]
SubjectAmount = Callable[[Paired, Question, BoolArray], Bounded]


@dataclass(frozen=True)
class Limitable:
    """A figure that compares a compressed run with its dense run, and that a policy can limit.

    amount     : computes the figure and its bounds over all items that both runs answered.
    of_subject : the same over the items of a mask, (item,) bool; None if the figure has no meaning for a part of the items.
    by_sets    : whether it depends on scorer and alpha; a figure that does not is checked once per run.
    at_least   : True if larger values are better, so that the limit is the smallest value that passes.
    unbounded  : True if an item has no largest value unless the policy states one.
    most       : the largest value that it can have. A limit above it is a percentage written as a whole number.
    """

    amount: Amount
    of_subject: SubjectAmount | None = None
    by_sets: bool = False
    at_least: bool = False
    unbounded: bool = False
    most: float = math.inf


def _mean(name: str, least: float, most: float, *, sign: int = 1) -> Limitable:
    """Return a figure that is the mean of one value per item, between least and most, or for sign -1 its negative."""

    def estimate(cell: Paired) -> Estimate:
        return cell.changes[name] if sign > 0 else -cell.changes[name]

    def amount(cell: Paired, question: Question) -> Bounded:
        return of_items(estimate(cell), least, most)

    def of_subject(cell: Paired, question: Question, chosen: BoolArray) -> Bounded:
        return of_items(estimate(cell).among(chosen), least, most)

    return Limitable(amount, of_subject, unbounded=most == math.inf, most=most)


LIMITABLE: dict[str, Limitable] = {
    "accuracy_loss": _mean("accuracy_change", -1.0, 1.0, sign=-1),
    "set_size_growth": Limitable(set_size_growth, by_sets=True),
    "coverage_after_transfer": Limitable(coverage_after_transfer, coverage_after_transfer, by_sets=True, at_least=True, most=1.0),
    "flips": _mean("flips", 0.0, 1.0),
    "flips_to_wrong": _mean("flips_to_wrong", 0.0, 1.0),
    "answers_changed": _mean("answers_changed", 0.0, 1.0),
    "kl": _mean("kl", 0.0, math.inf),
    "kl_reverse": _mean("kl_reverse", 0.0, math.inf),
    "js": _mean("js", 0.0, math.log(2)),
}


def _of_a_predictor(cell: Paired, question: Question) -> Bounded:
    raise ValueError("coverage under a predictor is measured by the limit itself, which knows the predictor")


# plus the figure that needs more than the runs
FIGURES = {**LIMITABLE, PREDICTOR_COVERAGE: Limitable(_of_a_predictor, at_least=True, most=1.0)}


@dataclass(frozen=True)
class Limit:
    """The limit of a figure: the largest value that passes, or for coverage the smallest.

    task          : the task it applies to; "" for every task.
    worst_subject : True if it applies to each subject by itself, and so to the worst one.
    worst_value   : assumed largest value of an item, for a figure that has none; if an item exceeds it, the upper bound stays open.
    measure       : computes the coverage under a predictor's threshold; None for every other figure.
    """

    figure: str
    value: float
    task: str = ""
    worst_subject: bool = False
    worst_value: float = WORST_VALUE
    measure: Amount | None = None


class Policy(NamedTuple):
    """What a compressed model must keep to, and the planned looks; None means that the gate is asked once."""

    limits: list[Limit]
    looks: Looks | None


def read_policy(path: Path | None, texts: Iterable[str], predictor: Predictor | None = None) -> Policy:
    """Return the policy of a file and of `figure=value` texts.

    predictor : deployed predictor whose threshold must still cover under the compressed model: at least the limit on predictor_coverage,
        by default 0.02 below the predictor's own 1 - alpha.
    A text replaces the limit of the same name in the file; a task's own limit replaces the one for every task.
    Raises UsageError that names every problem: an unknown section or figure, a limit that is no number, looks that do not rise, a policy
    without limits.
    """
    table = read_toml(path, "policy") if path else {}
    texts = list(texts)
    limit_names = [text.rpartition("=")[0] for text in texts]
    if twice := [name for name in limit_names if limit_names.count(name) > 1]:
        raise UsageError(f"limit {twice[0]!r:.60} is given twice; only one of them could hold")
    for text in texts:
        _add(table, text)
    policy = as_model(PolicyFile, table, f"policy {path}" if path else "policy")
    limits = [Limit(figure, value) for figure, value in policy.limits.items()]
    limits += [Limit(figure, value, task) for task, section in policy.task.items() for figure, value in section.items()]
    limits += [Limit(figure, value, worst_subject=True) for figure, value in policy.worst_subject.items()]
    if predictor:
        limits = _with_predictor(limits, predictor)
    elif any(limit.figure == PREDICTOR_COVERAGE for limit in limits):
        raise UsageError(f"a limit on {PREDICTOR_COVERAGE} needs a deployed threshold; name its file with --predictor, or leave it out")
    if not limits:
        raise UsageError(f"the policy sets no limit; give --policy FILE or --limit figure=value with a figure of {', '.join(LIMITABLE)}")
    limits = [replace(limit, worst_value=policy.worst_value.get(limit.figure, WORST_VALUE)) for limit in limits]
    return Policy(limits, policy.looks)


def _with_predictor(limits: list[Limit], predictor: Predictor) -> list[Limit]:
    """Return the limits, with the one on the predictor's coverage for the predictor's own task only."""
    made_on = predictor.document.value["made_on"]
    if predictor.document.weighted:
        raise UsageError("the predictor is for another mix of subjects than the items have, so its coverage cannot be judged on them")

    def coverage(cell: Paired, question: Question) -> Bounded:
        view = cell.after.view
        if view.row["prompt"] != made_on["prompt"]:
            asked = f"run {view.row['name']} was asked with prompt {view.row['prompt']}"
            raise UsageError(f"{asked}, the predictor is for prompt {made_on['prompt']}; select with --prompt")
        if view.key.prompt_hash != made_on.get("prompt_hash", view.key.prompt_hash):
            raise UsageError(
                f"run {view.row['name']} was asked prompt {view.row['prompt']} in other words, or with other demonstrations, than the run "
                "that the predictor was made on; its threshold says nothing of these questions"
            )
        return of_items(mean(covered(predictor, view).astype(np.float64), view.clusters, share=True), 0.0, 1.0)

    stated = [limit for limit in limits_for(made_on["task"], limits) if limit.figure == PREDICTOR_COVERAGE]
    value = stated[0].value if stated else float(1 - predictor.document.alpha) - LOSS
    predictor_limit = Limit(PREDICTOR_COVERAGE, value, made_on["task"], measure=coverage)
    return [*(limit for limit in limits if limit.figure != PREDICTOR_COVERAGE), predictor_limit]


def limits_for(task: str, limits: Iterable[Limit]) -> list[Limit]:
    """Return the limits that apply to a task; its own limits replace those for every task."""
    chosen = [limit for limit in limits if limit.task in ("", task)]
    of_task = {(limit.figure, limit.worst_subject) for limit in chosen if limit.task}
    return [limit for limit in chosen if limit.task or (limit.figure, limit.worst_subject) not in of_task]


def _add(table: dict[str, Any], text: str) -> None:
    """Put `kl=0.1`, `worst_subject.kl=0.1` or `task.mmlu.kl=0.1` where the file would have it; a task's name may contain dots."""
    name, equals, value = text.rpartition("=")
    if not equals:
        raise UsageError(f"limit {text!r} has no value; expected figure=value, such as accuracy_loss=0.02")
    section, _, figure = name.rpartition(".")
    first, _, task = section.partition(".")
    for table_name in [first, task] if task else [first or EVERYWHERE]:
        inner = table.setdefault(table_name, {})
        if not isinstance(inner, dict):
            return  # pydantic reports what is wrong with the file
        table = inner
    try:
        table[figure] = float(exact_number(value))
    except ValueError:  # pydantic reports it beside all else that is wrong
        table[figure] = value


def _figure(name: str) -> str:
    if name not in FIGURES:
        raise ValueError(f"unknown figure {name!r}; {known(name, LIMITABLE)}")
    return name


def _possible(limits: Mapping[str, float]) -> Mapping[str, float]:
    """Return limits. Raises ValueError for one above everything that its figure can be."""
    for name, value in limits.items():
        if value > (most := FIGURES[name].most):
            hint = f"; write {value / 100:g} for {value:g} %" if most == 1 and value <= 100 else ""
            raise ValueError(f"{name} is at most {most:.3g}, so a limit of {value:g} says nothing{hint}")
    return limits


def _subject_figure(name: str) -> str:
    if name not in _by_subject():
        raise ValueError(f"figure {name!r} cannot be limited by subject; those that can: {', '.join(_by_subject())}")
    return name


def _by_subject() -> list[str]:
    return [name for name, what in LIMITABLE.items() if what.of_subject]


def _unbounded_figure(name: str) -> str:
    if name not in _unbounded():
        raise ValueError(f"figure {name!r} has a largest value of its own; those that have none: {', '.join(_unbounded())}")
    return name


def _unbounded() -> list[str]:
    return [name for name, what in LIMITABLE.items() if what.unbounded]


def _listed(known: Iterable[str]) -> WithJsonSchema:
    """Return what lists the known keys in the JSON Schema of a file."""
    return WithJsonSchema({"type": "string", "enum": list(known)})


_Number = Annotated[float, BeforeValidator(finite_number)]
_Limits = Annotated[Mapping[Annotated[str, AfterValidator(_figure), _listed(FIGURES)], _Number], AfterValidator(_possible)]


class PolicyFile(BaseModel):
    """A policy file as it is written."""

    model_config = ConfigDict(extra="forbid")

    limits: _Limits = {}
    task: Mapping[str, _Limits] = {}
    worst_subject: Annotated[
        Mapping[Annotated[str, AfterValidator(_subject_figure), _listed(_by_subject())], _Number], AfterValidator(_possible)
    ] = {}
    worst_value: Mapping[Annotated[str, AfterValidator(_unbounded_figure), _listed(_unbounded())], _Number] = {}
    looks: Looks | None = None
