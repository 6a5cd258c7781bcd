"""Keep compressed models on disk, and find them again instead of compressing a second time.

In: a run group, a folder.  Out: the folder of a saved model, admitted only after it was loaded again and gave the answers that the model
gave in memory. One of the two is in memory at a time. A model's name in a library is the digest of everything that determines it, so that
two different ones never meet.
"""

import json
import logging
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from producer.engine.prefill import Answers
from producer.methods.shared.contract import Applied
from producer.methods.shared.linear_layers import target_layers
from producer.models.find import find_model
from producer.models.weights_hash import weights_hash
from producer.request.planned import PromptedTask, RunGroup
from producer.saved.card import write_card
from producer.saved.folder import as_made, load_checkpoint, restore, stored_weights, write_model
from producer.saved.packing import packing_of, rounds_integers
from schemas.digest import json_digest
from schemas.errors import HedgemarkError
from schemas.levels import Level

log = logging.getLogger(__name__)

RECORD = "hedgemark.json"
SCHEMA = 1
PROBED = 8  # items that both the model in memory and the one loaded again answer
IDENTITY = ("weights_hash", "method", "level", "method_settings", "compression_data_hash", "dtype", "seed")
# Largest change of an option logit, as a share of the logits' range.
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.05, "float16": 0.01}


@dataclass(frozen=True)
class Saved:
    """A saved model: its folder, and what was measured when it was made."""

    folder: Path
    conditions: Mapping[str, Any]
    parameters: int


def identity(group: RunGroup, level: Level) -> dict[str, Any]:
    """Return everything that determines a compressed model."""
    keys = [*((run.level, run.key) for run in group.runs), *((each.level, each.key) for each in group.texts)]
    key = dict(reversed(keys))[level]
    assert key is not None, "weights are fetched before a model is compressed"
    return {name: getattr(key, name) for name in IDENTITY}


def find_saved(library: Path, group: RunGroup, level: Level) -> Saved | None:
    """Return the saved model that a group would make at a level, None if there is none.

    Raises HedgemarkError if its files were changed since they were written.
    """
    folder = library / json_digest(identity(group, level))
    if not (folder / RECORD).is_file():
        return None
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        unchanged = record.pop("digest") == json_digest(record) and record["files"] == weights_hash(find_model(str(folder)))
    except (ValueError, TypeError, AttributeError, KeyError):
        unchanged = False
    if not unchanged:
        raise HedgemarkError(f"the saved model in {folder} was changed since it was written; delete that folder to compress again")
    return Saved(folder, record["post_conditions"], record["parameters"])


def load_saved(saved: Saved, group: RunGroup, level: Level, device: str) -> Any:
    """Return a saved model as its method made it."""
    return restore(saved.folder, level, group.model.dtype, device)


