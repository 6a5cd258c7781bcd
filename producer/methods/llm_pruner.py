"""LLM-Pruner: remove the coupled structures whose |gradient * weight| is smallest, in a range of blocks.

By default these are all but the first and the last. The authors' example for LLaMA-7B, whose level 0.25 they call "20 %", is `blocks=4:30`.
Here a level is always the share of all decoder weights that goes.

The structures of an MLP are its channels (a row of gate and up, a column of down); those of attention are key/value groups (the rows of
key and value, and the rows of query and columns of output of the query heads that use them). In a mixture of experts every expert loses
the same number of its own channels, and the router stays. An expert that no token was routed to has no gradient; its channels are ranked
by |weight|.
Source: Ma et al. 2023, arXiv:2305.11627, section 3.2, first-order importance of each element, summed over a structure.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from producer.methods.shared.architectures import is_moe, linear_shapes, other_layers
from producer.methods.shared.contract import GRADIENTS, Job
from producer.methods.shared.layerwise import layer_gradients
from producer.methods.shared.linear_layers import target_layers, token_batches
from producer.methods.shared.method_options import Option
from producer.methods.shared.residual_stream import attention_writers, mlp_writers, mlps, replace_weight
from producer.methods.shared.structured import STRUCTURED, count_weights, left_over
from schemas.errors import PostConditionError
from schemas.levels import Level

LARGEST_MISS = 0.05  # largest accepted difference from the level, which arises because whole structures are removed


class Removal(NamedTuple):
    """Number of key/value groups, and of channels of every MLP or expert, that each pruned block loses."""

    groups: int
    channels: int


class Statistics(NamedTuple):
    """Statistics of the dense model.

    importance      : |gradient * weight| of every target layer by name, summed over each row (each column of output and down projections).
    decoder_weights : number of weights in all decoder layers.
    """

    importance: dict[str, Any]
    decoder_weights: int


def collect_importance(model: Any, data: Any, device: Any = None) -> Statistics:
    """Return the importance of every row or column for the loss of the next token, summed over the compression data."""
    names = {target: name for name, target in target_layers(model).items()}
    importance = {}
    for layer in layer_gradients(model, list(token_batches(data)), device):
        writers = attention_writers(layer) + mlp_writers(layer)
        for target in filter(names.get, layer.modules()):
            importance[names[target]] = _taylor(target.weight).sum(0 if target in writers else 1).cpu()
    return Statistics(importance, count_weights(model))


def llm_pruner(model: Any, job: Job) -> Any:
    """Return the model with the least important structures of its pruned blocks removed."""
    removal, (start, end) = removal_for(model.config, job.level.fraction, job.settings["blocks"]), job.settings["blocks"]
    importance, names = job.statistics.importance, {layer: name for name, layer in target_layers(model).items()}
    for block in list(model.model.layers)[start:end]:
        remove_groups(block.self_attn, importance, names, removal.groups)
        for mlp in mlps(block):
            remove_channels(mlp, importance, names, removal.channels)
    return model


def removal_for(config: Any, fraction: float, blocks: Sequence[int]) -> Removal:
    """Return how many structures to remove from each pruned block, so that a fraction of all decoder weights is removed.

    blocks : the first block that is pruned, and the one behind the last.
    There are few key/value groups, so their number is rounded down and correspondingly more channels are removed.
    """
    shapes = linear_shapes(config)
    experts = config.num_experts if is_moe(config) else 1
    mlp_name = "mlp.experts.*" if is_moe(config) else "mlp"
    width, hidden = shapes[f"{mlp_name}.gate_proj"]
    attention = sum(rows * columns for name, (rows, columns) in shapes.items() if name.startswith("self_attn"))
    block, per_channel = attention + 3 * experts * width * hidden, 3 * experts * hidden
    share = fraction * config.num_hidden_layers / max(blocks[1] - blocks[0], 1)
    groups = min(int(share * config.num_key_value_heads + 1e-9), config.num_key_value_heads - 1)
    channels = round((share * block - attention * groups / config.num_key_value_heads) / per_channel)
    return Removal(groups, channels)


def remove_groups(attention: Any, importance: dict[str, Any], names: dict[Any, str], count: int) -> None:
    """Remove the `count` least important key/value groups of an attention with the query heads that use them."""
    query, key, value, output = (getattr(attention, f"{part}_proj") for part in "qkvo")
    size = attention.head_dim
    groups = key.weight.shape[0] // size
    keep = most_important(sum(importance[names[module]].reshape(groups, -1).sum(1) for module in (query, key, value, output)), count)
    for module in (query, key, value):
        bias = None if module.bias is None else _blocks(module.bias.detach(), groups, keep)
        replace_weight(module, _blocks(module.weight.detach(), groups, keep), bias)
    replace_weight(output, _blocks(output.weight.detach().T, groups, keep).T)


def remove_channels(mlp: Any, importance: dict[str, Any], names: dict[Any, str], count: int) -> None:
    """Remove the `count` least important channels of a gated MLP."""
    gate, up, down = mlp.gate_proj, mlp.up_proj, mlp.down_proj
    keep = most_important(sum(importance[names[module]] for module in (gate, up, down)), count)
    for module in (gate, up):
        bias = None if module.bias is None else module.bias.detach()[keep]
        replace_weight(module, module.weight.detach()[keep], bias)
    replace_weight(down, down.weight.detach()[:, keep])


def most_important(importance: Any, count: int) -> Any:
    """Return the ascending indices that stay when the `count` least important are removed; of equal ones, the first is removed first."""
    order = importance.argsort(stable=True)
    return order[count:].sort().values


def _blocks(weight: Any, groups: int, keep: Any) -> Any:
    """Return the rows of the groups in `keep`; a weight's rows are divided into `groups` equal parts."""
    return weight.unflatten(0, (groups, -1))[keep.to(weight.device)].flatten(0, 1)


