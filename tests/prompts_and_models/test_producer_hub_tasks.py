"""`--task hub:DATASET#SPLIT`: data sets as items, here from local folders and files."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from producer.cli.main import main
from producer.tasks.hub_task import load_hub
from schemas.errors import HedgemarkError, ItemError, UsageError

pytestmark = pytest.mark.producer
datasets = pytest.importorskip("datasets")
N = 8


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def rows(**more: Any) -> list[dict[str, Any]]:
    """Items of four options; a field of `more` that is a function is called with the row's number."""
    return [
        {"question": f"Which is {i}?", "choices": [f"{i}-{k}" for k in range(4)]}
        | {name: value(i) if callable(value) else value for name, value in more.items()}
        for i in range(N)
    ]


def write(folder: Path, written: list[dict[str, Any]]) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "test.jsonl").write_text("\n".join(map(json.dumps, written)))
    return f"{folder}#test"


def answers(text: str, columns: str = "") -> list[int]:
    return [item.answer_index for item in load_hub(text, columns).items]


@pytest.mark.parametrize(
    ("answer", "columns"),
    [
        (lambda i: i % 4, ""),  # numbers, of which some are 0
        (lambda i: str(i % 4), ""),
        (lambda i: 1 + i % 4, ""),  # numbers, of which some are 4
        (lambda i: "ABCD"[i % 4], ""),
        (lambda i: f"{i}-{i % 4}", ""),
        (lambda i: 1 + i % 4, "answer=answer:1"),
    ],
)
def test_every_way_of_writing_answers(tmp_path: Path, answer: Any, columns: str) -> None:
    """Indices from 0 or 1, as numbers or texts, letters, and texts of choices are told apart by all rows together."""
    assert answers(write(tmp_path / "quiz", rows(answer=answer)), columns) == [i % 4 for i in range(N)]


def test_labels_decide_before_numbers(tmp_path: Path) -> None:
    """ARC's form: three to five options whose labels are numbers in some rows and letters in others."""
    counts = [3 + i % 3 for i in range(N)]
    choices = [
        {"text": [f"{i}-{k}" for k in range(count)], "label": [str(k + 1) if i % 2 else "ABCDE"[k] for k in range(count)]}
        for i, count in enumerate(counts)
    ]
    wanted = [(i + 1) % 3 for i in range(N)]
    written = [{"question": "?", "choices": each, "answerKey": each["label"][answer]} for each, answer in zip(choices, wanted, strict=True)]
    written = [one | {"question": f"Which is {i}?"} for i, one in enumerate(written)]
    text = write(tmp_path / "arc", written)
    assert answers(text, "answer=answerKey") == wanted
    assert [len(item.choices) for item in load_hub(text, "answer=answerKey").items] == counts


def test_columns_joined_and_named(tmp_path: Path) -> None:
    """Options in columns of their own, the last one empty in some rows; subject, context and id from columns."""
    options = [{"a": f"{i}a", "b": f"{i}b", "c": f"{i}c" if i % 2 else None} for i in range(N)]
    others = [{"stem": f"Which is {i}?", "key": "AB"[i % 2], "about": f"s{i % 2}", "n": f"q{i}"} for i in range(N)]
    written = [one | other for one, other in zip(options, others, strict=True)]
    loaded = load_hub(write(tmp_path / "wide", written), "question=stem,choices=a+b+c,answer=key,subject=about,id=n")
    assert [len(item.choices) for item in loaded.items] == [2 + i % 2 for i in range(N)]
    assert [item.subject for item in loaded.items] == [f"s{i % 2}" for i in range(N)] and loaded.items[3].id == "q3"
    assert loaded.name == "hub:wide#test" and str(tmp_path) not in loaded.revision and loaded.revision.startswith("sha256:")


def test_a_folder_that_the_library_saved_and_a_parquet_file(tmp_path: Path) -> None:
    """A class label is an index, whatever its numbers leave open; both forms give the same items."""
    text = datasets.Value("string")
    features = datasets.Features({"question": text, "choices": datasets.List(text), "answer": datasets.ClassLabel(names=list("ABCD"))})
    data = datasets.Dataset.from_list(rows(answer=lambda i: 1 + i % 2), features=features)
    datasets.DatasetDict({"test": data}).save_to_disk(tmp_path / "saved")
    data.to_parquet(tmp_path / "file.parquet")
    assert answers(f"{tmp_path / 'saved'}#test") == answers(f"{tmp_path / 'file.parquet'}#test") == [1 + i % 2 for i in range(N)]


