"""Task `urn`: from which urn were these balls drawn? The Bayesian posterior of every item is known.

Six urns hold balls of eight colours in known shares. An item shows 1 to 10 draws and lists four of the urns; with
probability 1/6 the true urn is one of the two not listed and "None of the above" is right. "I don't know" is never right.
"""

import numpy as np
from numpy.typing import NDArray

from schemas.items import IDK, NONE_OF_THE_ABOVE, Item

URNS = ("ash", "birch", "cedar", "elm", "fir", "oak")
COLOURS = ("red", "blue", "green", "black", "white", "pink", "brown", "grey")
LISTED, MAX_DRAWS = 4, 10
P_UNLISTED = 1 / 6
N_ITEMS, SEED = 2005, 20260601
# (urn, colour) shares of the eight colours in each urn: one Dirichlet(1) draw per urn, fixed by the seed.
SHARES: NDArray[np.float64] = np.random.default_rng(7).dirichlet(np.ones(len(COLOURS)), len(URNS))


def urn(n_items: int = N_ITEMS, seed: int = SEED) -> list[Item]:
    """Return the items of the embedded task, the same for the same seed."""
    rng = np.random.default_rng(seed)
    return [draw_item(rng, number) for number in range(n_items)]


def draw_item(rng: np.random.Generator, number: int) -> Item:
    """Return one item with random urn, number of draws, draws, listed urns and order of the list."""
    order = [int(index) for index in rng.permutation(len(URNS))]
    unlisted = rng.random() < P_UNLISTED
    true = order[int(rng.integers(LISTED, len(URNS)) if unlisted else rng.integers(LISTED))]
    colours = draw_balls(rng, true)
    listed = order[:LISTED]
    texts = [URNS[index] for index in listed] + [IDK, NONE_OF_THE_ABOVE]
    return Item(
        id=str(number),
        source="urn",
        subject=f"draws-{len(colours):02d}",
        question=ask(colours),
        choices=dict(zip("ABCDEF", texts, strict=True)),
        answer="F" if unlisted else "ABCD"[listed.index(true)],
    )


def draw_balls(rng: np.random.Generator, source: int) -> list[str]:
    """Return the colours of 1 to 10 balls drawn with replacement from the urn with this index."""
    return [COLOURS[index] for index in rng.choice(len(COLOURS), size=int(rng.integers(1, MAX_DRAWS + 1)), p=SHARES[source])]


def ask(colours: list[str]) -> str:
    """Return the question about these draws."""
    return f"Which urn gave {' '.join(colours)}?"


def bayes_posterior(item: Item) -> NDArray[np.float64]:
    """Return P(option | draws), shape (option,), by Bayes' rule; "I don't know" has probability 0."""
    draws = [COLOURS.index(word) for word in item.question.removesuffix("?").split()[3:]]
    likelihood = np.prod(SHARES[:, draws], axis=1)
    listed = [URNS.index(text) for text in list(item.choices.values())[:LISTED]]
    unlisted = [index for index in range(len(URNS)) if index not in listed]
    joint = np.zeros(LISTED + 2)
    joint[:LISTED] = likelihood[listed] * (1 - P_UNLISTED) / LISTED
    joint[LISTED + 1] = likelihood[unlisted].sum() * P_UNLISTED / len(unlisted)
    return joint / joint.sum()
