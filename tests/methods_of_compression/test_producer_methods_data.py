"""Compression data: named, seeded, hashed, and never the evaluation items."""

from pathlib import Path
from typing import Any

import pytest

from producer.methods.shared.compression_data import check_overlap, default_source, draw_compression_data
from producer.tasks.facts import facts
from producer.tasks.urn import urn
from schemas.errors import UsageError
from schemas.items import Item

pytestmark = pytest.mark.producer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoTokenizer

    from producer.reference.tokenizer import build_tokenizer

    path = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(path)
    return AutoTokenizer.from_pretrained(path)


def test_the_same_seed_draws_the_same_data(tokenizer: Any) -> None:
    """Name and seed fix every token and so the hash; another seed gives another."""
    first, again, other = (draw_compression_data("embedded", tokenizer, seed=s, sequences=4, length=64) for s in (3, 3, 4))
    assert first.digest == again.digest != other.digest
    assert {len(row) for row in first.input_ids} == {64}
    assert len(first.input_ids) == 4


def test_the_size_may_follow_the_name(tokenizer: Any, tmp_path: Path) -> None:
    """`NAME:4x64` draws what the same numbers given apart draw, so it has the same hash; nothing at all is refused."""
    apart = draw_compression_data("embedded", tokenizer, sequences=4, length=64)
    assert draw_compression_data("embedded:4x64", tokenizer).digest == apart.digest
    (tmp_path / "text.txt").write_text("red blue " * 200)
    assert len(draw_compression_data(f"{tmp_path / 'text.txt'}:2x16", tokenizer).input_ids) == 2
    with pytest.raises(UsageError, match="the size of compression data 'embedded:0x64' is too small"):
        draw_compression_data("embedded:0x64", tokenizer)


class ByBytes:
    """A tokenizer whose tokens are bytes."""

    model_max_length = 2048

    def __call__(self, text: str, max_length: int | None = None, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": list(text.encode())[:max_length]}


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("packaged", "0701b5b3b9577639e15b196e62c8ca4a9d1eaf1fa1634730be19088339fa7cbf"),
        ("embedded", "37a48ad9c3d39c703f82c4cdd3aa9cf5c8b1a980badc342e38c418947b91d4a8"),
    ],
)
def test_named_sources_keep_their_digests_golden(name: str, digest: str) -> None:
    """Another digest would make every stored run on this data another run; these are what they were when such runs were first stored."""
    assert draw_compression_data(name, ByBytes()).digest == digest


def test_a_text_file_is_the_same_data_wherever_it_lies(tmp_path: Path) -> None:
    """Path and file name change neither the tokens drawn nor their digest; another text changes both."""
    text = "".join(f"{number} " for number in range(400))
    drawn = []
    for path, content in (("here.txt", text), ("there/other.txt", text), ("third.txt", text[1:])):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(content)
        drawn.append(draw_compression_data(str(tmp_path / path), ByBytes(), sequences=4, length=16))
    here, there, third = drawn
    assert here.input_ids == there.input_ids != third.input_ids
    assert here.digest == there.digest != third.digest


def test_embedded_data_is_readable_and_held_out(tokenizer: Any) -> None:
    """The default sample has no unknown token and contains no item of the embedded tasks."""
    data = draw_compression_data("embedded", tokenizer)
    assert not any(tokenizer.unk_token_id in row for row in data.input_ids)
    check_overlap(data, urn())
    check_overlap(data, facts())


def test_text_that_contains_an_item_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    """A text file that holds an evaluation item, however spaced, is an error that quotes the item."""
    item = urn(1)[0]
    text = " red blue" * 40 + f"\nQuestion:   {item.question}\nChoices:\n"
    text += "\n".join(f"{letter}. {option}" for letter, option in item.choices.items()) + "\nAnswer: A"
    (tmp_path / "leak.txt").write_text(text)
    data = draw_compression_data(str(tmp_path / "leak.txt"), tokenizer, sequences=2, length=32)
    with pytest.raises(UsageError, match="contains evaluation item '0'"):
        check_overlap(data, [item])
    check_overlap(data, [Item(id="x", answer="A")])  # an item without text cannot be searched for


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("red red red", "has text for 0 sequences"),
        ("zq. " * 200, r"does not know \d\d% of"),
        (None, "unknown compression data"),
    ],
)
def test_unusable_text_is_refused(tokenizer: Any, tmp_path: Path, text: str | None, message: str) -> None:
    """An empty file, too short a text, text in unknown words and a file that is not there each get their own sentence."""
    path = tmp_path / "text.txt"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=message):
        draw_compression_data(str(path), tokenizer, sequences=2, length=16)


def test_each_task_has_a_source_that_needs_no_network() -> None:
    """The embedded tasks are compressed on what the reference models speak, any other on the packaged text."""
    assert [default_source(task) for task in ("urn", "facts", "mmlu", "my-items")] == ["embedded", "embedded", "packaged", "packaged"]