@pytest.mark.parametrize(
    ("more", "columns", "said"),
    [
        ({"answer": lambda i: 1 + i % 2}, "", "can be numbers from 0 or numbers from 1, which are other options; say answer=COLUMN:0"),
        ({"answer": lambda i: i % 4 - 1}, "", "is none of its 4 options"),
        ({"answer": lambda i: None if i == 3 else "A"}, "", "row 3: has no answer"),
        ({"answer": "A", "choices": ["B", "A", "x", "y"]}, "", "can be letters or texts of choices"),
        ({"answer": 0, "choices": ["only"]}, "", "has 1 option; expected 2 to 26"),
        ({"answer": 0, "choices": ["a", None, "b"]}, "", "row 0: option 2 is empty, and there are options after it"),
        ({"answer": 0, "choices": "a"}, "", "choices are a str"),
        ({"answer": 4}, "answer=answer:0", "is none of its 4 options"),
    ],
)
def test_rows_that_cannot_be_read_are_refused(tmp_path: Path, more: dict[str, Any], columns: str, said: str) -> None:
    """Never another option than the one that is meant."""
    with pytest.raises(ItemError, match=said):
        load_hub(write(tmp_path / "quiz", rows(**more)), columns)


@pytest.mark.parametrize(
    ("text", "columns", "said"),
    [
        ("quiz", "", "expected hub:DATASET#SPLIT"),
        ("{quiz}#test", "question=stem", "no column 'stem' among question, choices, answer"),
        ("{quiz}#test", "solution=x", "expected each of question, choices, answer, context, subject, id once"),
        ("{quiz}#test", "answer=answer,answer=answer", "once"),
        ("{quiz}@main#test", "", "has no revisions"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, text: str, columns: str, said: str) -> None:
    """A text without a split, a column that does not exist, a part that items do not have."""
    quiz = write(tmp_path / "quiz", rows(answer="A")).removesuffix("#test")
    with pytest.raises(UsageError, match=said):
        load_hub(text.format(quiz=quiz), columns)


def test_data_that_cannot_be_had_is_a_sentence(tmp_path: Path) -> None:
    """A split that does not exist."""
    with pytest.raises(HedgemarkError, match=r"cannot load data set .*, split 'dev'"):
        load_hub(write(tmp_path / "quiz", rows(answer="A")).replace("#test", "#dev"), "")


def test_the_commit_of_the_hub_is_looked_up_and_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The data are those of that commit, also if the branch moves meanwhile; a commit that is given is taken as it is."""
    asked = []
    data = datasets.Dataset.from_list(rows(answer="A"))
    monkeypatch.setattr("huggingface_hub.dataset_info", lambda *_, revision: SimpleNamespace(sha={None: "a", "dev": "b"}[revision] * 40))
    monkeypatch.setattr(datasets, "load_dataset", lambda path, config, **more: asked.append((path, config, more)) or data)
    for text, commit in (("o/n#test", "a" * 40), ("o/n:c@dev#test", "b" * 40), (f"o/n@{'c' * 40}#test", "c" * 40)):
        loaded = load_hub(text, "")
        assert loaded.revision == f"o/n@{commit}" and asked[-1][2] == {"split": "test", "revision": commit}
    assert [config for _, config, _ in asked] == [None, "c", None] and loaded.name == "hub:o/n#test"


def test_a_run_of_a_data_set(tmp_path: Path) -> None:
    """`produce` asks it like any other task; --columns without one has no effect and is refused."""
    text, store = write(tmp_path / "quiz", rows(key=lambda i: "ABCD"[i % 4])), str(tmp_path / "store")
    done = CliRunner().invoke(main, ["--model", "ref-s", "--task", f"hub:{text}", "--columns", "answer=key", "--store", store])
    assert done.exit_code == 0, done.output
    assert "~hub:quiz_test~base" in done.stdout
    done = CliRunner().invoke(main, ["--model", "ref-s", "--task", "urn", "--columns", "answer=key", "--store", store])
    assert done.exit_code == 2 and "--columns has no effect without" in done.output
