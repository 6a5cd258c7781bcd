"""Unpack weights that GPTQ or AWQ packed into 32-bit words: weight = scale * (integer - zero point).

In: the tensors of a checkpoint by name.  Out: the same, with one plain `weight` for every packed layer. transformers itself loads these
two formats only with kernels built for specific accelerators.
GPTQ packs `qweight` (input * bits / 32, output) along the inputs, AWQ's GEMM layout packs it (input, output * bits / 32) along the outputs.
Both pack `qzeros` (group, output * bits / 32); `scales` is (group, output); GPTQ's `g_idx` (input,) gives each input's group.

The first version of GPTQ stores zero points minus one, the second stores them unchanged. The first subtracts 1 from all fields of a packed
word at once, so a zero point of 0 borrows from the next field; adding 1 to all fields with carry reverses that (AutoGPTQ issue 640).
AutoGPTQ's own packer writes -1 for a zero point of 0, all ones, over the rest of its word, so that zero points beside it are lost.
The label of a file is not reliable. In a symmetric layer every zero point is 2^(bits - 1), so its stored values show the version.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from producer.models.stored_as import AWQ, GPTQ, Quantization, layer_settings
from schemas.errors import HedgemarkError, UsageError

WORD = 32
GPTQ_BITS, AWQ_BITS = (2, 3, 4, 8), (4,)
AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)  # which field of a word holds its first, second, ... column
PARTS = ("qweight", "qzeros", "scales", "g_idx")
VERSIONS = {"gptq": 1, "gptq_v2": 0}  # supported layouts of GPTQ, and what to add to their stored zero points
UNREAD = ("is_marlin_format", "rotation", "adapter")  # settings that change what the tensors mean


class _Layer(NamedTuple):
    name: str
    parts: dict[str, Any]
    bits: int
    group_size: Any  # as stated
    symmetric: bool  # whether the settings say so


def check_integers(stored: Quantization) -> None:
    """Raise UsageError for a GPTQ or AWQ checkpoint whose bits or layout cannot be unpacked; reads no weights."""
    name, settings, writer = stored
    what = f"{'a' if (writer or name) == GPTQ else 'an'} {writer or name} checkpoint"
    bits = settings.get("bits", settings.get("w_bit", 4))
    known = GPTQ_BITS if name == GPTQ else AWQ_BITS
    if bits not in known:
        raise UsageError(f"{what} of {bits} bits cannot be unpacked; bits that can: {', '.join(map(str, known))}")
    layout = _layout(stored)
    readable = (*VERSIONS,) if name == GPTQ else ("gemm",)
    if layout not in readable:
        raise UsageError(f"{what} of layout {layout!r} cannot be unpacked; layouts that can: {', '.join(readable)}")
    if changed := [setting for setting in UNREAD if settings.get(setting)]:
        raise UsageError(f"{what} with {changed[0]!r} in its quantization settings cannot be unpacked")


def unpack_integers(tensors: dict[str, Any], stored: Quantization) -> Iterator[tuple[str, Any]]:
    """Yield the name and the float32 weight (output, input) of every packed layer; its packed parts are removed from `tensors`.

    Raises HedgemarkError if a layer's parts are missing or inconsistent.
    """
    layers = [name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")]
    if not layers:
        raise HedgemarkError(f"the quantization settings say {stored.format}, and no layer is packed (qweight); its weights are plain")
    parted = [_take(tensors, name, stored) for name in layers]
    offset = _offset(parted, stored) if stored.format == GPTQ else 0
    if offset and (damaged := _overwritten(parted)):
        raise HedgemarkError(
            f"layer {damaged} has zero points of 0 that were written over those beside them, as AutoGPTQ's packer does, and kernels read "
            "different numbers there; quantize the model again symmetrically or with GPTQModel"
        )
    while parted:
        layer = parted.pop()
        yield f"{layer.name}.weight", _dequantize(layer, stored, offset)


def unpack(words: Any, bits: int, order: Any = None) -> Any:
    """Return the integers packed in every row, lowest bits first: (row, word) int32 -> (row, word * 32 / bits).

    order : which field of a word holds its first, second, ... integer; ignored for 3 bits, where integers cross word boundaries.
    """
    import torch

    if WORD % bits == 0:
        shifts = torch.tensor([bits * field for field in order or range(WORD // bits)], dtype=torch.int32)
        return (words[..., None] >> shifts & (2**bits - 1)).flatten(-2)
    single = (words[..., None] >> torch.arange(WORD, dtype=torch.int32) & 1).flatten(-2)
    return (single.unflatten(-1, (-1, bits)) << torch.arange(bits, dtype=torch.int32)).sum(-1, dtype=torch.int32)


def _take(tensors: dict[str, Any], name: str, stored: Quantization) -> _Layer:
    import torch

    parts, settings = {part: tensors.pop(f"{name}.{part}", None) for part in PARTS}, layer_settings(stored, name)
    likely = stored.settings if settings is None else settings
    words, zeros, scales = parts["qweight"], parts["qzeros"], parts["scales"]
    if scales is None or not scales.is_floating_point():
        raise HedgemarkError(f"layer {name} has packed integers (qweight) but no scales that are floating-point numbers")
    if f"{name}.weight" in tensors:
        raise HedgemarkError(f"layer {name} has packed integers (qweight) and plain weights as well; one of them is of another save")
    if parts["g_idx"] is not None and parts["g_idx"].is_floating_point():
        raise HedgemarkError(f"layer {name} has a g_idx that is not made of whole numbers")
    if any(each is not None and each.dtype != torch.int32 for each in (words, zeros)):
        raise HedgemarkError(f"layer {name} is packed into words of another type than int32, which cannot be unpacked")
    if zeros is None and (stored.format == AWQ or likely.get("sym") is False):
        raise HedgemarkError(f"layer {name} has no zero points (qzeros), and the checkpoint does not say that it is symmetric")
    if parts["g_idx"] is None and stored.settings.get("desc_act") and len(scales) > 1:
        raise HedgemarkError(f"layer {name} took its inputs in another order (desc_act), and g_idx, which says in which, is missing")
    outputs = scales.shape[1]
    # The settings may name layers of other bits, so the shapes decide.
    packed_outputs = zeros.shape[1] if zeros is not None else words.shape[1] if stored.format == AWQ else 0
    bits = WORD * packed_outputs // outputs if packed_outputs else int(likely.get("bits", 4))
    known = GPTQ_BITS if stored.format == GPTQ else AWQ_BITS
    if bits not in known or (packed_outputs and bits * outputs != WORD * packed_outputs):
        raise HedgemarkError(f"layer {name} has {bits} bits by the shape of its tensors; bits that can be unpacked: {known}")
    if settings is not None:
        _check_stated(name, parts, bits, settings, stored.format)
    return _Layer(name, parts, bits, _stated_group(likely), settings is not None and settings.get("sym") is True)


def _check_stated(name: str, parts: Mapping[str, Any], bits: int, settings: Mapping[str, Any], kind: str) -> None:
    """Raise HedgemarkError for a layer of other bits or groups than its settings state, from which the level of the run is taken."""
    stated = settings.get("bits", settings.get("w_bit", 4))
    if bits != stated:
        raise HedgemarkError(f"layer {name} has {bits} bits by the shape of its tensors, and the quantization settings say {stated}")
    size, groups, inputs = _stated_group(settings), len(parts["scales"]), len(parts["qweight"])
    inputs = inputs * WORD // bits if kind == GPTQ else inputs
    if isinstance(size, int) and groups != (-(-inputs // size) if size > 0 else 1):
        raise HedgemarkError(f"layer {name} has {groups} groups for {inputs} inputs, and the quantization settings say groups of {size}")


def _offset(layers: list[_Layer], stored: Quantization) -> int:
    """Return what to add to the stored zero points: 1 for the first version of GPTQ, 0 for the second.

    Raises HedgemarkError if layers disagree, or if the zero points contradict the checkpoint's settings.
    """
    label = VERSIONS[_layout(stored)]
    seen: dict[int, str] = {}
    for layer in layers:
        if layer.parts["qzeros"] is not None:
            zeros = unpack(layer.parts["qzeros"], layer.bits)
            offset = 2 ** (layer.bits - 1) - int(zeros.flatten()[0])
            if offset in (0, 1) and bool((zeros == zeros.flatten()[0]).all()):
                seen.setdefault(offset, layer.name)
    if len(seen) == 2:
        raise HedgemarkError(f"the zero points of layer {seen[0]} are stored unchanged, those of layer {seen[1]} minus one")
    if seen:
        return next(iter(seen))
    if stored.settings.get("sym") is True and any(layer.parts["qzeros"] is not None for layer in layers):
        raise HedgemarkError("the checkpoint says that it is symmetric, but its zero points are not all the middle of their range")
    if _contradicts(layers, label):
        raise HedgemarkError(
            f"checkpoint_format is {_layout(stored)!r}, but read in that format the weights are centred one step away from zero; "
            f"correct the label in the checkpoint's quantization settings to {'gptq_v2' if label else 'gptq'!r}"
        )
    return label


def _overwritten(layers: list[_Layer]) -> str:
    """Return the name of a layer whose zero points were overwritten by a zero point of 0, "" if there is none.

    Then every largest field of a word is followed by largest fields up to its end. A borrow makes that of zero points 0, 1, ..., 1 alone,
    and elsewhere leaves other fields after a largest one, which show that nothing was overwritten.
    """
    overwritten = ""
    for layer in layers:
        if layer.parts["qzeros"] is not None and WORD % layer.bits == 0:
            largest = (unpack(layer.parts["qzeros"], layer.bits) == 2**layer.bits - 1).unflatten(-1, (-1, WORD // layer.bits))
            if bool((largest[..., :-1] & ~largest[..., 1:]).any()):
                return ""
            overwritten = overwritten or (layer.name if bool((largest[..., :-1] & largest[..., 1:]).any()) else "")
    return overwritten


def _contradicts(layers: list[_Layer], label: int) -> bool:
    """Return whether the weights are centred on zero only if the label names the wrong version.

    The measure is the median, over groups and outputs, of the mean weight in quantization steps. Trained weights have a mean near zero, and
    the wrong version moves it by one. At most 15 layers are examined; those without zero points are skipped.
    """
    import torch

    means = []
    for layer in layers[:: max(1, len(layers) // 8)]:
        if layer.parts["qzeros"] is not None:
            integers, zeros = _integers(layer, GPTQ), unpack(layer.parts["qzeros"], layer.bits)
            groups = _groups(layer, integers.shape[0], None)
            sums = torch.zeros(zeros.shape).index_add_(0, groups, integers.float())
            means.append((sums / torch.bincount(groups, minlength=len(zeros))[:, None] - zeros).flatten())
    if not means:
        return False
    as_stored = float(torch.cat(means).median())
    read, other = abs(as_stored - label), abs(as_stored - (1 - label))
    return other < 0.25 and read > 0.75


def _dequantize(layer: _Layer, stored: Quantization, offset: int) -> Any:
    import torch

    integers, scales = _integers(layer, stored.format), layer.parts["scales"].float()
    order = None if stored.format == GPTQ else AWQ_ORDER
    if layer.parts["qzeros"] is None:
        zeros = torch.full(scales.shape, 2 ** (layer.bits - 1), dtype=torch.int32)
    else:
        zeros = unpack(_plus_one(layer) if offset else layer.parts["qzeros"], layer.bits, order)
    if zeros.shape != scales.shape or integers.shape[1] != scales.shape[1]:
        raise HedgemarkError(
            f"layer {layer.name} has zero points {tuple(zeros.shape)} and scales {tuple(scales.shape)}, which do not fit its integers"
        )
    if layer.symmetric and bool((zeros != 2 ** (layer.bits - 1)).any()):
        raise HedgemarkError(f"layer {layer.name} is symmetric by its settings, but its zero points are not all the middle of their range")
    groups = _groups(layer, len(integers), layer.group_size)
    return ((integers - zeros[groups]) * scales[groups]).T.contiguous()


def _plus_one(layer: _Layer) -> Any:
    """Return the packed zero points with 1 added to every field; the carry into the next field reverses the borrow of the subtraction."""
    import torch

    words = layer.parts["qzeros"]
    if WORD % layer.bits:  # 3-bit fields had 1 subtracted before they were packed, so nothing was borrowed
        fields = unpack(words, layer.bits) + 1 & 2**layer.bits - 1
        bits = (fields[..., None] >> torch.arange(layer.bits, dtype=torch.int32) & 1).flatten(-2).unflatten(-1, (-1, WORD)).long()
        words = (bits << torch.arange(WORD)).sum(-1)
    else:
        words = words.long() + sum(1 << layer.bits * field for field in range(WORD // layer.bits))
    return (words + 2**31 & 2**32 - 1).sub(2**31).to(torch.int32)


def _integers(layer: _Layer, name: str) -> Any:
    words = layer.parts["qweight"]
    return unpack(words.T.contiguous(), layer.bits).T if name == GPTQ else unpack(words, layer.bits, AWQ_ORDER)


def _groups(layer: _Layer, n_inputs: int, size: Any) -> Any:
    """Return the group of each input. Raises HedgemarkError if groups are unknown, out of range, or empty while others are overfull."""
    import torch

    n_groups, group_of_column = len(layer.parts["scales"]), layer.parts["g_idx"]
    if group_of_column is None:
        if not (isinstance(size, int) and size > 0 and -(-n_inputs // size) == n_groups):
            size = -(-n_inputs // n_groups)
            if n_inputs % n_groups:
                raise HedgemarkError(f"layer {layer.name} has {n_groups} groups for {n_inputs} inputs, and no g_idx assigns them")
        return torch.arange(n_inputs) // size
    groups = group_of_column.long()
    if len(groups) != n_inputs or int(groups.min()) < 0 or int(groups.max()) >= n_groups:
        raise HedgemarkError(f"layer {layer.name}: g_idx does not name one of {n_groups} groups for each of {n_inputs} inputs")
    used = torch.bincount(groups, minlength=n_groups)
    if int(used.max()) > -(-n_inputs // n_groups) and int(used.min()) == 0:
        raise HedgemarkError(f"layer {layer.name}: g_idx leaves some of its {n_groups} groups without inputs")
    return groups


def _stated_group(settings: Mapping[str, Any]) -> Any:
    return settings.get("group_size", settings.get("q_group_size"))


def _layout(stored: Quantization) -> str:
    settings: Mapping[str, Any] = stored.settings
    if stored.format == GPTQ:
        return str(settings.get("checkpoint_format") or settings.get("format") or "gptq").lower()
    return str(settings.get("version") or settings.get("format") or settings.get("checkpoint_format") or "gemm").lower()
