"""Refuse what cannot be saved before any work is done.

In: the groups of a request, its settings.  Out: nothing, or a UsageError with the reason.
"""

import logging
from collections.abc import Sequence

from producer.engine.settings import Settings
from producer.request.planned import RunGroup
from producer.saved.folder import unsavable
from schemas.errors import UsageError

log = logging.getLogger(__name__)


def check_saving(groups: Sequence[RunGroup], settings: Settings) -> None:
    """Raise UsageError if --save cannot write the request's compressed model: none or several, one that cannot be saved, a folder in use.

    A model that --models cannot keep is named on stderr, and compressed again each time.
    """
    compressed = [group for group in groups if not group.is_dense]
    if settings.save is not None:
        models = [(group, level) for group in compressed for level in group.levels]
        if len(models) != 1:
            raise UsageError(f"--save writes one compressed model, and this request makes {len(models)}; --models DIR keeps any number")
        if reason := unsavable(models[0][0].method, models[0][0].model.config):
            raise UsageError(f"what method {models[0][0].method.name!r} makes cannot be saved as a checkpoint: {reason}")
        if settings.save.exists() and any(settings.save.iterdir()):
            raise UsageError(f"the folder {settings.save} of --save is not empty; name one that does not exist yet")
    for group in compressed if settings.saved_models else ():
        if reason := unsavable(group.method, group.model.config):
            log.warning("%s by %s is not kept among the saved models: %s", group.model.files.name, group.method.name, reason)
