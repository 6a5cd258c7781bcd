"""Size and hash of a model's weights: the memory they need, and which weights a run used, whatever the model's name is.

In: a model's files, or a model in memory.  Out: byte counts; SHA-256 over weight files, config and tokenizer, or over tensors. A
file's hash is cached by path, size, time, inode.
"""

import hashlib
import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from producer.models.embedded import EmbeddedConfig
from producer.models.find import EXPECTED, ModelFiles, gguf_inside, weight_files
from producer.models.model_class import model_class
from producer.models.stored_as import settings_file, stored_dtype
from schemas.digest import json_digest
from schemas.errors import HedgemarkError
from store.backend.user_cache import cache_folder, warn_once

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# The config holds numbers that change logits as weights do (rope_theta, rms_norm_eps).
BESIDE_WEIGHTS = ("config.json", "tokenizer.json", "tokenizer.model")

HASHED_AT_ONCE = 8
GRIDS = (".weight_scale", ".weight_zero_point", ".weight_global_scale")


def weights_hash(files: ModelFiles) -> str:
    """Return the SHA-256 (64 hex digits) of a model's weight files, config, tokenizer, and quantization settings in a file of their own.

    Raises HedgemarkError where a weight file is missing, or a safetensors file shorter or longer than its header says.
    """
    total = hashlib.sha256()
    for path in _files(files):
        _check_length(path)
        total.update(f"{path.name}:{_file_hash(path)}\n".encode())
    return total.hexdigest()


def tensors_hash(model: Any) -> str:
    """Return the SHA-256 (64 hex digits) of a model in memory: names, types, shapes and bytes of the tensors that its forward pass reads.

    Grids to which weights are rounded already are left out, since only the check of these weights reads them.
    """
    tensors = [(name, tensor) for name, tensor in sorted(model.state_dict().items()) if not name.endswith(GRIDS)]
    with ThreadPoolExecutor(HASHED_AT_ONCE) as pool:  # hashlib lets other threads run; one alone hashes 1.4 GB/s
        digests = pool.map(_tensor_hash, (tensor for _, tensor in tensors))
        described = ([name, str(tensor.dtype), list(tensor.shape)] for name, tensor in tensors)
        return json_digest([[*each, digest] for each, digest in zip(described, digests, strict=True)])


def _tensor_hash(tensor: Any) -> str:
    import torch

    return hashlib.sha256(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data).hexdigest()


def weight_bytes(files: ModelFiles) -> int:
    """Return the size of the weight files on disk, 0 where they are not here yet."""
    return sum(path.stat().st_size for path in weight_files(files.folder, files.gguf))


def weight_bytes_as(files: ModelFiles, config: Any, dtype: str) -> int:
    """Return the bytes that the weights take in memory in a dtype, however they are stored: the config says how many there are.

    Where transformers cannot build the model (vLLM may), the files are taken to hold plain weights in the config's dtype.
    """
    numbers = parameters(config) or weight_bytes(files) // BYTES.get(stored_dtype(config), BYTES["float32"])
    return numbers * BYTES[dtype]


def parameters(config: Any) -> int:
    """Return how many parameters a model of this config has, tied ones once; 0 where transformers cannot build it."""
    if isinstance(config, EmbeddedConfig):
        return sum(map(math.prod, config.shapes.values()))
    import torch

    try:
        with torch.device("meta"):
            return int(model_class(config).from_config(config).num_parameters())
    except Exception:  # a config that transformers does not know may raise anything
        return 0


def stored_parameters(files: ModelFiles) -> int:
    """Return how many parameters the safetensors files hold, read from their headers; 0 for other formats."""
    from safetensors import safe_open

    total = 0
    for path in weight_files(files.folder, files.gguf):
        if path.suffix == ".safetensors":
            with safe_open(path, framework="np") as tensors:
                total += sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118  # no mapping
    return total


def _files(files: ModelFiles) -> list[Path]:
    weights = weight_files(files.folder, files.gguf)
    if not weights:
        cure = gguf_inside(files.folder) or f"expected: {EXPECTED}"
        raise HedgemarkError(f"the weights of {files.name!r} are not in {files.folder}, or not all of them; {cure}")
    beside = [files.folder / name for name in BESIDE_WEIGHTS if (files.folder / name).is_file()]
    settings = None if files.gguf or _quantization_in_config(files.folder) else settings_file(files.folder)
    return [*weights, *beside, *([settings] if settings else [])]


def _quantization_in_config(folder: Path) -> bool:
    """Whether config.json has quantization settings; then those of a file of their own are not read, and are no part of the hash."""
    try:
        return bool(json.loads((folder / "config.json").read_text(encoding="utf-8")).get("quantization_config"))
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def _check_length(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="np"):
                pass
    except SafetensorError as error:
        raise HedgemarkError(f"{path} is damaged or was not copied whole ({error}); get it again") from error


def _file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, from the cache if the file is as it was when it was hashed and the cache entry is whole."""
    status, cache = path.stat(), cache_folder() / "hashes.json"
    name, stamp = str(path.resolve()), [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
    match _read(cache).get(name):
        case [*_, str(digest), _] as entry if entry == _entry(name, stamp, digest):
            return digest
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    _write(cache, {**_read(cache), name: _entry(name, stamp, digest)})
    return digest


def _entry(name: str, stamp: list[int], digest: str) -> list[int | str]:
    """Return a cache entry, with a digest over all of it: a damaged hash would make the run another model's."""
    return [*stamp, digest, json_digest(ascii([name, *stamp, digest]))]


def _read(cache: Path) -> dict[str, Any]:
    try:
        known = json.loads(cache.read_bytes())
    except (OSError, ValueError, RecursionError):  # no cache yet, or a damaged one: everything is hashed again
        return {}
    return known if isinstance(known, dict) else {}


def _write(cache: Path, known: dict[str, Any]) -> None:
    scratch = cache.with_suffix(f".{os.getpid()}")
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        try:
            scratch.write_text(json.dumps(known))
            scratch.replace(cache)
        finally:
            scratch.unlink(missing_ok=True)
    except OSError as error:
        warn_once(error)
