"""Tasks by name; any .json, .jsonl, .csv or .parquet file of items is a task too (`producer.tasks.source`)."""

from collections.abc import Callable, Sequence

from producer.tasks.facts import facts
from producer.tasks.urn import urn
from schemas.benchmark import BENCHMARK, BenchmarkTask
from schemas.items import Item
from schemas.plug_ins import add_plug_ins, not_callable

MakeItems = Callable[[], Sequence[Item]]

EMBEDDED: dict[str, MakeItems] = {"urn": urn, "facts": facts}
TASKS: dict[str, MakeItems | BenchmarkTask] = {**EMBEDDED, **BENCHMARK}
PLUG_INS = add_plug_ins("hedgemark.tasks", TASKS, not_callable)  # by name: the package that a task of other people comes from
