"""A decoder layer whose residual stream changes basis, and width, between attention and MLP. Imports torch: import it inside functions."""

from typing import Any

import torch


class SlicedLayer(torch.nn.Module):
    """The decoder layer it replaces, with a matrix on each of its two residual connections.

    attention_shortcut : (width in, width between), mlp_shortcut : (width between, width out).
    """

    def __init__(self, layer: Any, attention_shortcut: torch.Tensor, mlp_shortcut: torch.Tensor) -> None:
        super().__init__()
        self.self_attn, self.mlp = layer.self_attn, layer.mlp
        self.input_layernorm, self.post_attention_layernorm = layer.input_layernorm, layer.post_attention_layernorm
        self.attention_shortcut = torch.nn.Parameter(attention_shortcut, requires_grad=False)
        self.mlp_shortcut = torch.nn.Parameter(mlp_shortcut, requires_grad=False)

    def forward(self, hidden_states: torch.Tensor, **keywords: Any) -> torch.Tensor:
        """Return the layer's output, (sequence, token, width out); keywords are the attention's."""
        attended, _ = self.self_attn(hidden_states=self.input_layernorm(hidden_states), **keywords)
        hidden_states = hidden_states @ self.attention_shortcut + attended
        result: torch.Tensor = hidden_states @ self.mlp_shortcut + self.mlp(self.post_attention_layernorm(hidden_states))
        return result
