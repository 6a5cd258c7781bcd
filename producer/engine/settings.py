"""Options of how to run. They change results by rounding at most, so they are not part of a run's key."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """Memory budgets and checks; a size of 0 is replaced by one that fits the free memory.

    batch_tokens    : most tokens in a batch.
    device_memory   : bytes for weights and activations on the device; a larger model is run layer by layer.
    host_memory     : bytes for intermediate results in RAM; the rest goes to disk.
    tensor_parallel : devices that share one model (vLLM).
    concurrency     : requests to a server at a time.
    request_timeout : seconds to wait for an answer of a server.
    checkpoint_every : seconds of work that a killed command may lose; answers are kept often enough for that.
    fresh           : take no answers that an earlier command stored or left behind.
    self_check      : items on which the noise floor is measured, 0 for none.
    save            : folder to write the one compressed model of the request to.
    saved_models    : folder of compressed models; those found there are loaded, the others are added.
    """

    batch_tokens: int = 0
    device_memory: int = 0
    host_memory: int = 0
    tensor_parallel: int = 1
    concurrency: int = 8
    request_timeout: float = 300.0
    checkpoint_every: float = 600.0
    fresh: bool = False
    self_check: int = 0
    save: Path | None = None
    saved_models: Path | None = None
