"""Small random models of every family of causal language models that transformers builds from a config of this size.

`python tests/support/model_zoo.py` writes the table of docs/models.md.
"""

import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from producer_prefill import OPTIONS, plain, some_prompts
from producer_tiny import tiny_data
from transformers import AutoConfig, AutoModelForCausalLM

from producer.engine.admission import FAST
from producer.engine.answer import answer
from producer.engine.layer_source import Target
from producer.engine.prefill import Answers
from producer.engine.settings import Settings
from producer.methods import METHODS
from producer.models.weights_hash import parameters
from schemas.levels import parse_level

TABLE = Path(__file__).parents[2] / "docs" / "models.md"
HEAD = "| model type | answered by | compressed |"
SINGLE_WEIGHTS = {"rtn": "w4a16-g8", "gptq": "w4a16-g8", "magnitude": "0.5", "wanda": "0.5", "sparsegpt": "0.5"}
# Families in which the tests apply every method on single weights.
COMPRESSED = (
    "smollm3", "olmo2", "mixtral", "glm4", "exaone4", "arcee", "seed_oss", "ernie4_5", "phimoe", "glm", "olmoe", "apertus", "starcoder2",
    "hunyuan_v1_dense", "dots1", "qwen2_moe", "glm4_moe", "ministral3", "gemma2", "gemma3_text", "phi3", "cohere2", "granite", "falcon",
    "gpt_oss", "qwen3_next", "qwen3_5_text", "deepseek_v3", "stablelm", "gpt2", "llama", "mistral", "qwen2", "qwen3", "qwen3_moe",
)  # fmt: skip
MOST_PARAMETERS = 3_000_000
VOCABULARY = 128
SIZES: dict[str, Any] = {
    # names that most families use
    "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 256, "tie_word_embeddings": False, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.1, "sliding_window": 8,
    # older names for the same
    "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 256, "n_ctx": 256, "d_model": 64, "num_heads": 4, "num_layers": 3,
    "ffn_dim": 96, "d_ff": 96, "n_inner": 96, "word_embed_proj_dim": 64,
    # experts
    "moe_intermediate_size": 32, "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2,
    "shared_expert_intermediate_size": 32, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1,
    # latent attention, per-layer embeddings, state spaces, linear attention
    "kv_lora_rank": 16, "q_lora_rank": 32, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16,
    "vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 16,
    "mamba_d_state": 8, "mamba_d_head": 16, "mamba_n_heads": 8, "mamba_expand": 2, "mamba_d_conv": 4, "state_size": 8,
    "time_step_rank": 4, "mamba_num_heads": 8, "mamba_head_dim": 16, "n_groups": 1, "ssm_state_size": 8, "lru_width": 64,
    "attention_window_size": 8, "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}  # fmt: skip
HYBRID = {"num_hidden_layers": 4}
LATENT = {"head_dim": None, "num_key_value_heads": 4}  # latent attention: as many keys as queries, whose width has names of its own
SCALED = {"embedding_multiplier": 12.0, "logits_scaling": 8.0, "residual_multiplier": 0.22, "attention_multiplier": 0.0156}
# What a family needs beside these sizes, and scales and caps that do something; None takes a size away.
SIZES_OF: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "codegen": {"rotary_dim": 16},
    "axk1": LATENT, "axk2": LATENT, "deepseek_v2": LATENT, "deepseek_v3": LATENT, "deepseek_v32": LATENT, "glm_moe_dsa": LATENT,
    "glm4_moe_lite": LATENT, "minicpm3": LATENT, "youtu": LATENT,
    "dots1": {"n_shared_experts": 1},
    "falcon_h1": {"mamba_d_ssm": 128},
    "gemma3_text": {"final_logit_softcapping": 2.0},
    "gptj": {"rotary_dim": 16},
    "gpt_neo": {"num_layers": 2, "attention_types": [[["global", "local"], 1]]},
    "granite": SCALED, "granitemoe": SCALED, "granitemoeshared": SCALED, "hyperclovax": SCALED,
    "granitemoehybrid": {"layer_types": ["mamba", "attention", "mamba"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv"], "num_dense_layers": 1},
    "llama4_text": {"num_hidden_layers": 4},
    "mamba2": {"num_heads": 8, "head_dim": 16},
    "qwen3_next": HYBRID, "qwen3_5_text": HYBRID, "qwen3_5_moe_text": HYBRID,
}  # fmt: skip


def family_config(family: str, **changes: Any) -> Any:
    """Return the small config of a family: a text model's, also where the family's own config has other modalities."""
    default = AutoConfig.for_model(family).get_text_config()
    known = default.to_dict()
    sizes = {name: size for name, size in SIZES.items() if name in known}
    if kinds := known.get("layer_types"):
        both = set(kinds) == {"sliding_attention", "full_attention"}
        sizes["layer_types"] = ["sliding_attention", "full_attention", "sliding_attention"] if both else None  # None: the family's own
    sizes = {name: size for name, size in (sizes | SIZES_OF.get(family, {}) | changes).items() if name != "head_dim" or size is not None}
    return type(default)(**sizes)


def family_model(family: str, seed: int = 0, **changes: Any) -> Any:
    """Return a random float32 model of a family, its attention computed by definition, its norms uneven as trained ones are."""
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(family_config(family, **changes), dtype=torch.float32, attn_implementation="eager").eval()
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.data.add_(0.05 * torch.randn_like(parameter))
    return model


def documented() -> dict[str, list[str]]:
    """Return for every family in the table of docs/models.md the path that answers it and what compresses it."""
    rows = [row.strip("| ").split(" | ") for row in TABLE.read_text(encoding="utf-8").splitlines() if row.startswith("| `")]
    return {row[0].strip("`"): row[1:] for row in rows}


def families() -> list[str]:
    """Return the families of the table in docs/models.md."""
    return list(documented())


def table() -> Iterator[str]:
    """Yield the table of docs/models.md: every family that can be built here, the path that answers it, and what compresses it."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    for package in ("transformers", "producer"):
        logging.getLogger(package).setLevel(logging.ERROR)
    yield HEAD
    yield "|---|---|---|"
    for family in sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        try:
            config = family_config(family)
            if config.model_type != family or not 0 < parameters(config) < MOST_PARAMETERS:
                continue
            model = family_model(family)
            plain(model, some_prompts(1))
        except Exception as error:  # other sizes than these are beyond a table's purpose
            print(f"{family}: not built ({type(error).__name__})", file=sys.stderr)
            continue
        yield f"| `{family}` | {path(asked(model))} | {'tested' if family in COMPRESSED else 'not tested'} |"


def compressed(family: str, method: str) -> Any:
    """Return a family's model as a method on single weights made it, with its post-conditions."""
    level = parse_level(SINGLE_WEIGHTS[method])
    return METHODS[method].apply(family_model(family), level, tiny_data() if METHODS[method].needs_data(level) else None, 0)


def asked(model: Any) -> Answers:
    """Return a model's answers to some prompts with a shared prefix, one of them truncated, as `produce` computes them."""
    return answer(model, some_prompts(9, n_prefix=20), OPTIONS, Target("cpu", torch.float32), Settings(), lambda _: None, loaded=True)


def path(answers: Answers) -> str:
    """Return the path that answered, from the note that is recorded with the run."""
    note = answers.notes[0] if answers.notes else f"answered by the {FAST}"
    return note.removeprefix("answered by ")


if __name__ == "__main__":
    before, _, after = TABLE.read_text(encoding="utf-8").partition(HEAD + "\n")
    rest = after.splitlines()
    end = next((i for i, line in enumerate(rest) if not line.startswith("|")), len(rest))
    TABLE.write_text(before + "\n".join([*table(), *rest[end:]]) + "\n", encoding="utf-8")
