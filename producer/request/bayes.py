"""The model `bayes`: the exact posterior of every item of task `urn`, stored as a run. No model can have smaller sets.

In: a request that names model `bayes`.  Out: runs of method `bayes`, whose logits are log posteriors; no language model is run.
"""

from collections.abc import Iterator

import numpy as np

from producer.machine.environment import environment
from producer.request.request import Request
from producer.tasks.source import TaskItems, draw, load_task
from producer.tasks.urn import bayes_posterior
from schemas.errors import UsageError
from schemas.fields import name_in_order
from schemas.itemset import ItemSet, build_item_set
from schemas.private import without_circumstances
from schemas.run import UNKNOWN_TOKEN, Run, RunKey

BAYES, TASK = "bayes", "urn"
FLOOR = 1e-12  # "I don't know" is never right; its posterior 0 has no logarithm


def bayes_runs(request: Request) -> Iterator[tuple[ItemSet, Run]]:
    """Yield the runs of the model `bayes` with their items; none if the request does not name this model.

    Raises UsageError for a task without a known posterior, and for a compression method or level.
    """
    if BAYES not in request.models:
        return
    if any(task != TASK for task in request.tasks):
        raise UsageError(f"model {BAYES!r} knows the posterior of task {TASK!r} only; tasks asked for: {', '.join(request.tasks)}")
    if set(request.methods) - {BAYES, "dense"} or request.levels:
        raise UsageError(f"model {BAYES!r} cannot be compressed; use --method {BAYES} and no --level")
    task = draw(load_task(TASK), request.limit, request.seed)
    items = build_item_set(TASK, task.items, revision=task.revision, demonstrations=[item.id for item in task.demonstrations])
    for prompt in request.prompts:
        for order in range(request.options_order):  # the posterior of an option is the same wherever it stands
            yield items, _run(task, items, name_in_order(prompt, order), request)


def _run(task: TaskItems, items: ItemSet, prompt: str, request: Request) -> Run:
    posterior = np.stack([bayes_posterior(item) for item in task.items])
    key = RunKey(
        model=BAYES,
        method=BAYES,
        task=TASK,
        items_hash=items.digest,
        prompt=prompt,
        option_tokens=tuple("ABCDEF"),
        backend="exact",
        seed=request.seed,
        sampling={"limit": task.limit} if task.limit else {},
    )
    n_items, env = len(task.items), environment("cpu", parameters=0)
    return Run(
        key=key,
        logits=np.log(np.maximum(posterior, FLOOR)).astype(np.float32),
        logsumexp=np.zeros(n_items, np.float32),
        top_token=np.full(n_items, UNKNOWN_TOKEN, np.int32),
        env=without_circumstances(env) if request.private else env,
    )
