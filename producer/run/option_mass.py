"""Do the option letters follow a chat prompt at all? Asked of the first items, before the run.

In: a prompted task in a chat template, a model ready to answer.  Out: nothing, or a UsageError that says what to change. Without `Answer:`
at the start of the reply, SmolLM2-Instruct gives " A" 0.0003 of the probability and "A" 0.904; a run over " A" would look like any other.
"""

from dataclasses import replace

import numpy as np

from producer.backends.base import Ready
from producer.prompts.encode import OptionTokens, other_form
from producer.prompts.templates import CUE
from producer.request.planned import PromptedTask
from schemas.errors import UsageError
from schemas.options import option_mass

ITEMS = 8
LEAST_MASS = 0.5


def check_option_mass(prompted: PromptedTask, ready: Ready) -> None:
    """Raise UsageError if the option tokens have less than half of the probability, on average over the first items."""
    mass = _mean_option_mass(prompted, ready, prompted.options)
    if mass >= LEAST_MASS:
        return
    tokenizer = prompted.model.tokenizer
    n_items = min(ITEMS, len(prompted.task.items))
    low_mass = f"after the chat template and '{CUE}', the options {', '.join(prompted.options.texts)} get {mass:.3g} of the probability"
    other = other_form(tokenizer, prompted.options)
    bare = f"; {', '.join(other.texts)} get {_mean_option_mass(prompted, ready, other):.3g}" if other else ""
    cure = "leave --chat out, or say with --chat-system or --chat-turns how to answer"
    raise UsageError(f"{low_mass} on the first {n_items} items of {prompted.task.name}{bare}; at least {LEAST_MASS} is needed; {cure}")


def _mean_option_mass(prompted: PromptedTask, ready: Ready, options: OptionTokens) -> float:
    """Return the probability of all options together in the vocabulary, the mean over the first items."""
    first = replace(prompted, task=replace(prompted.task, items=prompted.task.items[:ITEMS]), options=options)
    answers = ready.answer(first, lambda _: None)
    return float(option_mass(answers.logits, np.array(first.prompts.n_options), answers.logsumexp).mean())
