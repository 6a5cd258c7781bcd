"""Backend `transformers`: any causal language model, every method, on any device."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from producer.backends.base import MODEL_HASH, Failed, Ready
from producer.backends.loaded_models import HOST, LOADED
from producer.engine.admission import GENERIC, route_of
from producer.engine.answer import answer
from producer.engine.checkpoints import NOTHING_KEPT, Keep
from producer.engine.layer_source import Target
from producer.engine.memory_plan import USABLE
from producer.engine.prefill import Answers, Done
from producer.engine.settings import Settings
from producer.engine.text_fidelity import ReadText, compare_texts, read_text
from producer.machine.environment import device_name, versions
from producer.machine.failures import clear_frames
from producer.machine.free_memory import free_memory, memory_for
from producer.machine.interrupt import Interrupted
from producer.methods.shared.contract import Applied
from producer.methods.shared.finished_layers import FinishedLayers
from producer.methods.shared.kept_statistics import kept_statistics
from producer.methods.shared.make_linear import make_linear
from producer.models.compressed_weights import round_expert_inputs
from producer.models.embedded import EmbeddedConfig
from producer.models.load import AS_STORED, load_model
from producer.models.model_class import model_class
from producer.models.packed import check_stored
from producer.models.weights_hash import tensors_hash
from producer.request.planned import Model, ModelText, PromptedTask, RunGroup
from producer.saved.folder import unsavable
from producer.saved.library import PROBED, Made, Saved, copy_saved, find_saved, identity, keep, load_saved
from schemas.digest import json_digest
from schemas.errors import UsageError
from schemas.levels import FULL_BITS, Level
from schemas.run import TokenArrays

log = logging.getLogger(__name__)


class TransformersBackend:
    """Every causal language model and every method on any device; computes only what the options need where it can."""

    def check(self, config: Any, methods: Sequence[str]) -> None:
        """Raise UsageError where transformers has no causal language model of this type, or for weights that cannot be read."""
        if not isinstance(config, EmbeddedConfig) and model_class(config) is None:
            kind = config.model_type
            raise UsageError(f"transformers has no causal language model of type {kind!r}; Python code in a model's folder is never run")
        check_stored(config)

    def ready(self, group: RunGroup, levels: Sequence[Level], settings: Settings) -> Iterator[Ready | Failed]:
        """Yield the group's model at each level: on the device where it fits, with a copy if there are several, else on the host.

        Levels whose model is found among the saved ones come first, and are loaded instead of compressed.
        """
        saved_models = _saved(group, levels, settings)
        for level, saved in saved_models.items():
            yield _attempt(level, partial(_loaded, saved, group, level, settings))
        if levels := [level for level in levels if level not in saved_models]:
            yield from _made(group, levels, settings)


def budget(model: Model, settings: Settings) -> int:
    """Return the bytes that weights and activations may take on the model's device."""
    return settings.device_memory or int(USABLE * free_memory(model.device))


def fits(model: Model, n_levels: int, settings: Settings) -> bool:
    """Return whether the weights fit on the model's device, with the copy that each of several levels but the last starts from."""
    return min(n_levels, 2) * model.weight_bytes < budget(model, settings)


def _make_resident(model: Model, n_levels: int, settings: Settings) -> bool:
    """Return whether the weights fit on the model's device, if need be without what was loaded before and is kept on the host."""
    LOADED.keep_only(model)
    if not fits(model, n_levels, settings) and model.device == HOST:
        LOADED.drop()
    return fits(model, n_levels, settings)


def _attempt(level: Level, make: Callable[[], Ready]) -> Ready | Failed:
    """Return the model at a level, or why it cannot be made. What the failed attempt had in memory is freed."""
    try:
        return make()
    except Interrupted:
        raise
    except Exception as error:
        clear_frames(error)
        return Failed(level, error)


def _made(group: RunGroup, levels: Sequence[Level], settings: Settings) -> Iterator[Ready | Failed]:
    """Yield the group's model compressed to each level; where it is saved, that is the model as it was loaded again."""
    resident = _make_resident(group.model, len(levels), settings)
    device = group.model.device if resident else HOST
    if group.is_dense and not resident and route_of(group.model.config, loaded=resident).path != GENERIC:
        with memory_for("the weights", HOST):
            model = round_expert_inputs(load_model(group.model.files, AS_STORED, HOST), make_linear)
    else:
        model = LOADED.load(group.model, device, again=group.again)
    parameters = model.num_parameters()
    dense = {planned.text.windows.digest: _read_dense(group, resident, model, planned.text) for planned in group.texts}
    if group.is_dense:
        reading = partial(_read, group, dense, model)
        yield Ready(levels[0], cache_size(model), parameters, partial(_answer, group, settings, resident, model), read=reading)
        return
    finished = {level: _finished_layers(group, level, settings) for level in levels}
    kept = partial(kept_statistics, _statistics_identity(group), fresh=settings.fresh)

    def compressed_to(levels: Sequence[Level]) -> Iterator[Applied]:
        return group.method.sweep(model, levels, group.data, group.seed, group.model.device, finished.__getitem__, kept)

    def made(level: Level, compressed: Iterator[Applied]) -> Ready:
        with memory_for(f"what {group.method.name} needs at level {level.text!r}", group.model.device):
            applied = next(compressed)
        if folders := _folders(group, level, settings):
            probed = partial(_answer, group, replace(settings, self_check=PROBED), resident)
            with memory_for("the saved model", device):
                applied = applied._replace(model=keep(Made(applied, group, level, parameters, probed), folders[0]))
            for folder in folders[1:]:
                copy_saved(folders[0], folder)
        measured = {**cache_size(applied.model), **applied.conditions, MODEL_HASH: tensors_hash(applied.model)}
        answering, reading = (partial(_answer, group, settings, resident, applied.model), partial(_read, group, dense, applied.model))
        discard = finished[level].discard if finished[level].on_disk else None
        cost = applied.cost if group.method.changes else {}
        return Ready(level, measured, parameters, answering, read=reading, discard=discard, cost=cost)

    compressed = compressed_to(levels)
    for number, level in enumerate(levels):
        ready = _attempt(level, partial(made, level, compressed))
        if isinstance(ready, Failed):  # the dense model is as it was, since all levels but the last are made of copies
            compressed = compressed_to(levels[number + 1 :])
        yield ready
        del ready  # frees it before the next one is made


