"""Cyclic orders of options: which option stands where, and the names of prompts asked in an order."""

import numpy as np
import pytest

from schemas.fields import KEY_COLUMNS, averaged_together, name_in_order, split_prompt_name
from schemas.items import Item
from schemas.orders import item_in_order, n_turning, names_others, positions_in_order

TEXTS = ["Mars", "Venus", "Io", "Ceres"]
ADDED = ["I don't know", "None of the above"]


def item(texts: list[str], answer: str = "B") -> Item:
    return Item(id="1", question="Which?", choices=dict(zip("ABCDEFGH", texts, strict=False)), answer=answer)


@pytest.mark.parametrize("order", range(4))
@pytest.mark.parametrize("added", [[], ADDED])
def test_options_move_on_and_the_answer_with_them(order: int, added: list[str]) -> None:
    """Order k is the list turned k times by one place; what the benchmark adds stays last, and the answer's text stays the answer."""
    turned = list(TEXTS)
    for _ in range(order):
        turned = [turned[-1], *turned[:-1]]
    shown = item_in_order(item(TEXTS + added), order)
    assert list(shown.choices.values()) == turned + added
    assert shown.choices[shown.answer] == "Venus" and list(shown.choices) == list("ABCDEF"[: 4 + len(added)])


def test_places_of_items_with_unlike_numbers_of_options() -> None:
    """Each item turns within its own options; columns beyond them stay."""
    assert positions_in_order(np.array([2, 4]), 5, 1).tolist() == [[1, 0, 2, 3, 4], [1, 2, 3, 0, 4]]
    assert positions_in_order(np.array([3]), 3, 3).tolist() == [[0, 1, 2]]


def test_added_options_count_only_where_both_end_the_list() -> None:
    """An ordinary option of the same words turns like any other."""
    assert n_turning([*TEXTS, *ADDED]) == 4
    assert n_turning([*TEXTS, ADDED[1]]) == 5
    assert n_turning([*ADDED, *TEXTS]) == 6
    assert n_turning(ADDED) == 2 and n_turning(["Mars", *ADDED]) == 3


@pytest.mark.parametrize("text", ["All of the above", "none of these", "Both A and B", "B, and C", "A or D only", "all the above"])
def test_options_that_speak_of_others_are_found(text: str) -> None:
    """Such an option is true in its own order only."""
    assert names_others(item([*TEXTS[:3], text]))


def test_ordinary_options_speak_of_no_others() -> None:
    """The added options stay where they are true."""
    assert not names_others(item([*TEXTS, *ADDED])) and not names_others(item(["above all", "a and b", "Type A", "X"]))


@pytest.mark.parametrize(
    ("name", "prompt", "order"),
    [("base", "base", "0"), ("base@1", "base", "1"), ("base-chat@25", "base-chat", "25"), ("base@mean4", "base", "mean4")],
)
def test_names_in_an_order(name: str, prompt: str, order: str) -> None:
    """A name and its parts belong together."""
    assert split_prompt_name(name) == (prompt, order)
    assert name_in_order(prompt, 0 if order == "0" else order) == name


@pytest.mark.parametrize("name", ["base@0", "base@26", "base@x", "@1", "base@01", "a@b", "base@mean0"])
def test_other_names_are_no_orders(name: str) -> None:
    """An imported run may have any prompt name."""
    assert split_prompt_name(name) == (name, "0")


def test_orders_are_not_averaged_with_each_other() -> None:
    """Means over prompts are over our wordings: runs of another order, chats, and prompts that somebody else words stay apart."""
    columns = [name for name in KEY_COLUMNS if name != "prompt"]
    groups = {
        averaged_together(dict.fromkeys(columns, "x") | {"prompt": name})
        for name in ("base", "shared", "base-chat", "task-chat", "native", "ye2024-chat")
    }
    turned = {averaged_together(dict.fromkeys(columns, "x") | {"prompt": name}) for name in ("base@1", "task@1", "base-chat@1", "base@2")}
    assert (len(groups), len(turned), len(groups | turned)) == (4, 3, 7)
