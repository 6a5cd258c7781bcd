"""Tasks of an installed lm-evaluation-harness as items: `--task lm-eval:arc_easy`, a group such as `lm-eval:mmlu`, or `lm-eval:task.yaml`.

In: the name of a task.  Out: `LoadedItems`. Documents, choices and targets are the harness's own, the wording around them is ours, or the
harness's too for `--prompt native`. Where its choices are letters, the texts of the options are those of the document that its prompt
shows. What cannot be read as one question with one right option is refused with the reason.
"""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path
from string import ascii_uppercase
from typing import Any, NamedTuple

from producer.tasks.native_prompt import Native, native_prompt
from schemas.errors import HedgemarkError, ItemError, UsageError
from schemas.items import MAX_OPTIONS, Item, item_problems

PREFIX = "lm-eval:"
_HUB = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_COMMIT = re.compile(r"@([0-9a-f]{40})/")


class LoadedItems(NamedTuple):
    """Items of a task under its name, and where they come from: data set, its commit and split, versions of task and library.

    native : the source's own prompts, None where they were not wanted.
    """

    name: str
    items: Sequence[Item]
    revision: str
    native: Native | None = None


def load_lm_eval(name: str, *, native: bool = False) -> LoadedItems:
    """Return the items of one of the harness's tasks or groups; a group's tasks are the subjects.

    name   : without the prefix; a .yaml file is a task, which may have Python functions beside it, and they are run.
    native : whether to return the harness's own prompts too.
    Raises UsageError if the harness is missing, has no such task, or the task is of another kind; ItemError for a document that cannot be
    read; HedgemarkError if its data set cannot be had.
    """
    path = Path(name)
    is_file = path.suffix in (".yaml", ".yml")
    if is_file and not path.is_file():
        raise UsageError(f"--task {PREFIX}{name}: there is no such file")
    known = _task_in(path) if is_file else name
    tasks = _tasks(known, path.parent.resolve() if is_file else None)
    asked = [(task, list(_items(known, task, subject=_name(task) if len(tasks) > 1 else ""))) for task in tasks]
    items = [item for _, documents in asked for item, _ in documents]
    sources = "; ".join(dict.fromkeys(_source(task) for task in tasks))
    return LoadedItems(f"{PREFIX}{known}", items, f"lm_eval {version('lm_eval')}, {sources}", native_prompt(asked) if native else None)


def _tasks(name: str, folder: Path | None) -> list[Any]:
    """Return the task of this name, or the tasks of a group. folder : the folder to look in, None for the harness's own."""
    try:
        from datasets import disable_progress_bars
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise UsageError(f"--task {PREFIX}{name} needs lm-evaluation-harness; pip install 'hedgemark[lm-eval]'") from error
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    # The harness's own tasks are over 10,000 files, which take up to a minute to list; a file needs those beside it only.
    manager = TaskManager(include_path=str(folder) if folder else None, include_defaults=folder is None)
    if name not in manager.all_tasks:
        alike = get_close_matches(name, manager.all_tasks, 5)
        more = f"; alike: {', '.join(alike)}" if alike else ""
        raise UsageError(f"lm-evaluation-harness {version('lm_eval')} has no task {name!r}{more}; lm_eval ls tasks lists all")
    try:
        disable_progress_bars()
        loaded = manager.load([name])["tasks"]
    except Exception as error:  # data sets, their scripts and the harness raise whatever they like
        reason = " ".join(str(error).split())[:200]
        raise HedgemarkError(f"lm-evaluation-harness cannot load task {name!r}: {type(error).__name__}: {reason}") from error
    return list(loaded.values())


def _task_in(path: Path) -> str:
    """Return the name that a YAML file gives its task or group; its functions are not looked at here."""
    text = path.read_text(encoding="utf-8", errors="replace")
    for word in ("group", "task"):
        if match := re.search(rf"""^{word}:[ \t]*["']?([^"'#\[\n]+?)["']?[ \t]*(?:#.*)?$""", text, re.MULTILINE):
            return match[1]
    raise UsageError(f"{path} has no line 'task: NAME'; expected a task of lm-evaluation-harness")


def _items(name: str, task: Any, subject: str) -> Iterator[tuple[Item, Mapping[str, Any]]]:
    """Yield the items of one task with their documents."""
    _check_kind(task)
    documents = list(task.test_docs() if task.has_test_docs() else task.validation_docs() or ())
    if not documents:
        raise ItemError(f"task {_name(task)!r} of lm-evaluation-harness has no documents to ask")
    for number, document in enumerate(documents):
        try:
            item = _item(task, document, f"{subject}:{number}" if subject else str(number), subject, f"{PREFIX}{name}")
            problems = item_problems(item) or _contradictions(task, document, item.answer_index, len(item.choices))
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            problems = [str(error)]
        if problems:
            raise ItemError(f"task {_name(task)!r} of lm-evaluation-harness, document {number}: {'; '.join(problems)}")
        yield item, document


