"""Whether vLLM is installed here, and `produce` in a process of its own beside it."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from schemas.run import Run

HERE = importlib.util.find_spec("vllm") is not None
needs_vllm = pytest.mark.skipif(not HERE, reason="vLLM lives in an environment of its own: make test-vllm")


def done(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run `produce` in a process of its own: importing vLLM warns of others' code."""
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # a process less to start, a minute on a busy machine
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    return subprocess.run([sys.executable, "-m", "producer", *arguments], capture_output=True, text=True, check=False)


def log_probs(run: Run) -> NDArray[np.float32]:
    """Return the log-probabilities of the options over the full vocabulary, (item, option)."""
    return run.logits - run.logsumexp[:, None]
