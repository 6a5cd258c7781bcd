"""The fields of a run's key by which runs are selected, paired and distinguished. Fast to import, so that `--help` is instant."""

from collections.abc import Mapping
from typing import Any

FIELDS = ("model", "method", "level", "task", "prompt")  # the fields that a user names
COMPUTED_AS = ("dtype", "backend", "seed")
KEY_COLUMNS = (*FIELDS, "items_hash", "weights_hash", "tokens_hash", *COMPUTED_AS)  # fields of the key that are columns of a catalog
CHAT = "-chat"  # end of the name of a prompt that stands in a chat template


def averaged_together(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what runs must share to be averaged over prompts: all but the wording, so that weights, dtypes, seeds and chat stay apart."""
    return (*(row[name] for name in KEY_COLUMNS if name not in ("prompt", "tokens_hash")), row["prompt"].endswith(CHAT))
