"""Tokenizers of model folders: the tokens that their files say, whatever a library makes of the name of their class."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from gguf_writer import QWEN2_SPLIT, byte_level
from producer_tiny import SIZES
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from producer.models import tokenizer_folder
from producer.models.find import REFERENCE, REFERENCE_MODELS
from producer.models.tokenizer_folder import read_tokenizer
from producer.reference.tokenizer import build_tokenizer
from producer.request.request import Request
from producer.run.plan import make_plan
from schemas.errors import UsageError

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.producer
TEXTS = ("Question: On day 48213?\nAnswer: A", "Hello  World's 12", "no blank")


def folder_of(tokenizer: Any, folder: Path, name: str, **settings: Any) -> Path:
    """Save a tokenizer under another class name, with further settings."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    old = {key: value for key, value in json.loads(path.read_text()).items() if key != "add_bos_token"}
    path.write_text(json.dumps({**old, "tokenizer_class": name, **settings}))
    return folder


@pytest.mark.parametrize("name", ["PreTrainedTokenizerFast", "LlamaTokenizer", "LlamaTokenizerFast", "Qwen2Tokenizer", "GPT2Tokenizer"])
@pytest.mark.parametrize("begins", [True, False])
@pytest.mark.parametrize("split", [None, QWEN2_SPLIT])
def test_tokens_are_those_of_tokenizer_json(name: str, begins: bool, split: str | None, tmp_path: Path) -> None:
    """A byte-level tokenizer that goes by the name of another class keeps its pre-tokenizer and its begin of text."""
    tokenizer = byte_level(*([split] if split else []), begins=begins)
    found = read_tokenizer(folder_of(tokenizer, tmp_path, name))
    alone = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in TEXTS:
        assert found(text)["input_ids"] == alone.encode(text).ids
    assert (found.bos_token, found.eos_token) == ("<|begin|>", "<|end|>")


@pytest.mark.parametrize("begins", [True, False])
@pytest.mark.parametrize("said", [True, False])
def test_a_llama_class_begins_texts_as_its_setting_says(begins: bool, said: bool, tmp_path: Path) -> None:
    """For these classes the setting counted and not tokenizer.json, until transformers 5."""
    tokenizer = byte_level(begins=begins)
    found = read_tokenizer(folder_of(tokenizer, tmp_path, "LlamaTokenizerFast", add_bos_token=said))
    for text in TEXTS:
        assert found(text)["input_ids"] == [0] * said + tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize(
    ("check", "message"),
    [("_same", "does not give the tokens of its tokenizer.json"), ("_first_is_begin", "to begin texts as add_bos_token says (True)")],
)
def test_a_tokenizer_that_cannot_be_made_to_do_so_is_refused(
    check: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no class gives the tokens of the files, no run is asked with others."""
    monkeypatch.setattr(tokenizer_folder, check, lambda *_: False)
    with pytest.raises(UsageError, match=re.escape(message)):
        read_tokenizer(folder_of(byte_level(begins=True), tmp_path, "LlamaTokenizerFast", add_bos_token=True))


@pytest.mark.parametrize("said", [None, True, False])
@pytest.mark.parametrize("form", ["tokenizer.model", "tokenizer.json"])
def test_sentence_pieces_begin_with_the_token_by_default(said: bool | None, form: str, tmp_path: Path) -> None:
    """Llama 2's folders do not always state add_bos_token, and every text begins with <s> all the same."""
    spm = pytest.importorskip("sentencepiece")
    from producer.methods.shared.compression_data import PACKAGED

    spm.SentencePieceTrainer.train(
        input=str(PACKAGED), model_prefix=str(tmp_path / "tokenizer"), vocab_size=800, model_type="bpe", byte_fallback=True, minloglevel=2,
        normalization_rule_name="identity", remove_extra_whitespaces=False,
    )  # fmt: skip
    settings = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings | ({} if said is None else {"add_bos_token": said})))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    pieces = spm.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    if form == "tokenizer.json":
        backend = read_tokenizer(tmp_path).backend_tokenizer
        (tmp_path / "tokenizer.model").unlink()
        (tmp_path / form).write_text(json.dumps(json.loads(backend.to_str()) | {"post_processor": None}))
    found = read_tokenizer(tmp_path)
    for text in TEXTS:
        assert found(text)["input_ids"] == [pieces.bos_id()] * (said is not False) + pieces.encode(text)


def test_the_embedded_models_tokens_are_unchanged(tmp_path: Path) -> None:
    """Runs in stores keep their meaning: the embedded tokenizer is read as it was built."""
    build_tokenizer(tmp_path)
    alone = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for name in REFERENCE:
        assert read_tokenizer(REFERENCE_MODELS / name)("Question: Which urn gave red?")["input_ids"] == (
            alone.encode("Question: Which urn gave red?").ids
        )


def test_what_the_tokenizers_library_prints_stays_off_the_results(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It prints names from tokenizer.json past Python, where no filter would take an escape sequence out, and among the results."""
    folder = tmp_path / "model"
    shutil.copytree(REFERENCE_MODELS / "ref-s", folder)
    stored = json.loads((folder / "tokenizer.json").read_text())
    stored["added_tokens"][0]["named\x1b]0;title\x07"] = True
    (folder / "tokenizer.json").write_text(json.dumps(stored))
    print("before")
    assert read_tokenizer(folder)("x")["input_ids"] == read_tokenizer(REFERENCE_MODELS / "ref-s")("x")["input_ids"]
    print("after")
    assert capfd.readouterr().out == "before\nafter\n"


def test_what_changes_a_token_is_another_run_and_what_does_not_is_the_same(tmp_path: Path) -> None:
    """Three folders of one name and the same weights: one begins texts otherwise, by a setting alone; one has a chat template."""
    keys = []
    for place, changes in (("first", {}), ("second", {"add_bos_token": False}), ("third", {})):
        folder = tmp_path / place / "merged"
        folder.mkdir(parents=True)
        tokenizer = byte_level()
        config = LlamaConfig(**(SIZES | {"vocab_size": len(tokenizer), "pad_token_id": None, "num_hidden_layers": 1}))
        with torch.random.fork_rng():
            torch.manual_seed(0)
            LlamaForCausalLM(config).save_pretrained(folder)
        folder_of(tokenizer, folder, "LlamaTokenizerFast", **changes)
        if place == "third":
            (folder / "chat_template.jinja").write_text("{{ messages }}")
        request = Request(models=(str(folder),), tasks=("urn",), limit=2)
        [group] = make_plan(request)
        [run] = group.runs
        assert run.key is not None
        keys.append(run.key)
    first, second, third = keys
    assert first.weights_hash == second.weights_hash
    assert first.tokens_hash != second.tokens_hash
    assert first.name != second.name
    assert third == first
