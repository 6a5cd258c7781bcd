"""GGUF files written by gguf-py, as llama.cpp's converter lays them out: its own table of tensor names, rotary pairs turned for llama."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from producer.methods.shared.compression_data import PACKAGED

ARCHITECTURES = {"llama": "llama", "mixtral": "llama", "qwen2_moe": "qwen2moe", "qwen3_moe": "qwen3moe"}
TURNED = ("llama", "mixtral", "smollm3")
INSTEAD = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0", "IQ4_XS": "IQ4_NL"}  # llama.cpp, src/llama-quant.cpp, tensor_type_fallback
LLAMA3_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2_SPLIT = LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")


def byte_level(split: str = LLAMA3_SPLIT, *, begins: bool = True, vocabulary: int = 600) -> Any:
    """Return a byte-level BPE tokenizer trained on the packaged text, that splits as asked."""
    tokenizer = Tokenizer(models.BPE())
    parts = [pre_tokenizers.Split(Regex(split), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
    tokenizer.decoder = decoders.ByteLevel()
    letters = "\n".join(f"{letter}. x\nAnswer: {letter}\nAnswer:" for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ") * 200
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<|begin|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([PACKAGED.read_text(encoding="utf-8")[:200_000], letters], trainer)
    if begins:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|begin|> $A", pair="<|begin|> $A $B", special_tokens=[("<|begin|>", 0)]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|begin|>", eos_token="<|end|>")


def write_gguf(path: Path, model: Any, tokenizer: Any = None, **how: Any) -> dict[str, Any]:
    """Write a model, and return its plain weights by name as the file's numbers stand for them.

    kind    : type of the matrices, F32 by default; vectors stay F32, and rows that blocks do not divide have the type that llama.cpp's
              quantizer gives them instead, else F32.
    pre     : name of the tokenizer's pre-tokenizer, llama-bpe by default.
    keys    : further keys (architecture's prefix included), or None for one that is left out.
    tensors : further tensors by name.
    """
    kind, keys, tensors = how.get("kind", "F32"), how.get("keys") or {}, how.get("tensors") or {}
    config, writer = model.config, gguf.GGUFWriter(path, ARCHITECTURES.get(model.config.model_type, model.config.model_type))
    prefix = writer.arch
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    stated: dict[str, Any] = {
        f"{prefix}.block_count": config.num_hidden_layers,
        f"{prefix}.context_length": config.max_position_embeddings,
        f"{prefix}.embedding_length": config.hidden_size,
        f"{prefix}.feed_forward_length": config.intermediate_size,
        f"{prefix}.attention.head_count": config.num_attention_heads,
        f"{prefix}.attention.head_count_kv": config.num_key_value_heads,
        f"{prefix}.attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        f"{prefix}.rope.freq_base": float(config.rope_parameters["rope_theta"]),
        f"{prefix}.attention.key_length": head,
        f"{prefix}.attention.value_length": head,
        "general.file_type": int(getattr(gguf.LlamaFileType, {"F32": "ALL_F32", "F16": "MOSTLY_F16"}.get(kind, f"MOSTLY_{kind}"), 0)),
    }
    for key, name in (
        ("expert_count", "num_local_experts"),
        ("expert_count", "num_experts"),
        ("expert_used_count", "num_experts_per_tok"),
        ("expert_feed_forward_length", "moe_intermediate_size"),
        ("expert_shared_feed_forward_length", "shared_expert_intermediate_size"),
    ):
        if getattr(config, name, None):
            stated[f"{prefix}.{key}"] = int(getattr(config, name))
    if tokenizer is not None:
        stated |= tokenizer_keys(tokenizer, how.get("pre", "llama-bpe"))
    for key, value in (stated | keys).items():
        if value is not None:
            _add(writer, key, value)
    meant = _add_weights(writer, model, kind)
    for name, value in tensors.items():
        writer.add_tensor(name, np.asarray(value, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return meant


def tokenizer_keys(tokenizer: Any, pre: str) -> dict[str, Any]:
    """Return the keys of a byte-level tokenizer."""
    tokens = [token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])]
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if token in tokenizer.all_special_tokens else 1 for token in tokens],
        "tokenizer.ggml.merges": [merge if isinstance(merge, str) else " ".join(merge) for merge in merges],
        "tokenizer.ggml.bos_token_id": tokenizer.bos_token_id,
        "tokenizer.ggml.eos_token_id": tokenizer.eos_token_id,
        "tokenizer.ggml.add_bos_token": tokenizer("x")["input_ids"][0] == tokenizer.bos_token_id,
    }


def _add(writer: Any, key: str, value: Any) -> None:
    add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}.get(type(value))
    (add or writer.add_array)(key, value)


def _quantized(array: Any, kind: str) -> tuple[Any, Any]:
    """Return a matrix in a type, by gguf-py where it can and by llama.cpp's own code where it cannot."""
    quantization = gguf.GGMLQuantizationType[kind]
    if array.ndim < 2:
        return array, gguf.GGMLQuantizationType.F32
    if array.shape[-1] % gguf.GGML_QUANT_SIZES[quantization][0]:
        return _quantized(array, INSTEAD.get(kind, "F32"))
    try:
        return gguf.quants.quantize(array, quantization), quantization
    except NotImplementedError:
        import libgguf

        shape = (*array.shape[:-1], array.shape[-1] // gguf.GGML_QUANT_SIZES[quantization][0] * gguf.GGML_QUANT_SIZES[quantization][1])
        return np.asarray(libgguf.quantize_rows(array, libgguf.GGMLQuantizationType[kind])).view(np.uint8).reshape(shape), quantization


def _add_weights(writer: Any, model: Any, kind: str) -> dict[str, Any]:
    import torch

    config, meant = model.config, {}
    architecture = next(number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == writer.arch)
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        array = weight.float().numpy()
        turned = config.model_type in TURNED and (".q_proj." in name or ".k_proj." in name)
        heads = config.num_attention_heads if ".q_proj." in name else config.num_key_value_heads
        if turned:
            array = array.reshape(heads, 2, -1, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)
        stored = {}
        for part, values in _parts(name, array).items():
            base, _, suffix = part.rpartition(".")
            data, raw = _quantized(np.ascontiguousarray(values), kind)
            writer.add_tensor(f"{names.get_name(base)}.{suffix}", data, raw_dtype=raw)
            stored[part] = np.asarray(gguf.dequantize(data, raw), np.float32)
        back = np.concatenate(list(stored.values()), axis=1) if len(stored) > 1 else next(iter(stored.values()))
        if turned:
            back = back.reshape(heads, -1, 2, *back.shape[1:]).swapaxes(1, 2)
        meant[name] = torch.from_numpy(back.reshape(weight.shape).copy())
    return meant


def _parts(name: str, array: Any) -> dict[str, Any]:
    """Return what one tensor of transformers is in GGUF: fused experts are apart there."""
    if name.endswith("experts.gate_up_proj"):
        gate, up = np.split(array, 2, axis=1)
        return {name.replace("gate_up_proj", "gate_proj.weight"): gate, name.replace("gate_up_proj", "up_proj.weight"): up}
    if name.endswith("experts.down_proj"):
        return {f"{name}.weight": array}
    if name.endswith("shared_expert_gate.weight"):
        return {name: array.reshape(-1)}
    return {name: array}
