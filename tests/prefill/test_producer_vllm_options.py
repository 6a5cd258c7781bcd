"""What vLLM is told beside the model: adapters, formats of the cache, quantizations. With vLLM itself in its own environment."""

import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from producer_standin import save_standin
from safetensors.torch import load_file, save_file
from vllm_here import done, log_probs, needs_vllm

from producer.models.find import ModelFiles
from producer.request.request import Request
from producer.request.vllm_options import VllmOptions, vllm_options
from producer.run.plan import make_plan
from schemas.errors import UsageError
from store import open_reader

pytestmark = pytest.mark.producer
SIDES = (("one", 0.1), ("two", 0.2))


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
def test_a_format_of_the_cache_and_a_quantization_reach_vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --kv-cache-dtype fp8 answers move by little; --quantization fp8, for which a CPU has no kernel, is refused in a sentence."""
    model, store = save_standin(tmp_path / "standin", hidden_size=128, intermediate_size=128), str(tmp_path / "store")
    asked = ["--model", str(model), "--task", "urn", "--limit", "8", "--store", store]
    dense = done(monkeypatch, [*asked, "--device", "cpu", "--dtype", "float32"]).stdout.strip()
    rounding = ["--method", "checkpoint", "--level", "kv-fp8", "--kv-cache-dtype", "fp8", "--dtype", "float32"]
    rounded = done(monkeypatch, [*asked, "--backend", "vllm", *rounding]).stdout.strip()
    ours, theirs = (open_reader(store).run(name) for name in (dense, rounded))
    moved = np.abs(log_probs(theirs) - log_probs(ours))
    assert theirs.key.method_settings["kv_cache_dtype"] == "fp8"
    assert 0.01 < moved.mean() < 0.5  # nats; 0.25 was measured
    refused = done(monkeypatch, [*asked, "--backend", "vllm", "--method", "checkpoint", "--level", "FP8", "--quantization", "fp8"])
    assert refused.returncode == 5 and "vLLM cannot run 'standin' as asked" in refused.stderr, refused.stderr[-3000:]


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
