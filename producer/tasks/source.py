"""Load a task by name: the items to ask, the demonstrations shown before each of them, and the revision of both."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from producer.tasks import EMBEDDED, PLUG_INS, TASKS
from producer.tasks.hub_task import HUB, load_hub
from producer.tasks.lm_eval_task import PREFIX, load_lm_eval
from producer.tasks.native_prompt import Native
from schemas.benchmark import BENCHMARK, ODD
from schemas.errors import HedgemarkError, ItemError, UsageError
from schemas.item_quirks import describe_quirks, says_none_of_the_above
from schemas.items import Item
from schemas.known_names import known
from store.format.item_file import SUFFIXES, read_item_file

GENERATED = "producer.tasks."  # the revision of an embedded task is this followed by its name
HUB_DATA_SET = "ErikYip/LLM-Uncertainty-Bench"
DEPTHS = ("", "*/", "*/*/")  # a task file may be in --data itself or up to two folders below


@dataclass(frozen=True)
class TaskItems:
    """The items of a task, ready to be put into prompts.

    items          : the items to ask, in file order; demonstrations are not among them.
    demonstrations : items shown with their answers before every item.
    revision       : the file's SHA-256, or the embedded generator's name.
    limit          : number of items drawn by seed, 0 for all.
    dropped        : number of items of the file that are left out because they are ambiguous.
    native         : the source's own prompts, None where it has none or they were not wanted.
    look_rank      : (item,) each item's rank in the order in which a run in looks asks them, see `in_looks`; empty for other runs.
    """

    name: str
    items: Sequence[Item]
    demonstrations: Sequence[Item]
    revision: str
    limit: int = 0
    dropped: int = 0
    native: Native | None = None
    look_rank: Sequence[int] = ()

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """Warnings about the items for readers of the results: how many are doubtful, and how many were left out."""
        embedded = self.revision.startswith(GENERATED)  # drawn at random, so that some repeat by chance
        doubtful = "" if embedded else describe_quirks(self.items)
        dropped = f"{self.dropped} items not asked: one of their options already is 'None of the above'" if self.dropped else ""
        return tuple(f"{self.name}: {note}" for note in (doubtful, dropped) if note)


def load_task(name: str, data: Path | None = None, columns: str = "", *, native: bool = False) -> TaskItems:
    """Return all items of a named task or of a file.

    columns : which columns of a file, or of a data set of the Hub, have question, choices and answer, see `schemas.item_forms`.
    native  : whether its own prompts are wanted, see `producer.tasks.native_prompt`.
    Raises UsageError for an unknown name, ItemError for items that are invalid.
    """
    if native and not name.startswith(PREFIX):
        raise UsageError(
            f"--prompt native is the wording of lm-evaluation-harness, for --task {PREFIX}NAME; task {name!r} has none of its own"
        )
    if name in EMBEDDED:
        return _without_demonstrations(name, EMBEDDED[name](), ODD, f"{GENERATED}{name}")
    if name in PLUG_INS:
        return _of_plug_in(name)
    if name in BENCHMARK:
        path = _find_file(name, data)
        items, ids = read_item_file(path), BENCHMARK[name].demonstrations
        task = _without_demonstrations(name, items, ids, _file_revision(path))
        return _unambiguous(task) if name == "cosmosqa" else task
    if name.startswith(PREFIX):
        loaded = load_lm_eval(name.removeprefix(PREFIX), native=native)
        return TaskItems(loaded.name, loaded.items, (), loaded.revision, native=loaded.native)
    if name.startswith(HUB):
        loaded = load_hub(name.removeprefix(HUB), columns)
        return TaskItems(loaded.name, loaded.items, (), loaded.revision)
    path = Path(name)
    if path.suffix not in SUFFIXES:
        others = f"also any {', '.join(SUFFIXES)} file of items, {PREFIX}NAME, and {HUB}DATASET#SPLIT"
        raise UsageError(f"unknown task {name!r}; {known(name, TASKS)}; {others}")
    return TaskItems(path.stem, read_item_file(path, columns), (), _file_revision(path))


def _of_plug_in(name: str) -> TaskItems:
    """Return the items that a function of another package makes. Raises ItemError where it fails or makes something else."""
    make, package = TASKS[name], PLUG_INS[name]
    assert callable(make)
    try:
        items = list(make())
    except Exception as error:
        raise ItemError(f"task {name!r} of package {package} cannot make its items: {type(error).__name__}: {str(error)[:200]}") from error
    if not items or not all(isinstance(item, Item) for item in items):
        raise ItemError(f"task {name!r} of package {package} makes {'other things than' if items else 'no'} items of schemas.items")
    return TaskItems(name, items, (), f"package {package}")


def draw(task: TaskItems, limit: int, seed: int) -> TaskItems:
    """Return the task with `limit` items drawn without replacement, in file order.

    A smaller limit draws a subset of the items of a larger one: both take the beginning of the same seeded permutation.
    """
    if not 0 < limit < len(task.items):
        return task
    drawn = np.sort(np.random.default_rng(seed).permutation(len(task.items))[:limit])
    return replace(task, items=[task.items[number] for number in drawn], limit=limit)


def in_looks(task: TaskItems, most: int, seed: int) -> TaskItems:
    """Return the first `most` items, in file order, of an order in which any first items are balanced over the subjects.

    The order is drawn with the seed: every subject is shuffled, and its items are spread evenly over the whole order, from a start of its
    own. So the first n items have as many of each subject as its share of n says, give or take about one.
    Raises UsageError for too few items.
    """
    if most > len(task.items):
        raise UsageError(
            f"the last look of the policy is at {most:,} items, and task {task.name!r} has {len(task.items):,}; plan no more than it has"
        )
    rng = np.random.default_rng(seed)
    subjects = np.array([item.subject for item in task.items])
    position = np.empty(len(subjects))
    for subject in np.unique(subjects):
        rows = np.flatnonzero(subjects == subject)
        position[rng.permutation(rows)] = (np.arange(len(rows)) + rng.random()) / len(rows)
    order = np.lexsort((rng.random(len(subjects)), position))
    rank = np.argsort(order)
    chosen = np.flatnonzero(rank < most).tolist()
    items = [task.items[number] for number in chosen]
    return replace(task, items=items, limit=most if most < len(task.items) else 0, look_rank=tuple(rank[chosen].tolist()))


def _find_file(task: str, data: Path | None) -> Path:
    """Return the item file of a published task, from the folder `data` if given, else from the Hub.

    Raises UsageError if `data` has no such file or several; HedgemarkError if the download from the Hub fails.
    """
    names = BENCHMARK[task].files
    if data is None:
        return _download(task, names[0])
    if not data.is_dir():
        raise UsageError(f"--data {data} is not a folder")
    paths = sorted({path for depth in DEPTHS for name in names for path in data.glob(depth + name)})
    if len(paths) != 1:
        problem = f"several files for task {task!r}: {', '.join(map(str, paths))}" if paths else f"no file for task {task!r}"
        raise UsageError(f"--data {data} has {problem}; expected exactly one of {', '.join(names)}, in it or up to two folders below")
    return paths[0]


def _download(task: str, name: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(HUB_DATA_SET, name, repo_type="dataset"))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise HedgemarkError(
            f"cannot get {name} of task {task!r} from the Hub data set {HUB_DATA_SET} ({type(error).__name__}); "
            "give the folder that has it as --data"
        ) from error


def _without_demonstrations(name: str, items: Sequence[Item], ids: Sequence[str], revision: str) -> TaskItems:
    by_id = {item.id: item for item in items}
    if missing := [item_id for item_id in ids if item_id not in by_id]:
        raise ItemError(f"task {name!r} has no item with id {', '.join(missing)}, which its prompts show as demonstrations")
    questions = [item for item in items if item.id not in ids]
    return TaskItems(name, questions, [by_id[item_id] for item_id in ids], revision)


def _unambiguous(task: TaskItems) -> TaskItems:
    """Drop items where one of the four options already says "None of the above": they would have two such options."""
    unambiguous = [item for item in task.items if not any(map(says_none_of_the_above, list(item.choices.values())[:4]))]
    return replace(task, items=unambiguous, dropped=len(task.items) - len(unambiguous))


def _file_revision(path: Path) -> str:
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
