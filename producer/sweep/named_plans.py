"""Named plans: the published studies as sweep files, `produce --plan tong2026`, and the parts of a sweep that `--only` takes.

Beside what its paper states, a plan lists under `[[open]]` what the paper leaves open and what was chosen here; `--dry-run` prints it.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from producer.run.plan import tasks_of
from schemas.errors import UsageError
from schemas.toml_file import as_model

_FOLDER = Path(__file__).parent / "plans"
PLANS = {
    "tong2026": _FOLDER / "tong2026.toml",
    "ye2024": _FOLDER / "ye2024.toml",
    "dutta2024": _FOLDER / "dutta2024.toml",
}
PART = "part"
KINDS = {PART: "part", "models": "model", "methods": "method", "tasks": "task", "prompts": "prompt"}  # what --only names can be


class Open(BaseModel):
    """Something that a study's paper leaves open, and what the plan does."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    question: str
    choice: str


class Head(BaseModel):
    """What a sweep file says about itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    about: str = ""
    open: tuple[Open, ...] = ()

    def lines(self) -> Iterator[str]:
        """Yield what a dry run says about the study before its runs."""
        yield from [self.about] if self.about else []
        yield from (f"open in the paper: {each.question}; here: {each.choice}" for each in self.open)


def plan_path(name: Path) -> Path:
    """Return the file of a sweep: that of a named plan, or else the path as it is."""
    return PLANS.get(str(name), name)


def take_head(table: dict[str, Any]) -> Head:
    """Take what a sweep file says about itself out of its table, and return it. Raises UsageError for anything else under these keys."""
    return as_model(Head, {key: table.pop(key) for key in Head.model_fields if key in table})


def take_only(blocks: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[Mapping[str, Any]]:
    """Return the blocks of a sweep cut down to the parts, models, methods, tasks and prompts that are named; without names all of them.

    blocks : values of each block by parameter name, with its `part`.
    Names of one kind are alternatives, those of different kinds apply together. Raises UsageError for a name that no block has, and where
    no run is left.
    """
    blocks = [each for block in blocks for each in _with_tasks(block)] if names else blocks
    known = {kind: list(dict.fromkeys(value for block in blocks for value in _values(block, kind))) for kind in KINDS}
    for name in names:
        if not any(name in values for values in known.values()):
            listed = "; ".join(f"{word}s: {', '.join(known[kind])}" for kind, word in KINDS.items() if known[kind])
            raise UsageError(f"--only {name} is no part of this plan; it has {listed}")
        kinds = [word for kind, word in KINDS.items() if name in known[kind]]
        if len(kinds) > 1:
            raise UsageError(f"--only {name} is both a {' and a '.join(kinds)} of this plan; give its part another name")
    wanted = {kind: [name for name in names if name in values] for kind, values in known.items()}
    kept = [cut for block in blocks if (cut := _cut(block, wanted)) is not None]
    if not kept:
        raise UsageError(f"no run of this plan has all of --only {', '.join(names)}; leave one of them out")
    return kept


def _with_tasks(block: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A block as blocks that name their tasks: one for the models of each set of default tasks, where the block names none."""
    if block.get("tasks"):
        return [block]
    models: dict[tuple[str, ...], list[str]] = {}
    for model in _values(block, "models"):
        models.setdefault(tuple(tasks_of((), block.get("text", ""), [model])), []).append(model)
    return [{**block, "models": tuple(names), "tasks": tasks} for tasks, names in models.items()]


def _values(block: Mapping[str, Any], kind: str) -> tuple[str, ...]:
    value = block.get(kind, ("dense",) if kind == "methods" else ("base",) if kind == "prompts" else ())
    return (value,) if isinstance(value, str) else tuple(value)


def _cut(block: Mapping[str, Any], wanted: Mapping[str, Sequence[str]]) -> Mapping[str, Any] | None:
    cut = dict(block)
    for kind, names in wanted.items():
        if not names:
            continue
        left = tuple(value for value in _values(block, kind) if value in names)
        if not left:
            return None
        if kind != PART:
            cut[kind] = left
    return cut
