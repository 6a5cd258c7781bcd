"""Cyclic orders of an item's options: in order k, each option stands k places later, and those pushed off the end come first.

    order 0   A. Mars   B. Venus   C. Io      D. I don't know   E. None of the above
    order 1   A. Io     B. Mars    C. Venus   D. I don't know   E. None of the above

Stored logits are always in the item's own order. The two options that the published benchmark adds stay last, since "above" would be
untrue elsewhere. `schemas.fields` has the names of prompts asked in an order.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.items import IDK, NONE_OF_THE_ABOVE, Item

ADDED = [IDK, NONE_OF_THE_ABOVE]
_OTHERS = re.compile(r"\b(?:(?i:all|none|both|neither|any)(?i: of)?(?i: the)? (?i:above|below|these)|[A-Z],? (?:and|or|nor) [A-Z])\b")


def n_turning(choices: Sequence[str]) -> int:
    """Return how many of an item's options change places: all but the two that the published benchmark adds at the end."""
    return len(choices) - len(ADDED) if len(choices) > len(ADDED) + 1 and list(choices[-2:]) == ADDED else len(choices)


def positions_in_order(turning: NDArray[np.integer[Any]], width: int, order: int) -> NDArray[np.int64]:
    """Return the place at which each option of each item stands in an order, (item, option); an option beyond the turning ones stays.

    turning : (item,) number of options that change places, at least 1.
    width   : number of columns.
    """
    option, count = np.arange(width)[None, :], turning[:, None]
    return np.where(option < count, (option + order) % count, option)


def item_in_order(item: Item, order: int) -> Item:
    """Return the item as it is asked in an order, with the letter at which its answer then stands."""
    letters, texts = list(item.choices), list(item.choices.values())
    position = positions_in_order(np.array([n_turning(texts)]), len(texts), order)[0]
    shown = [texts[option] for option in np.argsort(position)]
    return item.model_copy(update={"choices": dict(zip(letters, shown, strict=True)), "answer": letters[position[item.answer_index]]})


def names_others(item: Item) -> bool:
    """Return whether an option that changes places speaks of others by letter or place, such as "both A and B" or "all of the above"."""
    texts = list(item.choices.values())
    return any(_OTHERS.search(text) for text in texts[: n_turning(texts)])
