"""Policies of the release gate: which figure may be how large, everywhere, in one task, or in the worst subject.

    [limits]
    accuracy_loss = 0.02
    set_size_growth = 0.1
    coverage_after_transfer = 0.88
    [task.mmlu]
    accuracy_loss = 0.01
    [worst_subject]
    accuracy_loss = 0.1

In: such a TOML file, and `figure=value` texts whose figure may be written `task.mmlu.accuracy_loss`.  Out: a list of `Limit`.
"""

import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analyzer.gate.limitable import FIGURES
from schemas.errors import UsageError

EVERYWHERE, SUBJECT, TASK = "limits", "worst_subject", "task"
SECTIONS = f"[{EVERYWHERE}], [{SUBJECT}] and [{TASK}.<name>]"


@dataclass(frozen=True)
class Limit:
    """The largest (of coverage the least) admitted value of a figure; `task` "" means every task, `worst_subject` each subject of it."""

    figure: str
    value: float
    task: str = ""
    worst_subject: bool = False


def read_policy(path: Path | None, texts: Iterable[str]) -> list[Limit]:
    """Return the limits of a file and of texts; a text replaces the file's limit of the same name, a task's limit the one for every task.

    Raises UsageError for an unknown section or figure, a limit that is no number, or a policy without limits.
    """
    named = _file_limits(path) if path else {}
    for text in texts:
        name, equals, value = text.rpartition("=")
        if not equals:
            raise UsageError(f"limit {text!r} is not one; expected figure=value, such as accuracy_loss=0.02")
        named[name if "." in name else f"{EVERYWHERE}.{name}"] = value
    if not named:
        raise UsageError(f"the policy sets no limit; give --policy FILE or --limit figure=value with a figure of {', '.join(FIGURES)}")
    return [_limit(name, value) for name, value in named.items()]


def limits_for(task: str, limits: Iterable[Limit]) -> list[Limit]:
    """Return the limits that hold in a task, its own in place of the ones for every task."""
    chosen = [limit for limit in limits if limit.task in ("", task)]
    own = {(limit.figure, limit.worst_subject) for limit in chosen if limit.task}
    return [limit for limit in chosen if limit.task or (limit.figure, limit.worst_subject) not in own]


def _file_limits(path: Path) -> dict[str, Any]:
    try:
        policy = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"cannot read the policy {path}: {error}") from error
    tasks = policy.pop(TASK, {})
    sections = {**policy, **{f"{TASK}.{task}": limits for task, limits in (tasks.items() if isinstance(tasks, dict) else [(tasks, 0)])}}
    for section, limits in sections.items():
        if not isinstance(limits, Mapping):
            raise UsageError(f"policy {path}: {section!r} is no section of limits; expected {SECTIONS}")
    return {f"{section}.{figure}": value for section, limits in sections.items() for figure, value in limits.items()}


def _limit(name: str, value: Any) -> Limit:
    section, _, figure = name.rpartition(".")
    task = section.removeprefix(f"{TASK}.") if section.startswith(f"{TASK}.") else ""
    if not task and section not in (EVERYWHERE, SUBJECT):
        raise UsageError(f"limit {name!r}: unknown section {section!r}; expected {SECTIONS}")
    known = [known for known, what in FIGURES.items() if what.of_subject or section != SUBJECT]
    if figure not in known:
        raise UsageError(f"limit {name!r}: unknown figure {figure!r}; in [{section}] there is {', '.join(known)}")
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"limit {name!r}: {value!r} is not a number")
    return Limit(figure, number, task, section == SUBJECT)
