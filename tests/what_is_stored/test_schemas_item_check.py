"""Item files line by line: everything wrong or doubtful is named where it stands, and reading goes on to the end."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from schemas.errors import ItemError
from schemas.item_check import EXAMPLE
from schemas.items import parse_items
from store.format.item_file import check_item_file, example_of, read_item_file

OPTIONS = {"A": "x", "B": "y", "C": "z"}


def row(number: int, **changes: Any) -> dict[str, Any]:
    return {"id": number, "question": f"Which {number}?", "choices": OPTIONS, "answer": "ABC"[number % 3]} | changes


def findings(path: Path, text: str) -> list[tuple[int, str, str, str]]:
    path.write_text(text, encoding="utf-8")
    return [tuple(finding) for finding in check_item_file(path)[1]]


TRAPS = [
    ({"answer": "D"}, "wrong", "'D' is none of its options A, B, C"),
    ({"answer": 1}, "wrong", "'1' is none of its options A, B, C"),
    ({"answer": ""}, "wrong", "has no answer"),
    ({"choices": OPTIONS | {"B": None}}, "wrong", "option 2 is empty, and there are options after it"),
    ({"choices": "x, y"}, "wrong", "choices are a str; expected a list such as"),
    ({"choices": ["x", ["y"], "z"]}, "wrong", "option 2 is a list; expected a text"),
    ({"choices": {}}, "wrong", "has no options"),
    ({"choices": {"A": "x"}, "answer": "A"}, "wrong", "has 1 option; expected 2"),
    ({"choices": {"A": "x", "C": "y"}, "answer": "A"}, "wrong", "in order"),
    ({"choices": {chr(65 + k): str(k) for k in range(27)}}, "wrong", "has 27 options; expected 2 to 26"),
    ({"question": ""}, "wrong", "neither question nor context"),
    ({"id": 1}, "wrong", "has the same id as an earlier item, on line 2"),
    ({"choices": OPTIONS | {"C": "x"}}, "doubtful", "two options of equal text"),
    ({"choices": OPTIONS | {"C": " "}}, "doubtful", "an empty option"),
    ({"choices": OPTIONS | {"C": "nan"}}, "doubtful", 'reads "nan"'),
    ({"choices": {"A": "None of the above", "B": "none of the above.", "C": "z"}}, "doubtful", '"None of the above" twice'),
    ({"question": "R&amp;D?"}, "doubtful", "HTML entities"),
    ({"question": "a\x07b"}, "doubtful", "control"),
    ({"question": "Which 0?", "answer": "A"}, "doubtful", "repeating the question and options of an earlier one, on line 1"),
]


@pytest.mark.parametrize(("changes", "how", "words"), TRAPS)
@pytest.mark.parametrize("form", ["jsonl", "json"])
def test_each_trap_is_named_with_its_line(tmp_path: Path, changes: dict[str, Any], how: str, words: str, form: str) -> None:
    """The third item is odd: JSON lines and a JSON array both say line 3, with its id and what is wrong."""
    rows = [json.dumps(one) for one in (row(0), row(1), row(2, **changes), row(3))]
    text = "\n".join(rows) if form == "jsonl" else "[" + ",\n".join(rows) + "]\n"
    [(line, name, found, what)] = findings(tmp_path / f"task.{form}", text)
    assert (line, name, found) == (3, str(changes.get("id", 2)), how) and words in what


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"id": 2, "id": 3}', "'id' is given twice"),
        ('{"id": 2,', "not JSON"),
        ('{"id": 2, "question": "\\udc00"}', "half a surrogate pair"),
        ("[" * 100_000, "nested too deeply"),
        ("7", "expected an item"),
    ],
)
def test_a_line_that_is_no_item_does_not_hide_the_others(tmp_path: Path, line: str, words: str) -> None:
    """What is wrong further down is still found."""
    text = "\n".join([json.dumps(row(0)), line, json.dumps(row(4, answer="Z"))])
    found = findings(tmp_path / "task.jsonl", text)
    assert [one[0] for one in found] == [2, 3] and words in found[0][3]


@pytest.mark.parametrize("text", ["", "[]", "{}", "[1 2]", "[{", '[{"id": 1}'])
def test_a_broken_array_is_named_where_it_breaks(tmp_path: Path, text: str) -> None:
    """An empty file, an object, a missing comma and a missing end are findings, not tracebacks."""
    assert any(finding[2] == "wrong" for finding in findings(tmp_path / "task.json", text))


def test_lines_of_a_pretty_printed_array_are_those_of_its_items(tmp_path: Path) -> None:
    """An item that spans many lines is named by the line on which it begins."""
    text = json.dumps([row(0), row(1, answer="Z")], indent=1)
    [(line, *_)] = findings(tmp_path / "task.json", text)
    assert text.split("\n")[line - 1].strip() == "{" and line > 5


def test_answers_in_one_place_are_named_for_the_whole_file(tmp_path: Path) -> None:
    """Where nearly all answers are A, a model that always says A looks good."""
    rows = [row(number, answer="B" if number % 10 == 0 else "A") for number in range(30)]
    assert findings(tmp_path / "task.json", json.dumps(rows)) == [
        (0, "", "doubtful", "27 of 30 answers are A; put the options into random order")
    ]
    assert findings(tmp_path / "task.json", json.dumps([row(number) for number in range(30)])) == []


def test_keys_that_are_not_read_are_named_once(tmp_path: Path) -> None:
    """A mistyped key is seen without a finding for every item."""
    text = json.dumps([row(number, lable=1) for number in range(3)])
    assert findings(tmp_path / "task.json", text) == [(0, "", "doubtful", "unknown key 'lable' is ignored (in 3 items)")]


def test_a_column_of_a_table_is_called_a_column(tmp_path: Path) -> None:
    """An unknown key of a CSV or a Parquet file is one of its columns."""
    text = "question,A,B,answer,nr\nWhich 1?,x,y,A,7\nWhich 2?,x,y,B,8\n"
    said = [(0, "", "doubtful", "unknown column 'nr' is ignored (in 2 items)")]
    assert findings(tmp_path / "task.csv", text) == said
    pl.read_csv(tmp_path / "task.csv").write_parquet(tmp_path / "task.parquet")
    assert [tuple(each) for each in check_item_file(tmp_path / "task.parquet")[1]] == said


def test_repeats_name_the_line_that_they_repeat(tmp_path: Path) -> None:
    """The first of them for a repeat, and for other answers the first with another."""
    rows = [row(number, question="Which?", answer=answer) for number, answer in enumerate("AABA")]
    again, other = "repeating the question and options of an earlier one", "repeating a question and its options with another answer"
    assert [(line, what) for line, *_, what in findings(tmp_path / "task.jsonl", "\n".join(map(json.dumps, rows)))] == [
        (1, f"{other}, on line 3"),
        (2, f"{other}, on line 3"), (2, f"{again}, on line 1"),
        (3, f"{other}, on line 1"), (3, f"{again}, on line 1"),
        (4, f"{other}, on line 3"), (4, f"{again}, on line 1"),
    ]  # fmt: skip


@pytest.mark.parametrize("blank", ["", None])
def test_an_id_that_is_blank_in_some_rows_is_refused(tmp_path: Path, blank: Any) -> None:
    """Where other rows have an id, its absence is an error of that row; where no row has one, rows are numbered."""
    rows = [row(0), row(1, id=blank), row(2, id=blank)]
    said = "has no id, and other rows have one; give every row an id, or none"
    text = "\n".join(map(json.dumps, rows))
    assert findings(tmp_path / "task.jsonl", text) == [(2, "", "wrong", said), (3, "", "wrong", said)]
    (tmp_path / "task.jsonl").write_text("\n".join(map(json.dumps, rows[1:])))
    assert [item.id for item in read_item_file(tmp_path / "task.jsonl")] == ["1", "2"]


def test_the_example_is_a_right_item(tmp_path: Path) -> None:
    """What is shown as right is right."""
    assert parse_items([EXAMPLE], "example") and findings(tmp_path / "task.jsonl", json.dumps(EXAMPLE)) == []


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".ndjson", ".csv", ".parquet"])
def test_the_example_is_of_the_file_s_own_kind(tmp_path: Path, suffix: str) -> None:
    """What stands behind the colon, or below it, can be copied into the file, and is right there."""
    path = tmp_path / f"task{suffix}"
    said = example_of(path)
    if suffix == ".parquet":
        pl.DataFrame([json.loads(said[said.index("{") :])]).write_parquet(path)
        assert check_item_file(path) == (1, [])
    else:
        text = said.split("\n", 1)[1] if suffix == ".csv" else said[said.index("[{" if suffix == ".json" else "{") :]
        assert findings(path, text) == []
    assert [item.id for item in read_item_file(path)] == ["q1"]


def test_a_byte_of_another_encoding_is_named_with_its_line(tmp_path: Path) -> None:
    """A table that a spreadsheet saved as Windows-1252."""
    (tmp_path / "task.csv").write_bytes("question,A,B,answer\nWhich \u2013 of two?,x,y,A\n".encode("cp1252"))
    with pytest.raises(ItemError, match=r"it is not UTF-8 text: line 2 has byte 0x96; save it as UTF-8$"):
        check_item_file(tmp_path / "task.csv")


def test_a_file_that_is_no_text_is_one_error(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 are refused with the file's name."""
    (tmp_path / "task.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ItemError, match=r"task\.json.*it is UTF-16; save it as UTF-8"):
        check_item_file(tmp_path / "task.json")
