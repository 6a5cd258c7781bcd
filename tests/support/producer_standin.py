"""An untrained model with the reference tokenizer in an ordinary folder: goes through the same code as any Hub model, in milliseconds."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from producer.reference.tokenizer import build_tokenizer

torch.set_num_threads(1)
URN = {
    "question": "Which urn gave red blue red?",
    "choices": {"A": "ash", "B": "elm", "C": "fir", "D": "oak", "E": "I don't know", "F": "None of the above"},
    "answer": "A",
}


def save_standin(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """Write config, weights and tokenizer into a folder and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    build_tokenizer(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    sizes = {
        "vocab_size": 320, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 512, "initializer_range": 0.2, "tie_word_embeddings": True,
        "bos_token_id": tokenizer.bos_token_id,
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        LlamaForCausalLM(LlamaConfig(**(sizes | changes))).save_pretrained(folder)
    return folder


def write_items(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write items as a JSON array and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows))
    return path


def urn_rows(n_items: int = 6) -> list[dict[str, Any]]:
    """Return items that the stand-in's tokenizer can read, of unlike lengths."""
    colours = ("red", "blue", "green", "black")
    return [URN | {"id": i, "question": f"Which urn gave {' '.join(colours[: 1 + i % 4])}?"} for i in range(n_items)]
