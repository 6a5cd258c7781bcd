"""What a compression costs: its seconds and its peak memory, apart from loading the model, checking it and asking it.

In: a device, the work.  Out: seconds and bytes by name, as a run records them.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from producer.machine.environment import peak_memory, reset_peak

P = ParamSpec("P")
R = TypeVar("R")
SECONDS, PEAK = "compression_s", "compression_peak_memory_bytes"


class CompressionCost:
    """The seconds of all work measured so far together, and the peak memory of the work that took most.

    device : device that the work is done on; on a CPU the memory is that of the whole process.
    before : the cost of work that was done before and counts as well.

    Attributes
    ----------
    measured : whether any work was measured.
    """

    def __init__(self, device: Any, before: "CompressionCost | None" = None) -> None:
        self._device = str(device)
        self.measured: bool = before is not None and before.measured
        self._seconds: float = before._seconds if before else 0.0
        self._peak: int = before._peak if before else 0

    def of(self, work: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
        """Return what the work returns, and add its seconds, and the memory that it takes at most where the peak can be reset."""
        resets, clock = reset_peak(self._device), time.monotonic()
        result = work(*arguments, **named)
        if self._device.startswith("cuda"):
            import torch

            torch.cuda.synchronize(self._device)
        self._seconds += time.monotonic() - clock
        if resets:
            self._peak = max(self._peak, peak_memory(self._device))
        self.measured = True
        return result

    def recorded(self) -> Mapping[str, float]:
        """Return what a run records; the memory is left out where it could not be measured."""
        return {SECONDS: round(self._seconds, 3), **({PEAK: float(self._peak)} if self._peak else {})}
