"""Files of a user's own questions: every way of writing options and answers, in every kind of file, gives the same items."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from schemas.errors import ItemError
from store.format.item_file import check_item_file, read_item_file

N, LETTERS = 12, "ABCD"
TEXTS = [[f"option {number}-{index}" for index in range(2 + number % 3)] for number in range(N)]
RIGHT = [number * 5 % len(TEXTS[number]) for number in range(N)]
OPTIONS = {
    "mapping": lambda number: {"choices": dict(zip(LETTERS, TEXTS[number], strict=False))},
    "lower case": lambda number: {"choices": dict(zip("abcd", TEXTS[number], strict=False))},
    "list": lambda number: {"choices": TEXTS[number]},
    "columns": lambda number: dict(zip(LETTERS, [*TEXTS[number], None, None], strict=False)),
}
ANSWERS = {
    "letter": lambda number: LETTERS[RIGHT[number]],
    "small letter": lambda number: LETTERS[RIGHT[number]].lower(),
    "from 0": lambda number: RIGHT[number],
    "from 1": lambda number: 1 + RIGHT[number],
    "text": lambda number: TEXTS[number][RIGHT[number]],
}


def rows(options: str, answers: str) -> list[dict[str, Any]]:
    return [
        {"id": f"q{number}", "question": f'Which, "{number}"?\nSay it.', "context": f"é, {number}"}
        | OPTIONS[options](number)
        | {"answer": ANSWERS[answers](number)}
        for number in range(N)
    ]


def write(path: Path, written: list[dict[str, Any]]) -> Path:
    if path.suffix == ".json":
        path.write_text(json.dumps(written))  # all in one line
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, written)))
    elif path.suffix == ".parquet":
        pl.DataFrame(written, infer_schema_length=None).write_parquet(path)
    else:
        with path.open("w", newline="", encoding="utf-8-sig") as stream:
            table = csv.DictWriter(stream, list(written[0]))
            table.writeheader()
            as_text = {"choices": json.dumps}
            table.writerows({name: as_text.get(name, lambda v: v)(value) for name, value in row.items()} for row in written)
    return path


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize("answers", ANSWERS)
@pytest.mark.parametrize("options", OPTIONS)
def test_every_form_gives_the_same_items(tmp_path: Path, options: str, answers: str, suffix: str) -> None:
    """Options as a mapping, a list or columns; answers as letters, numbers or texts; items with two to four options."""
    path = write(tmp_path / f"quiz{suffix}", rows(options, answers))
    items = read_item_file(path)
    assert [item.answer_index for item in items] == RIGHT
    assert [list(item.choices.values()) for item in items] == TEXTS and set(items[2].choices) == set("ABCD")
    assert [(item.id, item.context, item.question) for item in items][3] == ("q3", "é, 3", 'Which, "3"?\nSay it.')
    assert check_item_file(path) == (N, [])


def test_columns_of_other_names(tmp_path: Path) -> None:
    """`--columns` names them, and says from where numbers count."""
    path = tmp_path / "quiz.csv"
    path.write_text("stem,one,two,three,key\n" + "".join(f"Which {i}?,a{i},b{i},c{i},{1 + i % 2}\n" for i in range(4)))
    columns = "question=stem,choices=one+two+three,answer=key"
    with pytest.raises(ItemError, match=r"numbers from 0 or numbers from 1, which are other options; say answer=COLUMN:0"):
        read_item_file(path, columns)
    assert [item.answer for item in read_item_file(path, f"{columns}:1")] == list("ABAB")
    assert [item.answer for item in read_item_file(path, f"{columns}:0")] == list("BCBC")
    assert [item.id for item in read_item_file(path, f"{columns}:0")] == list("1234")
    with pytest.raises(ItemError, match=r"no column 'question', 'choices', 'answer' among stem, one, two, three, key; say which are which"):
        read_item_file(path)


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_whole_numbers_that_are_stored_as_floats(tmp_path: Path, suffix: str) -> None:
    """pandas makes floats of integers beside a blank: ids, answers and options are still those integers, and 2.5 is 2.5."""
    written = [
        {"id": float(i), "question": f"Which {i}?", "A": 1, "B": 2.5, "C": 3.0 if i % 2 else None, "answer": float(i % 2)} for i in range(4)
    ]
    path = write(tmp_path / f"quiz{suffix}", written)
    items = read_item_file(path, "answer=answer:0")
    assert [(item.id, item.answer) for item in items] == [("0", "A"), ("1", "B"), ("2", "A"), ("3", "B")]
    assert list(items[1].choices.values()) == ["1", "2.5", "3"] and list(items[0].choices.values()) == ["1", "2.5"]
    written[2]["answer"] = 7.0
    with pytest.raises(ItemError, match=r"line 3, id '2': answer '7' is none of its 2 options"):
        read_item_file(write(path, written), "answer=answer:0")


WRONG = [
    ({"answer": "E"}, "answer 'E' is none of its options A, B, C, D"),
    ({"answer": 2}, "answer '2' is none of its options"),
    ({"answer": True}, "answer 'True' is none"),
    ({"answer": None}, "has no answer"),
    ({"choices": {}}, "has no options"),
    ({"choices": {"B": "x", "A": "y"}, "answer": "A"}, r"has options \['B', 'A'\]; expected \['A', 'B'\] in order"),
    ({"choices": ["x", "x", "y"], "answer": "x"}, "answer 'x' is the text of 2 of its options; write a letter"),
    ({"question": ["x"]}, "question: Input should be a valid string"),
    ({"id": "q1"}, "has the same id as an earlier item, on line 2"),
]


@pytest.mark.parametrize(("changes", "said"), WRONG)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    """One wrong row among right ones is named, and never read as another option."""
    written = rows("mapping", "letter")
    written[2] |= changes
    with pytest.raises(ItemError, match=rf"line 3, id 'q\d': {said}"):
        read_item_file(write(tmp_path / "quiz.jsonl", written))


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("id,question,A,B,answer\n1,a,b,c\n", 2, "4 values for 5 columns; a value with a comma needs quotes"),
        ('id,question,A,B,answer\n1,"a\nb",c,d,A\n2,"x,c,d,A\n', 4, "not CSV: unexpected end of data"),
        ("id;question;A;B;answer\n", 1, "there are semicolons between the columns"),
        ("id,question,A,A,answer\n", 1, "two columns are called 'A'"),
        ("id,question,A,B,C,answer\n1,q,x,,z,A\n", 2, "option 2 is empty, and there are options after it"),
        ("id,question,choices,answer\n1,q,x|y,A\n", 2, "choices are a str; expected a list such as"),
        ("id,question,choices,answer\n1,q,[x],A\n", 2, "choices are not JSON"),
        ("", 0, "there are no items"),
        ("id,question,A,B,answer\n", 0, "there are no items"),
    ],
)
def test_what_is_wrong_in_a_table(tmp_path: Path, text: str, line: int, said: str) -> None:
    """A CSV that cannot be read as it is meant is named at the line of the row."""
    (tmp_path / "quiz.csv").write_text(text)
    _, findings = check_item_file(tmp_path / "quiz.csv")
    assert [finding.line for finding in findings if said in finding.what] == [line], findings


def test_labels_that_are_texts_as_well(tmp_path: Path) -> None:
    """Where options are called A, B, ... a letter is that option, also if another option reads the same; in a list nobody knows."""
    turned = {"A": "B", "B": "C", "C": "A"}
    written = [{"question": f"Which {i}?", "choices": turned, "answer": "ABC"[i % 3]} for i in range(6)]
    assert [item.answer for item in read_item_file(write(tmp_path / "quiz.json", written))] == list("ABCABC")
    listed = [row | {"choices": list(turned.values())} for row in written]
    with pytest.raises(ItemError, match="can be letters or texts of choices, which are other options"):
        read_item_file(write(tmp_path / "quiz.json", listed))


def test_a_passage_of_any_length(tmp_path: Path) -> None:
    """The csv library's own limit of 131,072 characters does not cut or refuse a passage."""
    written = [row | {"context": "long " * 60_000} for row in rows("columns", "letter")]
    assert len(read_item_file(write(tmp_path / "quiz.csv", written))[0].context) == 300_000


