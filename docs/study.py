"""The studies of Tong et al. 2026 on the embedded models, made by one command: tables with intervals, and what they show.

    python docs/study.py study-store > docs/study.md

Runs the plan `tong2026` with the embedded models in place of its twelve, and their tasks. What the store already holds is not run again,
so a command that was stopped goes on. Then prints the study's tables; the sentences above each follow from its intervals by fixed rules.
"""

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from analyzer.compare.two_axis_verdict import Tolerances
from analyzer.measure.records import Record
from analyzer.protocols.ask import ask
from analyzer.report.study_page import Section, sections
from analyzer.runs.loading import Runs, open_runs
from analyzer.studies.published_studies import study_named, study_records
from analyzer.tables.markup import markdown
from analyzer.tables.numbers import fixed, fixed_interval
from producer.machine.free_memory import share_malloc_arena
from producer.machine.interrupt import Interrupted
from producer.run.levels import choose_levels
from producer.run.produce import produce
from producer.sweep.sweep_file import read_sweep
from schemas.errors import HedgemarkError
from schemas.levels import method_and_level
from schemas.run import DENSE
from store.shown import counted

PLAN = "tong2026"
MODELS = ("ref-s", "ref-m", "ref-l", "ref-moe")
TASKS = ("urn", "facts")
GROWTH, LOSS = "set_size_change", "accuracy_change"


def main() -> None:
    """Make the runs that are missing, and print the studies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("--limit", type=int, default=2000, help="items of each task [2000]")
    parser.add_argument("--only", action="append", default=[], help="as for produce; repeatable")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    share_malloc_arena()
    failed = make_runs(arguments.store, arguments.limit, arguments.only)
    print("\n".join(page(arguments.store, arguments.limit, failed)))


def make_runs(store: str, limit: int, only: Sequence[str] = ()) -> list[str]:
    """Make the plan's runs that the store lacks, and return why runs are missing."""
    options = {"models": MODELS, "tasks": TASKS, "prompts": ("base",), "limit": limit, **({"only": tuple(only)} if only else {})}
    failed = []
    for request in read_sweep(Path(PLAN), options):
        try:
            outcome = produce(request, store)
        except Interrupted:
            raise
        except HedgemarkError as error:
            failed.append(str(error))
        else:
            print(f"{', '.join(request.methods)}: {counted(len(outcome.written), 'run')} written", file=sys.stderr)
    return failed


def page(store: str, limit: int, failed: Sequence[str]) -> Iterator[str]:
    """Yield the lines of the document."""
    study, tolerances = study_named(PLAN), Tolerances()
    runs = open_runs(store, None, {}, with_dense=True)
    question = ask(cluster="item")  # both tasks draw their questions independently, so that one drawn twice is two draws
    yield "# Published studies on the embedded models\n"
    yield f"The studies of {study.paper}, on models that come with this package. Made by one command, which `make study` runs:\n"
    yield "    python docs/study.py study-store > docs/study.md\n"
    yield from _circumstances(runs, limit)
    if not_run := _not_run(runs):
        yield f"\n{not_run}"
    for number, section in enumerate(sections(study, study_records(runs, question, tolerances), tolerances), 1):
        yield f"\n## {number}. {section.part.title}\n\n{section.part.about}\n"
        yield from (f"- {sentence}" for sentence in findings(section))
        yield f"\n{markdown(section.records, section.columns)}" if section.records else "The store has no run of this part."
    yield "".join(f"\n- Not run: {reason}" for reason in failed)


def _circumstances(runs: Runs, limit: int) -> Iterator[str]:
    env = [runs.reader.run(row["name"]).env for row in runs.rows]
    seconds = sum(each.duration_s for each in env)
    compressing = sum(each.throughput.get("compression_s", 0.0) for each in env) / len(TASKS)  # a model is compressed once for all tasks
    devices = ", ".join(sorted({each.device for each in env}))
    yield (
        f"{counted(len(env), 'run')} of {', '.join(MODELS)} on {limit:,} items each of {' and '.join(TASKS)} with the prompt `base`; "
        f"{devices}; {compressing / 60:.0f} minutes of compressing and {seconds / 60:.0f} of asking."
    )
    yield (
        "The models are tiny and were trained for these two tasks. What holds for them need not hold for others: this shows that every "
        "part of the study runs, and what its tables can tell.\n"
    )
    yield (
        "Figures are means over the scorers LAC and APS at alpha 0.1 and over all splits into halves. *Beyond noise* means that the 95 % "
        "interval of one figure does not include 0; where nothing changes, one row in 40 says so on either side. "
        "Unreliable runs are in the tables with their reasons, and in no sentence."
    )


def _not_run(runs: Runs) -> str:
    """Return a sentence that names what of the plan the store lacks, "" for nothing."""
    held = {(row["model"], row["method"], level) for row in runs.rows for level in (row["level"], "")}
    lacking: dict[str, list[str]] = {}
    for request in read_sweep(Path(PLAN), {"models": MODELS, "tasks": TASKS}):
        for method, levels in choose_levels(request.methods, request.levels).items():
            for level in [each.text for each in levels] or [""]:
                for model in request.models:
                    if (model, method, level) not in held:
                        lacking.setdefault(model, []).append(f"{method} {level}".rstrip())
    parts = "; ".join(f"{model}: {', '.join(dict.fromkeys(names))}" for model, names in lacking.items())
    return f"Not run yet, and in no table: {parts}." if parts else ""


