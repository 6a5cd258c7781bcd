"""Plan all runs of a request, with their keys, before any weights are loaded.

In: a `Request`.  Out: `RunGroup`s of `PlannedRun`s, those of one model together. Whatever can be wrong with a request (names, levels,
items, option tokens, a method that does not support a model) raises here, before anything is written.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from producer.backends import BACKENDS
from producer.machine.environment import has_gpu_driver
from producer.methods import METHODS, Method
from producer.methods.shared.method_options import parse_chosen
from producer.models.embedded import EmbeddedConfig, EmbeddedTokenizer, is_embedded
from producer.models.find import REFERENCE, ModelFiles, fetch_weights, find_model
from producer.models.load import load_config, load_tokenizer
from producer.models.stored_as import stored_dtype
from producer.models.weights_hash import weight_bytes, weights_hash
from producer.prompts.encode import prompt_hash
from producer.prompts.templates import PROMPTS
from producer.request.bayes import BAYES
from producer.request.planned import Model, ModelText, PlannedRun, PlannedText, PromptedTask, RunGroup
from producer.request.request import Request, check_names
from producer.request.served_model import ServedModel, open_served, served_level
from producer.request.text_source import EMBEDDED as EMBEDDED_TEXT
from producer.request.vllm_options import vllm_options
from producer.run.levels import choose_levels, levels_for
from producer.run.prompted import all_prompted
from producer.run.text_runs import check_text_overlap, model_text, text_key
from producer.tasks import EMBEDDED
from producer.tasks.source import TaskItems, draw, in_looks, load_task
from schemas.benchmark import BENCHMARK
from schemas.errors import UsageError
from schemas.fields import NATIVE, YE2024
from schemas.levels import Level
from schemas.run import CHECKPOINT, RunKey

log = logging.getLogger(__name__)

SERVER = "server"
EMBEDDED_TEXT_TASK = "urn"  # whose compression data are of the same kind as the embedded text
DTYPES = ("auto", "float32", "bfloat16", "float16")


class _Compression(NamedTuple):
    method: Method
    level: Level
    data: Any


def make_plan(request: Request, *, download: bool = True) -> list[RunGroup]:
    """Return the groups of all runs except those of the model `bayes`, which `producer.request.bayes` makes.

    download : whether to fetch weights that are not on this machine; a run has no key without them.
    """
    if request.backend == SERVER:
        return [_served_group(request)]
    models = [name for name in request.models if name != BAYES]
    if not models:
        return []
    chosen = choose_levels(request.methods, request.levels, request.caches)
    files = {name: find_model(name) for name in models}  # files before configs, which take transformers and seconds to import
    tasks = {name: _load(name, request) for name in tasks_of(request.tasks, request.text, models)}
    for task in tasks.values():
        if request.limit > len(task.items):
            log.warning("%s: --limit %d, and it has %d items: all are asked", task.name, request.limit, len(task.items))
    model_by_name = {name: _open_model(files[name], request, chosen, only_described=not download) for name in models}
    prompted = [
        (model, [each for task in tasks_of(request.tasks, request.text, [name]) for each in all_prompted(model, tasks[task], request)])
        for name, model in model_by_name.items()
    ]
    for note in dict.fromkeys(note for _, tasks_of_model in prompted for each in tasks_of_model for note in each.notes):
        log.warning("%s", note)
    groups = [[*_groups(model, tasks_of_model, chosen, request, download)] for model, tasks_of_model in prompted]
    return [replace(group, again=group is not of_model[-1]) for of_model in groups for group in of_model]


def check_request(request: Request) -> None:
    """Raise UsageError for an unknown prompt or backend, or for a prompt that cannot be asked in the way wanted."""
    check_names("prompt", request.prompts, [*PROMPTS, NATIVE, YE2024])
    if NATIVE in request.prompts and (request.chat or request.options_order > 1):
        option = "--chat" if request.chat else "--options-order"
        raise UsageError(
            f"{option} cannot change --prompt native, which is asked word by word as its task writes it; ask it in a run of its own"
        )
    if YE2024 in request.prompts and not (request.chat and not request.chat_turns and not request.chat_system):
        raise UsageError(
            "--prompt ye2024 is the published benchmark's chat prompt as it is: it needs --chat, without --chat-turns and --chat-system; "
            "its prompt without a chat template is --prompt base"
        )
    if request.text and CHECKPOINT in request.methods:
        raise UsageError("--text compares a compressed model with its own dense model, and a checkpoint has none; ask it a --task")
    check_names("backend", [request.backend], [*BACKENDS])
    _check_chosen(request)


def _check_chosen(request: Request) -> None:
    """Raise UsageError for a setting that none of the methods has, or that one of them does not take."""
    chosen = parse_chosen(request.chosen)
    if chosen:
        check_names("method", request.methods, [*METHODS])
    for name, value in chosen.items():
        owners = [METHODS[method] for method in request.methods if name in METHODS[method].options]
        if not owners:
            known = "; ".join(f"{method} has {', '.join(METHODS[method].options) or 'none'}" for method in request.methods)
            raise UsageError(f"--set {name}={value} is no setting of {' or '.join(request.methods)} ({known})")
        for owner in owners:
            owner.with_chosen({name: value})


def _served_group(request: Request) -> RunGroup:
    """Return the runs of the model behind an address. The server is asked what it is, since that is part of the key."""
    check_names("method", request.methods, [*METHODS])
    try:
        BACKENDS[SERVER].check(None, request.methods)
    except UsageError as error:
        raise UsageError(f"cannot run method {request.methods[0]!r} on the model at {request.url}: {error}") from error
    tasks = [_load(name, request) for name in tasks_of(request.tasks, request.text, [request.tokenizer])]
    model = open_served(request)
    method = METHODS[request.methods[0]]
    level = served_level(model, method.name, request)
    prompted = [each for task in tasks for each in all_prompted(model, task, request)]
    for note in dict.fromkeys(note for each in prompted for note in each.notes):
        log.warning("%s", note)
    shared = _shared_key(model, _Compression(method, level, None), "", request)
    runs = [PlannedRun(each, level, _key(each, shared)) for each in prompted]
    return RunGroup(model, method, None, request.seed, runs)


def tasks_of(tasks: Sequence[str], text: str, models: Sequence[str]) -> list[str]:
    """Return the requested tasks, or the default ones: the embedded tasks for embedded models, the published tasks for others.

    A request for a text has none by default.
    """
    if tasks or text:
        return list(dict.fromkeys(tasks))
    embedded = [*EMBEDDED] if any(name in REFERENCE for name in models) else []
    published = [*BENCHMARK] if any(name not in REFERENCE for name in models) else []
    return embedded + published


def _load(name: str, request: Request) -> TaskItems:
    task = load_task(name, request.data, request.columns, native=NATIVE in request.prompts)
    return in_looks(task, request.looks[-1], request.seed) if request.looks else draw(task, request.limit, request.seed)


def _open_model(files: ModelFiles, request: Request, chosen: Mapping[str, list[Level]], *, only_described: bool) -> Model:
    from_files_alone, name = only_described and is_embedded(files), files.name
    config: Any = EmbeddedConfig(files) if from_files_alone else load_config(files)
    for method in (METHODS[method] for method, levels in chosen.items() if not levels):
        if (level := method.default_for(config).text) != method.default_level:
            log.warning("%s: level of %s is %s; the groups of %s do not divide every layer", name, method.name, level, method.default_level)
    _check_model(name, config, request, levels_for(config, chosen, request.caches))
    tokenizer: Any = EmbeddedTokenizer(files) if from_files_alone else load_tokenizer(files)
    device, vllm = _choose_device(request.device), vllm_options(request, files)
    if vllm.lora:  # with its adapter it is another model, which has dense and compressed runs of its own
        files = replace(files, name=f"{name}+{vllm.lora.resolve().name}")
    return Model(files, config, tokenizer, device, _choose_dtype(request.dtype, device, config), vllm=vllm)


def _check_model(name: str, config: Any, request: Request, levels: dict[str, list[Level]]) -> None:
    """Raise UsageError, naming method, model and reason, if a method or the backend does not support this model."""
    chosen = parse_chosen(request.chosen)
    for method, levels_of_method in levels.items():
        for level in levels_of_method:
            METHODS[method].with_chosen(chosen).check_config(config, level, name)
    try:
        BACKENDS[request.backend].check(config, request.methods)
    except UsageError as error:
        methods = ", ".join(map(repr, request.methods))
        raise UsageError(f"cannot run method {methods} on model {name!r}: {error}") from error


def _choose_device(device: str) -> str:
    """Return the device to run on. Raises UsageError for a device that cannot be used."""
    if device == "cpu" or (device == "auto" and not has_gpu_driver()):
        return "cpu"
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        probe = torch.ones(1, device=device)
        probe.item()  # fails for "meta", a torch device that holds no numbers
        return str(probe.device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(f"device {device!r} cannot be used ({str(error).splitlines()[0]})") from error


def _choose_dtype(dtype: str, device: str, config: Any) -> str:
    """Return the dtype to run in: "auto" means float32 on a CPU and the checkpoint's own dtype elsewhere."""
    check_names("dtype", [dtype], DTYPES)
    if dtype != "auto":
        return dtype
    return "float32" if device == "cpu" else stored_dtype(config)


