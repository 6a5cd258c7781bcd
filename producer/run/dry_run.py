"""What requests would do: runs, tokens, time, memory, and what the store already holds. Nothing is downloaded, loaded or written.

In: what is asked, a store's address.  Out: lines of text.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from producer.models.weights_hash import BYTES, weight_bytes
from producer.request.bayes import bayes_runs
from producer.request.parse import Asked
from producer.run.plan import Cell, Group, is_dense, make_plan
from producer.run.produce import check_request
from schemas.errors import StoreNotFoundError
from store import open_reader

HEADER = ("model", "method", "level", "task", "prompt", "items", "tokens", "cut", "state")
STORED, TO_MAKE, AWAITED = "stored", "to make", "weights not here yet"
ASSUMED_SHARE = 0.5  # of the matrix peak; what is reached depends on the model and is stored with every run


class Row(NamedTuple):
    """One run of the plan, as text, with what it costs if it is still to be made."""

    cells: tuple[str, ...]
    tokens: int = 0
    seconds: float = 0.0

    @property
    def state(self) -> str:
        """Whether the store holds the run."""
        return self.cells[-1]


def describe_plan(plan: Sequence[Asked], store_url: str) -> Iterator[str]:
    """Yield the plan as lines of a table, then its sums and each model's memory under its settings."""
    for asked in plan:
        check_request(asked.request)
    stored = _stored_names(store_url)
    groups = [(asked, group) for asked in plan for group in make_plan(asked.request, download=False)]
    rows = [_bayes_row(run.key.name in stored, run.key.prompt, len(items)) for asked in plan for items, run in bayes_runs(asked.request)]
    rows = list(dict.fromkeys(rows + [_row(cell, group, stored) for _, group in groups for cell in group.cells]))
    yield from _table([HEADER, *(row.cells for row in rows)])
    todo = [row for row in rows if row.state != STORED]
    tokens, seconds = sum(row.tokens for row in todo), sum(row.seconds for row in todo)
    yield f"{len(rows)} runs, {len(todo)} to make" + (f", {tokens:,} tokens, {_duration(seconds)}" if todo else "")
    groups.sort(key=lambda pair: len(pair[1].levels()))  # the last one of a model speaks for it, with most to hold
    for name, memory in {group.model.files.name: _memory(group, asked) for asked, group in groups}.items():
        yield f"{name}: {memory}"


def _row(cell: Cell, group: Group, stored: set[str]) -> Row:
    question, prompts = cell.question, cell.question.prompts
    state = AWAITED if cell.key is None else STORED if cell.key.name in stored else TO_MAKE
    names = (question.model.files.name, group.method.name, cell.level.text, question.task.name, question.prompt)
    sizes = (f"{len(question.item_set):,}", f"{prompts.tokens:,}", str(prompts.truncated))
    return Row((*names, *sizes, state), prompts.tokens, _seconds(group, prompts.tokens))


def _bayes_row(is_stored: bool, prompt: str, n_items: int) -> Row:
    return Row(("bayes", "bayes", "-", "urn", prompt, f"{n_items:,}", "0", "0", STORED if is_stored else TO_MAKE))


def _seconds(group: Group, tokens: int) -> float:
    """Return the time these tokens take at the assumed share of this device's matrix peak; every weight counts as used."""
    import torch

    from producer.engine.layer_source import Target
    from producer.engine.throughput import matrix_peak

    model = group.model
    weights = model.weight_bytes / BYTES[model.dtype]
    return 2 * weights * tokens / (ASSUMED_SHARE * matrix_peak(Target(model.device, getattr(torch, model.dtype))))


def _duration(seconds: float) -> str:
    amount, unit = (seconds / 3600, "h") if seconds >= 7200 else (seconds / 60, "min") if seconds >= 120 else (seconds, "s")
    return f"about {amount:.0f} {unit} at half of this device's matrix peak, without compressing"


def _memory(group: Group, asked: Asked) -> str:
    from producer.backends.transformers import budget, fits

    model = group.model
    text = f"{_size(model.weight_bytes)} of weights as {model.dtype} on {model.device}"
    if not weight_bytes(model.files):
        text = f"weights not on this machine, {model.files.hub_id} would be downloaded; {text}"
    if asked.request.backend == "vllm":
        return f"{text}, less where vLLM keeps them packed, shared out by vLLM"
    room = budget(model, asked.settings)
    if fits(model, len(group.levels()), asked.settings):
        return f"{text}, all in memory at once"
    tokens = max(cell.question.prompts.tokens for cell in group.cells)
    waiting = tokens * model.config.hidden_size * BYTES[model.dtype]
    mapped = is_dense(group) and not model.files.gguf  # then the weights are read from their files as they are needed
    there = f"{'' if mapped else 'the weights and '}up to {_size(waiting)} of hidden states wait on the host"
    return f"{text}, layer by layer within {_size(room)}; {there}"


def _size(n_bytes: int) -> str:
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if n_bytes >= size:
            return f"{n_bytes / size:,.1f} {unit}"
    return f"{n_bytes} B"


def _stored_names(store_url: str) -> set[str]:
    try:
        return set(open_reader(store_url).catalog["name"].to_list())
    except StoreNotFoundError:
        return set()  # the first produce makes it


def _table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