def copy_saved(source: Path, folder: Path) -> None:
    """Copy a saved model to a folder that is empty or does not exist, whole or not at all. Raises HedgemarkError where there is no room."""
    partial = folder.parent / f".{folder.name[:32]}-{uuid4().hex[:8]}.partial"
    try:
        shutil.copytree(source, partial, copy_function=shutil.copyfile)  # its files get the modes that the umask gives
        partial.rename(folder)
    except OSError as error:
        whys = [why for *_, why in error.args[0]] if isinstance(error, shutil.Error) else [error.strerror or str(error)]
        raise HedgemarkError(f"cannot copy the saved model in {source} to {folder} ({whys[0]})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


class Made(NamedTuple):
    """A compressed model in memory, what it was made for, and how models answer.

    parameters : of the dense model.
    answer     : (model, prompted task) -> answers, used for the model in memory and for the one that is loaded again.
    """

    applied: Applied
    group: RunGroup
    level: Level
    parameters: int
    answer: Callable[[Any, PromptedTask], Answers]


def keep(made: Made, folder: Path) -> Any:
    """Save a compressed model in a folder that does not exist yet, whole or not at all, and return the model that was loaded from it.

    The model in memory is emptied before the other one is loaded, and cannot be used afterwards.
    Raises HedgemarkError if the model loaded again has other weights or answers, or there is no room.
    """
    model, group, level = made.applied.model, made.group, made.level
    partial = folder.parent / f".{folder.name[:32]}-{uuid4().hex[:8]}.partial"
    try:
        partial.mkdir(parents=True)
        packing = packing_of(model, level, made.applied.settings.get("recipe"))
        write_model(model, packing, group.model.files, group.model.tokenizer, partial)
        loaded, compared = _load_again(made, partial)
        size = sum(path.stat().st_size for path in partial.glob("*.safetensors"))
        record = {
            "schema": SCHEMA,
            "identity": identity(group, level),
            "model": group.model.files.name,
            "revision": group.model.files.revision,
            "runs": [run.key.name for run in group.runs if run.level == level and run.key],
            "format": packing.format or "plain weights",
            "groups": [each.described() for each in packing.groups],
            "left_as_they_are": list(packing.left_out),
            "files": weights_hash(find_model(str(partial))),
            "parameters": made.parameters,
            "bytes": size,
            "post_conditions": made.applied.conditions,
            "loaded_again": compared,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_card(record, partial / "README.md")
        record = json.loads(json.dumps(record, default=str))  # as it will be read, whose digest it carries
        text = json.dumps(record | {"digest": json_digest(record)}, indent=1)
        (partial / RECORD).write_text(text + "\n", encoding="utf-8")
        if not folder.exists() or not any(folder.iterdir()):
            partial.rename(folder)
    except OSError as error:
        raise HedgemarkError(f"cannot save the model at level {level.text!r} in {folder} ({error.strerror or error})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    log.info("saved in %s, %.1f MB", folder, size / 1e6)
    return loaded


def _load_again(made: Made, folder: Path) -> tuple[Any, dict[str, Any]]:
    """Put the checkpoint's model in place of the one in memory; return it, and how far its weights and answers are from those before.

    The weights of both are compared with the files, a layer at a time.
    """
    model, group, level = made.applied.model, made.group, made.level
    first = next(run.prompted for run in group.runs if run.level == level)
    probe = replace(first, task=replace(first.task, items=first.task.items[:PROBED]))
    before, device = made.answer(model, probe), str(model.device)
    weights = _roundings(model, folder)
    model.to("meta")  # frees the weights, whoever else still holds the model
    loaded = load_checkpoint(folder, group.model.dtype, device)
    served = made.answer(loaded, probe)
    loaded = as_made(loaded, level)
    again = made.answer(loaded, probe) if rounds_integers(level) else served
    weights += _roundings(loaded, folder)
    allowed = TOLERANCE[group.model.dtype] * float(np.nanmax(before.logits) - np.nanmin(before.logits))
    change = _largest(before.logits, again.logits)
    if not (weights <= 1 and change <= allowed):
        raise HedgemarkError(
            f"the model at level {level.text!r} cannot be saved faithfully: loaded again, its weights are up to {weights:.3g} roundings "
            f"and its option logits up to {change:.3g} from those in memory; at most 1 and {allowed:.3g} are allowed"
        )
    return loaded, {
        "items": len(probe.task.items),
        "largest_logit_change": change,
        "largest_logit_change_as_loaded": _largest(before.logits, served.logits),
        "allowed": allowed,
        "largest_weight_change_in_roundings": weights,
        "noise_floor": dict(before.noise_floor),
    }


def _largest(logits: NDArray[np.float32], others: NDArray[np.float32]) -> float:
    """Return the largest difference of two option logits; infinity where one model has no number and the other does."""
    if not np.array_equal(np.isfinite(logits), np.isfinite(others)):
        return math.inf
    return float(np.max(np.abs(logits - others)[np.isfinite(logits)], initial=0.0))


def _roundings(model: Any, folder: Path) -> float:
    """Return the largest difference of a layer's weight from the checkpoint's, in units of the precision of its dtype at each value."""
    import torch

    layers, largest = target_layers(model), [0.0]
    info = torch.finfo(model.dtype)
    for name, stored in stored_weights(folder, layers, model.dtype):
        weight = layers[name].weight.detach().double()
        apart = (weight - stored.to(weight.device).double()).abs() / (info.eps * weight.abs().clamp_min(info.tiny))
        largest.append(float(apart.max()))
    return float(np.max(largest))  # NaN if any weight is
