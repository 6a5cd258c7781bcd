"""The prompts of lm-evaluation-harness itself, for `--prompt native`: description, demonstrations and question as its own tasks word them.

In: its tasks, with their documents.  Out: `Native`. The harness scores an option by the text that follows the context; one token is read
here, so the options must be the same labels in every document, such as A to D. Demonstrations are drawn as the harness draws them unless
told otherwise: their number is the task's own, their seed 1234.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from schemas.digest import json_digest
from schemas.errors import ItemError, UsageError
from schemas.items import Item

SEED = 1234  # the harness's own `fewshot_random_seed`


class Native(NamedTuple):
    """What the harness asks, for all documents of a task, drawn by `--limit` or not.

    contexts     : the text before the option, by the item's id, without white space at its end.
    labels       : the text that follows for each option in order, the white space before it included, such as " A".
    digest       : SHA-256 over all contexts and labels.
    answer_shown : number of items that stand with their answer among their own demonstrations.
    """

    contexts: Mapping[str, str]
    labels: tuple[str, ...]
    digest: str
    answer_shown: int


def native_prompt(asked: Iterable[tuple[Any, Sequence[tuple[Item, Mapping[str, Any]]]]]) -> Native:
    """Return the harness's own prompts. asked : each of its tasks with its items and their documents, in its order.

    Raises UsageError where options are whole texts that differ between documents; ItemError for a context that cannot be made.
    """
    contexts: dict[str, str] = {}
    labels: list[str] = []
    answer_shown = 0
    for task, documents in asked:
        task.set_fewshot_seed(seed=SEED)
        for item, document in documents:
            context, options = _requests(task, document, len(item.choices))
            labels += options[len(labels) :]
            if options != labels[: len(options)]:
                number = next(k for k, option in enumerate(options) if option != labels[k])
                raise UsageError(
                    f"--prompt native: task {task.config.task!r} of lm-evaluation-harness scores the texts of its options (item "
                    f"{item.id!r}: {options[number][:40]!r}, elsewhere {labels[number][:40]!r}); one token is read here, so they would "
                    "have to be the same labels in every document; ask it with --prompt base"
                )
            contexts[item.id] = context
            question = str(task.doc_to_text(document)).rstrip()
            answer_shown += f"{question}{options[item.answer_index]}" in context
    return Native(contexts, tuple(labels), json_digest([contexts, labels]), answer_shown)


def _requests(task: Any, document: Mapping[str, Any], n_options: int) -> tuple[str, list[str]]:
    """Return the context of a document and the text that the harness scores after it for each option."""
    try:
        context = task.fewshot_context(document, task.config.num_fewshot or 0, gen_prefix=task.doc_to_prefix(document))
        requests = task.construct_requests(document, context)[:n_options]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError) as error:
        raise ItemError(f"task {task.config.task!r} of lm-evaluation-harness makes no prompt of a document: {error}") from error
    text = context.rstrip()  # as the harness does, since tokenizers join a blank with the word behind it
    return text, [f"{context[len(text) :]}{request.arguments[1]}" for request in requests]