def _taylor(weight: Any) -> Any:
    if weight.grad is None or not weight.grad.any():
        return weight.detach().abs().float()
    return (weight.grad * weight.detach()).abs().float()


def fits(config: Any, level: Level) -> str:
    """Return why a model cannot be pruned, or ""."""
    return other_layers(config)


def fits_blocks(config: Any, level: Level, blocks: Sequence[int]) -> str:
    """Return why a level's share of structures cannot be removed from these blocks, or ""."""
    start, end = blocks
    if end > config.num_hidden_layers:
        return f"blocks={start}:{end} ends behind its {config.num_hidden_layers} blocks"
    if level.fraction and start >= end:
        return f"the first and last block are not pruned unless blocks=... says so, and it has only {config.num_hidden_layers}"
    width = linear_shapes(config)["mlp.experts.*.gate_proj" if is_moe(config) else "mlp.gate_proj"].rows
    channels = removal_for(config, level.fraction, blocks).channels
    if channels < width:
        return ""
    largest = max(percent / 100 for percent in range(100) if removal_for(config, percent / 100, blocks).channels < width)
    return f"its {end - start} pruned blocks would have to lose {channels} of {width} channels each; fractions up to {largest:g} fit"


def inner_blocks(config: Any, level: Level) -> list[int]:
    """Return the range of all blocks but the first and the last."""
    return [1, max(config.num_hidden_layers - 1, 1)]


def read_blocks(text: str) -> list[int]:
    """Return a range of blocks START:END, counted from 0, without END."""
    start, _, end = text.partition(":")
    if not 0 <= int(start) < int(end):
        raise ValueError
    return [int(start), int(end)]


def verify_structures(model: Any, job: Job) -> dict[str, Any]:
    """Return how many structures are left in every block.

    Raises PostConditionError if the shapes of coupled projections disagree, or another share of weights was removed than the level says.
    """
    removal = removal_for(model.config, job.level.fraction, job.settings["blocks"])
    heads, channels = [], []
    for block in model.model.layers:
        heads.append(check_attention(block.self_attn))
        channels.append(sorted({check_mlp(mlp) for mlp in mlps(block)}))
    result = left_over(model, job.statistics.decoder_weights)
    removed = result["decoder_weights_removed"]
    if abs(removed - job.level.fraction) > LARGEST_MISS:
        raise PostConditionError(f"level {job.level.text!r} removed {removed:.3f} of the decoder weights")
    return result | {"groups_removed": removal.groups, "channels_removed": removal.channels, "kv_heads": heads, "channels": channels}


def check_attention(attention: Any) -> int:
    """Return the number of key/value heads left. Raises PostConditionError if the shapes of the projections disagree."""
    query, key, value, output = (getattr(attention, f"{part}_proj").weight for part in "qkvo")
    heads = key.shape[0] // attention.head_dim
    queries = key.shape[0] * attention.num_key_value_groups
    if value.shape[0] != key.shape[0] or not queries == query.shape[0] == output.shape[1]:
        raise PostConditionError(f"attention projections do not fit: {[tuple(weight.shape) for weight in (query, key, value, output)]}")
    return heads


def check_mlp(mlp: Any) -> int:
    """Return the number of channels left. Raises PostConditionError if the shapes of the projections disagree."""
    gate, up, down = mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight
    if not gate.shape[0] == up.shape[0] == down.shape[1]:
        raise PostConditionError(f"MLP projections do not fit: {[tuple(weight.shape) for weight in (gate, up, down)]}")
    return int(gate.shape[0])


METHOD = STRUCTURED(
    name="llm-pruner",
    paper="Ma et al. 2023, arXiv:2305.11627",
    needs=GRADIENTS,
    compress=llm_pruner,
    settings_for=lambda level: {"importance": "sum of |gradient * weight|", "retrained": False},
    fits=fits,
    verify=verify_structures,
    collect=collect_importance,
    statistics_of=Statistics,
    options={
        "blocks": Option(
            "blocks that lose structures, counted from 0 [all but the first and the last]",
            "START:END, such as 4:30 for blocks 4 to 29",
            read_blocks,
            inner_blocks,
            fits_blocks,
        )
    },
    unsavable="its layers have widths of their own, which no config can say",
)
