"""Migrations: one pure function per schema version, which converts a group of a store to the next version.

In: (key, bytes) pairs of one group.  Out: the pairs that replace them in the next version. A step does no input or output, so that it can
be tested on the golden store of its version; `store.upkeep.migration` applies it on a branch.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from schemas.errors import StoreInvalidError
from schemas.json_text import json_bytes
from schemas.layout import ITEMS, RUNS, SCHEMA_VERSION, SEAL, group_document, sealed

Nodes = Sequence[tuple[str, bytes]]
Step = Callable[[Nodes], Nodes]


def to_version_2(nodes: Nodes) -> Nodes:
    """Return a group's nodes with its document marked as version 2, which only adds optional fields."""
    return _with_attributes(nodes, {"schema": 2})


def to_version_3(nodes: Nodes) -> Nodes:
    """Return a group's nodes as version 3, in which item sets record the SHA-256 of their text offsets; it is "" for older item sets."""
    more = {"text_offsets_sha256": ""} if nodes[0][0].startswith(f"{ITEMS}/") else {}
    return _with_attributes(nodes, {"schema": 3, **more})


def to_version_4(nodes: Nodes) -> Nodes:
    """Return a group's nodes as version 4, in which runs may have arrays over the tokens of a text; older runs have none."""
    more = {"n_tokens": 0} if nodes[0][0].startswith(f"{RUNS}/") else {}
    return _with_attributes(nodes, {"schema": 4, **more})


def _with_attributes(nodes: Nodes, changed: Mapping[str, Any]) -> Nodes:
    (name, stored), *arrays = nodes
    document = json.loads(stored)
    attributes = {key: value for key, value in document["attributes"].items() if key != SEAL}
    document = group_document(sealed({**attributes, **changed}))
    return [(name, json_bytes(document)), *arrays]


STEPS: Mapping[int, Step] = {1: to_version_2, 2: to_version_3, 3: to_version_4}  # version -> step to the next one


def migrate_nodes(nodes: Nodes, steps: Mapping[int, Step] = STEPS, target: int = SCHEMA_VERSION) -> Nodes:
    """Return a group's nodes in the target version, from the version that the group states.

    A group copied from an older store keeps that store's version. Raises StoreInvalidError if a step is missing.
    """
    version = int(json.loads(nodes[0][1])["attributes"]["schema"])
    while version < target:
        if version not in steps:
            raise StoreInvalidError(f"no migration leads from schema {version} to {target}; there are steps from {sorted(steps) or 'none'}")
        nodes = steps[version](nodes)
        version += 1
    return nodes
