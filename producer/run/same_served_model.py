"""Is the model behind an address the one whose runs the store holds under the same description?

In: a served model's measured conditions, a store.  Out: nothing, or an error. A server that was restarted with other weights under the same
name makes runs whose keys say that one model made them all; the canaries stored with each run tell them apart.
"""

import numpy as np

from producer.backends.base import Ready
from producer.backends.server import CANARIES, SPREAD
from producer.request.planned import RunGroup
from producer.served.canary import allowed_change
from schemas.errors import HedgemarkError, StoreNotFoundError
from store import open_reader


def check_same_served_model(group: RunGroup, ready: Ready, store_url: str) -> None:
    """Raise HedgemarkError if a stored run of the same served model, by its description, has other canaries than these."""
    key = next(run.key for run in group.runs if run.key)
    try:
        reader = open_reader(store_url)
    except StoreNotFoundError:
        return
    alike = [row["name"] for row in reader.catalog.to_dicts() if _described(row) == (key.model, key.method, key.level, key.backend)]
    for run in reader.runs(alike):
        stored = run.env.post_conditions
        if run.key.method_settings != key.method_settings or CANARIES not in stored:
            continue
        now, before = np.array(ready.conditions[CANARIES], np.float64), np.array(stored[CANARIES], np.float64)
        moved = float(np.abs(now - before).mean()) if now.shape == before.shape else np.inf
        if moved > allowed_change(max(float(ready.conditions[SPREAD]), float(stored[SPREAD]))):
            raise HedgemarkError(
                f"run {run.key.name} was made by a served model of the same description that answered the canary prompts otherwise (by "
                f"{moved:.3g} on average): another model is behind the address now; name it with --model or --level"
            )


def _described(row: dict[str, object]) -> tuple[object, ...]:
    return row["model"], row["method"], row["level"], row["backend"]
