"""Tiny untrained models and data for the tests of the compression methods."""

import re
from importlib.util import find_spec
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config, Qwen3MoeConfig

from producer.methods import METHODS
from producer.methods.shared.compression_data import CompressionData
from schemas.levels import Level, parse_level

AT_HAND = [name for name, method in METHODS.items() if not method.library or find_spec(method.library)]  # the others' libraries are extras

VOCABULARY = 128
torch.set_num_threads(1)  # matrices this small are slower on two threads
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "tie_word_embeddings": False, "pad_token_id": 0, "initializer_range": 0.1,
}  # fmt: skip
MOE: dict[str, Any] = {
    "head_dim": 16, "moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2,
    "norm_topk_prob": True, "decoder_sparse_step": 1,
}  # fmt: skip
CONFIGS = {
    "llama": lambda: LlamaConfig(**SIZES),
    "llama-tied": lambda: LlamaConfig(**(SIZES | {"tie_word_embeddings": True})),
    "llama2": lambda: LlamaConfig(**(SIZES | {"num_key_value_heads": 4})),  # as many key heads as query heads
    "odd": lambda: LlamaConfig(**(SIZES | {"hidden_size": 72, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 24})),
    "mistral": lambda: MistralConfig(**SIZES, sliding_window=None),
    "qwen2": lambda: Qwen2Config(**SIZES),
    "qwen3": lambda: Qwen3Config(**(SIZES | {"tie_word_embeddings": True}), head_dim=16),
    "qwen3_moe": lambda: Qwen3MoeConfig(**SIZES, **MOE),
}


def tiny(name: str = "llama", seed: int = 0, dtype: torch.dtype = torch.float32) -> Any:
    """Return an untrained model whose norms and activations are uneven, as trained ones are."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(CONFIGS[name](), dtype=dtype).eval()
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.data.mul_(torch.exp(0.5 * torch.randn_like(parameter))).add_(0.05 * torch.randn_like(parameter))
        model.model.embed_tokens.weight.data *= torch.exp(0.7 * torch.randn(model.config.hidden_size))
        for layer in model.model.layers:
            router = getattr(layer.mlp, "gate", None)
            if router is not None:
                router.weight.data.normal_()
    return model


def tiny_data(sequences: int = 16, length: int = 24, seed: int = 0) -> CompressionData:
    """Return random tokens, Zipf distributed, as compression data."""
    generator = torch.Generator().manual_seed(seed)
    shares = 1 / torch.arange(1, VOCABULARY + 1)
    ids = torch.multinomial(shares.repeat(sequences, 1), length, replacement=True, generator=generator)
    return CompressionData("tiny", seed, tuple(map(tuple, ids.tolist())))


def tiny_level(name: str) -> Level:
    """Return a method's default level; for the tiny models' 64 columns groups have 32 columns at most."""
    return parse_level(re.sub("-g(128|64)", "-g32", METHODS[name].default_level))


def logits(model: Any, ids: Any) -> Any:
    """Return the logits of some tokens: (sequence, token, vocabulary)."""
    with torch.no_grad():
        return model(input_ids=torch.as_tensor(ids), use_cache=False).logits
