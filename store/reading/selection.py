"""Select runs of a catalog: the one rule that `store ls` and all `analyze` commands use.

In: catalog rows, and accepted values by field (model, method, level, task, prompt).  Out: the rows that match.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from schemas.errors import RunNotFoundError, UsageError
from schemas.fields import FIELDS
from schemas.known_names import known
from schemas.levels import NO_LEVEL, parse_level
from schemas.run import CHECKPOINT

log = logging.getLogger(__name__)

SHOWN = 20  # values listed in a message

Row = Mapping[str, Any]
Selection = Mapping[str, Sequence[str]]


class NamedRows(NamedTuple):
    """Catalog rows in which different models have different names, and the accepted values in terms of these names."""

    rows: list[Row]
    selection: Selection


def matching_rows(rows: Iterable[Row], selection: Selection, where: str, fields: Sequence[str] = FIELDS) -> list[Row]:
    """Return the rows whose fields have one of the accepted values; an empty list accepts all.

    selection : field -> accepted values; levels may be spelled in any way, so `.50` means `0.5`.
    where     : name of the rows in messages, such as a snapshot.
    Raises RunNotFoundError, which lists the values that exist, if no row has an accepted value.
    """
    chosen = list(rows)
    for field in fields:
        accepted = {_canonical_level(value) if field == "level" else value for value in selection.get(field, ())}
        stored = sorted({row[field] for row in chosen})
        for value in sorted(accepted.difference(stored)):
            named = _named_by_its_folder(field, value, stored)
            raise RunNotFoundError(f"no run with {field} {value!r} at {where}{named}; {known(value, stored, SHOWN)}")
        chosen = [row for row in chosen if not accepted or row[field] in accepted]
    return chosen


def name_models_apart(rows: Iterable[Row], selection: Selection) -> NamedRows:
    """Rename models that share a name but have different weights, such as to merged@1a2b3c4d; the shared name selects all of them.

    Many folders have the same name (merged, final, checkpoint-500), and their runs must not be taken for runs of one model. Runs of method
    `checkpoint` have other weights than their dense model by nature, and imported runs have no hash of weights: both keep their name.
    """
    listed = list(rows)
    hashes: dict[str, set[str]] = defaultdict(set)
    for row in listed:
        if row["method"] != CHECKPOINT and row.get("weights_hash"):
            hashes[row["model"]].add(row["weights_hash"])
    apart = {name: {each: f"{name}@{each[:8]}" for each in sorted(digests)} for name, digests in hashes.items() if len(digests) > 1}
    for name, names in apart.items():
        log.warning(
            "%d models are called %r; they differ in the files of their weights, config or tokenizer, and are shown as %s",
            len(names),
            name,
            ", ".join(names.values()),
        )
    named = [
        {**row, "model": apart[row["model"]].get(row["weights_hash"], row["model"])}
        if row["model"] in apart and row["method"] != CHECKPOINT
        else row
        for row in listed
    ]
    models = [each for model in selection.get("model", ()) for each in (model, *apart.get(model, {}).values())]
    known = {row["model"] for row in named}
    return NamedRows(named, {**selection, "model": [model for model in models if model in known or model not in apart]})


def _named_by_its_folder(field: str, value: str, known: Sequence[str]) -> str:
    """Return what to ask for where the path of a model was given, and its runs have the name of the folder or GGUF file; else ""."""
    if field != "model" or not value:
        return ""
    path = Path(value).expanduser()
    name = path.stem if path.suffix == ".gguf" else path.resolve().name
    return f"; runs of a folder or file are stored under its name, so give {name!r}" if name in known else ""


def _canonical_level(level: str) -> str:
    try:
        return parse_level(level).text
    except UsageError:  # not a level, so no run has it; the caller's message lists the levels that exist
        return level or NO_LEVEL
