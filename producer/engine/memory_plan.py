"""How much memory there is and how it is shared out: weights, hidden states that wait, activations of one batch.

In: a model's shapes, what is free or the stated budget.  Out: a `Layout`: layer-major or not, tokens in a batch and in a wave, batches side
by side.
"""

import math
import re
import shutil
from dataclasses import dataclass, field, replace
from typing import Any

from producer.engine.head import ITEMS_AT_ONCE
from producer.engine.prefix_copies import Copies, Extra, measure_copies, tokens_that_fit
from producer.engine.settings import Settings
from producer.machine.cache_dir import cache_dir
from producer.machine.free_memory import free_memory
from producer.prompts.encode import Prompts
from schemas.errors import UsageError

# A larger batch won nothing on a CPU, whose products of 1,024 tokens are as fast as any.
MOST_TOKENS = {"cpu": 1024, "other": 32768}
FEWEST_TOKENS = 64
WAVE = 4  # batches for each worker in a wave when all weights are on the device
USABLE = 0.85  # of free memory or disk; the rest is the allocator's and the libraries'
WAITING = 0.25  # of a budget, for hidden states that wait
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True)
class Layout:
    """How a run uses memory.

    streamed     : weights come to the device layer by layer.
    batch_tokens : most padded tokens in a batch.
    wave_tokens  : most tokens that go through all layers together; the first batch of a wave always may.
    waiting_on   : device on which hidden states wait between layers.
    head_rows    : rows of the head multiplied at a time.
    disk_tokens  : of a wave's tokens, the most that wait in a file instead; used when the others' places are taken.
    workers      : batches under way side by side.
    under_way    : most padded tokens in them together; a batch alone may have more.
    """

    streamed: bool
    batch_tokens: int
    wave_tokens: int
    waiting_on: str
    head_rows: int
    disk_tokens: int = 0
    workers: int = 1
    under_way: int = 0


@dataclass(frozen=True)
class Needs:
    """What a model asks for, in bytes.

    weights, layer     : all weights, and those of the largest layer.
    activation, hidden : a token's activations within a layer, and its hidden state between two.
    longest            : own tokens of the longest item, which are in one batch whatever its budget.
    layer_prefix       : the shared prefix in one layer: keys and values, twice while they grow, and its hidden states.
    prefix, last       : the same with the keys and values of all layers; every item's last hidden state. Both stay to the end.
    head_row           : a row of the head in float32 and what it says of the items read at once.
    copies             : what is copied for want of a kernel; `on` counts it for a device, per token in `activation`, per item in `item`.
    """

    weights: int
    layer: int
    activation: int
    hidden: int
    longest: int
    prefix: int
    layer_prefix: int
    last: int
    head_row: int
    copies: Copies = field(default_factory=Copies)
    item: int = 0

    def on(self, device: str) -> "Needs":
        """Return the needs on a device, with the copies that are made there."""
        extra = self.copies.on(device)
        return replace(self, item=extra.item, activation=self.activation + extra.token)


