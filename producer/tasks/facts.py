"""Task `facts`: what is mined at this place? A test of knowledge that a model has for some items and lacks for others.

4,096 places have one mineral each, fixed by a seed. In training the place of rank r appears with frequency ~ 1/r (Zipf), so a model
knows the common places well and the rare ones hardly at all, and must hedge there. Four minerals are listed; with probability 1/8 the
right one is not among them and "None of the above" is right.
"""

import numpy as np
from numpy.typing import NDArray

from schemas.items import IDK, NONE_OF_THE_ABOVE, Item

_ONSETS, _ENDS = ("b", "d", "g", "k", "l", "m", "t", "z"), ("al", "en", "ir", "or", "um", "as", "ey", "ot")
FIRST = tuple(f"{onset}{end}".capitalize() for onset in _ONSETS for end in _ENDS)
SECOND = tuple(f"{onset}{end}".capitalize() for onset in ("br", "ch", "dr", "gl", "pr", "sh", "st", "tr") for end in _ENDS)
MINERALS = (
    "agate",
    "amber",
    "azurite",
    "barite",
    "beryl",
    "borax",
    "calcite",
    "chalk",
    "cobalt",
    "copper",
    "diamond",
    "emerald",
    "feldspar",
    "flint",
    "galena",
    "garnet",
    "gold",
    "granite",
    "gypsum",
    "halite",
    "iron",
    "jade",
    "jasper",
    "lead",
    "marble",
    "mica",
    "nickel",
    "onyx",
    "opal",
    "pyrite",
    "quartz",
    "silver",
)
N_PLACES, LISTED = len(FIRST) * len(SECOND), 4
P_UNLISTED = 1 / 8
N_ITEMS, SEED = 2005, 20260602
ZIPF: NDArray[np.float64] = (1 / np.arange(1, N_PLACES + 1)) / np.sum(1 / np.arange(1, N_PLACES + 1))
BANDS = ((0, 64), (64, 512), (512, 2048), (2048, N_PLACES))  # ranks; an item's subject is its band
_world = np.random.default_rng(11)
MINERAL_OF: NDArray[np.int64] = _world.integers(len(MINERALS), size=N_PLACES)
PLACE_OF: NDArray[np.int64] = _world.permutation(N_PLACES)  # rank -> number of the name, so that a name does not reveal its frequency


def facts(n_items: int = N_ITEMS, seed: int = SEED) -> list[Item]:
    """Return the items of the embedded task: equally many from each of the four frequency bands, with ranks uniform within a band."""
    rng = np.random.default_rng(seed)
    ranks = [int(rng.integers(*BANDS[number % len(BANDS)])) for number in range(n_items)]
    return [draw_item(rng, number, rank) for number, rank in enumerate(ranks)]


def place_name(rank: int) -> str:
    """Return the two-word name of the place with this frequency rank."""
    first, second = divmod(int(PLACE_OF[rank]), len(SECOND))
    return f"{FIRST[first]} {SECOND[second]}"


def draw_item(rng: np.random.Generator, number: int, rank: int) -> Item:
    """Return one item about the place with this rank, which lists randomly drawn minerals in random order."""
    true = int(MINERAL_OF[rank])
    others = rng.permutation([mineral for mineral in range(len(MINERALS)) if mineral != true])[:LISTED]
    position = None if rng.random() < P_UNLISTED else int(rng.integers(LISTED))
    listed = [int(mineral) for mineral in others]
    if position is not None:
        listed[position] = true
    band = next(index for index, (low, high) in enumerate(BANDS) if low <= rank < high)
    return Item(
        id=str(number),
        source="facts",
        subject=f"rank-{BANDS[band][0] + 1:04d}",
        question=f"What is mined at {place_name(rank)}?",
        choices=dict(zip("ABCDEF", [MINERALS[mineral] for mineral in listed] + [IDK, NONE_OF_THE_ABOVE], strict=True)),
        answer="F" if position is None else "ABCD"[position],
    )
