"""How to run, with no effect on the numbers beyond rounding; no part of a run's key."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """0 leaves a size to be found out.

    batch_tokens    : most tokens in a batch.
    device_memory   : bytes that weights and activations may take on the device; a larger model goes through layer by layer.
    host_memory     : bytes that waiting hidden states may take on the host.
    tensor_parallel : devices that share one model (vLLM).
    self_check      : items on which the noise floor is measured, 0 for none.
    """

    batch_tokens: int = 0
    device_memory: int = 0
    host_memory: int = 0
    tensor_parallel: int = 1
    self_check: int = 0
