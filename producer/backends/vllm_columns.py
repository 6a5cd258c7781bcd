"""Two numbers about the whole vocabulary, carried out of vLLM in two of its logits.

vLLM returns the logits of chosen tokens and nothing of the rest; its log-probabilities would need a second pass, and the whole
vocabulary would be a Python object per token. So this processor, which runs where the logits are, writes log-sum-exp and most likely
token over the logits of two tokens that are no options. The sampled token means nothing then, and is not used.
"""

from typing import Any

from vllm.v1.sample.logits_processor import LogitsProcessor

LOGSUMEXP, TOP_TOKEN = 0, 1  # token ids whose logits are overwritten; ids are exact in float32 up to 16,777,216


class VocabularyColumns(LogitsProcessor):
    """Overwrites the logits (request, token) of two tokens; the same for every request."""

    def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool) -> None:
        """Take what vLLM hands to every processor; none of it is needed."""

    def apply(self, logits: Any) -> Any:
        """Return the logits with log-sum-exp and top token in their columns; they are float32 here, whatever the model's dtype."""
        total, top = logits.logsumexp(dim=-1), logits.argmax(dim=-1)
        logits[:, LOGSUMEXP], logits[:, TOP_TOKEN] = total, top.to(logits.dtype)
        return logits

    def is_argmax_invariant(self) -> bool:
        """Say that the sampled token changes, so that vLLM applies this to greedy sampling too."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """Keep no state."""
