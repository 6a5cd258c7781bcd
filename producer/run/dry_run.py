"""Describe what requests would do: runs, tokens, time, memory, and which runs are stored. No weights are downloaded, nothing is written.

In: requests, a store's address.  Out: lines of text.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from producer.backends.transformers import budget, fits
from producer.engine.layer_source import Target
from producer.engine.throughput import matrix_peak, numpy_peak
from producer.methods import METHODS
from producer.models.weights_hash import BYTES, weight_bytes
from producer.request.bayes import bayes_runs
from producer.request.planned import Model, PlannedRun, PlannedText, RunGroup
from producer.request.request import Request
from producer.request.served_model import ServedModel
from producer.run.device_kinds import ASSUMED_SHARE, Workload, by_device_kind
from producer.run.known_answers import StoredAnswers, counts
from producer.run.plan import check_request, make_plan
from producer.run.text_runs import PROMPT as TEXT_PROMPT
from producer.run.until import with_looks
from schemas.errors import StoreNotFoundError
from schemas.fields import FIELDS
from store.shown import counted, terminal_lines

HEADER = (*FIELDS, "items", "found", "tokens", "truncated", "state")
STORED, TO_RUN, NOT_DOWNLOADED = "stored", "to run", "weights not downloaded"


class Row(NamedTuple):
    """One planned run as the cells of a table row, with the tokens and seconds that it takes, its items and those found in stored runs."""

    cells: tuple[str, ...]
    tokens: int = 0
    seconds: float = 0.0
    n_items: int = 0
    n_found: int = 0

    @property
    def state(self) -> str:
        """Whether the run is stored, still to run, or waits for its weights to be downloaded."""
        return self.cells[-1]


def describe_runs(requests: Sequence[Request], store_url: str, *, device_kinds: bool = False) -> Iterator[str]:
    """Yield the lines of a table of all planned runs, then their totals, then the memory that each model takes.

    Runs of methods whose libraries are not installed are left out, and the last lines say what to install, if any other run is left.

    device_kinds : whether to add what the runs would take on the GPUs that people rent.
    """
    for request in requests:
        check_request(request)
    requests, missing = _without_missing_libraries([with_looks(request) for request in requests])
    groups = [(request, group) for request in requests for group in make_plan(request, download=False)]
    stored = _stored_names(store_url)
    rows = [_bayes_row(run.key.name in stored, run.key.prompt, len(items)) for request in requests for items, run in bayes_runs(request)]
    for request, group in groups:
        answers = StoredAnswers(store_url, fresh=request.asks_anew)
        rows += [_row(run, group, stored, answers) for run in group.runs]
        rows += [_text_row(planned, group, stored) for planned in group.texts]
    rows = list(dict.fromkeys(rows))
    yield from terminal_lines([HEADER, *(row.cells for row in rows)])
    todo = [row for row in rows if row.state != STORED]
    tokens, seconds = sum(row.tokens for row in todo), sum(row.seconds for row in todo)
    duration = f", {_duration(seconds)}" if seconds else ""
    yield f"{counted(len(rows), 'run')}, {len(todo)} to run" + (f", {tokens:,} tokens{duration}" if todo else "")
    if n_found := sum(row.n_found for row in todo):
        yield counts(sum(row.n_items for row in todo), n_found)
    if device_kinds:
        yield from by_device_kind(_workloads([group for _, group in groups], todo))
    groups.sort(key=lambda pair: len(pair[1].levels))  # so that each model's line describes its group with the most levels in memory
    for name, memory in {group.model.files.name: _memory(group, request) for request, group in groups}.items():
        yield f"{name}: {memory}"
    yield from (f"not in this table: {reason}" for reason in missing)


def _without_missing_libraries(requests: Sequence[Request]) -> tuple[list[Request], list[str]]:
    """Return the requests without the methods whose libraries are missing, and what to install; all requests if none would be left."""
    missing = {name: METHODS[name].missing_library() for request in requests for name in request.methods if name in METHODS}
    left = [replace(request, methods=tuple(name for name in request.methods if not missing.get(name))) for request in requests]
    if not any(request.methods for request in left):
        return list(requests), []
    return [request for request in left if request.methods], [reason for reason in missing.values() if reason]


def _row(run: PlannedRun, group: RunGroup, stored: set[str], answers: StoredAnswers) -> Row:
    prompted, prompts = run.prompted, run.prompted.prompts
    state = NOT_DOWNLOADED if run.key is None else STORED if run.key.name in stored else TO_RUN
    known = answers.to(run) if state == TO_RUN else None
    tokens = prompts.tokens if known is None else prompts.only(known.missing).tokens
    n_items, n_known = len(prompted.item_set), 0 if known is None else int(known.is_known.sum())
    names = (prompted.model.files.name, group.method.name, run.level.text, prompted.task.name, prompted.prompt)
    sizes = (f"{n_items:,}", f"{n_known:,}", f"{tokens:,}", str(prompts.truncated))
    return Row((*names, *sizes, state), tokens, _seconds(group, tokens), n_items, n_known)


def _text_row(planned: PlannedText, group: RunGroup, stored: set[str]) -> Row:
    state = NOT_DOWNLOADED if planned.key is None else STORED if planned.key.name in stored else TO_RUN
    text, n_tokens = planned.text, planned.text.windows.n_tokens
    names = (group.model.files.name, group.method.name, planned.level.text, text.text.task, TEXT_PROMPT)
    return Row((*names, f"{len(text.item_set):,}", "0", f"{n_tokens:,}", "0", state), n_tokens, _seconds(group, n_tokens))


def _workloads(groups: Iterable[RunGroup], todo: Sequence[Row]) -> list[Workload]:
    """Return the parameters of each model, and the tokens of its runs that are not stored."""
    models = {group.model.files.name: group.model for group in groups if isinstance(group.model, Model)}
    tokens = Counter[str]()
    for row in todo:
        tokens[row.cells[0]] += row.tokens
    return [Workload(name, model.weight_bytes // BYTES[model.dtype], tokens[name]) for name, model in models.items()]


def _bayes_row(is_stored: bool, prompt: str, n_items: int) -> Row:
    return Row(("bayes", "bayes", "-", "urn", prompt, f"{n_items:,}", "0", "0", "0", STORED if is_stored else TO_RUN))


def _seconds(group: RunGroup, tokens: int) -> float:
    """Return the seconds these tokens take at `ASSUMED_SHARE` of this device's peak speed, if every weight is used for every token."""
    model = group.model
    if isinstance(model, ServedModel):
        return 0.0  # nobody knows how fast the server is
    weights = model.weight_bytes / BYTES[model.dtype]
    return 2 * weights * tokens / (ASSUMED_SHARE * _peak(model))


