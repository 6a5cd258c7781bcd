"""Items: parsing, ids that survive reordering, and one clear sentence for what is wrong."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ItemError
from schemas.items import item_ids, parse_items
from schemas.itemset import build_item_set
from store.format.item_file import read_item_file


def row(**changes: Any) -> dict[str, Any]:
    return {"id": 1, "source": "t", "question": "Which?", "choices": {"A": "x", "B": "y", "C": "z"}, "answer": "B"} | changes


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([row(answer="D")], "answer 'D'"),
        ([{"id": 1, "question": "q", "choices": {"A": "x", "B": "y"}}], "answer"),
        ([row(), row()], "'1' appears more than once"),
        ([row(choices={"A": "x"}, answer="A")], "1 option;"),
        ([row(choices={"A": "x", "C": "y"}, answer="A")], "in order"),
        ([row(choices={"A": None, "B": "y"})], "choices.A"),
        ([row(question="")], "neither question nor context"),
        ([], "no items"),
        (["text"], "item 0"),
    ],
)
def test_bad_items_are_named(rows: list[Any], words: str) -> None:
    """Every way an item can be wrong is an ItemError that says which item and what."""
    with pytest.raises(ItemError, match=words.replace("(", r"\(")):
        parse_items(rows, "file.json")


def test_every_problem_is_reported_at_once() -> None:
    """Two bad items give one error that names both."""
    with pytest.raises(ItemError, match=r"id '1' has answer 'D'.*id '2' has answer 'Z'"):
        parse_items([row(answer="D"), row(id=2, answer="Z")], "file.json")


def test_an_item_without_text_is_admitted() -> None:
    """Where only logits were published, id and answer are an item."""
    (item,) = parse_items([{"id": 7, "answer": "C"}], "x")
    assert (item.id, item.answer_index, dict(item.choices)) == ("7", 2, {})


def test_json_lines_and_json_array_read_alike(tmp_path: Path) -> None:
    """The two file forms give the same items."""
    rows = [row(), row(id=2)]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert read_item_file(tmp_path / "a.json") == read_item_file(tmp_path / "a.jsonl")


@pytest.mark.parametrize("text", ["{", '{"id": 1}', ""])
def test_a_broken_file_is_one_error(tmp_path: Path, text: str) -> None:
    """Broken JSON, an object instead of an array and an empty file name the file."""
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(ItemError, match=r"bad\.json"):
        read_item_file(tmp_path / "bad.json")


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085"])
def test_only_a_line_feed_ends_a_json_line(tmp_path: Path, separator: str) -> None:
    """Characters at which Python splits lines, but JSON does not, stay inside the question."""
    path = tmp_path / "items.jsonl"
    text = json.dumps(row(question=f"one{separator}two"), ensure_ascii=False)
    path.write_bytes(text.encode() + b"\r\n" + json.dumps(row(id=2)).encode() + b"\n")
    assert [item.question for item in read_item_file(path)] == [f"one{separator}two", "Which?"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"id": 1, "answer": "A", "answer": "B"}', "'answer' is given twice"),
        ('{"id": 1, "answer": "A", "question": "\\ud83d"}', "half a surrogate pair"),
        ("[" * 100_000, "nested too deeply"),
        ("7" * 5000, "digits"),
        ("\xff", "not UTF-8"),
    ],
)
def test_json_that_is_ambiguous_or_hostile_is_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    """A repeated key, half a character, endless nesting, an endless number and other encodings are refused with the file's name."""
    path = tmp_path / "bad.jsonl"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ItemError, match=rf"bad\.jsonl.*{words}"):
        read_item_file(path)


@given(st.permutations(["x", "y", "z", "w"]))
def test_item_id_ignores_the_order_of_options_but_content_does_not(texts: list[str]) -> None:
    """The same question with its options in another order keeps its id and changes its content digest."""
    base = parse_items([row(choices=dict(zip("ABCD", ["x", "y", "z", "w"], strict=True)))], "x")
    other = parse_items([row(choices=dict(zip("ABCD", texts, strict=True)))], "x")
    assert item_ids(base) == item_ids(other)
    assert (base[0].content_digest() == other[0].content_digest()) == (texts == ["x", "y", "z", "w"])


def test_repeated_questions_get_distinct_ids() -> None:
    """Published MMLU repeats 70 questions; each occurrence is an item of its own."""
    ids = item_ids(parse_items([row(id=1), row(id=2), row(id=3, question="Other?")], "x"))
    assert len(set(ids)) == 3


def test_item_set_digest_changes_with_any_item(shared_data: Path) -> None:
    """Ten thousand published items have distinct ids, and dropping one changes the digest."""
    items = read_item_file(shared_data / "ye2024/data/mmlu_10k.json")
    whole, part = build_item_set("mmlu", items), build_item_set("mmlu", items[:-1])
    assert len(np.unique(whole.item_id)) == 10_000
    assert whole.digest != part.digest
    assert set(whole.n_options) == {6} and len(whole.subjects) == 57
