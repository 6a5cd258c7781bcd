"""Which runs of a catalog are asked for: the one rule behind `store ls` and every `analyze` command.

In: catalog rows, and accepted values by field (model, method, level, task, prompt).  Out: the rows that match.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from schemas.errors import RunNotFoundError, UsageError
from schemas.fields import FIELDS
from schemas.levels import NO_LEVEL, parse_level
from schemas.run import CHECKPOINT

log = logging.getLogger(__name__)

SHOWN = 20  # values listed in a message

Row = Mapping[str, Any]
Wanted = Mapping[str, Sequence[str]]


class NamedRows(NamedTuple):
    """Rows in which different models have different names, and what is wanted in those names."""

    rows: list[Row]
    wanted: Wanted


def matching_rows(rows: Iterable[Row], wanted: Wanted, where: str, fields: Sequence[str] = FIELDS) -> list[Row]:
    """Return the rows whose fields have one of the accepted values; an empty list accepts all.

    wanted : field -> accepted values; a level in any spelling, so `.50` is `0.5`.
    where  : what a message calls the rows, such as a snapshot.
    Raises RunNotFoundError listing the values there are, where an accepted one is not among them.
    """
    chosen = list(rows)
    for field in fields:
        accepted = {_canonical_level(value) if field == "level" else value for value in wanted.get(field, ())}
        known = sorted({row[field] for row in chosen})
        for value in sorted(accepted.difference(known)):
            more = f" and {len(known) - SHOWN} more" if len(known) > SHOWN else ""
            raise RunNotFoundError(f"no run with {field} {value!r} at {where}; known: {', '.join(known[:SHOWN]) or 'none'}{more}")
        chosen = [row for row in chosen if not accepted or row[field] in accepted]
    return chosen


def name_models_apart(rows: Iterable[Row], wanted: Wanted) -> NamedRows:
    """Give models of one name but different weights names of their own, such as merged@1a2b3c4d; the shared name asks for all of them.

    Folders are often called alike (merged, final, checkpoint-500); their runs must not be taken for those of one model. A checkpoint has
    weights of its own by nature, and imported runs have no hash: both keep their name.
    """
    listed = list(rows)
    hashes: dict[str, set[str]] = defaultdict(set)
    for row in listed:
        if row["method"] != CHECKPOINT and row.get("weights_hash"):
            hashes[row["model"]].add(row["weights_hash"])
    apart = {name: {each: f"{name}@{each[:8]}" for each in sorted(found)} for name, found in hashes.items() if len(found) > 1}
    for name, names in apart.items():
        log.warning(
            "%d models are called %r; they differ in their weights and are shown as %s", len(names), name, ", ".join(names.values())
        )
    named = [
        {**row, "model": apart[row["model"]].get(row["weights_hash"], row["model"])}
        if row["model"] in apart and row["method"] != CHECKPOINT
        else row
        for row in listed
    ]
    models = [each for model in wanted.get("model", ()) for each in (model, *apart.get(model, {}).values())]
    known = {row["model"] for row in named}
    return NamedRows(named, {**wanted, "model": [model for model in models if model in known or model not in apart]})


def _canonical_level(level: str) -> str:
    try:
        return parse_level(level).text
    except UsageError:  # not a level: no run has it, which the message then says with the levels there are
        return level or NO_LEVEL
