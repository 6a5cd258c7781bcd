"""Find valid but doubtful items, which real benchmarks have: published MMLU repeats 70 questions, and 8 have an option "nan".

In: items.  Out: kinds of doubtful items with their ids. No item is changed or dropped here; an invalid item is an ItemError elsewhere.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from html.entities import html5
from typing import NamedTuple

from schemas.items import NONE_OF_THE_ABOVE, Item, as_seen

# What pandas, spreadsheets and JavaScript write for a missing value; pandas also reads most of them as one.
NOT_A_VALUE = (
    "nan", "NaN", "NAN", "-nan", "-NaN", "<NA>", "NA", "N/A", "n/a", "NaT", "null", "NULL", "Null", "None", "NONE", "undefined", "#N/A",
    "#NA", "#NAME?", "#REF!", "#VALUE!", "#DIV/0!", "#NUM!",
)  # fmt: skip
_ENTITY = re.compile(r"&(?:(?P<name>[A-Za-z][A-Za-z0-9]{1,31};)|#[0-9]{1,7};|#[xX][0-9a-fA-F]{1,6};)")
# Zero width, bidirectional and soft hyphen; not the joiners of U+200C and U+200D, which scripts and emoji are written with.
_INVISIBLE = re.compile("[\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\u00ad]")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufffd]")  # tabs, line ends and U+0085 are text


class Quirk(NamedTuple):
    """A kind of doubtful item, in words that follow a number ("3 with an empty option"), and the ids of these items.

    other : by id, the id of the item that one of them repeats or contradicts.
    """

    what: str
    ids: tuple[str, ...]
    other: Mapping[str, str] = {}


def find_quirks(items: Sequence[Item]) -> list[Quirk]:
    """Return the kinds of doubtful items that occur, each with its items in file order."""
    quirks = [Quirk(what, tuple(item.id for item in items if check(item))) for what, check in CHECKS.items()]
    return [quirk for quirk in [*quirks, *_repeats(items)] if quirk.ids]


def describe_quirks(items: Sequence[Item]) -> str:
    """Return one sentence with the number of doubtful items of each kind, "" if there are none."""
    quirks = find_quirks(items)
    doubtful = {item_id for quirk in quirks for item_id in quirk.ids}
    counts = ", ".join(f"{len(quirk.ids)} {quirk.what}" for quirk in quirks)
    return f"{len(doubtful)} of {len(items)} items are doubtful: {counts}" if quirks else ""


def says_none_of_the_above(text: str) -> bool:
    """Return whether an option says "None of the above", with or without more words and punctuation."""
    return re.match(rf"\W*{NONE_OF_THE_ABOVE}", text, re.IGNORECASE) is not None


def _repeats(items: Sequence[Item]) -> list[Quirk]:
    """Return items that repeat the question and options (in any order) of an earlier item, and repeated items whose answers disagree."""
    alike: Mapping[str, list[Item]] = defaultdict(list)
    for item in items:
        if item.choices:
            alike[f"{as_seen(item.context)}\0{as_seen(item.question)}\0{sorted(map(as_seen, item.choices.values()))}"].append(item)
    repeated = [group for group in alike.values() if len(group) > 1]
    again = {item.id: group[0].id for group in repeated for item in group[1:]}
    disputed: dict[str, str] = {}
    for group in repeated:
        answer = {item.id: as_seen(item.choices[item.answer]) for item in group}
        if len(set(answer.values())) > 1:
            disputed |= {name: next(other for other in answer if answer[other] != answer[name]) for name in answer}
    return [
        Quirk("repeating the question and options of an earlier one", _in_file_order(items, again), again),
        Quirk("repeating a question and its options with another answer", _in_file_order(items, disputed), disputed),
    ]


def _in_file_order(items: Sequence[Item], ids: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(item.id for item in items if item.id in ids)


def _texts(item: Item) -> list[str]:
    return [item.context, item.question, *item.choices.values()]


def _equal_options(item: Item) -> bool:
    return any(text and count > 1 for text, count in Counter(map(as_seen, item.choices.values())).items())


def _has_entity(text: str) -> bool:
    return any(match["name"] is None or match["name"] in html5 for match in _ENTITY.finditer(text))


CHECKS: Mapping[str, Callable[[Item], bool]] = {
    "with two options of equal text": _equal_options,
    "with an empty option": lambda item: any(not as_seen(text) for text in item.choices.values()),
    'with "None of the above" twice': lambda item: sum(map(says_none_of_the_above, item.choices.values())) > 1,
    'with an option that reads "nan" or "null"': lambda item: any(text.strip() in NOT_A_VALUE for text in item.choices.values()),
    "with HTML entities such as &amp;": lambda item: any(map(_has_entity, _texts(item))),
    "with control or replacement characters": lambda item: any(map(_CONTROL.search, _texts(item))),
    "with invisible characters": lambda item: any(map(_INVISIBLE.search, _texts(item))),
}
