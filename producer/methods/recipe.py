"""Recipe: layers of different kinds at different levels, such as experts in NVFP4 beside attention in FP8, as a file says.

In: a recipe, see `producer.methods.shared.recipe_file`.  Out: the model, each layer rounded as its own level says, by rtn or gptq.
"""

from typing import Any

from producer.methods.gptq import strict_gptq
from producer.methods.shared.architectures import layer_kind, unknown_architecture
from producer.methods.shared.contract import DATA, Job, Method
from producer.methods.shared.grid import check_layers, weight_sizes
from producer.methods.shared.linear_layers import kept_layers, target_layers
from producer.methods.shared.llm_compressor import oneshot
from producer.methods.shared.method_options import Option
from producer.methods.shared.quantization import UNQUANTIZED, calibrated, scheme, simulate_layers
from producer.methods.shared.recipe_file import DEFAULT, levels_by_kind, no_name, read_recipe, recipe_misfit
from schemas.errors import PostConditionError
from schemas.levels import FULL_BITS, Level

Grouped = dict[Level, dict[str, Any]]


def compress(model: Any, job: Job) -> Any:
    """Return the model with each layer at the level that the recipe has for it."""
    recipe = job.settings["recipe"]

    def modifiers() -> list[Any]:
        from llmcompressor.modifiers.quantization import QuantizationModifier

        grouped, groups = layers_by_level(model, recipe), {}
        for number, (level, layers) in enumerate(grouped.items()):
            groups[f"group_{number}"] = scheme(model, level)["config_groups"]["group_0"]
            groups[f"group_{number}"].targets = list(layers)
        arguments = {"config_groups": groups, "ignore": [*kept_layers(model), *_left_out(model, grouped)]}
        if recipe["method"] == "gptq":
            return [strict_gptq(arguments, routed=not any(map(calibrated, grouped)))]
        return [QuantizationModifier(**arguments)]

    model = oneshot(model, modifiers, job.data, job.device, job.finished)
    for level, layers in layers_by_level(model, recipe).items():
        simulate_layers(layers, level)
    return model


def layers_by_level(model: Any, recipe: Any) -> Grouped:
    """Return the layers that a recipe quantizes, by their level and name."""
    targets, grouped = target_layers(model), Grouped()
    levels = levels_by_kind(recipe, dict.fromkeys(map(layer_kind, targets)))
    for name, layer in targets.items():
        if level := levels.get(layer_kind(name)):
            grouped.setdefault(level, {})[name] = layer
    return grouped


def verify(model: Any, job: Job) -> dict[str, Any]:
    """Return the effective bits over all matrices, those left as they are included, and what was found at each level.

    Raises PostConditionError if a weight is off the grid of its own layer's level, or a layer is quantized that the recipe leaves out.
    """
    grouped = layers_by_level(model, job.settings["recipe"])
    left_out = _left_out(model, grouped)
    if wrong := [name for name, layer in left_out.items() if hasattr(layer, "weight_scale")]:
        raise PostConditionError(f"layer {wrong[0]} is quantized, which the recipe {job.level.text!r} leaves as it is")
    n_left = sum(layer.weight.numel() for layer in left_out.values())
    bits, weights, by_level = 0.0, 0, {}
    for level, layers in grouped.items():
        checked = check_layers(layers, level)
        bits, weights = bits + checked.bits, weights + checked.weights
        of_level = {"matrices": len(layers), "bits_per_weight": checked.bits / checked.weights, checked.unit: checked.worst}
        by_level[level.text] = of_level | {"weights": checked.weights}
    sizes = weight_sizes(model, bits + n_left * FULL_BITS, weights + n_left)
    return sizes | {"quantized_weights": weights, "weights_share_quantized": weights / (weights + n_left), "by_level": by_level}


def _left_out(model: Any, grouped: Grouped) -> dict[str, Any]:
    chosen = {name for layers in grouped.values() for name in layers}
    return {name: layer for name, layer in target_layers(model).items() if name not in chosen}


METHOD = Method(
    name="recipe",
    kind="several levels in one model, simulated",
    paper="those of rtn and gptq",
    default_level=DEFAULT["name"],
    levels="the name of the recipe that --recipe FILE holds; without a file attention in w8a8-fp8, the rest in nvfp4",
    needs=DATA,
    compress=compress,
    settings_for=lambda level: {"weight_scale": "minmax", "kept": UNQUANTIZED, "kv_cache_bits": FULL_BITS},
    accepts=no_name,
    fits=lambda config, level: unknown_architecture(config),
    verify=verify,
    options={
        "recipe": Option(
            meaning="which layers get which level, see docs/formats.md; --recipe FILE sets it and the level",
            values="a TOML file",
            read=read_recipe,
            default=lambda config, level: DEFAULT,
            fits=recipe_misfit,
        )
    },
)
