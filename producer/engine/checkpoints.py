"""Put finished answers into safety while a model still answers, so that a command that is killed loses only its last minutes.

In: how often, and a function that keeps answers.  Out: when to call it, and how long a wave may take.

Layer by layer, all items of a wave are answered together, after its last layer. A wave that would take too long is cut in its first layer:
the batches that this layer has not begun by then go through with the next wave, and no work is lost. Each wave copies all weights to the
device and computes the shared prefix again. So it is never cut so short that this takes more than `EXTRA` of its time.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from producer.engine.head import HeadOutput

EXTRA = 0.05  # largest share of a wave's time that is spent on what each wave does anew


@dataclass(frozen=True)
class Keep:
    """How to keep the answers so far.

    every : seconds of work that may be lost; infinity keeps nothing.
    add   : called with numbers of items and their answers, once for every item at most.
    """

    every: float
    add: Callable[[Sequence[int], HeadOutput], None]

    @property
    def period(self) -> float:
        """Seconds after which answers are kept: half of `every`, since what is under way may take as long again until it is finished."""
        return self.every / 2


NOTHING_KEPT = Keep(math.inf, lambda *_: None)


class Clock:
    """The time since answers were last kept."""

    def __init__(self, keep: Keep) -> None:
        self._keep, self._since = keep, time.monotonic()

    @property
    def due(self) -> bool:
        """Whether the answers so far are to be kept now."""
        return time.monotonic() - self._since >= self._keep.period

    def add(self, items: Sequence[int], output: HeadOutput) -> None:
        """Keep the answers of these items."""
        self._keep.add(items, output)
        self._since = time.monotonic()


@dataclass(frozen=True)
class WaveTime:
    """What the first layer says of how long a wave takes.

    period   : seconds that a wave may take.
    n_layers : number of layers.
    copied   : seconds that the first layer's weights took to reach the device; those of later layers are copied while others compute.
    prefix   : seconds that the shared prefix took in the first layer.
    """

    period: float
    n_layers: int
    copied: float
    prefix: float

    @property
    def in_a_layer(self) -> float:
        """Seconds that the wave's batches may take in each layer: no less than copying the next one, nor than makes a wave worth it."""
        worth_it = (self.prefix + self.copied / self.n_layers) / EXTRA
        return max(self.period / self.n_layers, self.copied, worth_it)

    @property
    def in_all(self) -> float:
        """Seconds that the wave's batches may take in all layers together."""
        return self.n_layers * self.in_a_layer
