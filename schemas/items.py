"""Items: one multiple-choice question each, in the JSON form of the published benchmark.

    {"id", "source", "question", "context"?, "choices": {"A": ...}, "answer", "subject"?}

In: documents of this form (`schemas.item_forms` reads others).  Out: a list of `Item`; an error lists the problems of all items.
An item may lack its text (`{"id", "answer"}`) if only its logits were published.
"""

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.errors import ItemError

MAX_OPTIONS = len(ascii_uppercase)
IDK, NONE_OF_THE_ABOVE = "I don't know", "None of the above"
MAX_REPORTED = 5
_WORD = re.compile(r"\w{4}")  # shorter texts may differ in case alone and mean it: AA, Aa and aa, or m and M
# Unicode's default ignorable characters: joiners, directions, variants of the character before.
_UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\U000e0000-\U000e0fff]"
)
_BLANK = re.compile("[\u115f\u1160\u2800\u3164\uffa0]")  # fillers and the empty Braille cell: letters and symbols that leave a blank


class Item(BaseModel):
    """One multiple-choice question.

    Parameters
    ----------
    id : the item's name in its file, unique there.
    answer : letter of the correct option, "A" for the first.
    question, context : the question, and a text that precedes it in the prompt; both are "" for an item without text.
    choices : text of each option by letter, "A", "B", ... in order, 2 to 26 of them; empty for an item without text.
    subject : name of the group that the item belongs to, such as "astronomy"; "" for none.
    source : name of the task or data set.

    Raises
    ------
    pydantic.ValidationError
        If a field is missing or has a wrong type. `parse_items` checks everything else, such as that the answer is one of the options.

    Examples
    --------
    >>> item = Item(id="q1", question="Which planet is the largest?", choices={"A": "Mars", "B": "Jupiter"}, answer="B")
    >>> item.answer_index
    1
    """

    model_config = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True)

    id: str
    answer: str
    question: str = ""
    context: str = ""
    choices: Mapping[str, str] = Field(default_factory=dict)
    subject: str = ""
    source: str = ""

    @property
    def answer_index(self) -> int:
        """Position of the answer among the options, 0 for A."""
        return ascii_uppercase.index(self.answer)

    def question_key(self) -> str:
        """Text that is equal for two items if they ask the same question with the same options in any order; without text, the id."""
        content: Any = [self.context, self.question, sorted(self.choices.values())]
        return json.dumps(content if self.choices else [self.source, self.id], ensure_ascii=False)

    def content_digest(self) -> bytes:
        """SHA-256 (32 bytes) of the item's content: texts, options in order, answer and subject."""
        content = [self.context, self.question, list(self.choices.items()), self.answer, self.subject]
        return hashlib.sha256(json.dumps([self.question_key(), content], ensure_ascii=False).encode()).digest()


def as_seen(text: str) -> str:
    """Return what a reader sees of a text: composed, without invisible characters, one blank for any number, no case in words."""
    if not text.isascii():
        text = _BLANK.sub(" ", _UNSEEN.sub("", unicodedata.normalize("NFC", text)))
    plain = " ".join(text.split())
    return plain.casefold() if _WORD.search(plain) else plain


def parse_items(rows: Iterable[Any], where: str) -> list[Item]:
    """Return validated items; `where` names their source in messages. Raises ItemError, which lists the problems."""
    items: list[Item] = []
    problems: list[str] = []
    for number, row in enumerate(rows):
        try:
            item = Item.model_validate(row)
        except ValidationError as error:
            problems += [f"item {number}: {'.'.join(map(str, each['loc'])) or 'item'}: {each['msg']}" for each in error.errors()]
            continue
        problems += item_problems(item)
        items.append(item)
    problems = [*_numbered_answers(items), *problems]
    repeated = [name for name, count in Counter(item.id for item in items).items() if count > 1]
    problems += [f"id {name!r} appears more than once" for name in repeated]
    if not items and not problems:
        problems = ["there are no items"]
    if problems:
        more = f" (and {len(problems) - MAX_REPORTED} more)" if len(problems) > MAX_REPORTED else ""
        raise ItemError(f"{where}: {'; '.join(problems[:MAX_REPORTED])}{more}")
    return items


def item_ids(items: Sequence[Item]) -> list[int]:
    """Return a stable 64-bit id for each item, derived from its question and its options regardless of their order.

    Exact repeats of a question (published MMLU has 70) are distinguished by their order of appearance.
    """
    repeats: Counter[str] = Counter()
    ids = []
    for item in items:
        key = item.question_key()
        ids.append(int.from_bytes(hashlib.sha256(f"{repeats[key]}:{key}".encode()).digest()[:8], "big"))
        repeats[key] += 1
    return ids


def _numbered_answers(items: Sequence[Item]) -> Iterator[str]:
    """Yield one problem for all answers that are numbers, since they might count from 0 or from 1."""
    numbered = [item for item in items if item.answer.isdecimal()]
    if numbered:
        letters = len(items) - len(numbered)
        yield (
            f"{len(numbered)} answers are numbers, the first of id {numbered[0].id!r}, which is {numbered[0].answer!r}"
            f"{f', and {letters} are not' if letters else ''}; write letters, since numbers may count from 0 or from 1"
        )


def item_problems(item: Item) -> list[str]:
    """Return what makes an item invalid; numbers as answers are reported for the whole file by `_numbered_answers`."""
    letters = list(ascii_uppercase[: len(item.choices)])
    if item.choices and not 2 <= len(item.choices) <= MAX_OPTIONS:
        return [f"id {item.id!r} has {len(item.choices)} option{'s' * (len(item.choices) != 1)}; expected 2 to {MAX_OPTIONS}"]
    if item.choices and list(item.choices) != letters:
        return [f"id {item.id!r} has options {list(item.choices)}; expected {letters} in order"]
    if item.answer not in (letters or list(ascii_uppercase)) and not item.answer.isdecimal():
        return [f"id {item.id!r} has answer {item.answer!r}, which is not one of its options {letters or 'A-Z'}"]
    if item.choices and not item.question and not item.context:
        return [f"id {item.id!r} has options but neither question nor context"]
    return []