def _check_kind(task: Any) -> None:
    """Raise UsageError for a task of another kind than one question with one right option."""
    name = f"task {_name(task)!r} of lm-evaluation-harness"
    if task.OUTPUT_TYPE != "multiple_choice":
        raise UsageError(f"{name} is of type {task.OUTPUT_TYPE}, where the model writes text; only multiple_choice has options to score")
    if task.multiple_input:
        raise UsageError(f"{name} has its choices in the contexts, a prompt for each; there is no question with options to ask")
    if getattr(task, "MULTIMODAL", False):
        raise UsageError(f"{name} shows images or sounds; only text is asked")


def _item(task: Any, document: Mapping[str, Any], item_id: str, subject: str, source: str) -> Item:
    context, choices = task.doc_to_text(document), [str(choice) for choice in task.doc_to_choice(document)]
    if not isinstance(context, str):
        raise ValueError("its choices stand in the contexts")
    if not 2 <= len(choices) <= MAX_OPTIONS:
        raise ValueError(f"it has {len(choices)} choices; expected 2 to {MAX_OPTIONS}")
    answer = _answer(task.doc_to_target(document), choices)
    question = re.sub(r"^\s*(?:Question|Q):\s*|\s*(?:Answer|A):\s*$", "", context)
    if [choice.strip("() .") for choice in choices] == list(ascii_uppercase[: len(choices)]):
        question, choices = _shown_options(document, len(choices), context)
    letters = ascii_uppercase[: len(choices)]
    return Item(
        id=item_id,
        source=source,
        subject=subject,
        question=question.strip(),
        choices=dict(zip(letters, (choice.strip() for choice in choices), strict=True)),
        answer=letters[answer],
    )


def _contradictions(task: Any, document: Mapping[str, Any], answer: int, count: int) -> list[str]:
    """Return how the harness judges this document otherwise than by one right option: it must count `answer` as right, and no other."""
    again = 2 if "acc_mutual_info" in task._metric_fn_list else 1  # it is asked every choice without a context too
    scored_by_task = task.config.process_results is not None
    for chosen in range(count) if scored_by_task else (answer, (answer + 1) % count):
        likelihoods = [(0.0 if option == chosen else -50.0, False) for option in range(count)] + [(0.0, False)] * (again - 1) * count
        counted = task.process_results(document, likelihoods).get("acc")
        if counted is None and scored_by_task:
            return ["it scores answers by a function of its own that returns no acc, so nobody knows whether one option is right"]
        if counted is not None and counted != (chosen == answer):
            return [f"with all probability on choice {chosen} the harness counts {counted:.3g} right, and its target is choice {answer}"]
    return []


def _answer(target: Any, choices: Sequence[str]) -> int:
    """Return the index of the right choice, as the harness reads a target: an index, a text, or a list of one of them."""
    if isinstance(target, list | tuple):
        if len(set(map(str, target))) != 1:
            raise ValueError(f"it has {len(target)} right answers ({str(target)[:60]}); a prediction set is judged by one")
        target = target[0]
    if isinstance(target, str):
        if choices.count(target) != 1:
            raise ValueError(f"its target {target[:60]!r} is {choices.count(target) or 'none'} of its choices; expected exactly one")
        return choices.index(target)
    if isinstance(target, bool) or not isinstance(target, int) or not 0 <= target < len(choices):
        raise ValueError(f"its target {target!r} is no index of its {len(choices)} choices")
    return target


def _shown_options(document: Mapping[str, Any], count: int, context: str) -> tuple[str, list[str]]:
    """Return question and options of a document whose choices are letters: its one list of so many texts that the prompt shows in order."""
    lists = {name: value["text"] if isinstance(value, dict) and "text" in value else value for name, value in document.items()}
    candidates = [value for value in lists.values() if isinstance(value, list | tuple) and len(value) == count]
    shown = [list(map(str, value)) for value in candidates if _in_order(value, context)]
    named = [str(document[name]) for name in ("question", "question_stem", "input") if isinstance(document.get(name), str)]
    asked = [text for text in named if text.strip() and text.strip() in context]
    if len(shown) != 1 or not asked:
        raise ValueError(
            "its choices are letters, and its prompt shows no question and options that are fields of the document: they cannot be read"
        )
    return asked[0], shown[0]


def _in_order(texts: Sequence[Any], context: str) -> bool:
    """Return whether a context shows these texts one after the other."""
    end = 0
    for text in map(str, texts):
        at = context.find(text.strip(), end)
        if at < 0:
            return False
        end = at + len(text.strip())
    return True


def _name(task: Any) -> str:
    return str(task.config.task)


def _source(task: Any) -> str:
    """Return data set, commit where it is known, split and version of a task."""
    split = task.config.test_split or task.config.validation_split
    data = task.dataset[split] if hasattr(task.dataset, "keys") and split in task.dataset else None
    checksums = getattr(getattr(data, "info", None), "download_checksums", None) or {}
    commits = {match[1] for address in checksums if (match := _COMMIT.search(str(address)))}
    at = f"@{commits.pop()}" if len(commits) == 1 else ""
    named = f"/{task.DATASET_NAME}" if task.DATASET_NAME else ""
    path = f", {task.DATASET_PATH}{named}{at}" if _HUB.fullmatch(str(task.DATASET_PATH)) else ""  # no path of this machine
    release = f" version {task.VERSION}" if (task.config.metadata or {}).get("version") is not None else ""
    return f"{_name(task)}{release}{path}, split {split}"