def test_what_comes_after_the_array_is_not_overlooked(tmp_path: Path) -> None:
    """Two arrays in one file, as from a log that was appended to, are not read as the first."""
    path = write(tmp_path / "quiz.json", rows("mapping", "letter"))
    path.write_text(path.read_text() + "\n" + path.read_text())
    with pytest.raises(ItemError, match="line 2: there is more after the end of the array"):
        read_item_file(path)


def test_a_damaged_parquet_file_and_another_suffix_are_sentences(tmp_path: Path) -> None:
    """Neither is a traceback."""
    (tmp_path / "quiz.parquet").write_bytes(b"PAR1 not really PAR1")
    (tmp_path / "quiz.xlsx").write_bytes(b"PK")
    for name, said in (("quiz.parquet", "cannot read items from"), ("quiz.xlsx", r"is none of \.json, \.jsonl")):
        with pytest.raises(ItemError, match=said):
            read_item_file(tmp_path / name)


def test_answers_that_are_always_the_last_option(tmp_path: Path) -> None:
    """Where items have different numbers of options, no letter stands out and the place does."""
    written = [
        {"question": f"Which {i}?", "choices": [f"{i}-{k}" for k in range(2 + i % 3)], "answer": "BCD"[i % 3]} for i in range(30)
    ]
    _, [finding] = check_item_file(write(tmp_path / "quiz.json", written))
    assert finding.what == "30 of 30 answers are the last option; put the options into random order"


@pytest.mark.producer
def test_a_wrong_file_is_refused_before_torch_is_loaded(tmp_path: Path) -> None:
    """`produce` reads the questions first: a typing error costs a second, not the loading of a model."""
    written = rows("mapping", "letter")
    written[4]["answer"] = "Z"
    path = write(tmp_path / "quiz.jsonl", written)
    code = "import sys; sys.modules['torch'] = None; from producer.cli.main import main; main()"
    command = [sys.executable, "-c", code, "--model", "ref-s", "--task", str(path), "--store", str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "line 5, id 'q4': answer 'Z' is none of its options" in done.stderr, done.stderr
