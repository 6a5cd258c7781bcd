"""Runs lm-evaluation-harness for the bench, in an environment where this package is not installed.

stdin: one line of JSON {model, dtype, device, batch_size, threads, clock, contexts, continuations}, then one line per round.
stdout: one line of JSON {seconds, loglikelihoods} per round. Only the scoring call is timed, not loading, tokenizing and a
first batch to warm up.
"""

import contextlib
import json
import sys
import time
from typing import Any


def main() -> None:
    """Load the model, then score once per line."""
    job = json.loads(sys.stdin.readline())
    with contextlib.redirect_stdout(sys.stderr):
        model, requests = prepare(job)
    for _ in sys.stdin:
        with contextlib.redirect_stdout(sys.stderr):
            answer = score(model, requests, job)
        print(json.dumps(answer), flush=True)


def prepare(job: dict[str, Any]) -> tuple[Any, list[Any]]:
    """Return the model, warm, and its requests: every continuation after every context, in tokens."""
    import torch
    from lm_eval.models.huggingface import HFLM

    torch.set_num_threads(job["threads"])
    model = HFLM(pretrained=job["model"], dtype=job["dtype"], batch_size=job["batch_size"], device=job["device"])
    requests = []
    for context in job["contexts"]:
        ids = model.tok_encode(context)
        for continuation in job["continuations"]:
            tokens = model.tok_encode(context + continuation)
            requests.append(((context, continuation), ids, tokens[len(ids) :]))
    model._loglikelihood_tokens(requests[: len(job["continuations"])], disable_tqdm=True)
    return model, requests


def score(model: Any, requests: list[Any], job: dict[str, Any]) -> dict[str, Any]:
    """Return the seconds of one pass and the log-likelihoods by context and continuation."""
    clock, n_options = time.process_time if job["clock"] == "cpu" else time.perf_counter, len(job["continuations"])
    start = clock()
    scored = model._loglikelihood_tokens(requests, disable_tqdm=True)
    seconds = clock() - start
    values = [float(value) for value, _ in scored]
    return {"seconds": seconds, "loglikelihoods": [values[i : i + n_options] for i in range(0, len(values), n_options)]}


if __name__ == "__main__":
    main()
