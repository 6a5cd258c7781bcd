"""Write a model's matrices as plain linear layers, the form in which methods compress them; the model's function is unchanged.

In: a model.  Out: the same model with a linear layer for every matrix of every expert; GPT-2's `Conv1D` is transposed, Falcon's own class
replaced.
"""

from typing import Any

from producer.methods.shared.linear_layers import decoder_layers, fused_experts
from producer.methods.shared.llm_compressor import quiet


def make_linear(model: Any) -> Any:
    """Replace in place what can be written as linear layers, and return the model."""
    replace_relatives(model)
    if fused_experts(model):
        _split_experts(model)
    return model


def _split_experts(model: Any) -> None:
    """Replace fused expert weights by one gated MLP of linear layers per expert."""
    from compressed_tensors.offload.module import remove_module_offload  # type: ignore[import-untyped]

    with quiet():
        from llmcompressor.modeling.moe.linearize import linearize_moe  # logs when it is imported

        linearize_moe(model)
    for module in model.modules():
        if hasattr(module, "_original_forward_func"):  # the library's cache overwrites weights in place, which breaks gradients
            remove_module_offload(module)
            del module.forward


def replace_relatives(model: Any) -> None:
    """Replace layers that are linear under another name, in place; also without weights, on the meta device."""
    names = [
        f"{prefix}.{name}"
        for prefix, layer in decoder_layers(model).items()
        for name, module in layer.named_modules()
        if type(module).__name__ in ("Conv1D", "FalconLinear")
    ]
    for name in names:
        model.set_submodule(name, _as_linear(model.get_submodule(name)))


def _as_linear(module: Any) -> Any:
    """Return a linear layer with a module's weights: `Conv1D` stores (column, row), Falcon's class is a linear layer already."""
    import torch

    weight = module.weight.detach()
    weight = weight.T.contiguous() if type(module).__name__ == "Conv1D" else weight
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=module.bias is not None, device="meta")
    linear.weight = torch.nn.Parameter(weight)
    linear.bias = module.bias
    return linear.train(module.training)
