"""`analyze study NAME`: the tables of a published study from the runs of a store, which `produce --plan NAME` made.

In: runs, and figures that articles state.  Out: for each part of the study its records, as `compare`, `scale` and `compare --reference`
return them. Figures are means over prompts and scorers, as the studies print them; a mean over tasks says so in its column `task`.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from analyzer.compare.compare import add_holm, averaged, mean_change, pair_record
from analyzer.compare.paired import Paired, paired
from analyzer.compare.two_axis_verdict import Tolerances
from analyzer.measure.question import Question
from analyzer.measure.records import Record, average_groups, mean_over
from analyzer.runs.loading import Runs, level_strength, reading_order
from analyzer.runs.pairs import Partners
from analyzer.stats.estimate import student
from analyzer.studies.cliffs import sweep_kind
from analyzer.studies.published_figures import ITEMS_STATED, Stated, beside_published
from analyzer.studies.scale import scale
from analyzer.studies.sets import measure_runs
from schemas.errors import UsageError
from schemas.fields import KEY_COLUMNS
from schemas.known_names import known
from schemas.run import DENSE

Kind = Literal["mean over tasks", "by task", "along levels", "scale", "published"]
MEASURED = ("accuracy", "coverage", "set_size", "uacc")
CHANGES = ("accuracy_change", "coverage_change", "set_size_change", "flips", "kl")
PRUNING = ("magnitude", "wanda", "sparsegpt", "llm-pruner", "slicegpt")
WEIGHTS = ("rtn", "gptq", "awq")
BOTH = ("smoothquant", "quarot", "spinquant")


@dataclass(frozen=True)
class Part:
    """One table of a study, with its figure if it has one.

    methods, models : which runs it shows, with the dense runs of their models; () means all.
    figure          : name of the figure; "" for none.
    """

    title: str
    about: str
    kind: Kind
    methods: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    figure: str = ""


@dataclass(frozen=True)
class PublishedStudy:
    """A study: its paper, the protocol of its figures, and its parts in reading order.

    n_items : items per task that it used.
    figures : file of its figures that comes along, where the authors publish them with their code; None where --reference must name one.
    """

    paper: str
    protocol: str
    parts: tuple[Part, ...]
    n_items: int = ITEMS_STATED
    figures: Path | None = None


class Summary(NamedTuple):
    """An estimate without the influences behind it: value, standard error, degrees of freedom, and the figure's limits."""

    value: float
    error: float
    freedom: float
    least: float
    most: float


class TaskFigures(NamedTuple):
    """One run's record on one task, its figures by name, and its place in reading order."""

    record: Record
    figures: dict[str, Summary]
    order: Any


class StudyRecords(NamedTuple):
    """Records by task, means over tasks, growth by size of the model, and published figures beside measured ones."""

    by_task: list[Record]
    means: list[Record]
    scale: list[Record]
    published: list[Record]


MAIN = Part(
    "Main results",
    "Every model under every method and level. A mean over tasks that contains an unreliable run says so.",
    "mean over tasks",
)
SCATTER = Part(
    "Accuracy against set size",
    "Each point is a compressed run on one task. Above the horizontal line its sets grew, left of the vertical line its accuracy fell.",
    "by task",
    figure="scatter",
)
SIZES = Part("Scale", "Relative growth of the mean set against the number of parameters, by family and method.", "scale", figure="scale")
STATED = Part(
    "Beside the published figures",
    "A published figure has no interval, so it is given the one that our data would have with as many items as the study used.",
    "published",
)
STUDIES = {
    "tong2026": PublishedStudy(
        "Tong et al. 2026, arXiv:2606.01850",
        "tong2026",
        (
            MAIN,
            Part("Pruning", "Unstructured pruning at half of the weights, structured pruning at 0.2.", "by task", PRUNING),
            Part("Weight-only quantization", "Four bits per weight, activations in 16 bits.", "by task", WEIGHTS),
            Part("Precision", "Weights and activations in 8, 6 and 4 bits.", "along levels", BOTH, figure="precision"),
            Part("Progressive pruning", "Wanda from a tenth of the weights on.", "along levels", ("wanda",), figure="progressive"),
            Part(
                "Mixture of experts",
                "Every expert is compressed; the embedded ref-moe stands in where the real model is not run.",
                "by task",
                models=("qwen3-30b-a3b", "Qwen/Qwen3-30B-A3B", "ref-moe"),
            ),
            SIZES,
            SCATTER,
            STATED,
        ),
    ),
    "ye2024": PublishedStudy(
        "Ye et al. 2024, arXiv:2401.12794",
        "ye2024",
        (MAIN, Part("By task", "Accuracy, coverage and set size of every model on every task.", "by task"), STATED),
        n_items=10_000,
        figures=Path(__file__).parent / "figures" / "ye2024.csv",  # from the README of github.com/smartyfh/LLM-Uncertainty-Bench
    ),
    "dutta2024": PublishedStudy(
        "Dutta et al. 2024, arXiv:2407.09141",
        "exact",
        (
            MAIN,
            Part("Flips and KL", "Answers that flip while accuracy hardly changes.", "by task"),
            SIZES,
            SCATTER,
            STATED,
        ),
    ),
}


