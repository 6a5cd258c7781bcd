"""How memory is divided among weights, stored hidden states and the activations of running batches.

In: what a model needs, what is free or the budget that was set.  Out: a `MemoryPlan`: all weights on the device or layer by layer, tokens
in a batch and in a wave, batches run at the same time.
"""

import math
import re
import shutil
from dataclasses import dataclass, replace

from producer.engine.memory_needs import CopyBytes, MemoryNeeds, tokens_that_fit
from producer.engine.settings import Settings
from producer.machine.free_memory import free_memory
from schemas.errors import UsageError
from store.backend.user_cache import existing_cache_folder

# Larger batches gain nothing on a CPU, whose matrix products of 1,024 tokens are as fast as any.
MOST_TOKENS = {"cpu": 1024, "other": 32768}
FEWEST_TOKENS = 64
WAVE = 4  # batches for each worker in a wave when all weights are on the device
USABLE = 0.85  # share of free memory or disk that is used; the rest is left to allocators and libraries
STORED = 0.25  # share of a budget for stored hidden states
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True)
class MemoryPlan:
    """How a run uses memory.

    streamed          : whether weights are copied to the device layer by layer.
    batch_tokens      : most padded tokens in a batch.
    wave_tokens       : most tokens that go through all layers together; the first batch of a wave may exceed it.
    states_device     : device that stores hidden states between layers.
    head_rows         : rows of the head that are multiplied at a time.
    disk_tokens       : how many of a wave's tokens may be stored on disk, after the memory for the others is full.
    workers           : batches run at the same time.
    concurrent_tokens : most padded tokens in all of them together; a single batch may exceed it.
    """

    streamed: bool
    batch_tokens: int
    wave_tokens: int
    states_device: str
    head_rows: int
    disk_tokens: int = 0
    workers: int = 1
    concurrent_tokens: int = 0


def parse_size(text: str) -> int:
    """Return the bytes of a size such as 24G, 512M or 1000000. Raises UsageError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not match:
        raise UsageError(f"{text!r} is not a size; examples: 24G, 512M, 1000000")
    return int(float(match[1]) * UNITS[match[2].upper()])


def plan_memory(needs: MemoryNeeds, device: str, settings: Settings, *, loaded: bool) -> MemoryPlan:
    """Return the plan that fits the budget: all weights on the device if possible, else layer by layer.

    loaded : whether all weights are on the device already, so that free memory does not include them; if not, the plan is layer by layer.
    Raises UsageError, which states the smallest sufficient budget, if not even the buffers for two layers and a small batch fit.
    """
    budget = settings.device_memory or int(USABLE * free_memory(device)) + needs.weights * loaded
    most = settings.batch_tokens or MOST_TOKENS.get(device.split(":", maxsplit=1)[0], MOST_TOKENS["other"])
    fewest, needs = max(FEWEST_TOKENS, needs.longest), needs.on(device)
    room, token = budget - needs.weights - needs.prefix - needs.last, needs.activation + WAVE * needs.hidden
    if loaded and room >= fewest * token + needs.item:
        plan = _divide(room, token, most, device, needs)
        return replace(plan, wave_tokens=WAVE * plan.workers * plan.batch_tokens)
    room = budget - 2 * needs.layer - needs.layer_prefix
    least = budget - room + math.ceil(((fewest + 1) * needs.activation + needs.item) / (1 - STORED))
    if budget < least:
        least_mib = math.ceil(least / 2**20)
        raise UsageError(f"{budget / 2**20:,.0f} MiB of device memory are too little for this model; the least is {least_mib:,} MiB")
    plan = _divide(int((1 - STORED) * room), needs.activation, most, device, needs)
    on_device = (int(STORED * room) - needs.last) // needs.hidden
    if device != "cpu" and on_device >= 4 * plan.batch_tokens:
        return replace(plan, streamed=True, wave_tokens=on_device)
    memory = max(0, (settings.host_memory or int(USABLE * free_memory("cpu") / 2)) - needs.last) // needs.hidden
    disk = int(USABLE * shutil.disk_usage(existing_cache_folder()).free) // needs.hidden
    return replace(plan, streamed=True, wave_tokens=memory + disk, disk_tokens=disk, states_device="cpu")


def _divide(room: int, token: int, most: int, device: str, needs: MemoryNeeds) -> MemoryPlan:
    """Return a plan that divides `room` bytes among concurrent batches.

    token : bytes per token of a batch. most : most tokens in a batch.
    """
    import torch

    cores = torch.get_num_threads() if device == "cpu" else 1
    tokens = fitting = (room - needs.item) // token
    workers = max(1, min(cores, tokens // FEWEST_TOKENS))
    if needs.item:  # a batch's memory then depends on its number of items too: each worker's share of the room must hold any batch
        workers = max(1, min(workers, room // (needs.longest * token + needs.item)))
        fitting = tokens_that_fit(needs.copies.lengths, CopyBytes(needs.item, token), room // workers)
    batch = min(most, fitting, max(FEWEST_TOKENS, tokens // workers))
    return MemoryPlan(False, batch, 0, device, _head_rows(room, needs), workers=workers, concurrent_tokens=tokens)


def _head_rows(room: int, needs: MemoryNeeds) -> int:
    return max(256, min(16384, room // 2 // needs.head_row))
