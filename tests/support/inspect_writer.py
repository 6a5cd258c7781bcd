"""Logs of inspect 0.3 as JSON: the fields of its EvalLog, EvalSample and ModelOutput that a multiple-choice task fills."""

import json
from pathlib import Path
from typing import Any


def sample(number: int, logprobs: list[float], target: str, **more: str) -> dict[str, Any]:
    """One sample; the model gives its likeliest letter unless `given` says another, after `before` and `space`."""
    before, space = more.get("before", "ANSWER:"), more.get("space", " ")
    letters = "ABCDEFGH"[: len(logprobs)]
    letter = more.get("given", letters[logprobs.index(max(logprobs))])
    top = [{"token": f"{space}{name}", "logprob": value, "bytes": None} for name, value in zip(letters, logprobs, strict=True)]
    answer = {"token": f"{space}{letter}", "logprob": logprobs[letters.index(letter)], "bytes": None, "top_logprobs": top}
    content = [{"token": part, "logprob": -0.1, "bytes": None, "top_logprobs": []} for part in ([before] if before else [])] + [answer]
    text = f"{before}{space}{letter}"
    message = {"role": "assistant", "content": text}
    output = {"model": "m", "choices": [{"message": message, "stop_reason": "stop", "logprobs": {"content": content}}]}
    scores = {"choice": {"value": "C" if letter == target else "I", "answer": letter, "explanation": text}}
    choices = [f"{number}-{name}" for name in letters]
    asked = {"id": f"q{number}", "epoch": 1, "input": f"Which is {number}?", "choices": choices, "target": target}
    return {**asked, "messages": [], "output": output, "scores": scores, "attachments": {}}


def write_log(path: Path, samples: list[dict[str, Any]]) -> Path:
    """Write a log and return its path."""
    path.write_text(
        json.dumps({"version": 2, "status": "success", "eval": {"task": "arc", "model": "hf/toy"}, "samples": samples}, indent=1)
    )
    return path
