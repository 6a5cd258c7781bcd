"""Details as lighteval 0.13 saves them: `asdict` of its Doc and ModelResponse as a Parquet table, columns in alphabetical order."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet


def detail(number: int, logprobs: list[float], gold: Any, task: str = "arc:easy|0", **metric: float) -> dict[str, Any]:
    """One row; `gold` becomes a list where it is an index, since a column has one type. `metric` is acc unless given."""
    golds = gold if isinstance(gold, list) else [gold]
    acc = {"acc": int(int(np.argmax(logprobs)) in golds)}
    doc = {
        "query": f"Question: which is {number}?\nAnswer:", "choices": [f" {number}-{k}" for k in range(len(logprobs))], "gold_index": golds,
        "instruction": None, "images": None, "specific": None, "unconditioned_query": None, "original_query": None, "id": str(number),
        "task_name": task, "fewshot_samples": [], "sampling_methods": ["LOGPROBS"], "fewshot_sorting_class": None, "generation_size": None,
        "stop_sequences": None, "use_logits": False, "num_samples": 1, "generation_grammar": None,
    }  # fmt: skip
    response = {
        "input": "the prompt", "input_tokens": [1, 2, 3], "text": [], "output_tokens": [[4]] * len(logprobs), "text_post_processed": None,
        "reasonings": [], "logprobs": logprobs, "argmax_logits_eq_gold": [False] * len(logprobs), "logits": None,
        "unconditioned_logprobs": None, "truncated_tokens_count": 0, "padded_tokens_count": 0,
    }  # fmt: skip
    return {"doc": doc, "metric": metric or acc, "model_response": response}


def write_details(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows and return the path."""
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path
