"""Backend `server` against llama.cpp's own server, with a GGUF file of ref-m, and our reading of the same file."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from gguf_writer import write_gguf
from llama_cpp import server
from transformers import AutoModelForCausalLM, AutoTokenizer

from producer.cli.main import main
from producer.models.find import REFERENCE_MODELS
from schemas.run import Run
from store import open_reader

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.producer,
    pytest.mark.skipif(importlib.util.find_spec("xllamacpp") is None, reason="xllamacpp is for x86-64 Linux"),
]
FOLDER = REFERENCE_MODELS / "ref-m"


def write_ref_m(path: Path, kind: str) -> None:
    tokenizer, model = AutoTokenizer.from_pretrained(FOLDER), AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    words = [token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])]
    keys = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": words,
        "tokenizer.ggml.scores": [0.0] * len(words),
        "tokenizer.ggml.token_type": [1] * len(words),
        "tokenizer.ggml.bos_token_id": tokenizer.bos_token_id,
    }
    if kind == "Q8_0":
        keys["general.file_type"] = 7
    write_gguf(path, model, kind=kind, keys=keys)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(FOLDER / name, path.parent)


def made(store: Path, *options: str) -> Run:
    result = CliRunner().invoke(main, ["--task", "urn", "--limit", "20", "--store", str(store), *options])
    assert result.exit_code == 0, result.output
    return open_reader(str(store)).run(result.stdout.strip())


@pytest.mark.parametrize(("kind", "level", "least", "most"), [("F32", "-", 0.0, 1e-4), ("Q8_0", "Q8_0", 1e-4, 0.1)])
def test_the_servers_numbers_are_those_of_the_file(kind: str, level: str, least: float, most: float, tmp_path: Path) -> None:
    """F32 within 1e-4 (1.3e-5 measured); Q8_0 differs by up to 0.057 from its weights, since activations are rounded too."""
    path, store = tmp_path / f"{kind}.gguf", tmp_path / "store"
    write_ref_m(path, kind)
    method = ["--method", "checkpoint"] if level != "-" else []
    ours = made(store, "--model", str(path), "--dtype", "float32", "--device", "cpu", *method)
    with server(path) as address:
        theirs = made(store, "--backend", "server", "--url", address, "--tokenizer", "ref-m", "--concurrency", "2")
    assert (theirs.key.level, theirs.key.tokens_hash, theirs.key.model) == (level, ours.key.tokens_hash, kind)
    assert str(tmp_path) not in json.dumps(theirs.key.content())
    difference = float(np.abs(theirs.logits - (ours.logits - ours.logsumexp[:, None])).max())
    assert least <= difference <= most
    np.testing.assert_array_equal(theirs.top_token, ours.top_token)