def _groups(
    model: Model, prompted: Sequence[PromptedTask], chosen: Mapping[str, list[Level]], request: Request, download: bool
) -> Iterator[RunGroup]:
    text = model_text(model, request.text) if request.text else None
    if download:
        fetch_weights(model.files)
    weights_missing = not download and model.files.hub_id and not weight_bytes(model.files)
    weights = "" if weights_missing else weights_hash(model.files)
    by_source: list[tuple[Any, list[PromptedTask], ModelText | None]] | None = None
    for name, levels_of_method in levels_for(model.config, chosen, request.caches).items():
        method = METHODS[name].with_chosen(parse_chosen(request.chosen))
        without_data = [level for level in levels_of_method if not method.needs_data(level)]
        with_data = [level for level in levels_of_method if method.needs_data(level)]
        served = [_Served(without_data, None, prompted, text)] if without_data else []
        if with_data and by_source is None:
            by_source = list(_by_source(model, prompted, text, request))
        served += [_Served(with_data, *each) for each in (by_source or [] if with_data else [])]
        for levels_served, data, answered, read in served:
            runs, texts = [], []
            for level in levels_served:
                shared = _shared_key(model, _Compression(method, level, data), weights, request)
                runs += [PlannedRun(each, level, _key(each, shared) if weights else None) for each in answered]
                texts += [PlannedText(read, level, text_key(read, shared) if weights else None)] if read else []
            yield RunGroup(model, method, data, request.seed, runs, texts)


