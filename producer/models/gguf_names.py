"""What GGUF files of llama.cpp call the settings and tensors of an architecture, and what transformers calls them.

`ARCHITECTURES` has an entry for each architecture that is read. A file of another one, or with a name that is in no table, is refused.
Names and meanings: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md and llama.cpp's convert_hf_to_gguf.py.

For "llama" and some other architectures, llama.cpp's converter reorders the rows of the query and key projections: the two numbers that are
rotated together move from (first half, second half) of a head to (even, odd) rows. `gguf_file` restores the original order.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Architecture:
    """How a GGUF architecture maps to transformers.

    model_type : `model_type` of the Hugging Face config.
    layers     : name of a layer's tensor -> name in transformers; experts are stored as one tensor (expert, output, input).
    keys       : further keys -> name in the config.
    fixed      : config settings that llama.cpp assumes and the file does not state.
    pairs      : whether the rows of the query and key projections were reordered.
    """

    model_type: str
    layers: Mapping[str, str]
    keys: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    pairs: bool = False


EMBEDDING = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight", "output.weight": "lm_head.weight"}
ATTENTION = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
}  # fmt: skip
NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
MLP = {"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
SHARED = {"ffn_gate_inp": "mlp.gate"} | {f"{name}_shexp": value.replace("mlp", "mlp.shared_expert") for name, value in MLP.items()}
SHARED["ffn_gate_inp_shexp"] = "mlp.shared_expert_gate"


def _experts(names: Mapping[str, str]) -> dict[str, str]:
    return {f"ffn_{part}_exps": name for part, name in names.items()}


MIXTRAL = {"gate": "block_sparse_moe.experts.{}.w1", "up": "block_sparse_moe.experts.{}.w3", "down": "block_sparse_moe.experts.{}.w2"}
QWEN_EXPERTS = {part: f"mlp.experts.{{}}.{part}_proj" for part in ("gate", "up", "down")}
EXPERT_COUNTS = {
    "expert_count": "num_experts", "expert_used_count": "num_experts_per_tok", "expert_feed_forward_length": "moe_intermediate_size",
}  # fmt: skip
ARCHITECTURES = {
    "llama": Architecture("llama", NORMS | ATTENTION | MLP, pairs=True),
    "mixtral": Architecture(  # llama.cpp names it "llama" too, but with experts
        "mixtral",
        NORMS | ATTENTION | {"ffn_gate_inp": "block_sparse_moe.gate"} | _experts(MIXTRAL),
        {"expert_count": "num_local_experts", "expert_used_count": "num_experts_per_tok"},
        pairs=True,
    ),
    "qwen2": Architecture("qwen2", NORMS | ATTENTION | MLP),
    "qwen3": Architecture("qwen3", NORMS | ATTENTION | MLP),
    "qwen2moe": Architecture(
        "qwen2_moe",
        NORMS | ATTENTION | SHARED | _experts(QWEN_EXPERTS),
        {
            **EXPERT_COUNTS,
            "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
        },
        {"norm_topk_prob": False, "decoder_sparse_step": 1, "mlp_only_layers": []},
    ),
    "qwen3moe": Architecture(
        "qwen3_moe",
        NORMS | ATTENTION | {"ffn_gate_inp": "mlp.gate"} | _experts(QWEN_EXPERTS),
        EXPERT_COUNTS,
        {"norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": []},
    ),
    "olmo2": Architecture(
        "olmo2", ATTENTION | MLP | {"post_attention_norm": "post_attention_layernorm", "post_ffw_norm": "post_feedforward_layernorm"}
    ),
    "smollm3": Architecture("smollm3", NORMS | ATTENTION | MLP, fixed={"no_rope_layer_interval": 4}, pairs=True),
}  # fmt: skip
KEYS = {
    "block_count": "num_hidden_layers", "context_length": "max_position_embeddings", "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size", "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads", "attention.layer_norm_rms_epsilon": "rms_norm_eps",
}  # fmt: skip
