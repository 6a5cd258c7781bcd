"""Doubtful items: every kind that benchmarks are known to hold is found, by id, and nothing else is."""

from pathlib import Path
from typing import Any

import pytest

from schemas.errors import ItemError
from schemas.item_quirks import CHECKS, describe_quirks, find_quirks
from schemas.items import parse_items
from schemas.itemset import build_item_set
from store.format.item_file import read_item_file

OPTIONS = {"A": "x", "B": "y", "C": "z"}


def quirks(*rows: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return the ids of doubtful items by what is odd about them; each row gets its number as id."""
    filled = [{"id": i, "question": f"Which {i}?", "choices": OPTIONS, "answer": "A"} | row for i, row in enumerate(rows)]
    return {quirk.what: quirk.ids for quirk in find_quirks(parse_items(filled, "test"))}


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"choices": OPTIONS | {"C": "x"}}, "with two options of equal text"),
        ({"choices": OPTIONS | {"C": " x\n"}}, "with two options of equal text"),
        ({"choices": OPTIONS | {"C": "\xa0x"}}, "with two options of equal text"),
        ({"choices": {"A": "Rome", "B": "Paris", "C": "rome "}}, "with two options of equal text"),
        ({"choices": {"A": "caf\u00e9", "B": "y", "C": "cafe\u0301"}}, "with two options of equal text"),
        ({"choices": OPTIONS | {"C": ""}}, "with an empty option"),
        ({"choices": OPTIONS | {"C": " \t"}}, "with an empty option"),
        ({"choices": {"A": "none of the above.", "B": "y", "C": "None of the above"}}, 'with "None of the above" twice'),
        ({"choices": {"A": "None of the above choices .", "B": "y", "C": "None of the above"}}, 'with "None of the above" twice'),
        ({"choices": OPTIONS | {"B": "nan"}}, 'with an option that reads "nan" or "null"'),
        ({"choices": OPTIONS | {"B": "null"}}, 'with an option that reads "nan" or "null"'),
        ({"choices": OPTIONS | {"B": "None"}}, 'with an option that reads "nan" or "null"'),
        ({"choices": OPTIONS | {"B": "<NA>"}}, 'with an option that reads "nan" or "null"'),
        ({"choices": OPTIONS | {"B": "#REF!"}}, 'with an option that reads "nan" or "null"'),
        ({"question": "a zero\u200bwidth blank"}, "with invisible characters"),
        ({"choices": OPTIONS | {"B": "\ufeffy2"}}, "with invisible characters"),
        ({"choices": OPTIONS | {"B": "N/A"}}, 'with an option that reads "nan" or "null"'),
        ({"choices": OPTIONS | {"B": "NONE"}}, 'with an option that reads "nan" or "null"'),
        ({"choices": OPTIONS | {"C": "\u200d"}}, "with an empty option"),
        ({"choices": OPTIONS | {"C": "\u3164\u2800"}}, "with an empty option"),
        ({"choices": OPTIONS | {"C": "x\ufe0f"}}, "with two options of equal text"),
        ({"choices": OPTIONS | {"C": "x\U000e0041"}}, "with two options of equal text"),
        ({"question": "a &NotEqualTilde; b"}, "with HTML entities such as &amp;"),
        ({"context": "left \u202e right"}, "with invisible characters"),
        ({"question": "Which of AT&amp;T?"}, "with HTML entities such as &amp;"),
        ({"choices": OPTIONS | {"B": "it&#39;s"}}, "with HTML entities such as &amp;"),
        ({"context": "a &#x27; b"}, "with HTML entities such as &amp;"),
        ({"question": "a\x00b"}, "with control or replacement characters"),
        ({"choices": OPTIONS | {"B": "caf\ufffd"}}, "with control or replacement characters"),
        ({"context": "\x1b[31m"}, "with control or replacement characters"),
    ],
)
def test_a_doubtful_item_is_found(row: dict[str, Any], what: str) -> None:
    """The odd item is named under its kind, and its neighbours are not."""
    assert quirks({}, row, {}) == {what: ("1",)}


@pytest.mark.parametrize(
    "row",
    [
        {"question": "Is AT&T; R&D larger?"},
        {"question": "f(&value; &count;)"},
        {"question": "two lines\nand a\ttab, a line\u2028separator"},
        {"choices": {"A": "Nan Goldin", "B": "none", "C": "nullify"}},
        {"choices": {"A": "x", "B": "All of the above", "C": "None of the above"}},
        {"choices": {"A": "a", "B": "A", "C": "ä"}},
        {"choices": {"A": "AA", "B": "Aa", "C": "aa"}},
        {"choices": {"A": "x²", "B": "x2", "C": "x₂"}},
        {"question": "👩\u200d🔬 and नम\u200c"},
    ],
)
def test_an_ordinary_item_is_not_doubtful(row: dict[str, Any]) -> None:
    """Ampersands, tabs, names and options that differ in case only are text like any other."""
    assert quirks(row) == {}


def test_repeated_questions_are_found_whatever_the_order_of_their_options() -> None:
    """The later ones are named; where the answers disagree, all of them are."""
    turned = {"A": "z", "B": "x", "C": "y"}
    same = {"question": "q"}
    assert quirks(same, {}, same | {"choices": turned, "answer": "B"}) == {"repeating the question and options of an earlier one": ("2",)}
    found = quirks(same, {}, same | {"choices": turned, "answer": "A"})
    assert found["repeating a question and its options with another answer"] == ("0", "2")
    assert quirks(same, same | {"choices": OPTIONS | {"C": "w"}}) == {}


@pytest.mark.parametrize("again", ["which  one?", "Which one?\n", "Which o\u200bne?", "Which one\ufe0f?", "W\u200dhich ONE?"])
def test_a_question_that_reads_the_same_is_a_repeat_and_one_cluster(again: str) -> None:
    """Blanks, case, composed accents and what nobody sees do not make a question a new one, in the check or in the intervals."""
    rows = [{"question": "Which one?"}, {}, {"question": again, "choices": {"A": "z ", "B": "x", "C": "y"}, "answer": "B"}]
    assert quirks(*rows)["repeating the question and options of an earlier one"] == ("2",)
    filled = [{"id": i, "question": f"Other {i}?", "choices": OPTIONS, "answer": "A"} | row for i, row in enumerate(rows)]
    first, other, repeated = build_item_set("t", parse_items(filled, "test")).question
    assert first == repeated != other


def test_the_sentence_counts_an_item_once() -> None:
    """An item with two oddities is one doubtful item."""
    items = parse_items([{"id": 0, "question": "a&lt;b", "choices": {"A": "", "B": "y"}, "answer": "B"}], "test")
    assert describe_quirks(items) == "1 of 1 items are doubtful: 1 with an empty option, 1 with HTML entities such as &amp;"
    assert describe_quirks(parse_items([{"id": 0, "question": "q", "choices": OPTIONS, "answer": "A"}], "test")) == ""


def test_items_without_text_have_no_quirks() -> None:
    """Published answers without their questions are not repeats of each other."""
    assert find_quirks(parse_items([{"id": i, "answer": "A"} for i in range(3)], "test")) == []


def test_the_published_file_has_its_known_quirks(shared_data: Path) -> None:
    """MMLU as published: 70 repeats (Ye et al.'s 10,000 items), 8 with an option that was a bare NaN."""
    found = {quirk.what: len(quirk.ids) for quirk in find_quirks(read_item_file(shared_data / "ye2024" / "data" / "mmlu_10k.json"))}
    assert found["repeating the question and options of an earlier one"] == 70
    assert found['with an option that reads "nan" or "null"'] == 8
    assert set(found) <= {*CHECKS, "repeating the question and options of an earlier one"}


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (["0", "1", "2"], "3 answers are numbers, the first of id '0', which is '0'; write letters"),
        (["A", "1", 3], "2 answers are numbers, the first of id '1', which is '1', and 1 are not; write letters"),
        ([1, 2, "B"], "2 answers are numbers, the first of id '0', which is '1', and 1 are not; write letters"),
    ],
)
def test_answers_that_are_numbers_are_refused_in_one_sentence(answers: list[Any], words: str) -> None:
    """Whether 1 is A or B cannot be known, least of all where letters stand beside; nothing is guessed."""
    rows = [{"id": i, "question": f"q{i}", "choices": OPTIONS, "answer": answer} for i, answer in enumerate(answers)]
    with pytest.raises(ItemError, match=words):
        parse_items(rows, "file.json")


def test_options_that_differ_in_what_nobody_sees_are_equal() -> None:
    """A zero-width blank makes two options equal to a reader, and an option of nothing else is empty."""
    found = quirks({"choices": OPTIONS | {"C": "x\u200b"}}, {"choices": OPTIONS | {"C": "\u200b"}})
    assert found == {"with two options of equal text": ("0",), "with an empty option": ("1",), "with invisible characters": ("0", "1")}
