"""The steps of the device check by name, each with its own time limit; all limits together are below eight minutes."""

from typing import NamedTuple

from producer.bench.device_check.answers import logits
from producer.bench.device_check.card import card
from producer.bench.device_check.commands import commands
from producer.bench.device_check.compressed import in_16_bits, layer_by_layer, resident
from producer.bench.device_check.finding import Step
from producer.bench.device_check.layouts import in_memory
from producer.bench.device_check.layouts import layer_by_layer as within_24_gb
from producer.bench.device_check.memory_runs_out import memory_runs_out


class Timed(NamedTuple):
    """A step, its time limit in seconds, and whether it must have the machine to itself because it measures speed or memory."""

    step: Step
    limit: int
    alone: bool = False


STEPS: dict[str, Timed] = {
    "the device": Timed(card, 40, alone=True),
    "8B in memory": Timed(in_memory, 80, alone=True),
    "70B within 24 GB": Timed(within_24_gb, 120, alone=True),
    "memory runs out": Timed(memory_runs_out, 60, alone=True),
    "logits": Timed(logits, 160),
    "ref-s on the device": Timed(resident("ref-s"), 160),
    "ref-moe on the device": Timed(resident("ref-moe"), 160),
    "ref-s layer by layer": Timed(layer_by_layer("ref-s"), 160),
    "ref-moe layer by layer": Timed(layer_by_layer("ref-moe"), 160),
    "ref-s in 16 bits": Timed(in_16_bits("ref-s"), 160),
    "ref-moe in 16 bits": Timed(in_16_bits("ref-moe"), 160),
    "commands": Timed(commands, 160),
}
