"""Write the model card of a saved model: what it is, how it was made and checked, and how to run and judge it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CARD = """---
tags: [{tags}]
library_name: transformers
---

# {model}, {method} at {level}

Made by Hedgemark from `{model}`{revision}: method `{method}`, level `{level}`, seed {seed}, dtype {dtype}.
Weights: {format}, {bytes:,} bytes.{groups}

Loaded again, it gave the option logits of the model in memory {change} on {items} items (allowed: {allowed:.3g}).{served}

- Run it: `vllm serve FOLDER`, or `AutoModelForCausalLM.from_pretrained("FOLDER")`.
- Judge it: `produce --model FOLDER --method checkpoint --task T`, then `analyze compare --against DENSE`.

`hedgemark.json` holds the settings, the digests of the dense weights and of the compression data, and the names of the runs:

```json
{settings}
```
"""


SERVED = """
With the rounding of activations that compressed-tensors does (steps of max|x| / 127.5 at 8 bits; vLLM and the runs in the store take
max|x| / 127) they differ by {change:.3g}."""


GROUPS = """

| layers | level | format | matrices |
|---|---|---|---|
{rows}"""


def write_card(record: Mapping[str, Any], path: Path) -> None:
    """Write a saved model's card from its record."""
    made, again = record["identity"], record["loaded_again"]
    change, loaded = again["largest_logit_change"], again["largest_logit_change_as_loaded"]
    text = CARD.format(
        tags=", ".join(("hedgemark", made["method"], *(["compressed-tensors"] if record["format"] != "plain weights" else []))),
        model=record["model"],
        revision=f" at revision `{record['revision']}`" if record["revision"] else "",
        method=made["method"],
        level=made["level"],
        seed=made["seed"],
        dtype=made["dtype"],
        format=record["format"],
        bytes=record["bytes"],
        groups=_groups(record["groups"], record["left_as_they_are"]),
        change=f"to {change:.3g}" if change else "exactly",
        items=again["items"],
        allowed=again["allowed"],
        served=SERVED.format(change=loaded) if loaded > change else "",
        settings=json.dumps(made["method_settings"], indent=1, default=str),
    )
    path.write_text(text, encoding="utf-8")


def _groups(groups: Sequence[Mapping[str, Any]], left_out: Sequence[str]) -> str:
    """Return a table of the layers that have a level of their own, "" for a model whose layers all have one level."""
    if len(groups) + bool(left_out) < 2:
        return ""
    rows = [f"| {_named(group['layers'])} | {group['level']} | {group['format']} | {group['matrices']:,} |" for group in groups]
    if left_out:
        rows.append(f"| {_named(left_out)} | as they were | plain weights | - |")
    return GROUPS.format(rows="\n".join(rows))


def _named(kinds: Sequence[str]) -> str:
    return ", ".join(f"`{kind}`" for kind in kinds)
