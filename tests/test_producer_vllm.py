"""Backend `vllm`: the same numbers as the transformers backend, in the same store. Runs in vLLM's own environment (`make test-vllm`)."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from producer_standin import save_standin
from transformers import LlamaConfig

from producer.backends import BACKENDS
from schemas.errors import UsageError
from store import open_reader

pytestmark = pytest.mark.producer
HERE = importlib.util.find_spec("vllm") is not None
needs_vllm = pytest.mark.skipif(not HERE, reason="vLLM lives in an environment of its own: make test-vllm")


@needs_vllm
@pytest.mark.slow
def test_vllm_agrees_with_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Option logits and log-sum-exp agree within 1e-3 in float32, the top token exactly, and both runs land in one store."""
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    model = save_standin(tmp_path / "standin", hidden_size=128, intermediate_size=128, num_attention_heads=4)
    base = f"--model {model} --task urn --limit 8 --device cpu --dtype float32 --store {tmp_path / 'store'}".split()
    names = {}
    for backend in ("transformers", "vllm"):
        argv = [sys.executable, "-m", "producer", *base, "--backend", backend]  # a process of its own: importing vLLM warns of others' code
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        names[backend] = done.stdout.strip().splitlines()[-1]
    reader = open_reader(str(tmp_path / "store"))
    ours, theirs = reader.run(names["transformers"]), reader.run(names["vllm"])
    assert ours.key.items_hash == theirs.key.items_hash
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
