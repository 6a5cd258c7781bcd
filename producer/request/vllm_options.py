"""What vLLM is told beside the model and changes its logits: a LoRA adapter, quantization while loading, a format of the key/value cache.

In: a `Request`, a model's files.  Out: `VllmOptions`, which are part of the run's key, so that two ways to run one model never collide.
"""

import hashlib
import importlib.util
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from producer.models.find import ADAPTER, ModelFiles
from producer.request.request import VLLM, Request
from schemas.errors import UsageError
from schemas.levels import parse_levels
from schemas.run import DENSE

if TYPE_CHECKING:
    from collections.abc import Mapping

ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # the largest rank of an adapter that vLLM sets memory aside for is one of these
GGUF_PLUGIN = "vllm_gguf_plugin"


@dataclass(frozen=True)
class VllmOptions:
    """What changes the logits of a model under vLLM; the defaults change nothing.

    kv_cache_dtype, quantization : names as vLLM has them, "" for the model's own.
    lora : folder of an adapter as peft writes it.
    """

    kv_cache_dtype: str = ""
    quantization: str = ""
    lora: Path | None = None

    def in_key(self) -> dict[str, str]:
        """Return what goes into the run's key: only what was asked for, so that runs without it keep their keys."""
        named = {"kv_cache_dtype": self.kv_cache_dtype, "quantization": self.quantization, "lora_hash": self._lora_hash}
        return {name: value for name, value in named.items() if value}

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `vllm.LLM`."""
        named = {"kv_cache_dtype": self.kv_cache_dtype, "quantization": self.quantization}
        lora = {"enable_lora": True, "max_lora_rank": self._memory_rank} if self.lora else {}
        return {name: value for name, value in named.items() if value} | lora

    def check(self) -> None:
        """Raise UsageError if the adapter's folder lacks a file, or its rank is larger than vLLM takes."""
        if self.lora is None:
            return
        if not (self.lora / ADAPTER).is_file() or not self._weights.is_file():
            raise UsageError(f"--lora {self.lora} has no adapter; expected a folder with {ADAPTER} and {' or '.join(ADAPTER_WEIGHTS)}")
        if self._rank > RANKS[-1]:
            raise UsageError(f"the adapter in {self.lora} has rank {self._rank}, and vLLM takes {RANKS[-1]} at most")

    @property
    def _weights(self) -> Path:
        assert self.lora is not None, "asked only of an adapter"
        paths = [self.lora / name for name in ADAPTER_WEIGHTS]
        return next((path for path in paths if path.is_file()), paths[0])

    @property
    def _memory_rank(self) -> int:
        return next(rank for rank in RANKS if rank >= self._rank)

    @cached_property
    def _rank(self) -> int:
        """The largest rank of the adapter's matrices."""
        assert self.lora is not None, "asked only of an adapter"
        try:
            settings: Mapping[str, Any] = json.loads((self.lora / ADAPTER).read_text(encoding="utf-8"))
            return max([int(settings["r"]), *map(int, (settings.get("rank_pattern") or {}).values())])
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise UsageError(f"{self.lora / ADAPTER} does not say the adapter's rank as a number `r`: {error!r}") from error

    @cached_property
    def _lora_hash(self) -> str:
        if self.lora is None:
            return ""
        total = hashlib.sha256()
        for path in (self.lora / ADAPTER, self._weights):
            with path.open("rb") as stream:
                total.update(f"{path.name}:{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
        return total.hexdigest()


def vllm_options(request: Request, files: ModelFiles) -> VllmOptions:
    """Return the options of a request for vLLM; the defaults under another backend.

    Raises UsageError for what vLLM cannot do here, and for a run that would be stored as dense or without a level and is not.
    """
    options = VllmOptions(request.kv_cache_dtype, request.quantization, request.lora)
    if f"--backend {request.backend}" != VLLM:
        return options
    if files.gguf and importlib.util.find_spec(GGUF_PLUGIN) is None:
        raise UsageError("vLLM reads GGUF files by a plugin, which needs a GPU: pip install vllm-gguf-plugin")
    changed = [name for name, value in (("--kv-cache-dtype", options.kv_cache_dtype), ("--quantization", options.quantization)) if value]
    if changed and (DENSE in request.methods or not request.levels):
        raise UsageError(f"{changed[0]} makes another model than the dense one; use --method checkpoint, and name it with --level")
    for level in parse_levels(request.levels):
        if level.cache and not options.kv_cache_dtype.startswith(level.cache):
            raise UsageError(f"level {level.text!r} names a key/value cache that vLLM is not asked for; add --kv-cache-dtype {level.cache}")
    options.check()
    return options