def parse_size(text: str) -> int:
    """Return the bytes of a size such as 24G, 512M or 1000000. Raises UsageError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not match:
        raise UsageError(f"{text!r} is not a size; examples: 24G, 512M, 1000000")
    return int(float(match[1]) * UNITS[match[2].upper()])


def plan_memory(needs: Needs, device: str, settings: Settings, *, loaded: bool) -> Layout:
    """Return the layout that fits.

    loaded : whether all weights are on the device already, and what is free is free beside them; if not, the order is layer-major.
    Raises UsageError where not even one layer and a small batch fit, with the least that would do.
    """
    budget = settings.device_memory or int(USABLE * free_memory(device)) + needs.weights * loaded
    most = settings.batch_tokens or MOST_TOKENS.get(device.split(":", maxsplit=1)[0], MOST_TOKENS["other"])
    fewest, needs = max(FEWEST_TOKENS, needs.longest), needs.on(device)
    left, token = budget - needs.weights - needs.prefix - needs.last, needs.activation + WAVE * needs.hidden
    if loaded and left >= fewest * token + needs.item:
        layout = _share_out(left, token, most, device, needs)
        return replace(layout, wave_tokens=WAVE * layout.workers * layout.batch_tokens)
    left = budget - 2 * needs.layer - needs.layer_prefix
    least = budget - left + math.ceil(((fewest + 1) * needs.activation + needs.item) / (1 - WAITING))
    if budget < least:
        least_mib = math.ceil(least / 2**20)
        raise UsageError(f"{budget / 2**20:,.0f} MiB of device memory are too little for this model; the least is {least_mib:,} MiB")
    layout = _share_out(int((1 - WAITING) * left), needs.activation, most, device, needs)
    room = (int(WAITING * left) - needs.last) // needs.hidden
    if device != "cpu" and room >= 4 * layout.batch_tokens:
        return replace(layout, streamed=True, wave_tokens=room)
    memory = max(0, (settings.host_memory or int(USABLE * free_memory("cpu") / 2)) - needs.last) // needs.hidden
    disk = int(USABLE * shutil.disk_usage(cache_dir()).free) // needs.hidden
    return replace(layout, streamed=True, wave_tokens=memory + disk, disk_tokens=disk, waiting_on="cpu")


def measure_needs(model: Any, dtype: Any, prompts: Prompts) -> Needs:
    """Return what a model needs for these prompts, from its own tensors, so that pruned ones count as they are."""
    from producer.engine.layer_source import layer_bytes

    size, config, body = int(dtype.itemsize), model.config, model.model
    attention, width = body.layers[0].self_attn, body.embed_tokens.weight.shape[1]
    heads = sum(_rows(getattr(attention, name, None)) for name in ("q_proj", "k_proj", "v_proj"))
    within = max(_inner_floats(config, width), 6 * heads)  # the two halves of a layer do not live at the same time
    key_values = [sum(_rows(getattr(layer.self_attn, name, None)) for name in ("k_proj", "v_proj")) for layer in body.layers]
    return Needs(
        weights=layer_bytes(model, dtype),
        layer=max(layer_bytes(layer, dtype) for layer in body.layers),
        activation=(4 * width + within) * size + 8 * width,  # the norms compute in float32
        hidden=width * size,
        longest=max(map(len, prompts.suffixes)),
        prefix=len(prompts.prefix) * (sum(key_values) + max(key_values) + width) * size,
        layer_prefix=len(prompts.prefix) * (2 * max(key_values) + width) * size,
        last=len(prompts.suffixes) * width * size,
        head_row=4 * (width + 2 * ITEMS_AT_ONCE),
        copies=measure_copies(model, dtype, prompts),
    )


def _share_out(room: int, token: int, most: int, device: str, needs: Needs) -> Layout:
    """Return a layout for what is under way in so much room, where each token takes `token` and a batch has `most` of them at most."""
    import torch

    cores = torch.get_num_threads() if device == "cpu" else 1
    tokens = fitting = (room - needs.item) // token
    workers = max(1, min(cores, tokens // FEWEST_TOKENS))
    if needs.item:  # then tokens alone do not say what a batch takes: its worker's share of the room holds each
        workers = max(1, min(workers, room // (needs.longest * token + needs.item)))
        fitting = tokens_that_fit(needs.copies.lengths, Extra(needs.item, token), room // workers)
    batch = min(most, fitting, max(FEWEST_TOKENS, tokens // workers))
    return Layout(False, batch, 0, device, _head_rows(room, needs), workers=workers, under_way=tokens)


def _head_rows(room: int, needs: Needs) -> int:
    return max(256, min(16384, room // 2 // needs.head_row))


def _rows(linear: Any) -> int:
    return 0 if linear is None else int(linear.weight.shape[0])


def _inner_floats(config: Any, width: int) -> int:
    """Return the numbers that a token takes within an MLP, or within the experts it is sent to, with its copies for them."""
    chosen = getattr(config, "num_experts_per_tok", None)
    if not chosen:
        return int(4 * config.intermediate_size)
    expert = getattr(config, "moe_intermediate_size", None) or config.intermediate_size
    return int(chosen * (4 * expert + 3 * width))
