"""What a request would do: runs, tokens, memory, and what the store already holds. Nothing is downloaded, loaded or written.

In: a `Request`, a store's address.  Out: lines of text.
"""

from collections.abc import Iterator

from producer.bayes import bayes_runs
from producer.plan import Cell, Group, make_plan
from producer.produce import check_request
from producer.request import Request
from producer.weights import weight_bytes, weight_bytes_as
from schemas.errors import StoreNotFoundError
from store import Reader, open_reader

HEADER = ("model", "method", "level", "task", "prompt", "items", "tokens", "cut", "state")


def describe_plan(request: Request, store_url: str) -> Iterator[str]:
    """Yield the plan as lines of a table, then its sums."""
    check_request(request)
    groups = make_plan(request, download=False)
    stored = _stored_names(store_url)
    rows = [_bayes_row(run.key.name in stored, run.key.prompt, len(items)) for items, run in bayes_runs(request)]
    rows += [_row(cell, group, stored) for group in groups for cell in group.cells]
    yield from _table([HEADER, *rows])
    n_new = sum(row[-1] != "stored" for row in rows)
    tokens = sum(cell.question.prompts.tokens for group in groups for cell in group.cells if _state(cell, stored) != "stored")
    yield f"{len(rows)} runs, {n_new} to make, {tokens:,} tokens"
    for name, size in {g.model.files.name: _memory(g) for g in groups}.items():
        yield f"{name}: {size}"


def _row(cell: Cell, group: Group, stored: set[str]) -> tuple[str, ...]:
    question = cell.question
    prompts = question.prompts
    return (
        question.model.files.name,
        group.method.name,
        cell.level.text,
        question.task.name,
        question.prompt,
        f"{len(question.item_set):,}",
        f"{prompts.tokens:,}",
        str(prompts.truncated),
        _state(cell, stored),
    )


def _bayes_row(is_stored: bool, prompt: str, n_items: int) -> tuple[str, ...]:
    return ("bayes", "bayes", "-", "urn", prompt, f"{n_items:,}", "0", "0", "stored" if is_stored else "to make")


def _state(cell: Cell, stored: set[str]) -> str:
    if cell.key is None:
        return "weights not here yet"
    return "stored" if cell.key.name in stored else "to make"


def _memory(group: Group) -> str:
    if not weight_bytes(group.model.files):
        return f"weights not on this machine, {group.model.files.hub_id} would be downloaded"
    size = weight_bytes_as(group.model.files, group.model.config, group.model.dtype)
    return f"{size / 1e9:.2f} GB of weights as {group.model.dtype} on {group.model.device}"


def _stored_names(store_url: str) -> set[str]:
    try:
        reader: Reader = open_reader(store_url)
    except StoreNotFoundError:
        return set()  # the first produce makes it
    return set(reader.catalog["name"].to_list())


def _table(rows: list[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
