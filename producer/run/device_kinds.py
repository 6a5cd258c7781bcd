"""What planned runs take on the GPUs that people rent: hours of inference, and which models fit whole.

Peak speeds are those of dense matrix products in 16 bits from the makers' data sheets. How much of it is reached depends on the model; the
same share is assumed as elsewhere. Compression comes on top, from minutes (rtn) to hours (spinquant) for a large model.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from store.shown import aligned

ASSUMED_SHARE = 0.5  # of the peak speed of matrix products; the share reached depends on the model and is stored with every run
BYTES = 2  # per weight and number, in 16 bits
FOR_WEIGHTS = 0.85  # of a device's memory; the rest is for batches


class DeviceKind(NamedTuple):
    """A kind of GPU: memory in bytes, and floating-point operations per second."""

    name: str
    memory: float
    peak: float


KINDS = (
    DeviceKind("RTX 4090, 24 GB", 24e9, 165e12),
    DeviceKind("L40S, 48 GB", 48e9, 362e12),
    DeviceKind("A100, 80 GB", 80e9, 312e12),
    DeviceKind("H100 SXM, 80 GB", 80e9, 989e12),
    DeviceKind("H200, 141 GB", 141e9, 989e12),
    DeviceKind("B200, 180 GB", 180e9, 2250e12),
)


class Workload(NamedTuple):
    """A model's number of parameters, and the tokens that its runs still have to read."""

    name: str
    parameters: int
    tokens: int


def by_device_kind(workloads: Sequence[Workload]) -> Iterator[str]:
    """Yield the lines of a table with one row per kind of GPU.

    A model that does not fit whole with 16 bits per weight runs layer by layer, its weights in RAM. Every weight is counted for every
    token, so that a mixture of experts takes less than stated.
    """
    header = ("device", "GPU hours", "whole", "layer by layer")
    yield from aligned([header, *(_row(kind, workloads) for kind in KINDS)])
    yield "GPU hours are those of inference at half of the peak speed; compression comes on top"


def _row(kind: DeviceKind, workloads: Sequence[Workload]) -> tuple[str, ...]:
    operations = sum(2 * work.parameters * work.tokens for work in workloads)
    hours = operations / (ASSUMED_SHARE * kind.peak) / 3600
    whole = [work.name for work in workloads if work.parameters * BYTES <= FOR_WEIGHTS * kind.memory]
    rest = [work.name for work in workloads if work.name not in whole]
    return kind.name, f"{hours:,.1f}" if hours >= 0.1 else f"{hours:.2g}", str(len(whole)), ", ".join(rest) or "-"
