"""An item set: the items that runs answered, as arrays, stored once under their digest.

In: a list of `Item`.  Out: `ItemSet`, whose digest is in the key of every run over exactly these items.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.digest import arrays_digest
from schemas.errors import ItemError, StoreInvalidError
from schemas.items import MAX_OPTIONS, Item, as_seen, item_ids

FEWEST_OPTIONS = 2  # the documents of a text have one each, the text itself
MOST_ITEMS_ASKING = 10  # one question; what more have in common is an instruction


@dataclass(frozen=True)
class ItemSet:
    """Items of one task, in the order of the logits.

    item_id       : (item,) uint64, the same for the same question with its options in any order.
    content       : (item, 32) uint8, SHA-256 of question, options in order, answer and subject.
    answer        : (item,) int16, index of the correct option.
    n_options     : (item,) int16, number of options.
    subject       : (item,) int32, index into `subjects`.
    demonstration : (item,) bool; demonstrations are neither in a calibration nor in a test split.
    texts         : JSON of each item, with its original id; () if the texts are not kept.
    """

    task: str
    revision: str
    item_id: NDArray[np.uint64]
    content: NDArray[np.uint8]
    answer: NDArray[np.int16]
    n_options: NDArray[np.int16]
    subject: NDArray[np.int32]
    demonstration: NDArray[np.bool_]
    subjects: tuple[str, ...]
    texts: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Say what the items are, without their arrays and texts."""
        groups = f", {len(self.subjects)} subjects" if any(self.subjects) else ""
        options = f"{self.n_options.min()} to {self.n_options.max()} options"
        return f"<ItemSet {self.task}: {len(self)} items of {options}{groups}, {self.digest[:12]}>"

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays that are stored and hashed, by name (the texts are covered by `content`)."""
        names = ("item_id", "content", "answer", "n_options", "subject", "demonstration")
        return {name: getattr(self, name) for name in names}

    @cached_property
    def digest(self) -> str:
        """SHA-256 over task, subjects and arrays, but not over `revision` and `texts`, which do not define which items these are."""
        return arrays_digest([self.task, list(self.subjects)], self.arrays())

    @cached_property
    def items(self) -> tuple[Item, ...]:
        """The items as their texts give them, () if the texts are not kept.

        Raises StoreInvalidError if a text is not that of its item: its content, answer, options or subject differs from the arrays.
        """
        return tuple(self._item(number, text) for number, text in enumerate(self.texts))

    @cached_property
    def question(self) -> NDArray[np.int64]:
        """(item,) number of each item's question: the same for items whose context and question read the same, whatever their options.

        A text that more than 1 % of the items, and more than ten, have in common is an instruction, whose options are the question.
        Without texts items are told apart by their content. Raises StoreInvalidError where a stored text is not an item.
        """
        if not self.texts:
            return np.unique(self.content, axis=0, return_inverse=True)[1].reshape(-1)
        try:
            return _question_numbers(self.texts)
        except ValueError as error:
            raise StoreInvalidError(f"item set {self.digest[:12]}: a text is not an item: {' '.join(str(error).split())[:120]}") from error

    @cached_property
    def passage(self) -> NDArray[np.int64]:
        """(item,) number of each item's passage: the same for items with the same context, or of items without one, the same question.

        Spaces at the ends do not count. The texts must be kept. Raises StoreInvalidError where a stored text is not an item.
        """
        contexts = [item.context.strip() for item in self.items]
        keys = [f"c{context}" if context else f"q{number}" for context, number in zip(contexts, self.question, strict=True)]
        return np.unique(keys, return_inverse=True)[1].reshape(-1)

    @cached_property
    def original_ids(self) -> tuple[str, ...]:
        """The original ids of the items, or `item_id` in decimal if the texts are not kept. Raises like `items`."""
        return tuple(item.id for item in self.items) or tuple(str(one) for one in self.item_id.tolist())

    def check(self) -> None:
        """Raise ItemError if the arrays cannot be those of multiple-choice items; called on reading and on writing."""
        n_items = len(self)
        if not n_items:
            raise ItemError(f"item set {self.digest[:12]} has no item")
        fewest = 1 if np.all(self.n_options == 1) else FEWEST_OPTIONS
        problems = {
            "n_options is not 2 to 26": (self.n_options < fewest) | (self.n_options > MAX_OPTIONS),
            "answer is none of its options": (self.answer < 0) | (self.answer >= self.n_options),
            f"subject is none of the {len(self.subjects)} subjects": (self.subject < 0) | (self.subject >= len(self.subjects)),
        }
        for problem, wrong in problems.items():
            if np.any(wrong):
                raise ItemError(f"item set {self.digest[:12]}: item {int(np.argmax(wrong))} of {n_items}: {problem}")
        if len(np.unique(self.item_id)) != n_items:
            raise ItemError(f"item set {self.digest[:12]}: an item_id occurs more than once")
        if self.texts and len(self.texts) != n_items:
            raise ItemError(f"item set {self.digest[:12]}: {len(self.texts)} texts for {n_items} items")

    def _item(self, number: int, text: str) -> Item:
        try:
            item = Item.model_validate_json(text)
            same = item.content_digest() == self.content[number].tobytes() and item.answer_index == self.answer[number]
        except ValueError:
            same = False
        if not (same and self.subjects[self.subject[number]] == item.subject and len(item.choices) in (0, self.n_options[number])):
            raise StoreInvalidError(f"item set {self.digest[:12]}: text {number} is not that of its item")
        return item

    def __len__(self) -> int:
        return len(self.item_id)


def build_item_set(
    task: str, items: Sequence[Item], *, revision: str = "", demonstrations: Collection[str] = (), n_options: Sequence[int] = ()
) -> ItemSet:
    """Return the item set of some items, in their order.

    Parameters
    ----------
    task : name of the task.
    items : the items, which `parse_items` or `store.format.item_file` has checked.
    revision : where the items come from: a file's SHA-256, a data set's commit, a generator's seed.
    demonstrations : ids of the items that are few-shot examples; they are neither calibration nor test items.
    n_options : number of options of each item; only needed for items without text.

    Raises
    ------
    ItemError
        If an item has neither text nor a number of options.

    Examples
    --------
    >>> items = [Item(id=str(i), question=f"{i} + 1 = ?", choices={"A": str(i + 1), "B": "7"}, answer="A") for i in range(3)]
    >>> item_set = build_item_set("sums", items, demonstrations=["0"])
    >>> item_set.n_options.tolist(), item_set.demonstration.tolist()
    ([2, 2, 2], [True, False, False])
    """
    counts = [len(item.choices) or count for item, count in zip(items, n_options or [0] * len(items), strict=True)]
    if 0 in counts:
        raise ItemError(f"task {task}: item {items[counts.index(0)].id!r} has no text, so its number of options must be given")
    subjects = tuple(sorted({item.subject for item in items}))
    return ItemSet(
        task=task,
        revision=revision,
        item_id=np.array(item_ids(items), dtype=np.uint64),
        content=np.frombuffer(b"".join(item.content_digest() for item in items), dtype=np.uint8).reshape(-1, 32),
        answer=np.array([item.answer_index for item in items], dtype=np.int16),
        n_options=np.array(counts, dtype=np.int16),
        subject=np.array([subjects.index(item.subject) for item in items], dtype=np.int32),
        demonstration=np.array([item.id in demonstrations for item in items], dtype=np.bool_),
        subjects=subjects,
        texts=tuple(item.model_dump_json(exclude_defaults=True) for item in items),
    )


@lru_cache(maxsize=8)  # every reader of a store that opens these items anew would parse them again
def _question_numbers(texts: tuple[str, ...]) -> NDArray[np.int64]:
    """Return `ItemSet.question` of items with these texts, read-only. Raises ValueError where a text is not an item."""
    items = [Item.model_validate_json(text) for text in texts]
    questions = [f"{as_seen(item.context)}\0{as_seen(item.question)}" for item in items]
    n_items_asking = Counter(questions)
    most = max(MOST_ITEMS_ASKING, len(items) // 100)
    keys = [
        question if item.choices and n_items_asking[question] <= most else item.question_key()
        for item, question in zip(items, questions, strict=True)
    ]
    numbers = {key: number for number, key in enumerate(sorted(set(keys)))}  # np.unique would pad every text to the longest
    numbered = np.array([numbers[key] for key in keys], dtype=np.int64)
    numbered.setflags(write=False)
    return numbered
