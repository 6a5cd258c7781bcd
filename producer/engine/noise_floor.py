"""The noise floor: how much rounding changes the logits of the same items when only batching, prefix sharing and order differ.

In: a model, a sample of prompts.  Out: the largest change of a logit, the share of flips, and the change in set size. A difference between
two runs that is below this floor says nothing about their models.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from producer.engine.layer_source import Target
from producer.engine.memory_plan import FEWEST_TOKENS, MemoryPlan
from producer.engine.prefill import prefill
from producer.prompts.encode import Prompts
from schemas.options import own_options

ALPHA = 0.1


def noise_floor(model: Any, prompts: Prompts, option_ids: Sequence[int], plan: MemoryPlan, target: Target) -> dict[str, float]:
    """Return the largest change between this memory plan and three others: one item at a time, without sharing, layer by layer.

    items        : number of items compared.
    logit_change : largest absolute change of an option logit.
    flips        : share of items whose most likely option changes.
    set_size     : absolute change of the mean set size under one fixed threshold on 1 - p.
    Letters beyond an item's number of options are ignored.
    """

    def answer(some: Prompts, memory_plan: MemoryPlan) -> NDArray[np.float32]:
        return prefill(model, some, option_ids, memory_plan, target, lambda _: None).logits

    others = [answer(prompts, replace(plan, batch_tokens=1)), answer(unshared(prompts), plan)]
    if not plan.streamed:
        others.append(answer(prompts, replace(plan, streamed=True, wave_tokens=FEWEST_TOKENS * len(prompts.suffixes), states_device="cpu")))
    return largest_changes(answer(prompts, plan), others, prompts)


def largest_changes(usual: NDArray[np.float32], others: Sequence[NDArray[np.float32]], prompts: Prompts) -> dict[str, float]:
    """Return the largest changes from the usual logits (item, option) to others of the same items, as `noise_floor` does."""
    has_option = _own_options(prompts, usual.shape[1])
    return {
        "items": float(len(usual)),
        "logit_change": max(float(np.nanmax(np.abs(other - usual)[has_option])) for other in others),
        "flips": max(float(np.mean(_top(other, has_option) != _top(usual, has_option))) for other in others),
        "set_size": max(_set_size_change(usual, other, has_option) for other in others),
    }


def sample(prompts: Prompts, n_items: int, seed: int) -> Prompts:
    """Return the prompts of `n_items` items drawn at random with a seed, in their original order; all items if there are fewer."""
    drawn = np.sort(np.random.default_rng(seed).permutation(len(prompts.suffixes))[:n_items])
    return prompts.only(drawn.tolist())


def unshared(prompts: Prompts) -> Prompts:
    """Return the same prompts without a shared prefix."""
    return Prompts((), [prompts.whole(item) for item in range(len(prompts.suffixes))], prompts.cut, prompts.n_options)


def _own_options(prompts: Prompts, n_letters: int) -> NDArray[np.bool_]:
    """Return whether each item has each option, (item, option)."""
    n_options = np.array(prompts.n_options or [n_letters] * len(prompts.suffixes))
    return own_options(n_options, n_letters)


def _top(logits: NDArray[np.float32], has_option: NDArray[np.bool_]) -> NDArray[np.intp]:
    return np.asarray(np.where(has_option, logits, -np.inf).argmax(1))


def _set_size_change(usual: NDArray[np.float32], other: NDArray[np.float32], has_option: NDArray[np.bool_]) -> float:
    """Return the absolute change of the mean set size.

    The threshold is chosen so that in the usual run a share ALPHA of the items have a set without even their most likely option.
    """
    strangeness = [1 - _probs(logits, has_option) for logits in (usual, other)]
    threshold = np.quantile(strangeness[0].min(1), 1 - ALPHA)
    sizes = [(has_option & (scores <= threshold)).sum(1).mean() for scores in strangeness]
    return float(abs(sizes[1] - sizes[0]))


def _probs(logits: NDArray[np.float32], has_option: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the softmax over each item's options, (item, option), 0 beyond them."""
    option_logits = np.where(has_option, logits.astype(np.float64), -np.inf)
    shifted = np.exp(option_logits - option_logits.max(1, keepdims=True))
    return np.asarray(shifted / shifted.sum(1, keepdims=True))
