"""The peer's side of the bench: lm-evaluation-harness, run by the interpreter of its own environment, where we are not installed.

stdin: JSON {model, dtype, batch_size, threads, contexts, continuations, rounds}.  stdout, last line: JSON {seconds, loglikelihoods}.
Only the scoring call is timed; loading, tokenizing and the first batch (a warm-up) are not.
"""

import contextlib
import json
import sys
import time
from typing import Any


def main() -> None:
    """Answer one request."""
    asked = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):
        answer = score(asked)
    print(json.dumps(answer))


def score(asked: dict[str, Any]) -> dict[str, Any]:
    """Return seconds per round and the log-likelihood of every continuation after every context."""
    import torch
    from lm_eval.models.huggingface import HFLM

    torch.set_num_threads(asked["threads"])
    model = HFLM(pretrained=asked["model"], dtype=asked["dtype"], batch_size=asked["batch_size"], device=asked["device"])
    requests = []
    for context in asked["contexts"]:
        ids = model.tok_encode(context)
        for continuation in asked["continuations"]:
            whole = model.tok_encode(context + continuation)
            requests.append(((context, continuation), ids, whole[len(ids) :]))
    n_options = len(asked["continuations"])
    model._loglikelihood_tokens(requests[:n_options], disable_tqdm=True)
    seconds, scored = [], []
    for _ in range(asked["rounds"]):
        clock = time.perf_counter()
        scored = model._loglikelihood_tokens(requests, disable_tqdm=True)
        seconds.append(time.perf_counter() - clock)
    values = [float(value) for value, _ in scored]
    return {"seconds": seconds, "loglikelihoods": [values[i : i + n_options] for i in range(0, len(values), n_options)]}


if __name__ == "__main__":
    main()
