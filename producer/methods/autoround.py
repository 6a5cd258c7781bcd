"""AutoRound: learn by signed gradient descent which weights to round up, and where the grid of every group ends. The authors' library.

Decoder layers are compressed one after the other. What is learned for each are an offset of every weight before it is rounded, at most half
a step, and which share of its smallest and largest weight a group's grid reaches. The loss is the mean squared difference between what the
layer gives behind the compressed layers before it and what it gives in the dense model; the step with the smallest loss counts.
The library gets one decoder layer at a time, with the arguments that the model passes to this layer.
Source: Cheng et al. 2024, arXiv:2309.05516, algorithm 1.
"""

import contextlib
import gc
import logging
import os
import random
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any
from unittest.mock import patch

from producer.methods.shared.architectures import LLAMA_MODELS, linear_shapes
from producer.methods.shared.contract import GRADIENTS, Job
from producer.methods.shared.finished_layers import FinishedLayers
from producer.methods.shared.grid import verify_grid
from producer.methods.shared.layerwise import first_inputs, moved, on_device
from producer.methods.shared.linear_layers import decoder_layers, target_layers
from producer.methods.shared.llm_compressor import quiet
from producer.methods.shared.method_options import Option, number
from producer.methods.shared.quantization import UNQUANTIZED, WEIGHT_ONLY, fits_scaling
from schemas.errors import PostConditionError
from schemas.levels import FULL_BITS, Level

STEPS, SEQUENCES = 200, 8  # of gradient descent for every decoder layer, and sequences in a step
DIVISOR = 32  # the library leaves a matrix as it is unless this divides both its rows and its columns
NO_TARGET = -100  # the library's mark of a token that the loss leaves out


def learn_rounding(model: Any, job: Job) -> Any:
    """Return the model with every target weight on the grid that was learned for it."""
    import torch

    finished, layers = job.finished or FinishedLayers(), list(decoder_layers(model).values())
    model.requires_grad_(False)
    ids = torch.tensor(job.data.input_ids if job.data else ())
    states, arguments = first_inputs(model, ids.split(1))
    states = finished.restore(layers, model.device) or [*states, *states]
    order = finished.record.setdefault("order", random.Random(job.seed).getstate())
    home, working = model.device, job.device or model.device
    with _library():
        for number, layer in list(enumerate(layers))[finished.n :]:
            with on_device(layer, working), _without_notes(layer):
                learner = _learner(layer, set(target_layers(model).values()), job, model.dtype)
                learner.alg_composer.compress_block = partial(learner.alg_composer.compress_block, input_ids=_with_target(ids))
                first = next(layer.parameters())
                precision = first.dtype  # float32 where the library finds that a processor has no 16 bits
                exact, rounded = (moved(tuple(part), home, precision) for part in (states[: len(ids)], states[len(ids) :]))
                calls = [
                    (((state, *moved(each[number].positional, home, precision)), moved(each[number].keywords, home, precision)),)
                    for state, each in zip(exact, arguments, strict=True)
                ]
                random.setstate(_as_state(order))  # the library starts its order of sequences anew in every constructor
                behind = learner.quantize_block(layer, calls, list(rounded), str(first.device), auto_offload=False)
                order = finished.record["order"] = random.getstate()
                _keep_grids(layer.to(working, model.dtype))
            states = [state.to(home) for part in reversed(behind) for state in part]
            if not all(bool(state.isfinite().all()) for state in states):
                raise PostConditionError(f"decoder layer {number} gives numbers that are not finite, from which nothing can be learned")
            finished.add(layer, states)
    finished.end()
    return model


def _learner(layer: Any, targets: set[Any], job: Job, dtype: Any) -> Any:
    """Return the library's entry point for one decoder layer."""
    import torch
    from auto_round import AutoRound, QuantizationScheme, SignRoundConfig
    from transformers import PretrainedConfig

    block: Any = torch.nn.Module()
    block.model, block.dtype = torch.nn.Module(), dtype
    block.model.layers = torch.nn.ModuleList([layer])
    block.config, block.name_or_path = PretrainedConfig(), ""
    linear = ((name, module) for name, module in block.named_modules() if isinstance(module, torch.nn.Linear))
    learner = AutoRound(
        block,
        tokenizer="",
        scheme=QuantizationScheme(bits=job.level.weight_bits, group_size=job.level.group_size or -1, sym=False, act_bits=16),
        alg_configs=SignRoundConfig(iters=job.settings["steps"], lr=1 / job.settings["steps"]),
        ignore_layers=",".join(name for name, module in linear if module not in targets),
        batch_size=SEQUENCES,
        scale_dtype=scale_type(dtype),
        amp=dtype != torch.float32,
        device_map=str(next(layer.parameters()).device),  # with its number, since "cuda" is always the first GPU there
        low_gpu_mem_usage=True,
        enable_torch_compile=False,
    )
    learner.post_init()
    return learner


