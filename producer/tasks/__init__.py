"""Tasks by name; any .json, .jsonl, .csv or .parquet file of items is a task too (`producer.tasks.source`)."""

from producer.tasks.facts import facts
from producer.tasks.urn import urn
from schemas.benchmark import BENCHMARK

EMBEDDED = {"urn": urn, "facts": facts}
TASKS = {**EMBEDDED, **BENCHMARK}
