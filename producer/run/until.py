"""Stop asking a model as soon as the release gate has decided: `--until policy.toml`.

In: a policy whose section `[looks]` says at which numbers of items the gate is asked, planned runs of all items, a model's answers.
Out: the model's runs over the items that it took, and the decision in words.

The decision is not made here. At each look the compressed model's runs and the dense model's runs over the same items are written into a
store of their own, in a temporary folder, and `analyze gate` is asked about it as a process. Its exit code says pass, fail or undecided.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from producer.prompts.encode import OptionTokens
from producer.request.planned import PlannedRun, RunGroup
from producer.request.request import Request
from schemas.errors import HedgemarkError, UsageError
from schemas.itemset import ItemSet, build_item_set
from schemas.run import CHECKPOINT, DENSE, Run
from schemas.toml_file import read_toml

DECIDED = {0: "pass", 1: "fail"}
UNDECIDED, WRONG_USAGE = 3, 2


class Answered(NamedTuple):
    """A run, and what it was asked."""

    planned: PlannedRun
    run: Run

    @property
    def items(self) -> ItemSet:
        """The items of the run."""
        return self.planned.prompted.item_set


@dataclass(frozen=True)
class Decision:
    """What the gate said at a look.

    result : pass, fail or inconclusive.
    why    : the checks that decided, with the ends of their intervals.
    """

    result: str
    why: str
    look: int
    looks: tuple[int, ...]

    @property
    def final(self) -> bool:
        """Whether no more items are to be asked."""
        return self.result in DECIDED.values() or self.look == len(self.looks)

    @property
    def n_items(self) -> int:
        """Items of each run."""
        return self.looks[self.look - 1]

    def __str__(self) -> str:
        at = f"at look {self.look} of {len(self.looks)}, with {self.n_items:,} of {self.looks[-1]:,} items: {self.why}"
        return f"{self.result} {at}"


def looks_of(policy: Path) -> tuple[int, ...]:
    """Return the numbers of items of a policy's looks. Raises UsageError for a policy that the gate refuses, or that plans no looks."""
    with tempfile.TemporaryDirectory(prefix="hedgemark-look-") as folder:
        refused = _gate(policy, Path(folder))  # in which no store is: only what is wrong with the policy is of interest
    if refused.returncode == WRONG_USAGE:
        raise UsageError(_last_line(refused).removeprefix("Error: "))
    looks = read_toml(policy, "policy").get("looks", {})
    if not looks:
        raise UsageError(f"policy {policy} plans no looks; --until needs them, such as [looks] items = [500, 1000, 2000]")
    return tuple(looks["items"])


def with_looks(request: Request) -> Request:
    """Return a request with the looks of its policy, and with the dense model that compressed ones are compared with.

    Raises UsageError for a request in which the gate has nothing to decide, or which says otherwise how many items to ask.
    """
    if request.until is None:
        return request
    if request.limit:
        raise UsageError(f"--limit {request.limit} has no effect beside --until, whose policy says how many items are asked")
    if request.text:
        raise UsageError(f"--text {request.text} has no effect beside --until, which asks questions; read the text in a command of its own")
    if request.caches:
        raise UsageError(f"beside --until, name formats of cached keys and values as levels: --method kv --level {request.caches[0]}")
    if CHECKPOINT in request.methods:
        raise UsageError("--until compares a compressed model with its own dense model, and a checkpoint has none; leave --until out")
    methods = (DENSE, *(name for name in request.methods if name != DENSE))
    return replace(request, looks=looks_of(request.until), methods=methods)


def check_judged_once(groups: Sequence[RunGroup]) -> None:
    """Raise UsageError where a model would be compressed with other data for some tasks: the gate judges all tasks of a model together."""
    judged: dict[tuple[str, ...], list[str]] = {}
    for group in groups:
        tasks = list(dict.fromkeys(run.prompted.task.name for run in group.runs))
        for compressed in group.levels:
            judged.setdefault((str(group.model.files), group.method.name, compressed.text), []).append(" and ".join(tasks))
    for (_, method, level), asked in judged.items():
        if len(asked) > 1:
            raise UsageError(
                f"--until judges {method} {level} over all its tasks together, and it would be compressed with other data for {asked[0]} "
                f"than for {asked[1]}; name the data with --compression-data"
            )