def _finished_layers(group: RunGroup, level: Level, settings: Settings) -> FinishedLayers:
    """Return the finished layers of a compression; the same libraries and device as well as the same model make the same layers."""
    return FinishedLayers([identity(group, level), _made_with(group)], settings.checkpoint_every, fresh=settings.fresh)


def _statistics_identity(group: RunGroup) -> Any:
    """Return everything that determines the statistics of a dense model that all levels of a method use."""
    of_model = {name: identity(group, group.levels[0])[name] for name in ("weights_hash", "method", "compression_data_hash", "dtype")}
    return [of_model, _made_with(group)]


def _made_with(group: RunGroup) -> dict[str, Any]:
    return {"libraries": versions(), "device": device_name(group.model.device)}


def _saved(group: RunGroup, levels: Sequence[Level], settings: Settings) -> dict[Level, Saved]:
    """Return the levels whose model need not be made, with what is saved of it."""
    if settings.saved_models is None or group.is_dense or group.texts:  # a text is read beside the dense model, which is loaded for it
        return {}
    saved_models = {level: find_saved(settings.saved_models, group, level) for level in levels}
    return {level: saved for level, saved in saved_models.items() if saved}


def _loaded(saved: Saved, group: RunGroup, level: Level, settings: Settings) -> Ready:
    if settings.save is not None:
        copy_saved(saved.folder, settings.save)
    log.warning("%s %s %s is loaded from %s", group.model.files.name, group.method.name, level.text, saved.folder)
    resident = _make_resident(group.model, 1, settings)
    with memory_for("the weights", device := group.model.device if resident else HOST):
        model = load_saved(saved, group, level, device)
    measured = {**cache_size(model), **saved.conditions, MODEL_HASH: tensors_hash(model)}
    return Ready(level, measured, saved.parameters, partial(_answer, group, settings, resident, model))


def _folders(group: RunGroup, level: Level, settings: Settings) -> list[Path]:
    """Return the folders to save a model in; one that cannot be saved, or is asked nothing to compare by, is compressed again each time."""
    if not group.runs or unsavable(group.method, group.model.config, [level]):
        return []
    library = settings.saved_models / json_digest(identity(group, level)) if settings.saved_models else None
    return [folder for folder in (library, settings.save) if folder]


def cache_size(model: Any) -> dict[str, float]:
    """Return the bits per cached value and the bytes that a token's keys and values take in all layers, with 16 bits each.

    Nothing where a model caches something else than the outputs of its key and value projections.
    """
    config = model.config.get_text_config()
    if getattr(config, "kv_lora_rank", None):
        return {}
    projections = [module for name, module in model.named_modules() if name.rpartition(".")[2] in ("k_proj", "v_proj")]
    values = sum(int(getattr(each, "out_features", None) or each.weight.shape[0]) for each in projections)
    return {"cache_bits_per_value": float(FULL_BITS), "cache_bytes_per_token": values * FULL_BITS / 8} if values else {}


def _read_dense(group: RunGroup, resident: bool, model: Any, text: ModelText) -> ReadText:
    """Return what the dense model makes of a text, which compressed ones are compared with."""
    if not resident:
        raise UsageError(
            f"--text reads a text with all weights of {group.model.files.name} on the device, with a copy if there are several levels; ask "
            "for one level at a time, allow more with --device-memory, or use a larger device"
        )
    return read_text(model, text.windows, group.model.device, group.model.dtype)


def _read(group: RunGroup, dense: Mapping[str, ReadText], model: Any, text: ModelText, done: Done) -> TokenArrays:
    dense_text = dense[text.windows.digest]
    text_read = dense_text if group.is_dense else read_text(model, text.windows, group.model.device, group.model.dtype, done)
    return compare_texts(dense_text, text_read, text.windows, group.model.device)


def _answer(  # noqa: PLR0913, PLR0917  # what a partial function fixes comes first
    group: RunGroup,
    settings: Settings,
    resident: bool,
    model: Any,
    prompted: PromptedTask,
    done: Done = lambda _: None,
    keep: Keep = NOTHING_KEPT,
    /,
) -> Answers:
    import torch

    target = Target(group.model.device, getattr(torch, group.model.dtype))
    return answer(model, prompted.prompts, prompted.options.ids, target, settings, done, keep, loaded=resident)
