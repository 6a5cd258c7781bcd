"""How large a model is and which family it belongs to: parameters as recorded, else as its name says, and said so.

A family is the name without its size: `llama2-7b` and `llama2-70b` are `llama2`; of models without a number in the name, a last part
that is a size in words (`ref-s`, `ref-m`) is left out.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

MAGNITUDES = {"k": 1e3, "m": 1e6, "b": 1e9}
SIZE_IN_NAME = re.compile(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)([kmb])(?![a-z0-9])", re.IGNORECASE)
SIZE_IN_WORDS = re.compile(r"[-_ ](?:xxs|xs|s|m|l|xl|xxl|tiny|mini|small|medium|base|large)$", re.IGNORECASE)
RECORDED, NAMED = "recorded", "from the name"


class Size(NamedTuple):
    """Parameters of a dense model, and whether they are recorded with the run or read off the name; None where neither says."""

    parameters: float | None
    source: str | None


def model_size(row: Mapping[str, Any]) -> Size:
    """Return the size of a run's model."""
    if row.get("parameters"):
        return Size(float(row["parameters"]), RECORDED)
    match = SIZE_IN_NAME.search(row["model"])
    return Size(float(match[1]) * MAGNITUDES[match[2].lower()], NAMED) if match else Size(None, None)


def family(model: str) -> str:
    """Return the family of a model: its name without its size."""
    stripped = SIZE_IN_WORDS.sub("", model) if not SIZE_IN_NAME.search(model) else SIZE_IN_NAME.sub("", model)
    return re.sub(r"[-_ ]{2,}", "-", stripped).strip("-_ ") or model