def at_look(planned: PlannedRun, n_items: int) -> PlannedRun:
    """Return what asks the first `n_items` items, in the order of looks, of what asks the items of all looks."""
    prompted, task = planned.prompted, planned.prompted.task
    chosen = [number for number, rank in enumerate(task.look_rank) if rank < n_items]
    asked = prompted.only(chosen)
    limit = n_items if n_items < len(task.items) else task.limit
    asked = replace(asked, task=replace(asked.task, limit=limit, look_rank=tuple(task.look_rank[number] for number in chosen)))
    demonstrated = [item.id for item in task.demonstrations]
    asked = replace(asked, item_set=build_item_set(task.name, asked.task.items, revision=task.revision, demonstrations=demonstrated))
    n_letters = int(asked.item_set.n_options.max())  # of these items alone
    asked = replace(asked, options=OptionTokens(prompted.options.ids[:n_letters], prompted.options.texts[:n_letters]))
    vars(asked)["prompts"] = prompted.prompts.only(chosen)
    assert planned.key is not None, "weights are fetched before a run is made"
    changes = {
        "items_hash": asked.item_set.digest,
        "tokens_hash": asked.prompts.digest,
        "option_token_ids": asked.options.ids,
        "option_tokens": asked.options.texts,
        "sampling": {"limit": limit} if limit else {},
    }
    return replace(planned, prompted=asked, key=planned.key.model_copy(update=changes))


def of_look(answered: Answered, n_items: int) -> Answered:
    """Return the part of a run over the items of all looks that belongs to the look with `n_items` of each task."""
    planned = at_look(answered.planned, n_items)
    assert planned.key is not None, "weights are fetched before a run is made"
    rows, run = np.flatnonzero(np.array(answered.planned.prompted.task.look_rank) < n_items), answered.run
    if len(rows) == len(run.logits):
        return answered
    note = f"{len(rows):,} of the {len(run.logits):,} answers of run {run.key.name}"
    env = run.env.model_copy(update={"notes": (*run.env.notes, note), "tokens": 0, "throughput": {}, "noise_floor": {}})
    logits = run.logits[rows, : len(planned.prompted.options.ids)]
    return Answered(planned, Run(planned.key, logits, run.logsumexp[rows], run.top_token[rows], env))


def decide(policy: Path, looks: tuple[int, ...], look: int, answered: Sequence[Answered]) -> Decision:
    """Return what the gate says of a compressed model.

    look     : which look it is, from 1.
    answered : the runs of the model and of the dense model over the items of the look.
    Raises HedgemarkError if the gate cannot be asked.
    """
    from store import init_store, open_writer

    with tempfile.TemporaryDirectory(prefix="hedgemark-look-") as folder:
        store = Path(folder) / "store"
        init_store(str(store))
        with open_writer(str(store)) as writer:
            for each in answered:
                writer.write(each.items, each.run, allow_nonfinite=True)
        asked = _gate(policy, store, sorted({each.run.key.task for each in answered}))
    if asked.returncode not in (*DECIDED, UNDECIDED):
        raise HedgemarkError(f"analyze gate could not decide at {looks[look - 1]:,} items: {_last_line(asked)}")
    result = DECIDED.get(asked.returncode, "inconclusive")
    return Decision(result, "; ".join(_why(json.loads(asked.stdout), result)), look, looks)


def _gate(policy: Path, store: Path, tasks: Sequence[str] = ()) -> "subprocess.CompletedProcess[str]":
    argv = [sys.executable, "-m", "analyzer", "gate", "--policy", str(policy), "--store", str(store), "--format", "json"]
    argv += [word for task in tasks for word in ("--task", task)]
    return subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)


def _last_line(asked: "subprocess.CompletedProcess[str]") -> str:
    lines = [line for line in asked.stderr.splitlines() if line.strip()]
    return lines[-1] if lines else f"exit {asked.returncode}"


def _why(records: list[dict[str, Any]], result: str) -> Iterator[str]:
    """Yield what each check found that has the result, with its interval at this look; of several scorers, each."""
    for record in records:
        if record["result"] != result:
            continue
        of = " ".join(str(record[name]) for name in ("task", "prompt", "scorer", "subject") if record[name] not in (None, "-"))
        if record["limit"] is None:
            if record["reason"]:
                yield f"{record['check']} ({of}): {record['reason']}"
            continue
        ends = " to ".join("open" if record[end] is None else f"{record[end]:.4g}" for end in ("amount_low", "amount_high"))
        reason = f", {record['reason']}" if record["reason"] else ""
        error = f", error {record['look_error']:.2g}" if record["look_error"] is not None else ""
        yield f"{record['check']} ({of}) {ends}, limit {record['limit']:g}{error}{reason}"