def findings(section: Section) -> Iterator[str]:
    """Yield what a section's records show, in sentences."""
    unreliable = sum(bool(record["unreliable"]) for record in section.records)
    sound = [record for record in section.records if not record["unreliable"]]
    if section.part.kind == "scale":
        yield from _of_scale(sound)
    elif section.part.kind == "along levels":
        yield from _of_levels([record for record in sound if record["method"] != DENSE])
    elif section.part.kind != "published":
        compared = [record for record in sound if record["method"] != DENSE]
        yield from _of_all(compared) if section.part.kind == "mean over tasks" or section.part.figure else _of_methods(compared)
    if unreliable:
        yield f"{counted(unreliable, 'unreliable row')} left out."


def _of_all(records: Sequence[Record]) -> Iterator[str]:
    """Say in how many rows sets grew, accuracy fell, and both or only one of them."""
    grew = [record for record in records if _above(record, GROWTH)]
    fell = [record for record in records if _below(record, LOSS)]
    shrank = [record for record in records if _below(record, GROWTH)]
    only_grew = [record for record in grew if record not in fell]
    only_fell = [record for record in fell if record not in grew]
    yield (
        f"Of {counted(len(records), 'row')} about a compressed model, {len(grew)} have larger sets beyond noise, {len(shrank)} smaller "
        f"ones, and {len(fell)} a lower accuracy."
    )
    yield f"Larger sets without a loss of accuracy that shows: {_names(only_grew)}."
    yield f"A loss of accuracy without larger sets that show: {len(only_fell)}."
    if grew:
        yield f"The largest growth is that of {_named_change(max(grew, key=lambda record: record[GROWTH]), GROWTH, 2)} options."


def _of_methods(records: Sequence[Record]) -> Iterator[str]:
    """Say of each method and level in how many rows sets grew and accuracy fell."""
    for name in dict.fromkeys(_method(record) for record in records):
        rows = [record for record in records if _method(record) == name]
        grew, fell = sum(_above(record, GROWTH) for record in rows), sum(_below(record, LOSS) for record in rows)
        most = max(rows, key=lambda record: record[GROWTH])
        yield (
            f"{name}: sets are larger beyond noise in {grew} of {counted(len(rows), 'row')}, accuracy is lower in {fell}; the "
            f"largest change of sets is {_named_change(most, GROWTH, 2)}."
        )


def _of_levels(records: Sequence[Record]) -> Iterator[str]:
    """Say of each model and method from which level on sets grew or accuracy fell beyond noise. Levels come in order of their strength."""
    for model, method in dict.fromkeys((record["model"], record["method"]) for record in records):
        rows = [record for record in records if (record["model"], record["method"]) == (model, method)]
        rows.sort(key=lambda record: record["strength"])
        sets = next((record["level"] for record in rows if _above(record, GROWTH)), None)
        accuracy = next((record["level"] for record in rows if _below(record, LOSS)), None)
        shown = ", ".join(record["level"] for record in rows)
        yield (f"{model} {method} ({shown}): larger sets beyond noise {_first(sets)}, a lower accuracy {_first(accuracy)}.")


def _of_scale(records: Sequence[Record]) -> Iterator[str]:
    """Say how many slopes over the sizes of a family are negative, positive or unclear."""
    slopes = {
        (record["family"], record["method"], record["level"], record["task"]): record for record in records if record["slope"] is not None
    }
    if not slopes:
        return
    less = [record for record in slopes.values() if record["slope_high"] < 0]
    more = [record for record in slopes.values() if record["slope_low"] > 0]
    yield (
        f"Of {counted(len(slopes), 'comparison')} over at least three sizes of a family, larger models had less relative growth of their "
        f"sets in {len(less)}, more in {len(more)}; {len(slopes) - len(less) - len(more)} are unclear."
    )
    for word, some in (("less", less), ("more", more)):
        if some:
            names = ", ".join(f"{_method(record)} on {record['task']}" for record in some)
            yield f"The sets of larger models grew {word}: {names}."


def _above(record: Record, name: str) -> bool:
    return record[f"{name}_low"] is not None and record[f"{name}_low"] > 0


def _below(record: Record, name: str) -> bool:
    return record[f"{name}_high"] is not None and record[f"{name}_high"] < 0


def _first(level: str | None) -> str:
    return f"first at {level}" if level else "at no level"


def _method(record: Record) -> str:
    return method_and_level(record["method"], record["level"])


def _names(records: Sequence[Record]) -> str:
    return ", ".join(f"{record['model']} {_method(record)}" for record in records) or "none"


def _named_change(record: Record, name: str, digits: int) -> str:
    interval = fixed_interval(record[f"{name}_low"], record[f"{name}_high"], digits, sign=True) if record[f"{name}_low"] is not None else ""
    return f"{record['model']} {_method(record)} on {record['task']}, {fixed(record[name], digits, sign=True)} {interval}".rstrip()


if __name__ == "__main__":
    main()
