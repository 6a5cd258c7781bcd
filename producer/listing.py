"""`produce --list`: every name a request can use, with what it means."""

from collections.abc import Iterator

from producer.backends import BACKENDS
from producer.methods import METHODS
from producer.models import HUB, REFERENCE
from producer.prompts import PROMPTS
from producer.tasks import EMBEDDED, TASKS

KINDS = ("models", "methods", "tasks", "prompts", "backends")
_PROMPTS = {"base": "no instruction", "shared": "one instruction for all tasks", "task": "one instruction per task"}


def list_names(kind: str) -> Iterator[str]:
    """Yield one line per name."""
    rows: dict[str, str] = {
        "models": {"bayes": "exact posterior of task urn", **dict.fromkeys(REFERENCE, "embedded"), **HUB},
        "methods": {name: f"{m.kind}; levels: {m.levels}; default {m.default_level}; {m.paper}" for name, m in METHODS.items()},
        "tasks": {name: "embedded" if name in EMBEDDED else "published benchmark, needs --data or the Hub" for name in TASKS},
        "prompts": {name: _PROMPTS[name] for name in PROMPTS},
        "backends": {name: (type(backend).__doc__ or "").split("\n", maxsplit=1)[0] for name, backend in BACKENDS.items()},
    }[kind]
    width = max(map(len, rows))
    return (f"{name.ljust(width)}  {meaning}" for name, meaning in rows.items())