class _Served(NamedTuple):
    """What the models of some levels answer: tasks, and a text if it is read with these compression data."""

    levels: list[Level]
    data: Any
    prompted: Sequence[PromptedTask]
    text: ModelText | None


def _by_source(
    model: Model, prompted: Sequence[PromptedTask], text: ModelText | None, request: Request
) -> Iterator[tuple[Any, list[PromptedTask], ModelText | None]]:
    """Yield compression data with the prompted tasks, and the text, that the models compressed with these data answer."""
    from producer.methods.shared.compression_data import check_overlap, default_source, draw_compression_data, too_few_tokens

    by_source: dict[str, list[PromptedTask]] = {}
    source_name = "" if request.compression_data == "auto" else request.compression_data
    for each in prompted:
        by_source.setdefault(source_name or default_source(each.task.name), []).append(each)
    text_source = (source_name or default_source(EMBEDDED_TEXT_TASK if text.text.name == EMBEDDED_TEXT else text.text.task)) if text else ""
    if text:
        by_source.setdefault(text_source, [])
    for source, answered in by_source.items():
        data = draw_compression_data(source, model.tokenizer, seed=request.seed)
        if request.compression_data == "auto" and source == "packaged":
            log.warning("compression data: 'packaged', as the Hub does not answer; the papers take 128 x 2,048 tokens, as c4 gives them")
        if note := too_few_tokens(data, model.config):
            log.warning("%s: %s", model.files.name, note)
        for task in {each.task.name: each.task for each in answered}.values():
            check_overlap(data, task.items)
        read = text if source == text_source else None
        if read:
            check_text_overlap(data.name, data.text, read)
        yield data, answered, read


def _shared_key(model: Model, compression: _Compression, weights: str, request: Request) -> dict[str, Any]:
    """Return the fields of a run's key that do not depend on what is asked."""
    chosen = compression.method.settings(compression.level, model.config)
    return {
        "model": model.files.name,
        "revision": model.files.revision,
        "weights_hash": weights,
        "method": compression.method.name,
        "level": compression.level.text,
        "method_settings": {**chosen, **_served_settings(model), **model.vllm.in_key()},
        "compression_data_hash": compression.data.digest if compression.data else "",
        "dtype": model.dtype,
        "backend": request.backend,
        "seed": request.seed,
    }


def _key(prompted: PromptedTask, shared: Mapping[str, Any]) -> RunKey:
    model, task = prompted.model, prompted.task
    return RunKey(
        **shared,
        task=task.name,
        items_hash=prompted.item_set.digest,
        prompt=prompted.prompt,
        prompt_hash=prompted.native.digest
        if prompted.native
        else prompt_hash(model.tokenizer, prompted.instruction, task.demonstrations, prompted.chat),
        tokens_hash=prompted.prompts.digest,
        option_token_ids=prompted.options.ids,
        option_tokens=prompted.options.texts,
        sampling={"limit": task.limit} if task.limit else {},
    )


def _served_settings(model: Model) -> dict[str, Any]:
    """Return what a server says of itself; nothing for a model whose weights are hashed."""
    return model.identity.in_key() if isinstance(model, ServedModel) else {}