def study_records(
    runs: Runs,
    question: Question,
    tolerances: Tolerances | None = None,
    stated: Sequence[Stated] = (),
    items_stated: int = ITEMS_STATED,
) -> StudyRecords:
    """Return all records of a study's tables.

    stated, items_stated : published figures, and the number of items per task that they rest on.
    Raises ComparisonError if it is ambiguous which dense run belongs to a run.
    """
    allowed = tolerances or Tolerances()
    by_task: list[tuple[Any, Record]] = []
    tasks: dict[tuple[Any, ...], list[TaskFigures]] = {}
    for group in _groups(runs, question):
        row, record = group[0].row, pair_record(group, question, allowed)
        by_task.append((reading_order(row), record))
        tasks.setdefault(_of_any_task(group[0]), []).append(TaskFigures(record, _figures(group), reading_order(row)))
    sized = scale(runs, question) if any(record["compared_with"] for _, record in by_task) else []
    means = sorted(tasks.values(), key=lambda of_tasks: of_tasks[0].order)
    return StudyRecords(
        add_holm([record for _, record in sorted(by_task, key=lambda each: each[0])]),
        [mean_over_tasks(of_tasks) for of_tasks in means],
        sized,
        beside_published(runs, question, stated, items_stated) if stated else [],
    )


def part_records(part: Part, of_study: StudyRecords) -> list[Record]:
    """Return the records that a part shows; [] if the store has none of its runs."""
    if part.kind == "published":
        return of_study.published
    if part.kind == "scale":
        return of_study.scale
    records = [record for record in (of_study.by_task if part.kind == "by task" else of_study.means) if _is_of_model(part, record)]
    if not part.methods:
        return records
    chosen = [record for record in records if record["method"] in part.methods]
    beside = {(record["model"], record["task"], record["n_items"]) for record in chosen}
    dense = [r for r in records if r["method"] == DENSE and (r["model"], r["task"], r["n_items"]) in beside]
    if part.kind == "by task":
        shown = {id(record) for record in (*chosen, *dense)}
        return [record for record in records if id(record) in shown]
    levels = [
        record | {"strength": level_strength(record["level"])} for record in chosen if sweep_kind(record["level"]) not in (None, "none")
    ]
    levels += [record | {"strength": 0.0} for record in dense]
    return sorted(
        levels, key=lambda record: (record["model"], record["task"], record["method"] != DENSE, record["method"], record["strength"])
    )


def mean_over_tasks(tasks: Sequence[TaskFigures]) -> Record:
    """Return the record of a mean over tasks, each task with the same weight; a figure that one task lacks is null.

    Tasks have different items, so that their errors are independent and the squared errors of a mean add up. The interval is Student's,
    with the fewest degrees of freedom of all tasks, within the figure's limits.
    """
    tasks = sorted(tasks, key=lambda each: each.order)
    first, names = tasks[0].record, [each.record["task"] for each in tasks]
    if len(tasks) == 1:
        return first | {"verdict": None}
    record = {name: first[name] for name in ("model", "method", "level")}
    record |= {"task": f"mean of {len(tasks)}: {', '.join(names)}", "prompt": first["prompt"], "scorer": first["scorer"]}
    record |= {"alpha": first["alpha"], "n_items": sum(each.record["n_items"] for each in tasks)}
    for name in (*MEASURED, *CHANGES):
        record |= _mean_fields(name, [each.figures[name] for each in tasks])
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    reasons = [f"includes {each.record['task']}: {each.record['unreliable']}" for each in tasks if each.record["unreliable"]]
    reasons += [f"task {name} is included {names.count(name)} times, with different items" for name in twice]
    return record | {
        "compared_with": "+".join(filter(None, (each.record["compared_with"] for each in tasks))) or None,
        "verdict": None,
        "unreliable": "; ".join(reasons) or None,
        "protocol": first["protocol"],
        "split": first["split"],
        "run": "+".join(each.record["run"] for each in tasks),
        "snapshot": first["snapshot"],
    }


def study_named(name: str) -> PublishedStudy:
    """Return the study with this name. Raises UsageError that lists the known names."""
    if name not in STUDIES:
        raise UsageError(f"unknown study {name!r}; {known(name, STUDIES)}")
    return STUDIES[name]


def _groups(runs: Runs, question: Question) -> Iterator[list[Paired]]:
    """Yield the cells of runs that differ in the wording of the prompt alone, beside their dense run's where the store has any."""
    partners = Partners(runs.rows)
    if any(partners.of(row) for row in runs.rows):
        yield from averaged(paired(runs, question, partners))
    else:
        yield from ([Paired(cell) for cell in cells] for cells in average_groups(measure_runs(runs, question)))


def _figures(group: Sequence[Paired]) -> dict[str, Summary]:
    cells = [cell.after for cell in group]
    estimates = {name: mean_over(cells, [cell.estimates[name] for cell in cells]) for name in MEASURED}
    estimates |= {name: mean_change(group, name) for name in CHANGES}
    return {name: Summary(each.value, each.error, each.freedom, each.least, each.most) for name, each in estimates.items()}


def _of_any_task(cell: Paired) -> tuple[Any, ...]:
    """Return what runs share that are averaged over tasks: model, method, level, and how they were computed."""
    row, of_a_task = cell.row, ("task", "prompt", "items_hash", "tokens_hash", "compression_data_hash")
    return *(row[name] for name in KEY_COLUMNS if name not in of_a_task), cell.after.alpha


def _mean_fields(name: str, figures: Sequence[Summary]) -> Record:
    count = len(figures)
    value = sum(each.value for each in figures) / count
    half = student(max(min(each.freedom for each in figures), 1)) * math.hypot(*(each.error for each in figures)) / count
    if not math.isfinite(value):
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"))
    if not math.isfinite(half):
        return {name: value, f"{name}_low": None, f"{name}_high": None}
    least, most = sum(each.least for each in figures) / count, sum(each.most for each in figures) / count
    return {name: value, f"{name}_low": max(value - half, least), f"{name}_high": min(value + half, most)}


def _is_of_model(part: Part, record: Record) -> bool:
    return not part.models or record["model"] in part.models
