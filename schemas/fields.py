"""The fields of a run's key by which runs are selected, paired and distinguished. Fast to import, so that `--help` is instant.

The name of a prompt also says how it was asked: `base-chat@2` is prompt `base` in a chat template, its options in order 2.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

FIELDS = ("model", "method", "level", "task", "prompt")  # the fields that a user names
COMPUTED_AS = ("dtype", "backend", "seed")
MADE_WITH = ("settings_hash", "compression_data_hash")  # of a compressed model: its method's settings, and the data it saw
# What a catalog shows of a key; `settings_hash` stands for the settings themselves.
KEY_COLUMNS = (*FIELDS, "items_hash", "weights_hash", "tokens_hash", *MADE_WITH, *COMPUTED_AS)
CHAT = "-chat"  # end of the name of a prompt that stands in a chat template
NATIVE = "native"  # name of the prompt that a task of lm-evaluation-harness words itself
YE2024 = "ye2024"  # name of the published benchmark's chat prompt, which does not begin the reply
OWN_TEXT = (NATIVE, f"{YE2024}{CHAT}")  # prompts that somebody else words; they are not among ours when we average over wordings
_IN_ORDER = re.compile(r"(?P<prompt>.+)@(?P<order>[1-9]|1[0-9]|2[0-5]|mean[1-9][0-9]?)", re.DOTALL)


class PromptName(NamedTuple):
    """The name of a prompt without its order, and the order of options: "0" for their own, "1", "2", ..., or "mean4" for a mean over 4."""

    prompt: str
    order: str


def name_in_order(prompt: str, order: int | str) -> str:
    """Return the name of a prompt that is asked in an order of options, such as base@2; in order 0, their own, it is the prompt's name."""
    return f"{prompt}@{order}" if order else prompt


def split_prompt_name(name: str) -> PromptName:
    """Return the prompt and the order of options that the name of a run's prompt states."""
    match = _IN_ORDER.fullmatch(name)
    return PromptName(match["prompt"], match["order"]) if match else PromptName(name, "0")


def averaged_together(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what runs must share to be averaged over prompts: all but the wording.

    So weights, settings of a method, compression data, dtypes, seeds, orders of options, chats, and prompts that somebody else words stay
    apart from others.
    """
    prompt, order = split_prompt_name(row["prompt"])
    return (
        *(row[name] for name in KEY_COLUMNS if name not in ("prompt", "tokens_hash")),
        prompt.endswith(CHAT),
        prompt if prompt in OWN_TEXT else "",
        order,
    )