def _peak(model: Model) -> float:
    """Return the operations per second of the model's device; for a CPU in float32 by numpy, since importing torch takes longer."""
    if (model.device, model.dtype) == ("cpu", "float32"):
        return numpy_peak()
    import torch

    return matrix_peak(Target(model.device, getattr(torch, model.dtype)))


def _duration(seconds: float) -> str:
    amount, unit = (seconds / 3600, "h") if seconds >= 7200 else (seconds / 60, "min") if seconds >= 120 else (seconds, "s")
    return f"about {amount:.0f} {unit} of inference (assuming half of peak speed); compression time not included"


def _memory(group: RunGroup, request: Request) -> str:
    model = group.model
    if isinstance(model, ServedModel):
        server, most = f"{model.identity.kind} {model.identity.version}", request.settings.concurrency
        return f"asked at {model.client.root}, {server}, by up to {most} requests at a time"
    text = f"{_size(model.weight_bytes)} of weights as {model.dtype} on {model.device}"
    if not weight_bytes(model.files):
        text = f"weights not on this machine, {model.files.hub_id} would be downloaded; {text}"
    if request.backend == "vllm":
        return f"{text}, less where vLLM keeps them packed; vLLM distributes them"
    if fits(model, len(group.levels), request.settings):
        return f"{text}, all in memory at once"
    tokens = max((run.prompted.prompts.tokens for run in group.runs), default=0)
    hidden_states = _size(tokens * model.config.get_text_config().hidden_size * BYTES[model.dtype])
    mapped = group.is_dense and not model.files.gguf  # then the weights are read from their files layer by layer, not kept in RAM
    on_host = f"up to {hidden_states} of intermediate results" + ("" if mapped else " and the weights")
    return f"{text}, layer by layer within {_size(budget(model, request.settings))}; {on_host} in RAM"


def _size(n_bytes: int) -> str:
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if n_bytes >= size:
            return f"{n_bytes / size:,.1f} {unit}"
    return f"{n_bytes} B"


def _stored_names(store_url: str) -> set[str]:
    from store import open_reader  # Zarr and Icechunk take as long to import as all that a request can be refused for

    try:
        return set(open_reader(store_url).catalog["name"].to_list())
    except StoreNotFoundError:
        return set()  # `produce` creates the store when it writes the first run
