"""Data sets of the Hub, or in a folder, as items: `--task hub:allenai/ai2_arc:ARC-Easy#test --columns answer=answerKey`.

In: `hub:DATASET[:CONFIG][@REVISION]#SPLIT`, and which columns have question, choices and answer.  Out: `LoadedItems`. A revision that is
not given is looked up, and the commit is recorded. `schemas.item_forms` reads the rows.
"""

import hashlib
import re
from pathlib import Path
from typing import Any, NamedTuple

from producer.tasks.lm_eval_task import LoadedItems
from schemas.errors import HedgemarkError, ItemError, UsageError
from schemas.item_forms import ANSWER, columns_of, read_forms
from schemas.items import parse_items

HUB = "hub:"
_SPEC = re.compile(r"(?P<path>[^#]+?)(?::(?P<config>[\w.-]+))?(?:@(?P<revision>[\w./-]+))?#(?P<split>[\w.-]+)")
_COMMIT = re.compile(r"[0-9a-f]{40}")


class _Source(NamedTuple):
    """A data set's rows, the name of its task, and where it comes from."""

    rows: Any
    name: str
    revision: str


def load_hub(text: str, columns: str) -> LoadedItems:
    """Return the items of a data set.

    text    : without the prefix; a folder, or a .parquet, .json, .jsonl or .csv file, is read from disk.
    columns : such as "question=stem,choices=a+b+c+d,answer=key"; a column that is not mentioned has the name of its part. `answer=key:1`
        says that answers count from 1, `:0` from 0.
    Raises UsageError for a text or columns that cannot be meant, ItemError for rows that are not items, HedgemarkError if the data cannot
    be had.
    """
    match = _SPEC.fullmatch(text)
    if not match:
        raise UsageError(f"--task {HUB}{text}: expected {HUB}DATASET#SPLIT, such as {HUB}allenai/ai2_arc:ARC-Easy#test")
    source = _load(match["path"], match["config"], match["revision"], match["split"])
    try:
        chosen = columns_of(columns, source.rows.column_names)
    except UsageError as error:
        raise UsageError(f"data set {source.name}: {error}") from error
    if chosen.base is None and hasattr(source.rows.features[chosen.parts[ANSWER][0]], "names"):
        chosen = chosen._replace(base=0)  # the numbers of a ClassLabel are indices
    forms = read_forms(list(source.rows), chosen)
    if forms.of_all:
        raise ItemError(f"data set {source.name}: {forms.of_all}")
    for number, problem in forms.problems.items():
        raise ItemError(f"data set {source.name}, row {number}: {problem} ({len(forms.problems)} of {len(source.rows)} rows have problems)")
    documents = [{"id": str(number), **(one or {}), "source": source.name} for number, one in enumerate(forms.documents)]
    return LoadedItems(source.name, parse_items(documents, f"data set {source.name}"), source.revision)


def _load(path: str, config: str | None, revision: str | None, split: str) -> _Source:
    try:
        import datasets
    except ImportError as error:
        raise UsageError(f"--task {HUB}{path} needs the library datasets; pip install 'hedgemark[hub]'") from error
    local = Path(path)
    datasets.disable_progress_bars()
    try:
        if local.exists():
            if revision:
                raise UsageError(f"--task {HUB}{path}@{revision}: a folder or file has no revisions; leave @{revision} out")
            name = f"{HUB}{local.resolve().stem if local.is_file() else local.resolve().name}"
            rows, where = _read_local(datasets, local, config, split), f"sha256:{_digest(local)}"
        else:
            commit = revision if revision and _COMMIT.fullmatch(revision) else _commit(path, revision)
            rows, where = datasets.load_dataset(path, config, split=split, revision=commit), f"{path}@{commit}"
            name = f"{HUB}{path}"
    except HedgemarkError:
        raise
    except Exception as error:  # the library and its readers raise whatever they like
        reason = " ".join(str(error).split())[:200]
        raise HedgemarkError(f"cannot load data set {path!r}, split {split!r}: {type(error).__name__}: {reason}") from error
    return _Source(rows, f"{name}{f':{config}' if config else ''}#{split}", where)


def _read_local(datasets: Any, path: Path, config: str | None, split: str) -> Any:
    """Return the rows of a folder, as the library saved it or of data files, or of one file."""
    if path.is_file():
        kinds = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".csv": "csv"}
        if path.suffix not in kinds:
            raise UsageError(f"--task {HUB}{path} is no folder and no {', '.join(kinds)} file")
        return datasets.load_dataset(kinds[path.suffix], data_files={split: str(path)}, split=split)
    if (path / "dataset_dict.json").exists():
        saved = datasets.load_from_disk(str(path))
        if split not in saved:
            raise UsageError(f"{path} has no split {split!r}; it has {', '.join(saved)}")
        return saved[split]
    if (path / "state.json").exists():
        raise UsageError(f"{path} is one saved split without a name; name a folder of splits, or a file")
    return datasets.load_dataset(str(path), config, split=split)


def _commit(path: str, revision: str | None) -> str:
    """Return the commit that a data set's revision is now."""
    from huggingface_hub import dataset_info

    return str(dataset_info(path, revision=revision).sha)


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of the digests of all files of a folder, by name."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    files = sorted(each for each in path.rglob("*") if each.is_file())
    lines = [f"{each.relative_to(path).as_posix()} {hashlib.sha256(each.read_bytes()).hexdigest()}" for each in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
