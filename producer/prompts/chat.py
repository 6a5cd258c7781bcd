"""Chat prompts: the item in the tokenizer's chat template, up to the first word of the reply.

In: a tokenizer with a chat template, an instruction, demonstrations, an item.  Out: a string ending in `Answer:`, special tokens included.
The reply is begun with `Answer:`, so that the option letters follow the same text as in a prompt without a template. Templates that put
the date into the prompt get a fixed one, and thinking is turned off where the template can do so.

`ye2024` is the chat prompt of the published benchmark (Ye et al. 2024, arXiv:2401.12794, its base prompt): `Answer:` ends the user's
message and the reply is not begun, the tokenizer adds its special tokens to those of the template, and 2,048 tokens are kept.
"""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from producer.prompts.templates import CUE, render_item
from schemas.errors import UsageError
from schemas.items import Item

YE2024_TOKENS = 2048
YE2024_LABELS = {"haludial": "Dialogue", "halusum": "Document"}  # before an item's context; others have "Context"
DAY = datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)
# Names that common templates look for; others ignore them.
SETTINGS = {"enable_thinking": False, "thinking": False, "date_string": DAY.strftime("%d %b %Y")}


@dataclass(frozen=True)
class Chat:
    """How a chat prompt is laid out.

    system : text of the system message, "" for none.
    turns  : whether each demonstration is a question and a reply of its own; else they stand in the one user message.
    ye2024 : the word before an item's context in the published benchmark's own chat prompt; "" for our layout.
    """

    system: str = ""
    turns: bool = False
    ye2024: str = ""

    @property
    def adds_special(self) -> bool:
        """Whether the tokenizer adds its special tokens to those that the template writes."""
        return bool(self.ye2024)


def has_template(tokenizer: Any) -> bool:
    """Return whether a tokenizer has a chat template."""
    return bool(getattr(tokenizer, "chat_template", None))


def render_chat(tokenizer: Any, chat: Chat, instruction: str, demonstrations: Sequence[Item], item: Item) -> str:
    """Return a chat prompt; `chat.adds_special` says how to encode it. Raises UsageError if the template refuses the messages."""
    if chat.ye2024:
        shown = "".join(f"{render_item(d, chat.ye2024)} {d.answer}\n" for d in demonstrations)
        return _applied(tokenizer, [{"role": "user", "content": f"{shown}{render_item(item, chat.ye2024)}"}])
    messages = [{"role": "system", "content": chat.system}] if chat.system else []
    shown = "" if chat.turns else "".join(f"{render_item(d)} {d.answer}\n\n" for d in demonstrations)
    for number, each in enumerate([*(demonstrations if chat.turns else []), item]):
        begin = f"{instruction}\n\n" if instruction and not number else ""
        messages.append({"role": "user", "content": f"{begin}{shown}{_question(each)}"})
        messages.append({"role": "assistant", "content": f"{CUE} {each.answer}"})
    return f"{_applied(tokenizer, messages[:-1])}{CUE}"


def _question(item: Item) -> str:
    return render_item(item).removesuffix(f"\n{CUE}")


def _applied(tokenizer: Any, messages: list[dict[str, str]]) -> str:
    from jinja2 import TemplateError

    with patch("transformers.utils.chat_template_utils.datetime", _FixedDay):
        try:
            return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **SETTINGS))
        except (TemplateError, ValueError, TypeError, KeyError) as error:
            roles = " and ".join(dict.fromkeys(message["role"] for message in messages))
            raise UsageError(f"the chat template of the tokenizer refuses messages of {roles}: {error}") from error


class _FixedDay(datetime.datetime):
    """A clock that stands still, so that a run's prompts do not depend on the day it is made."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> "_FixedDay":
        """Return the fixed day."""
        return cls(DAY.year, DAY.month, DAY.day, tzinfo=tz)
