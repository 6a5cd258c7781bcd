"""What a tokenizer takes from items is counted: unknown characters, special tokens in texts, options and items read alike."""

from pathlib import Path
from typing import Any

import pytest
from producer_standin import URN, save_standin, urn_rows, write_items
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from producer.prompts.encode import encode
from producer.prompts.token_quirks import describe_token_quirks
from producer.request.request import Request
from producer.run.plan import make_plan
from schemas.items import Item

pytestmark = pytest.mark.producer
BLUE = Item(**(URN | {"id": "blue", "question": "Which urn gave blue?"}))


def quirks(tokenizer: Any, items: list[Item], context: int = 512) -> list[str]:
    return list(describe_token_quirks(tokenizer, items, encode(tokenizer, "", [], items, context)))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return AutoTokenizer.from_pretrained(save_standin(tmp_path_factory.mktemp("standin")))


def test_what_is_read_as_written_is_not_counted(tokenizer: Any) -> None:
    """Items of the tokenizer's own words, one of them with two options of equal text, which the check of items names."""
    same = BLUE.model_copy(update={"id": "same", "choices": {"A": "ash", "B": "ash"}})
    assert quirks(tokenizer, [Item(**(row | {"id": str(row["id"])})) for row in urn_rows(3)] + [same]) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"question": "Which urn gave 東?"}, "1 of 2 items have characters that it does not know"),
        ({"question": "Which urn gave <s> red?"}, "1 of 2 items have text in them that it reads as a special token"),
        ({"choices": {"A": "東", "B": "南", "C": "fir"}}, "1 of 2 items have different options that it reads alike"),
    ],
)
def test_an_item_that_the_tokenizer_cannot_read_is_counted(changes: dict[str, Any], said: str, tokenizer: Any) -> None:
    """A word of another script, the tag of a begin of text in a question, two options that are the same unknown token."""
    assert said in quirks(tokenizer, [BLUE, BLUE.model_copy(update={"id": "odd", **changes})])


def test_items_that_differ_only_in_unknown_or_lost_text_are_counted(tokenizer: Any) -> None:
    """Two unknown words, or two questions of which a short context leaves the same end."""
    unknown = [BLUE.model_copy(update={"id": word, "question": f"Which urn gave {word}?"}) for word in ("東", "南")]
    assert "1 of 2 items are read like another item of different text" in quirks(tokenizer, unknown)
    known = [BLUE.model_copy(update={"id": word, "question": f"Which urn gave {word} red red red?"}) for word in ("red", "blue")]
    assert quirks(tokenizer, known) == []
    assert quirks(tokenizer, known, context=8) == ["1 of 2 items are read like another item of different text"]


def test_a_tokenizer_that_ignores_case_reads_options_alike() -> None:
    """A normalizer that lowers letters makes one option of two."""
    words = ["us", "US", "Question:", "Answer:", "A.", "B.", "x"]
    lower = Tokenizer(models.WordLevel({word.lower(): number for number, word in enumerate(dict.fromkeys(words))}, unk_token="x"))
    lower.normalizer, lower.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.WhitespaceSplit()
    item = Item(id="1", question="x", choices={"A": "us", "B": "US"}, answer="A")
    assert quirks(PreTrainedTokenizerFast(tokenizer_object=lower), [item]) == ["1 of 1 items have different options that it reads alike"]


def test_quirks_are_said_and_go_with_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The plan logs them once and hands them on as notes; a limit above the number of items is said too."""
    rows = [*urn_rows(2), URN | {"id": "s", "question": "Which urn gave <s> red?"}]
    task = write_items(tmp_path / "odd.json", rows)
    folder = save_standin(tmp_path / "standin")
    [group] = make_plan(Request(models=(str(folder),), tasks=(str(task),), limit=9, device="cpu"))
    said = "odd, prompt base, tokenizer of standin: 1 of 3 items have text in them that it reads as a special token"
    assert said in group.runs[0].prompted.notes
    assert caplog.messages.count(said) == 1
    assert "odd: --limit 9, and it has 3 items: all are asked" in caplog.messages
