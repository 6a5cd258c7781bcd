"""Config, tokenizer and weights of a model, read from its files.

In: `ModelFiles`.  Out: the Hugging Face config and tokenizer, and a model object whose weights are plain numbers on one device.
"""

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from producer.machine.free_memory import out_of_memory
from producer.models.find import ModelFiles
from producer.models.packed import load_packed, plain_forward
from producer.models.stored_as import AWQ, COMPRESSED_TENSORS, GPTQ, quantization
from schemas.errors import HedgemarkError, UsageError

AS_STORED = "auto"  # the dtype of the files: the weights then are views of memory-mapped files and take no memory of their own


def load_config(files: ModelFiles) -> Any:
    """Return the Hugging Face config. Raises UsageError for one that cannot be read."""
    from transformers import AutoConfig

    with _readable("config", files, UsageError):
        return AutoConfig.from_pretrained(files.folder, **_gguf_argument(files))


def load_tokenizer(files: ModelFiles) -> Any:
    """Return the tokenizer. Raises UsageError where there is none or it cannot be read."""
    from transformers import AutoTokenizer

    with _readable("tokenizer (tokenizer.json or tokenizer.model)", files, UsageError):
        return AutoTokenizer.from_pretrained(files.folder, **_gguf_argument(files))


def load_model(files: ModelFiles, dtype: str, device: str) -> Any:
    """Return the model in eval mode, all weights on one device, attention by SDPA.

    Raises HedgemarkError for weights that are damaged or incomplete, or in a format whose package is not installed.
    """
    import torch
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]  # one progress bar per command, and that is ours, over items
    options: dict[str, Any] = {"dtype": dtype if dtype == AS_STORED else getattr(torch, dtype), "attn_implementation": "sdpa"}
    config = load_config(files)
    with _readable("weights", files, HedgemarkError):
        packed = quantization(config).format in (GPTQ, AWQ)
        model, report = load_packed(files.folder, config, **options) if packed else _load(files, config, **options)
    if missing := sorted(report["missing_keys"]):  # transformers would draw them at random
        raise HedgemarkError(f"the weights of {files.name!r} in {files.folder} lack {len(missing)} of its tensors, {missing[0]} among them")
    return model.requires_grad_(False).to(device)


def _load(files: ModelFiles, config: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
    from transformers import AutoModelForCausalLM

    stored: Any = getattr(config, "quantization_config", None)
    compressed = quantization(config).format == COMPRESSED_TENSORS
    if compressed:
        # Left to itself the library dequantizes in the first whole forward pass, and the engine runs single layers.
        config.quantization_config = {**stored, "dequantize": True}
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        files.folder, config=config, output_loading_info=True, **options, **_gguf_argument(files)
    )
    model, report = loaded
    if compressed:
        plain_forward(model)
        model.config.quantization_config = stored  # what it was stored as is recorded with the run
    return model, report


@contextmanager
def _readable(what: str, files: ModelFiles, kind: type[HedgemarkError]) -> Iterator[None]:
    """Turn what libraries raise for a damaged file, which may be anything, into one sentence; lack of memory stays what it is."""
    try:
        yield
    except HedgemarkError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 200, placeholder=" ...")
        raise kind(f"the {what} of {files.name!r} in {files.folder} cannot be read ({reason})") from error


def _gguf_argument(files: ModelFiles) -> dict[str, str]:
    return {"gguf_file": files.gguf} if files.gguf else {}
