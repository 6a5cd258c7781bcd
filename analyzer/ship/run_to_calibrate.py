"""Which run a predictor is made of, whether it is the expected one, and which of its items calibrate.

In: the selected runs.  Out: the view of one run, if need be with one item of each cluster.
"""

from collections.abc import Mapping

import numpy as np

from analyzer.runs.loading import Runs
from analyzer.runs.superseded import superseded
from analyzer.runs.view import RunView
from analyzer.stats.random_words import item_uniform
from schemas.errors import UsageError
from schemas.fields import FIELDS
from schemas.known_names import known

KEY_FIELDS = (
    "model", "revision", "weights_hash", "method", "level", "method_settings", "compression_data_hash", "task", "items_hash", "prompt",
    "prompt_hash", "tokens_hash", "option_token_ids", "option_tokens", "dtype", "backend",
)  # fmt: skip


def one_of_each_cluster(view: RunView) -> RunView:
    """Return the view of one item per cluster, drawn by the hash of its id, so that the same items are drawn again."""
    order = np.argsort(item_uniform(view.items.item_id[view.position]), kind="stable")
    first = np.unique(view.cluster_of_set[view.position][order], return_index=True)[1]
    return view.keep(np.sort(order[first]))


def one_run(runs: Runs) -> RunView:
    """Return the selected run; if it was asked again with more questions, the larger one. Raises UsageError for several others."""
    of_one_name = len({tuple(row[field] for field in FIELDS) for row in runs.rows}) == 1
    smaller = superseded(runs.views()) if of_one_name and len(runs.rows) > 1 else {}
    rows = [row for row in runs.rows if row["name"] not in smaller]
    if len(rows) != 1:
        names = ", ".join(row["name"] for row in rows[:4])
        more = f" and {len(rows) - 4} more" if len(rows) > 4 else ""
        cure = "delete the others with store rm" if of_one_name else "name model, method, level, task and prompt"
        raise UsageError(f"a predictor is made of one run, and {len(rows)} are selected: {names}{more}; {cure}")
    return runs.view(rows[0])


def check_expected(view: RunView, expect: Mapping[str, str]) -> None:
    """Raise UsageError unless the run's key has the expected values, by field; a hash may be shortened to 8 digits or more."""
    key = view.key.model_dump(mode="json")
    for field, expected in expect.items():
        if field not in KEY_FIELDS:
            raise UsageError(f"there is no field {field!r} to expect; {known(field, KEY_FIELDS)}")
        actual = ",".join(map(str, key[field])) if isinstance(key[field], list) else str(key[field])
        shortened = field.endswith("_hash") and len(expected) >= 8 and actual.startswith(expected)
        if actual != expected and not shortened:
            raise UsageError(f"run {view.row['name']} has {field} {actual[:80]!r}, not the expected {expected[:80]!r}; choose another run")
