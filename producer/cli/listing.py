"""`produce --list`: every name that the options accept, with its meaning."""

from pathlib import Path

from producer.backends import BACKENDS
from producer.methods import METHODS, Method
from producer.models.find import HUB, REFERENCE
from producer.prompts.templates import PROMPTS
from producer.sweep.named_plans import PLANS
from producer.sweep.sweep_file import read_head
from producer.tasks import EMBEDDED, PLUG_INS, TASKS
from schemas.fields import NATIVE, YE2024
from store.shown import terminal_lines

_HEADINGS = ("method", "kind", "default", "levels", "needs", "models", "paper")
_DISPENSABLE = (0, 0, 0, 0, 1, 2, 3)  # on a narrow terminal the papers go first
_PROMPTS = {"base": "no instruction", "shared": "one instruction for all tasks", "task": "one instruction per task"}
_OTHERS = {
    NATIVE: "the wording of the task itself, for lm-eval:NAME with options that are labels",
    YE2024: "the published benchmark's chat prompt, with --chat, for its tasks",
}


def list_names(kind: str) -> list[str]:
    """Return one line per name; methods and their settings have a line of headings above."""
    if kind == "methods":
        return terminal_lines([_HEADINGS, *(_described(method) for method in METHODS.values())], _DISPENSABLE)
    if kind == "settings":
        of_methods = [
            (each.name, name, option.values, option.meaning) for each in METHODS.values() for name, option in each.options.items()
        ]
        return terminal_lines([("method", "setting", "values", "meaning"), *of_methods])
    rows: dict[str, str] = {
        "models": {"bayes": "exact posterior of task urn", **dict.fromkeys(REFERENCE, "embedded"), **HUB},
        "tasks": {name: _source(name) for name in TASKS},
        "prompts": {name: _PROMPTS[name] for name in PROMPTS} | _OTHERS,
        "plans": {name: read_head(Path(name)).about for name in PLANS},
        "backends": {name: (type(backend).__doc__ or "").split("\n", maxsplit=1)[0] for name, backend in BACKENDS.items()},
    }[kind]
    return terminal_lines(list(rows.items()))


def _source(task: str) -> str:
    if task in PLUG_INS:
        return f"package {PLUG_INS[task]}"
    return "embedded" if task in EMBEDDED else "published benchmark, needs --data or the Hub"


def _described(method: Method) -> tuple[str, ...]:
    return (method.name, method.kind, method.default_level, method.levels, method.needs, method.models, method.paper)
