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
from schemas.options import own_options

ITEMS = 8
LEAST_MASS = 0.5


def check_option_mass(prompted: PromptedTask, ready: Ready) -> None:
    """Raise UsageError if the option tokens have less than half of the probability, on average over the first items."""
    mass = option_mass(prompted, ready, prompted.options)
    if mass >= LEAST_MASS:
        return
    tokenizer = prompted.model.tokenizer
    n_items = min(ITEMS, len(prompted.task.items))
    found = f"after the chat template and '{CUE}', the options {', '.join(prompted.options.texts)} get {mass:.3g} of the probability"
    other = other_form(tokenizer, prompted.options)
    bare = f"; {', '.join(other.texts)} get {option_mass(prompted, ready, other):.3g}" if other else ""
    cure = "leave --chat out, or say with --chat-system or --chat-turns how to answer"
    raise UsageError(f"{found} on the first {n_items} items of {prompted.task.name}{bare}; at least {LEAST_MASS} is needed; {cure}")


def option_mass(prompted: PromptedTask, ready: Ready, options: OptionTokens) -> float:
    """Return the probability of all options together, the mean over the first items."""
    first = replace(prompted, task=replace(prompted.task, items=prompted.task.items[:ITEMS]), options=options)
    answers = ready.answer(first, lambda _: None)
    own = own_options(np.array(first.prompts.n_options), answers.logits.shape[1])
    probs = np.exp(answers.logits.astype(np.float64) - answers.logsumexp.astype(np.float64)[:, None])
    return float(np.where(own, probs, 0.0).sum(1).mean())
