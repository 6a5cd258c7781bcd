"""The plan: every run of a request with its key, known before any weight is loaded.

In: a `Request`.  Out: `Group`s of `Cell`s; the cells of a group are answered by one compressed model. Whatever can be wrong with a
request (names, levels, items, option tokens, a method that cannot do a model) is found here, and nothing has been written then.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from producer.methods import METHODS, Method
from producer.models.find import ModelFiles, fetch_weights, find_model, load_config, load_tokenizer
from producer.models.weights_hash import weight_bytes, weight_bytes_as, weights_hash
from producer.prompts.encode import Prompts, encode, prompt_hash
from producer.prompts.option_tokens import OptionTokens, option_tokens
from producer.prompts.templates import instruction_for
from producer.request.bayes import BAYES
from producer.request.choices import choose_device, choose_dtype, choose_levels, choose_tasks
from producer.request.request import Request
from producer.tasks.source import TaskItems, draw, load_task
from schemas.errors import UsageError
from schemas.itemset import ItemSet, build_item_set
from schemas.levels import Level
from schemas.run import DENSE, RunKey


@dataclass(frozen=True)
class Model:
    """A model as planned: files, config and tokenizer, no weights."""

    files: ModelFiles
    config: Any
    tokenizer: Any
    device: str
    dtype: str

    @cached_property
    def weight_bytes(self) -> int:
        """What the weights take in memory; building the model to count them takes up to a second for a large one."""
        return weight_bytes_as(self.files, self.config, self.dtype)


@dataclass(frozen=True)
class Question:
    """A task under a prompt, for one model: what is asked and which tokens answer it."""

    model: Model
    task: TaskItems
    prompt: str
    instruction: str
    options: OptionTokens
    item_set: ItemSet

    @cached_property
    def prompts(self) -> Prompts:
        """Token ids, encoded when first needed: a run found in the store never needs them."""
        context = getattr(self.model.config, "max_position_embeddings", None) or self.model.tokenizer.model_max_length
        return encode(self.model.tokenizer, self.instruction, self.task.demonstrations, self.task.items, int(context))


@dataclass(frozen=True)
class Cell:
    """One run to make. `key` is None in a plan without weights at hand, since their hash is part of it."""

    question: Question
    level: Level
    key: RunKey | None


@dataclass(frozen=True)
class Group:
    """Cells of one model, method and compression data, by level: what one loading of the weights serves."""

    model: Model
    method: Method
    data: Any
    seed: int
    cells: Sequence[Cell] = ()

    def levels(self) -> list[Level]:
        """Return the levels in order, each once."""
        return list(dict.fromkeys(cell.level for cell in self.cells))


class _Compression(NamedTuple):
    method: Method
    level: Level
    data: Any


def make_plan(request: Request, *, download: bool = True) -> list[Group]:
    """Return the groups of all runs that need a model; `bayes` is planned in `producer.request.bayes`.

    download : whether weights that are not on this machine are fetched; without them a run has no key yet.
    """
    models = [name for name in request.models if name != BAYES]
    if not models:
        return []
    pairs = choose_levels(request.methods, request.levels)
    opened = {name: _open_model(name, request, pairs) for name in models}
    tasks = {name: draw(load_task(name, request.data), request.limit, request.seed) for name in choose_tasks(request, models)}
    planned = [
        (model, [_question(model, tasks[t], prompt, request) for t in choose_tasks(request, [name]) for prompt in request.prompts])
        for name, model in opened.items()
    ]
    return [group for model, questions in planned for group in _groups(model, questions, pairs, request, download)]


def _open_model(name: str, request: Request, pairs: dict[str, list[Level]]) -> Model:
    files = find_model(name)
    config = load_config(files)
    _check_model(files.name, config, request, pairs)
    device = choose_device(request.device)
    return Model(files, config, load_tokenizer(files), device, choose_dtype(request.dtype, device, config))


def _check_model(name: str, config: Any, request: Request, pairs: dict[str, list[Level]]) -> None:
    """Raise UsageError, naming method, model and reason, where a method or the backend cannot do this model."""
    from producer.backends import BACKENDS

    for method, levels in pairs.items():
        for level in levels:
            METHODS[method].check_config(config, level, name)
    try:
        BACKENDS[request.backend].check(config, request.methods)
    except UsageError as error:
        methods = ", ".join(map(repr, request.methods))
        raise UsageError(f"cannot run method {methods} on model {name!r}: {error}") from error


def _question(model: Model, task: TaskItems, prompt: str, request: Request) -> Question:
    demonstrated = [item.id for item in task.demonstrations]
    return Question(
        model=model,
        task=task,
        prompt=prompt,
        instruction=instruction_for(task.name, prompt, request.prompt_file),
        options=option_tokens(model.tokenizer, max(len(item.choices) for item in task.items)),
        item_set=build_item_set(task.name, task.items, revision=task.revision, demonstrations=demonstrated),
    )


def _groups(
    model: Model, questions: Sequence[Question], pairs: dict[str, list[Level]], request: Request, download: bool
) -> Iterator[Group]:
    if download:
        fetch_weights(model.files)
    awaited = not download and model.files.hub_id and not weight_bytes(model.files)
    weights = "" if awaited else weights_hash(model.files)
    for name, levels in pairs.items():
        method = METHODS[name]
        for data, asked in _by_source(method, model, questions, request):
            cells = [
                Cell(question, level, _key(question, _Compression(method, level, data), weights, request) if weights else None)
                for level in levels
                for question in asked
            ]
            yield Group(model, method, data, request.seed, cells)


def _by_source(method: Method, model: Model, questions: Sequence[Question], request: Request) -> list[tuple[Any, list[Question]]]:
    """Return compression data with the questions answered by models compressed with it."""
    from producer.methods.shared.compression_data import check_overlap, default_source, draw_compression_data

    if not method.needs_data:
        return [(None, list(questions))]
    by_source: dict[str, list[Question]] = {}
    for question in questions:
        source = default_source(question.task.name) if request.compression_data == "auto" else request.compression_data
        by_source.setdefault(source, []).append(question)
    drawn = []
    for source, asked in by_source.items():
        data = draw_compression_data(source, model.tokenizer, seed=request.seed)
        for task in {q.task.name: q.task for q in asked}.values():
            check_overlap(data, task.items)
        drawn.append((data, asked))
    return drawn


def _key(question: Question, compression: _Compression, weights: str, request: Request) -> RunKey:
    model, task = question.model, question.task
    return RunKey(
        model=model.files.name,
        revision=model.files.revision,
        weights_hash=weights,
        method=compression.method.name,
        level=compression.level.text,
        method_settings=compression.method.settings_for(compression.level),
        compression_data_hash=compression.data.digest if compression.data else "",
        task=task.name,
        items_hash=question.item_set.digest,
        prompt=question.prompt,
        prompt_hash=prompt_hash(question.instruction, task.demonstrations),
        option_token_ids=question.options.ids,
        option_tokens=question.options.texts,
        dtype=model.dtype,
        backend=request.backend,
        seed=request.seed,
        sampling={"limit": task.limit} if task.limit else {},
    )


def is_dense(group: Group) -> bool:
    """Return whether the group's model is run as it is."""
    return group.method.name == DENSE
