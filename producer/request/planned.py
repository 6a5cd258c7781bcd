"""The types of a plan: runs with their keys, in groups that load the weights once.

`producer.run.plan` makes them from a `Request`; the backends answer their items.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from producer.engine.text_fidelity import Windows
from producer.methods import Method
from producer.models.find import ModelFiles
from producer.models.unread_settings import unread_settings
from producer.models.weights_hash import weight_bytes_as
from producer.prompts.chat import YE2024_TOKENS, Chat, has_template
from producer.prompts.encode import OptionTokens, Prompts, encode, encode_texts, render_prompt
from producer.prompts.token_quirks import describe_token_quirks
from producer.request.text_source import Text
from producer.request.vllm_options import VllmOptions
from producer.tasks.native_prompt import Native
from producer.tasks.source import TaskItems
from schemas.errors import UsageError
from schemas.fields import NATIVE
from schemas.items import Item
from schemas.itemset import ItemSet
from schemas.levels import Level
from schemas.orders import item_in_order, n_turning, names_others, positions_in_order
from schemas.run import DENSE, RunKey


@dataclass(frozen=True)
class Model:
    """A model before its weights are loaded: files, config and tokenizer."""

    files: ModelFiles
    config: Any
    tokenizer: Any
    device: str
    dtype: str
    _: KW_ONLY
    vllm: VllmOptions = field(default_factory=VllmOptions)

    @cached_property
    def weight_bytes(self) -> int:
        """Bytes of the weights in memory; counting them takes up to a second for a large model, since it is built without weights."""
        return weight_bytes_as(self.files, self.config, self.dtype)

    @cached_property
    def unread(self) -> list[str]:
        """Settings of the config that would change logits, and that no one reads."""
        return unread_settings(self.config)


@dataclass(frozen=True)
class PromptedTask:
    """The items of a task with one prompt, for one model, and the tokens of the answers (A, B, ...).

    order : the cyclic order in which the options are shown, see `schemas.orders`; 0 is the items' own.
    """

    model: Model
    task: TaskItems
    prompt: str
    instruction: str
    options: OptionTokens
    item_set: ItemSet
    chat: Chat | None = None
    order: int = 0

    @cached_property
    def shown(self) -> Sequence[Item]:
        """The items as they are shown, with their options in this order."""
        return [item_in_order(item, self.order) for item in self.task.items] if self.order else self.task.items

    def in_own_order(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return logits (item, place) of the options as shown as logits (item, option) in the items' own order."""
        if not self.order:
            return logits
        turning = np.array([n_turning(list(item.choices.values())) for item in self.task.items])
        return np.take_along_axis(logits, positions_in_order(turning, logits.shape[1], self.order), axis=1)

    @property
    def native(self) -> Native | None:
        """The task's own prompts where they are asked, else None."""
        return self.task.native if self.prompt == NATIVE else None

    def text(self, item: int) -> str:
        """Return the prompt of one item as text."""
        if self.native:
            return self.native.contexts[self.task.items[item].id]
        return render_prompt(self.model.tokenizer, self.instruction, self.task.demonstrations, self.shown[item], self.chat)

    @cached_property
    def prompts(self) -> Prompts:
        """Token ids of the items' prompts."""
        return self.encoded(self.shown)

    def encoded(self, shown: Sequence[Item]) -> Prompts:
        """Return the token ids of the prompts in which these items would be asked, with their options as they are shown."""
        context = getattr(self.model.config.get_text_config(), "max_position_embeddings", None) or self.model.tokenizer.model_max_length
        if self.native:
            texts = [self.native.contexts[item.id] for item in shown]
            return encode_texts(self.model.tokenizer, texts, [len(item.choices) for item in shown], int(context))
        if self.chat and self.chat.ye2024:
            context = min(int(context), YE2024_TOKENS)
        return encode(self.model.tokenizer, self.instruction, self.task.demonstrations, shown, int(context), self.chat)

    def only(self, items: Sequence[int]) -> "PromptedTask":
        """Return what asks some of the items, in the order given; their prompts and shared prefix stay, and `item_set` has all items."""
        chosen = replace(self, task=replace(self.task, items=[self.task.items[item] for item in items]))
        vars(chosen)["prompts"] = self.prompts.only(items)
        return chosen

    def check_tokens(self) -> None:
        """Raise UsageError if a prompt or an answer has a token for which the model has no embedding."""
        rows = self.model.config.get_text_config().vocab_size
        largest = max(*self.options.ids, max(self.prompts.prefix, default=0), *(max(suffix) for suffix in self.prompts.suffixes))
        if largest >= rows:
            name, token = self.model.files.name, self.model.tokenizer.convert_ids_to_tokens(largest)
            raise UsageError(
                f"the tokenizer of {name!r} encodes task {self.task.name!r} with token {largest} ({token!r}), and the model has "
                f"embeddings for {rows} tokens; the tokenizer belongs to another model, or the embeddings were not resized for added tokens"
            )

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """Warnings stored with each run and logged once: about the items, prompts that did not fit, and what was left unused."""
        truncated, name = self.prompts.truncated, self.model.files.name
        note = (
            f"{self.task.name}, prompt {self.prompt}: {truncated} of {len(self.item_set)} prompts are longer than the context of {name} "
            "and were truncated: they lost their beginning"
        )
        cure = "the task's own prompts have none; --prompt base --chat applies it" if self.native else "--chat applies it"
        without = f"the tokenizer of {name} has a chat template, and the prompts are without it; {cure}"
        plain = has_template(self.model.tokenizer) and not self.chat
        n_shown = self.native.answer_shown if self.native else 0
        shown = f"{self.task.name}, prompt {self.prompt}: {n_shown} of its items stand with their answer among their own demonstrations"
        naming = sum(map(names_others, self.task.items)) if self.order else 0
        turned = (
            f"{self.task.name}: {naming} of {len(self.item_set)} items have an option that speaks of others by letter or place, such as "
            "'all of the above', which is untrue in another order"
        )
        unread = [f"the config of {name} says {each}, which its class in transformers does not read" for each in self.model.unread]
        misread = [
            f"{self.task.name}, prompt {self.prompt}, tokenizer of {name}: {quirk}"
            for quirk in describe_token_quirks(self.model.tokenizer, self.shown, self.prompts)
        ]
        return (
            *self.task.notes,
            *([note] if truncated else []),
            *misread,
            *([turned] if naming else []),
            *([shown] if n_shown else []),
            *([without] if plain else []),
            *unread,
        )


