"""Data sets of the Hub, or in a folder, as items: `--task hub:allenai/ai2_arc:ARC-Easy#test --columns answer=answerKey`.

In: `hub:DATASET[:CONFIG][@REVISION]#SPLIT`, and which columns have question, choices and answer.  Out: `LoadedItems`. A revision that is
not given is looked up, and the commit is recorded. A choices column holds a list of texts, or texts with labels as ARC has them; several
columns are joined by +. How answers are written is found out from all of them; where two readings fit, the data set is refused.
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any, NamedTuple

from producer.tasks.lm_eval_task import LoadedItems
from schemas.errors import HedgemarkError, ItemError, UsageError
from schemas.items import parse_items

HUB = "hub:"
NEEDED, OPTIONAL = ("question", "choices", "answer"), ("context", "subject", "id")
_SPEC = re.compile(r"(?P<path>[^#]+?)(?::(?P<config>[\w.-]+))?(?:@(?P<revision>[\w./-]+))?#(?P<split>[\w.-]+)")
_COMMIT = re.compile(r"[0-9a-f]{40}")


class _Source(NamedTuple):
    """A data set's rows, the name of its task, and where it comes from."""

    rows: Any
    name: str
    revision: str


class _Choices(NamedTuple):
    """Texts of a row's options, and their labels where the data set gives them."""

    texts: list[str]
    labels: list[str]


def load_hub(text: str, columns: str) -> LoadedItems:
    """Return the items of a data set.

    text    : without the prefix; a folder, or a .parquet, .json, .jsonl or .csv file, is read from disk.
    columns : such as "question=stem,choices=a+b+c+d,answer=key"; a column that is not mentioned has the name of its part. `answer=key:1`
        says that answers count from 1, `:0` from 0.
    Raises UsageError for a text or columns that cannot be meant, ItemError for rows that are not items, HedgemarkError if the data cannot
    be had.
    """
    found = _SPEC.fullmatch(text)
    if not found:
        raise UsageError(f"--task {HUB}{text}: expected {HUB}DATASET#SPLIT, such as {HUB}allenai/ai2_arc:ARC-Easy#test")
    source = _load(found["path"], found["config"], found["revision"], found["split"])
    parts, base = _columns(columns, source.rows.column_names, source.name)
    rows = [{part: _value(row, names, part) for part, names in parts.items()} for row in source.rows]
    choices = [_choices(row["choices"], number, source.name) for number, row in enumerate(rows)]
    if base is None and hasattr(source.rows.features[parts["answer"][0]], "names"):
        base = 0  # the numbers of a ClassLabel are indices
    answers = _answers([row["answer"] for row in rows], choices, base, source.name)
    documents = [
        {
            "id": str(row["id"]) if "id" in row else str(number),
            "source": source.name,
            "question": _text(row["question"]),
            "context": _text(row.get("context")),
            "subject": _text(row.get("subject")),
            "choices": dict(zip(ascii_uppercase, each.texts, strict=False)),
            "answer": ascii_uppercase[answer],
        }
        for number, (row, each, answer) in enumerate(zip(rows, choices, answers, strict=True))
    ]
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


def _columns(text: str, known: Sequence[str], name: str) -> tuple[dict[str, list[str]], int | None]:
    """Return the names of the columns of each part of an item, and from which number answers count, if that is said."""
    given: dict[str, list[str]] = {}
    base = None
    for pair in filter(None, text.split(",")):
        part, equals, value = pair.strip().partition("=")
        if part not in (*NEEDED, *OPTIONAL) or not equals or not value or part in given:
            raise UsageError(f"--columns {pair!r}: expected each of {', '.join((*NEEDED, *OPTIONAL))} once, as in question=stem")
        if part == "answer" and value not in known and value[-2:] in (":0", ":1"):
            value, base = value[:-2], int(value[-1])
        given[part] = [value] if part != "choices" or value in known else value.split("+")
    names = {part: [part] for part in NEEDED} | given
    missing = [column for columns in names.values() for column in columns if column not in known]
    if missing:
        raise UsageError(f"data set {name} has no column {missing[0]!r}; it has {', '.join(known)}; say which are which with --columns")
    return names, base


def _value(row: Mapping[str, Any], names: Sequence[str], part: str) -> Any:
    return [row[name] for name in names] if part == "choices" and len(names) > 1 else row[names[0]]


def _choices(value: Any, number: int, name: str) -> _Choices:
    """Return the options of one row; empty ones at the end are options that it does not have. Raises ItemError."""
    labels: list[str] = []
    if isinstance(value, Mapping) and set(value) >= {"text", "label"}:
        labels, value = [str(label) for label in value["label"]], value["text"]
    if not isinstance(value, list | tuple):
        raise ItemError(f"data set {name}, row {number}: choices are a {type(value).__name__}; expected a list, or columns joined by +")
    texts = list(value)
    while texts and texts[-1] is None:
        texts.pop()
    if None in texts or any(isinstance(each, list | tuple | Mapping) for each in texts):
        raise ItemError(f"data set {name}, row {number}: a choice before the last is empty, or is no text")
    return _Choices([str(each) for each in texts], labels)


def _answers(values: Sequence[Any], choices: Sequence[_Choices], base: int | None, name: str) -> list[int]:
    """Return the index of each row's answer. Raises ItemError where no one reading fits all rows."""
    if base is not None:
        readings: Mapping[str, Callable[[str, _Choices], int | None]] = {f"numbers from {base}": _number(base)}
    else:
        readings = {
            "labels of the choices": _label,
            "letters": _letter,
            "texts of choices": _same_text,
            "numbers from 0": _number(0),
            "numbers from 1": _number(1),
        }
    written = ["" if isinstance(value, bool) or value is None else str(value).strip() for value in values]
    found = {what: [read(value, each) for value, each in zip(written, choices, strict=True)] for what, read in readings.items()}
    if None not in found.get("labels of the choices", [None]):
        return [answer for answer in found["labels of the choices"] if answer is not None]
    fitting = {what: answers for what, answers in found.items() if None not in answers}
    different = {tuple(answers) for answers in fitting.values()}
    if len(different) == 1:
        return [answer for answer in different.pop() if answer is not None]
    if different:
        more = "; say answer=COLUMN:0 or answer=COLUMN:1 in --columns" if "numbers from 1" in fitting or "numbers from 0" in fitting else ""
        raise ItemError(f"data set {name}: its answers can be {' or '.join(fitting)}, which are other options{more}")
    nearest = max(found, key=lambda what: sum(answer is not None for answer in found[what]))
    number = found[nearest].index(None)
    raise ItemError(
        f"data set {name}, row {number}: answer {str(values[number])[:60]!r} is none of its {len(choices[number].texts)} options; read as "
        f"{nearest}, {found[nearest].count(None)} of {len(values)} rows have none"
    )


def _number(base: int) -> Callable[[str, _Choices], int | None]:
    def read(value: str, each: _Choices) -> int | None:
        number = int(value) - base if value.isascii() and value.isdigit() and len(value) < 4 else -1
        return number if 0 <= number < len(each.texts) else None

    return read


def _label(value: str, each: _Choices) -> int | None:
    return each.labels.index(value) if each.labels[: len(each.texts)].count(value) == 1 else None


def _letter(value: str, each: _Choices) -> int | None:
    return ascii_uppercase.index(value) if len(value) == 1 and value in ascii_uppercase[: len(each.texts)] else None


def _same_text(value: str, each: _Choices) -> int | None:
    texts = [text.strip() for text in each.texts]
    return texts.index(value) if texts.count(value) == 1 else None


def _text(value: Any) -> str:
    return "" if value is None else str(value)
