"""Compression data: named, seeded, hashed, and never the evaluation items."""

from pathlib import Path
from typing import Any

import pytest
from producer_tiny import tiny, tiny_data

from producer.methods.shared import compression_data, hub_text
from producer.methods.shared.compression_data import check_overlap, default_source, draw_compression_data, too_few_tokens
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


@pytest.mark.parametrize("answers", [False, True])
def test_each_task_has_a_source(monkeypatch: pytest.MonkeyPatch, answers: bool) -> None:
    """Embedded tasks are compressed on what the reference models speak, others on the papers' text, without the Hub on the packaged one."""
    monkeypatch.setattr(compression_data, "hub_answers", lambda: answers)
    other = "c4" if answers else "packaged"
    assert [default_source(task) for task in ("urn", "facts", "mmlu", "my-items")] == ["embedded", "embedded", other, other]


def test_a_hub_that_is_switched_off_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """HF_HUB_OFFLINE is obeyed without a request."""
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: pytest.fail("the Hub was asked"))
    hub_text.hub_answers.cache_clear()
    assert not hub_text.hub_answers()
    hub_text.hub_answers.cache_clear()


class Marked(ByBytes):
    """A tokenizer of bytes that begins every text with token 1."""

    def __call__(self, text: str, max_length: int | None = None, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [1, *text.encode()][:max_length]}


DOCUMENTS = [" ".join(f"{number}-{word}" for word in range(number)) for number in range(40)]  # the empty one and longer and longer ones


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Hub that has these documents, in this order."""
    monkeypatch.setattr(hub_text, "_texts", lambda name, seed: iter(DOCUMENTS))


@pytest.mark.usefixtures("hub")
def test_c4_is_cut_as_its_papers_cut_it() -> None:
    """One stretch of each document with more tokens than a sequence, somewhere in it; shorter documents give none."""
    data = draw_compression_data("c4:12x100", Marked(), seed=5)
    long = [document for document in DOCUMENTS if len(document) + 1 > 100][:12]
    assert len(data.input_ids) == 12
    starts = set()
    for ids, document in zip(data.input_ids, long, strict=True):
        whole = [1, *document.encode()]
        found = [start for start in range(len(whole) - 99) if tuple(whole[start : start + 100]) == ids]
        assert len(found) == 1
        starts.add(found[0])
    assert len(starts) > 5
    assert data.text == "\n".join(long)
    assert (
        data.digest
        == draw_compression_data("c4:12x100", Marked(), seed=5).digest
        != draw_compression_data("c4:12x100", Marked(), seed=6).digest
    )


@pytest.mark.usefixtures("hub")
def test_wikitext2_is_cut_as_its_papers_cut_it() -> None:
    """Stretches from random starts of the lines joined by two line breaks, which may overlap; the text begins with one special token."""
    data = draw_compression_data("wikitext2:64x50", Marked())
    whole = [1, *"\n\n".join(DOCUMENTS).encode()]
    stretches = {tuple(whole[start : start + 50]): start for start in range(len(whole) - 49)}
    starts = sorted(stretches[ids] for ids in data.input_ids)
    assert len(starts) == 64
    assert starts[0] < len(whole) / 8 and starts[-1] > 7 * len(whole) / 8
    assert any(start % 50 for start in starts)


@pytest.mark.usefixtures("hub")
def test_pileval_is_cut_as_its_paper_cuts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents of at most a sequence's tokens one behind the other, in pieces, the rest dropped; by default so many documents."""
    row = [token for document in DOCUMENTS if len(document) < 100 for token in [1, *document.encode()]]
    pieces = [tuple(row[start : start + 100]) for start in range(0, len(row) - 99, 100)]
    assert draw_compression_data("pileval:3x100", Marked()).input_ids == tuple(pieces[:3])
    of_documents = hub_text.HUB["pileval"]._replace(size=hub_text.Size(12, 100))
    monkeypatch.setitem(hub_text.HUB, "pileval", of_documents)
    row = [token for document in DOCUMENTS[:12] for token in [1, *document.encode()]]
    assert draw_compression_data("pileval", Marked()).input_ids == tuple(
        tuple(row[start : start + 100]) for start in range(0, len(row) - 99, 100)
    )


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("name", ["c4:64x100", "wikitext2:2x60000", "pileval:64x100"])
def test_too_little_text_of_the_hub_is_refused(name: str) -> None:
    """A source with fewer sequences than asked for says how many it has."""
    with pytest.raises(UsageError, match=r"the text has \d+ sequences of \d+ tokens, and \d+ are needed; ask for fewer or shorter"):
        draw_compression_data(name, Marked())


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("name", ["c4:4x100", "wikitext2:4x50", "pileval:3x100"])
def test_text_of_the_hub_that_a_model_cannot_read_is_refused(name: str) -> None:
    """A tokenizer of few words makes one unknown token of nearly every word, on which no model can be compressed."""

    class OfFewWords(Marked):
        unk_token_id = 3

        def __call__(self, text: str, max_length: int | None = None, **_: Any) -> dict[str, list[int]]:
            return {"input_ids": [1, *([3] * len(text))][:max_length]}

    with pytest.raises(UsageError, match=rf"does not know \d+% of compression data '{name.partition(':')[0]}'"):
        draw_compression_data(name, OfFewWords())


def test_fewer_tokens_than_columns_are_warned_of() -> None:
    """8 x 24 tokens are more than the 96 columns of a tiny down projection, 3 x 24 are fewer; the widest layer is named."""
    config = tiny().config
    assert too_few_tokens(tiny_data(8), config) == ""
    assert too_few_tokens(tiny_data(3), config).startswith("compression data 'tiny' have 72 tokens, and mlp.down_proj has 96 columns")