@dataclass(frozen=True)
class PlannedRun:
    """One run to make. `key` is None while the weights are not on this machine, because their hash is part of the key."""

    prompted: PromptedTask
    level: Level
    key: RunKey | None


@dataclass(frozen=True)
class ModelText:
    """A text in the tokens of one model; documents of which no token can be foretold are left out, and counted."""

    text: Text
    windows: Windows
    n_left_out: int

    @cached_property
    def item_set(self) -> ItemSet:
        """The documents as items."""
        return self.text.item_set()


@dataclass(frozen=True)
class PlannedText:
    """One run over a text. `key` is None while the weights are not on this machine."""

    text: ModelText
    level: Level
    key: RunKey | None


@dataclass(frozen=True)
class RunGroup:
    """All runs of one model, method and compression data; the weights are loaded once for all of them.

    again : whether another group of the same model follows in the plan, for which the weights are kept as they were loaded.
    """

    model: Model
    method: Method
    data: Any
    seed: int
    runs: Sequence[PlannedRun] = ()
    texts: Sequence[PlannedText] = ()
    again: bool = False

    @property
    def levels(self) -> list[Level]:
        """The levels of the runs, in order and without repeats."""
        return list(dict.fromkeys([*(run.level for run in self.runs), *(each.level for each in self.texts)]))

    @property
    def is_dense(self) -> bool:
        """Whether the model is run without compression."""
        return self.method.name == DENSE
