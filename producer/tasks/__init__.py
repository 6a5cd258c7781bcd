"""Tasks by name; any .json or .jsonl file of items is a task too (`producer.tasks.source`)."""

from producer.tasks.facts import facts
from producer.tasks.published import PUBLISHED
from producer.tasks.urn import urn

EMBEDDED = {"urn": urn, "facts": facts}
TASKS = {**EMBEDDED, **PUBLISHED}