def scale_type(dtype: Any) -> Any:
    """Return the type of the scales in a model of a dtype: its own, as they are written beside its weights; float16 beside float32."""
    import torch

    return torch.float16 if dtype == torch.float32 else dtype


def _with_target(ids: Any) -> list[Any]:
    """Return the token ids of every sequence, (1, token), the last of which has no target marked as the library marks it."""
    marked = ids.clone()
    marked[:, -1] = NO_TARGET
    return list(marked.split(1))


def _as_state(order: Any) -> tuple[int, tuple[int, ...], Any]:
    """Return the state of a random generator from what a file has of it."""
    version, numbers, gauss = order
    return version, tuple(numbers), gauss


def _keep_grids(layer: Any) -> None:
    """Leave scales and zero points as buffers of the layers, as every quantizing method leaves them."""
    import torch

    for module in layer.modules():
        scale = vars(module).get("scale")
        if scale is None or not isinstance(module, torch.nn.Linear):
            continue
        shape, device = (len(module.weight), -1), module.weight.device
        zero = vars(module)["zp"].to(device).reshape(shape) - 2 ** (vars(module)["bits"] - 1)
        module.register_buffer("weight_scale", scale.to(device, module.weight.dtype).reshape(shape), persistent=False)
        module.register_buffer("weight_zero_point", zero.to(torch.int8), persistent=False)


@contextlib.contextmanager
def _without_notes(layer: Any) -> Iterator[None]:
    """Take away behind the `with` block the attributes that the library notes at the modules of a decoder layer."""
    before = {module: set(vars(module)) for module in layer.modules()}
    try:
        yield
    finally:
        for module in layer.modules():
            for name in vars(module).keys() - before.get(module, set()):
                delattr(module, name)


@contextlib.contextmanager
def _library() -> Iterator[None]:
    """Keep the library's output off the terminal, and put back afterwards what it sets for the whole process."""
    import numpy as np
    import torch

    python, others = random.getstate(), np.random.get_state()
    deterministic = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    with quiet(), patch.dict(os.environ), torch.random.fork_rng(), torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from auto_round.context.compress import CompressContext
        from auto_round.context.model import ModelContext

        logging.getLogger("autoround").handlers = [logging.StreamHandler()]  # to where `quiet` sends what is printed
        gc.freeze()  # the library looks for garbage seven times a layer, which takes a second each time among all modules of a process
        try:
            yield
        finally:
            gc.unfreeze()
            for context in (CompressContext, ModelContext):  # which would keep the last decoder layer alive
                context.reset_context()
            random.setstate(python)
            np.random.set_state(others)
            torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])


def verify(model: Any, job: Job) -> dict[str, Any]:
    """Return what `verify_grid` measures. Raises PostConditionError also for a scale or a zero point that a checkpoint could not store."""
    import torch

    for name, layer in target_layers(model).items():
        if not hasattr(layer, "weight_scale"):
            raise PostConditionError(f"layer {name} was not quantized")
        scale, zero, half = layer.weight_scale, layer.weight_zero_point, 2 ** (job.level.weight_bits - 1)
        if not torch.equal(scale, scale.to(scale_type(model.dtype)).to(scale.dtype)):
            raise PostConditionError(f"layer {name} at level {job.level.text!r} has scales of more than 16 bits")
        if not bool(((zero >= -half) & (zero < half)).all()):
            raise PostConditionError(f"layer {name} at level {job.level.text!r} has zero points off its {job.level.weight_bits}-bit grid")
    return verify_grid(model, job)


def _fits(config: Any, level: Level) -> str:
    if reason := fits_scaling(config, level):
        return reason
    for name, shape in linear_shapes(config).items():
        if shape.rows % DIVISOR or shape.columns % DIVISOR:
            sizes = f"{shape.rows} rows and {shape.columns} columns"
            return f"its library leaves {name} with {sizes} as it is; both must be multiples of {DIVISOR}"
    return ""


def _settings_for(level: Level) -> dict[str, Any]:
    """Return the settings that a run records; but for the tokens of the loss they are the paper's and the library's defaults."""
    return {
        "weight_grid": "asymmetric",
        "weight_scale": "learned, in the dtype of a model of 16 bits, in float16 for float32",
        "learning_rate": "1 / steps, falling to 0",
        "sequences_per_step": SEQUENCES,
        "loss": "mean square of the change of a decoder layer's outputs, last token of a sequence left out",
        "kept": UNQUANTIZED,
        "kv_cache_bits": FULL_BITS,
    }


METHOD = WEIGHT_ONLY(
    name="autoround",
    paper="Cheng et al. 2024, arXiv:2309.05516",
    needs=GRADIENTS,
    library="auto_round",
    fits=_fits,
    models=LLAMA_MODELS,
    compress=learn_rounding,
    verify=verify,
    settings_for=_settings_for,
    options={
        "steps": Option(
            meaning=f"how many steps of gradient descent each decoder layer is learned for [{STEPS}]",
            values="a whole number from 1 to 10000",
            read=number(1, 10000, int),
            default=lambda *_: STEPS,
        )
    },
)
