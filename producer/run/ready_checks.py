"""Checks of a model that is ready to answer, before it answers a run: do its answers mean what the run's key will say?

In: what will be asked, a model ready to answer.  Out: nothing, or an error that says what to change.

A run of the published benchmark's own chat prompt is made all the same, with a note, since its reply is not begun.

In a chat template the option letters may not be what the model answers with. Without `Answer:` at the start of the reply,
SmolLM2-Instruct gives " A" 0.0003 of the probability and "A" 0.904; a run over " A" would look like any other. And a server that was
restarted with other weights under the same name makes runs whose keys say that one model made them all; the canaries stored with each run
tell them apart.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from producer.backends.base import MODEL_HASH, Ready
from producer.backends.server import CANARIES, SPREAD
from producer.prompts.encode import OptionTokens, other_form
from producer.prompts.templates import CUE
from producer.request.planned import PlannedRun, PromptedTask, RunGroup
from producer.run.known_answers import AS_STORED, KnownAnswers
from producer.saved.library import TOLERANCE
from producer.served.canary import allowed_change
from schemas.errors import HedgemarkError, StoreNotFoundError, UsageError
from schemas.options import option_mass

log = logging.getLogger(__name__)

ITEMS = 8
AGAIN = 4  # kept or stored answers that a model compressed again is asked for
LEAST_MASS = 0.5


def check_option_mass(prompted: PromptedTask, ready: Ready) -> tuple[str, ...]:
    """Raise UsageError if the option tokens have less than half of the probability, on average over the first items of a chat.

    For the published benchmark's own chat prompt, which is what it is, return a note instead.
    """
    if not prompted.chat:
        return ()
    mass = _mean_option_mass(prompted, ready, prompted.options)
    if mass >= LEAST_MASS:
        return ()
    tokenizer = prompted.model.tokenizer
    n_items = min(ITEMS, len(prompted.task.items))
    begun = "" if prompted.chat.ye2024 else f" and '{CUE}'"
    low_mass = f"after the chat template{begun}, the options {', '.join(prompted.options.texts)} get {mass:.3g} of the probability"
    other = other_form(tokenizer, prompted.options)
    bare = f"; {', '.join(other.texts)} get {_mean_option_mass(prompted, ready, other):.3g}" if other else ""
    where = f"on the first {n_items} items of {prompted.task.name}"
    if prompted.chat.ye2024:
        return (f"{low_mass} {where}{bare}; the published prompt does not begin the reply, and it is asked as it is",)
    cure = "leave --chat out, or say with --chat-system or --chat-turns how to answer"
    raise UsageError(f"{low_mass} {where}{bare}; at least {LEAST_MASS} is needed; {cure}")


def of_same_model(planned: PlannedRun, ready: Ready, known: KnownAnswers) -> KnownAnswers:
    """Return the stored answers to a run, none of them where the model was compressed again and has other weights, or gives others.

    A run that was stored before runs stated the weights is only asked for its answers.
    """
    assert planned.key is not None, "weights are fetched before a run is made"
    items = [int(item) for item in np.flatnonzero(known.is_known)]
    if not items or planned.key.method in AS_STORED:
        return known
    stated = [env.post_conditions[MODEL_HASH] for _, _, env in known.sources if MODEL_HASH in env.post_conditions]
    same_weights = all(each == ready.conditions.get(MODEL_HASH) for each in stated)
    if same_weights and answers_as_before(planned.prompted, ready, known, items):
        return known
    why = "gives others" if same_weights else "has other weights"
    log.warning("%d stored answers are not used: the model, compressed again, %s", len(items), why)
    return KnownAnswers.nothing(*known.logits.shape)


def answers_as_before(prompted: PromptedTask, ready: Ready, known: KnownAnswers, items: Sequence[int]) -> bool:
    """Return whether a model that was compressed again gives a few of the answers that an earlier command kept or stored.

    Where compressing twice gives two models, as it may on a GPU, the answers of one run must not be those of both.
    items : the items whose earlier answers are in `found`.
    """
    some = [items[number] for number in np.linspace(0, len(items) - 1, min(AGAIN, len(items))).astype(int)]
    asked = prompted.only(some)
    now, before = asked.in_own_order(ready.answer(asked, lambda _: None).logits), known.logits[some]
    allowed = TOLERANCE[prompted.model.dtype] * float(np.nanmax(before) - np.nanmin(before))
    return bool(np.nanmax(np.abs(now - before)) <= allowed)


def check_same_served_model(group: RunGroup, ready: Ready, store_url: str) -> None:
    """Raise HedgemarkError if a stored run of the same served model, by its description, has other canaries than these."""
    from store import open_reader

    key = next(run.key for run in group.runs if run.key)
    try:
        reader = open_reader(store_url)
    except StoreNotFoundError:
        return
    alike = [row["name"] for row in reader.catalog.to_dicts() if _described(row) == (key.model, key.method, key.level, key.backend)]
    for run in reader.runs(alike):
        stored = run.env.post_conditions
        if run.key.method_settings != key.method_settings or CANARIES not in stored:
            continue
        now, before = np.array(ready.conditions[CANARIES], np.float64), np.array(stored[CANARIES], np.float64)
        moved = float(np.abs(now - before).mean()) if now.shape == before.shape else np.inf
        if moved > allowed_change(max(float(ready.conditions[SPREAD]), float(stored[SPREAD]))):
            raise HedgemarkError(
                f"run {run.key.name} was made by a served model of the same description that answered the canary prompts otherwise (by "
                f"{moved:.3g} on average): another model is behind the address now; name it with --model or --level"
            )


def _mean_option_mass(prompted: PromptedTask, ready: Ready, options: OptionTokens) -> float:
    """Return the probability of all options together in the vocabulary, the mean over the first items."""
    first = replace(prompted, task=replace(prompted.task, items=prompted.task.items[:ITEMS]), options=options)
    answers = ready.answer(first, lambda _: None)
    return float(option_mass(answers.logits, np.array(first.prompts.n_options), answers.logsumexp).mean())


def _described(row: dict[str, object]) -> tuple[object, ...]:
    return row["model"], row["method"], row["level"], row["backend"]
