"""Put the items of a task into every prompt that is wanted, for one model, and find the tokens of the options.

In: a model's tokenizer, a task, a `Request`.  Out: `PromptedTask`s. A prompt that this model or task cannot be asked in raises here.
"""

import re
from collections.abc import Iterator
from dataclasses import replace

from producer.prompts.chat import YE2024_LABELS, Chat, has_template
from producer.prompts.encode import OptionTokens, check_chat_options, label_tokens, option_tokens, render_prompt, ye2024_option_tokens
from producer.prompts.templates import instruction_for
from producer.request.planned import Model, PromptedTask
from producer.request.request import Request
from producer.tasks.source import TaskItems
from schemas.benchmark import BENCHMARK
from schemas.errors import UsageError
from schemas.fields import CHAT, NATIVE, YE2024, name_in_order
from schemas.itemset import build_item_set
from schemas.orders import n_turning


def all_prompted(model: Model, task: TaskItems, request: Request) -> Iterator[PromptedTask]:
    """Yield the task in every prompt and order of options. Raises UsageError for more orders than an item has."""
    fewest = min(task.items, key=lambda item: n_turning(list(item.choices.values())))
    if request.options_order > (n_orders := n_turning(list(fewest.choices.values()))):
        raise UsageError(
            f"--options-order {request.options_order} asks for more orders than item {fewest.id!r} of task {task.name!r} has: {n_orders} "
            f"of its {len(fewest.choices)} options change places; the most is --options-order {n_orders}"
        )
    for prompt in request.prompts:
        asked = _prompted(model, task, prompt, request)
        yield asked
        for order in range(1, request.options_order):
            turned = replace(asked, prompt=name_in_order(asked.prompt, order), order=order)
            turned.check_tokens()
            yield turned


def _prompted(model: Model, task: TaskItems, prompt: str, request: Request) -> PromptedTask:
    demonstrated = [item.id for item in task.demonstrations]
    if prompt == NATIVE:
        instruction, options = "", _label_tokens(model, task)
    elif prompt == YE2024:
        instruction, options = "", _ye2024_tokens(model, task)
    else:
        instruction = instruction_for(task.name, prompt, request.prompt_file)
        options = option_tokens(model.tokenizer, max(len(item.choices) for item in task.items))
    chat = Chat(request.chat_system, request.chat_turns) if request.chat else None
    if prompt == YE2024:
        chat = Chat(ye2024=YE2024_LABELS.get(task.name, "Context"))
    if chat and not has_template(model.tokenizer):
        raise UsageError(f"the tokenizer of {model.files.name!r} has no chat template; leave --chat out")
    if chat and not chat.ye2024:
        check_chat_options(model.tokenizer, render_prompt(model.tokenizer, instruction, task.demonstrations, task.items[0], chat), options)
    prompted = PromptedTask(
        model=model,
        task=task,
        prompt=f"{prompt}{CHAT}" if chat else prompt,
        instruction=instruction,
        options=options,
        chat=chat,
        item_set=build_item_set(task.name, task.items, revision=task.revision, demonstrations=demonstrated),
    )
    prompted.check_tokens()
    return prompted


def _label_tokens(model: Model, task: TaskItems) -> OptionTokens:
    """Return the option tokens of the task's own prompts."""
    assert task.native is not None, "a task is loaded with its own prompts where they are asked"
    texts, n_options = [task.native.contexts[item.id] for item in task.items], [len(item.choices) for item in task.items]
    try:
        return label_tokens(model.tokenizer, texts, task.native.labels[: max(n_options)], n_options)
    except UsageError as error:
        raise UsageError(f"cannot ask task {task.name!r} of model {model.files.name!r} with --prompt native: {error}") from error


def _ye2024_tokens(model: Model, task: TaskItems) -> OptionTokens:
    """Return the option tokens of the published benchmark's chat prompt. Raises UsageError for a task or model that it asks otherwise."""
    name = f"{model.files.name} {model.files.hub_id}"
    if task.name not in BENCHMARK:
        raise UsageError(
            f"--prompt ye2024 is the chat prompt of the published tasks: {', '.join(BENCHMARK)}; task {task.name!r} is another"
        )
    if "falcon" in name.lower():
        raise UsageError(f"--prompt ye2024: the published benchmark asks {model.files.name!r} without its chat template; use --prompt base")
    is_yi = re.search(r"(?<![a-z])yi(?![a-z])", name.lower()) is not None
    return ye2024_option_tokens(model.tokenizer, max(len(item.choices) for item in task.items), yi=is_yi)
