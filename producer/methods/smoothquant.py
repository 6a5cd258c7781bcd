"""SmoothQuant: move outliers from activations into weights, then round both to nearest; activations simulated.

Channel j of what a norm gives is divided by s_j = max|x_j|^smoothing / max|w_j|^(1 - smoothing), and the columns j of all layers that read
it (in a mixture of experts the router as well) are multiplied by s_j. The maxima are over the compression data, and over those layers.
With `smoothing=search` every norm has an exponent of its own: of some, the one for which rounding changes the sum of squares of the layers'
outputs least, on a sample of tokens; a router is not rounded, so its outputs do not count.
Source: Xiao et al. 2023, arXiv:2211.10438, equation 4. The paper takes 0.5 for OPT, and its authors 0.8 to 0.9 for Llama and its like.
"""

from collections.abc import Collection, Sequence
from typing import Any

from producer.methods.shared.contract import DATA, Job
from producer.methods.shared.finished_layers import FinishedLayers
from producer.methods.shared.grid import verify_grid
from producer.methods.shared.layerwise import layer_inputs
from producer.methods.shared.linear_layers import target_layers, token_batches
from producer.methods.shared.method_options import Option, number
from producer.methods.shared.quantization import (
    WEIGHTS_AND_ACTIVATIONS,
    RoundInput,
    quantization_settings,
    quantize,
    rounded_weight,
    scheme,
)
from producer.methods.shared.residual_stream import attention_readers, mlp_readers, replace_weight
from schemas.levels import Level

OF_TYPE, OTHER_TYPES = {"llama": 0.85}, 0.8  # the authors' exponents by model type
SEARCH: dict[str, Any] = {"from": [0.5, 0.6, 0.7, 0.8, 0.9], "tokens": 512}  # tokens of the sample at least
SMALLEST = 1e-5  # of a scale, and of a weight that a scale is computed from


def smoothquant(model: Any, job: Job) -> Any:
    """Return the model with smoothed and rounded target layers, whose inputs are rounded per token."""

    def recipe() -> list[Any]:
        from llmcompressor.modifiers.quantization import QuantizationModifier

        return [QuantizationModifier(**scheme(model, job.level))]

    exponents = smooth(model, job)
    model = quantize(model, recipe, job._replace(data=None))
    model.exponents = exponents
    return model


def smooth(model: Any, job: Job) -> list[float]:
    """Smooth a model in place, and return the exponent of every norm, in the order of the forward pass. The logits do not change."""
    import torch

    smoothing, rounded, finished = job.settings["smoothing"], set(target_layers(model).values()), job.finished or FinishedLayers()
    every = max(1, sum(map(len, job.data.input_ids)) // SEARCH["tokens"]) if job.data and isinstance(smoothing, dict) else 0
    with torch.no_grad():
        for layer, run in layer_inputs(model, token_batches(job.data), job.device, finished):
            readers = {layer.input_layernorm: attention_readers(layer), layer.post_attention_layernorm: mlp_readers(layer)}
            signals = {norm: _Signals(every) for norm in readers}
            hooks = [norm.register_forward_hook(of_norm) for norm, of_norm in signals.items()]
            run(advance=True)
            for hook in hooks:
                hook.remove()
            for norm, layers in readers.items():
                exponent = best_exponent(signals[norm], layers, rounded, job.level) if every else smoothing
                finished.record.setdefault("exponents", []).append(exponent)
                scales = smoothing_scales(signals[norm].largest, layers, exponent)
                replace_weight(norm, norm.weight / scales)
                for reader in layers:
                    replace_weight(reader, reader.weight * scales)
    return list(finished.record["exponents"])


def smoothing_scales(largest: Any, readers: Sequence[Any], exponent: float) -> Any:
    """Return the scale of every channel, (channel,) float32.

    largest : (channel,) largest magnitude that the channel has in the compression data.
    """
    import torch

    weights = torch.stack([reader.weight.abs().amax(0).float() for reader in readers]).amax(0).clamp_min(SMALLEST)
    return (largest**exponent / weights ** (1 - exponent)).clamp_min(SMALLEST)


def best_exponent(signals: "_Signals", readers: Sequence[Any], rounded: Collection[Any], level: Level) -> float:
    """Return the exponent for which rounding changes the outputs of the layers that read a norm least, in the sum of squares.

    rounded : the layers that the method rounds, all of the model.
    """
    rounding, x = RoundInput(level.activation_bits), signals.sample

    def error(exponent: float) -> float:
        scales = smoothing_scales(signals.largest, readers, exponent)
        (inputs,) = rounding(None, (x / scales,))
        weights = [reader.weight.float() for reader in readers if reader in rounded]
        return sum(float((inputs @ rounded_weight(each * scales, level).T - x @ each.T).square().sum()) for each in weights)

    return float(min(SEARCH["from"], key=error))


class _Signals:
    """Forward hook of a norm.

    largest : (channel,) largest magnitude of every channel, float32.
    sample  : (token, channel) one of every `every` tokens, float32; none for 0.
    """

    def __init__(self, every: int) -> None:
        self.every, self.seen, self.parts = every, 0, list[Any]()
        self.largest: Any = 0

    def __call__(self, norm: Any, arguments: tuple[Any, ...], output: Any) -> None:
        import torch

        x = output.detach().flatten(0, -2)
        self.largest = torch.maximum(x.abs().amax(0).float(), torch.as_tensor(self.largest, device=x.device))
        if self.every:
            self.parts.append(x[-self.seen % self.every :: self.every].float())
            self.seen += len(x)

    @property
    def sample(self) -> Any:
        """The tokens kept, as one matrix."""
        import torch

        return torch.cat(self.parts)


def verify_smoothed(model: Any, job: Job) -> dict[str, Any]:
    """Return the exponent of every norm where they were searched, and the post-conditions that all quantized models have."""
    searched = isinstance(job.settings["smoothing"], dict)
    return verify_grid(model, job) | ({"smoothing_by_norm": model.exponents} if searched else {})


def read_smoothing(text: str) -> Any:
    """Return an exponent from 0 to 1, or how it is searched."""
    return SEARCH if text == "search" else number(0, 1)(text)


def default_smoothing(config: Any, level: Level) -> float:
    """Return the exponent that the authors take for a model type."""
    return OF_TYPE.get(config.model_type, OTHER_TYPES)


def settings_for(level: Level) -> dict[str, Any]:
    """Return the settings that a SmoothQuant run records."""
    return quantization_settings(level) | {"smoothing_statistics": "largest |x|, largest |w|"}


METHOD = WEIGHTS_AND_ACTIVATIONS(
    name="smoothquant",
    paper="Xiao et al. 2023, arXiv:2211.10438",
    default_level="w8a8",
    needs=DATA,
    compress=smoothquant,
    settings_for=settings_for,
    verify=verify_smoothed,
    options={
        "smoothing": Option(
            "exponent of the activations' magnitude, the paper's alpha [0.85 for llama, else 0.8]",
            "a number from 0 to 1, or search",
            read_smoothing,
            default_smoothing,
        )
    },
)
