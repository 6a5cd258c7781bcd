"""The residual stream of a model: which layers read it and write it, and how to replace their weights.

In: a decoder layer or a model.  Out: its modules by role. A reader's input is the normalised stream; a writer's output is added to it.
"""

from typing import Any


def attention_readers(layer: Any) -> list[Any]:
    """Return the projections that read the stream after `input_layernorm`."""
    attention = layer.self_attn
    return [attention.q_proj, attention.k_proj, attention.v_proj]


def mlp_readers(layer: Any) -> list[Any]:
    """Return the layers that read the stream after `post_attention_layernorm`: gate and up projections, and the router if there is one."""
    routers = [layer.mlp.gate] if hasattr(layer.mlp, "experts") else []
    return [projection for mlp in mlps(layer) for projection in (mlp.gate_proj, mlp.up_proj)] + routers


def attention_writers(layer: Any) -> list[Any]:
    """Return the projection whose output is added to the stream after attention, as a list."""
    return [layer.self_attn.o_proj]


def mlp_writers(layer: Any) -> list[Any]:
    """Return the down projections, whose outputs are added to the stream."""
    return [mlp.down_proj for mlp in mlps(layer)]


def mlps(layer: Any) -> list[Any]:
    """Return the gated MLPs of a layer: one, or its (split) experts."""
    experts = getattr(layer.mlp, "experts", None)
    return [layer.mlp] if experts is None else [expert for expert in experts if hasattr(expert, "down_proj")]


def replace_weight(module: Any, weight: Any, bias: Any = None) -> None:
    """Give a module another weight, converted to the module's dtype, and update the sizes that the module records."""
    import torch

    old = module.weight
    module.weight = torch.nn.Parameter(weight.to(old.dtype).contiguous(), requires_grad=old.requires_grad)
    if bias is not None:
        module.bias = torch.nn.Parameter(bias.to(old.dtype).contiguous(), requires_grad=old.requires_grad)
    if isinstance(module, torch.nn.Linear):
        module.out_features, module.in_features = weight.shape
    elif isinstance(module, torch.nn.Embedding):
        module.embedding_dim = weight.shape[1]
    elif hasattr(module, "hidden_dim"):
        module.hidden_dim = weight.shape[1]  # the router reshapes its input to this width


def untie(model: Any) -> None:
    """Give the head its own copy of the weights that it shares with the embedding, so that the two may differ."""
    if model.lm_head.weight is model.model.embed_tokens.weight:
        replace_weight(model.lm_head, model.lm_head.weight.detach().clone())
        model.config.tie_word_embeddings = False


def fuse_norms(layer: Any) -> None:
    """Multiply the scales of a layer's norms into the layers that read them, in place; the layer's outputs do not change."""
    fuse(layer.input_layernorm, attention_readers(layer))
    fuse(layer.post_attention_layernorm, mlp_readers(layer))


def fuse(norm: Any, readers: list[Any]) -> None:
    """Multiply the scales of one norm into the layers that read it, in place."""
    for reader in readers:
        replace_weight(reader, reader.weight.detach().double() * norm.weight.detach().double())
    replace_weight(norm, norm.weight.detach().clone().fill_(1.0))
