"""Backend `server` against vLLM's own server: the numbers of backend `vllm`. Runs in vLLM's own environment (`make test-vllm`)."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from producer_standin import save_standin
from store_ports import reserve_ports
from vllm_here import needs_vllm

from store import open_reader

pytestmark = [pytest.mark.producer, pytest.mark.slow, needs_vllm]
STARTS_WITHIN = 1800  # seconds; half a minute on an idle machine, eight beside much other work


@pytest.mark.parametrize("how", [{}, {"HEDGEMARK_API_KEY": "open-sesame"}], ids=["open", "with a key"])
def test_the_server_gives_the_numbers_of_the_library(how: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe finds `logprob_token_ids`, its tokenizer is compared, and all option log-probabilities and top tokens agree."""
    model = save_standin(tmp_path / "standin", hidden_size=128, intermediate_size=128)
    store, asked = str(tmp_path / "store"), ["--task", "urn", "--limit", "50"]
    for name, value in ({"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"} | how).items():
        monkeypatch.setenv(name, value)
    library = produced("--model", str(model), "--backend", "vllm", "--dtype", "float32", "--store", store, *asked)
    with served(model, tmp_path / "log", how.get("HEDGEMARK_API_KEY", "")) as url:
        server = produced("--backend", "server", "--url", url, "--tokenizer", str(model), "--level", "served", "--store", store, *asked)
    ours, theirs = (open_reader(store).run(name) for name in (library, server))
    np.testing.assert_allclose(theirs.logits, ours.logits, atol=1e-4)
    np.testing.assert_array_equal(theirs.top_token, ours.top_token)
    assert theirs.key.tokens_hash == ours.key.tokens_hash
    assert theirs.key.method_settings["server"] == "vllm" and theirs.key.method_settings["version"]
    assert theirs.env.post_conditions["request_form"] == "logprob_token_ids"
    assert theirs.env.post_conditions["prompts_with_tokens_compared"] == 3
    assert "sesame" not in theirs.env.model_dump_json() + json.dumps(theirs.key.content())


def produced(*arguments: str) -> str:
    """Run `produce` in a process of its own and return the name of its run."""
    environment = os.environ | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    done = subprocess.run([sys.executable, "-m", "producer", *arguments], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


@contextmanager
def served(model: Path, log: Path, key: str) -> Iterator[str]:
    """Serve a model on loopback and yield the address; the server and its processes have ended when the block has."""
    lock, (port,) = reserve_ports(1)
    # not `vllm serve`: version 0.32 looks for a distribution called vllm, and the build for CPUs is called vllm-cpu
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--dtype", "float32", "--enforce-eager"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--max-model-len", "512", *(["--api-key", key] if key else [])]
    with lock, log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + STARTS_WITHIN
        while not answers(f"{url}/health"):
            assert process.poll() is None and time.monotonic() < until, log.read_text(errors="replace")[-3000:]
            time.sleep(1)
        yield url
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def answers(url: str) -> bool:
    """Return whether there is an answer of status 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False
