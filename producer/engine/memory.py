"""How much memory there is and how it is shared out: weights, hidden states that wait, activations of one batch.

In: a model's shapes, what is free or the stated budget.  Out: a `Layout`: layer-major or not, tokens in a batch and in a wave, batches side
by side.
"""

import re
import shutil
from dataclasses import dataclass, replace
from typing import Any

from producer.cache_dir import cache_dir
from producer.encode import Prompts
from producer.engine.free import free_memory
from producer.engine.head import ITEMS_AT_ONCE
from producer.settings import Settings
from schemas.errors import UsageError

# Activations of 1,024 tokens of a small model stay in the L3 cache; a larger batch wins nothing on a CPU.
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
    prefix, last       : keys and values of the shared prefix in all layers; every item's last hidden state. Both stay to the end.
    layer_prefix       : the largest layer's keys and values of the shared prefix.
    head_row           : a row of the head in float32 and what it says of the items read at once.
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


def parse_size(text: str) -> int:
    """Return the bytes of a size such as 24G, 512M or 1000000. Raises UsageError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not match:
        raise UsageError(f"{text!r} is not a size; examples: 24G, 512M, 1000000")
    return int(float(match[1]) * UNITS[match[2].upper()])


def plan_memory(needs: Needs, device: str, settings: Settings, *, loaded: bool) -> Layout:
    """Return the layout that fits.

    loaded : whether all weights are on the device already, and what is free is free beside them.
    Raises UsageError where not even one layer and a small batch fit, with the least that would do.
    """
    budget = settings.device_memory or int(USABLE * free_memory(device)) + needs.weights * loaded
    most = settings.batch_tokens or MOST_TOKENS.get(device.split(":", maxsplit=1)[0], MOST_TOKENS["other"])
    fewest = max(FEWEST_TOKENS, needs.longest)
    left, token = budget - needs.weights - needs.prefix - needs.last, needs.activation + WAVE * needs.hidden
    if left >= fewest * token:
        layout = _share_out(left // token, most, device, _head_rows(left, needs))
        return replace(layout, wave_tokens=WAVE * layout.workers * layout.batch_tokens)
    left = budget - 2 * needs.layer - needs.layer_prefix
    least = budget - left + int(fewest * needs.activation / (1 - WAITING))
    if budget < least:
        raise UsageError(f"{budget / 2**20:,.0f} MiB of device memory are too little for this model; the least is {least / 2**20:,.0f} MiB")
    layout = _share_out(int((1 - WAITING) * left) // needs.activation, most, device, _head_rows(left, needs))
    room = (int(WAITING * left) - needs.last) // needs.hidden
    if device != "cpu" and room >= 4 * layout.batch_tokens:
        return replace(layout, streamed=True, wave_tokens=room)
    memory = max(0, (settings.host_memory or int(USABLE * free_memory("cpu") / 2)) - needs.last) // needs.hidden
    disk = int(USABLE * shutil.disk_usage(cache_dir()).free) // needs.hidden
    return replace(layout, streamed=True, wave_tokens=memory + disk, disk_tokens=disk, waiting_on="cpu")


def measure_needs(model: Any, dtype: Any, prompts: Prompts) -> Needs:
    """Return what a model needs for these prompts, from its own tensors, so that pruned ones count as they are."""
    from producer.engine.layers import layer_bytes

    size, config, body = int(dtype.itemsize), model.config, model.model
    attention = body.layers[0].self_attn
    heads = sum(_rows(getattr(attention, name, None)) for name in ("q_proj", "k_proj", "v_proj"))
    within = max(4 * _inner_width(config), 6 * heads)  # the two halves of a layer do not live at the same time
    key_values = [sum(_rows(getattr(layer.self_attn, name, None)) for name in ("k_proj", "v_proj")) for layer in body.layers]
    width = body.embed_tokens.weight.shape[1]
    return Needs(
        weights=layer_bytes(model, dtype),
        layer=max(layer_bytes(layer, dtype) for layer in body.layers),
        activation=(4 * width + within) * size + 8 * width,  # the norms compute in float32
        hidden=width * size,
        longest=max(map(len, prompts.suffixes)),
        prefix=len(prompts.prefix) * sum(key_values) * size,
        layer_prefix=len(prompts.prefix) * max(key_values) * size,
        last=len(prompts.suffixes) * width * size,
        head_row=4 * (width + 2 * ITEMS_AT_ONCE),
    )


def _share_out(tokens: int, most: int, device: str, head_rows: int) -> Layout:
    """Return a layout for so many tokens under way, of which a batch takes some at most."""
    import torch

    cores = torch.get_num_threads() if device == "cpu" else 1
    workers = max(1, min(cores, tokens // FEWEST_TOKENS))
    batch = max(FEWEST_TOKENS, min(most, tokens // workers))
    return Layout(False, batch, 0, device, head_rows, workers=workers, under_way=tokens)


def _head_rows(room: int, needs: Needs) -> int:
    return max(256, min(16384, room // 2 // needs.head_row))


def _rows(linear: Any) -> int:
    return 0 if linear is None else int(linear.weight.shape[0])


def _inner_width(config: Any) -> int:
    expert = getattr(config, "moe_intermediate_size", None)
    return int(config.num_experts_per_tok * expert) if expert else int(config.intermediate_size)
