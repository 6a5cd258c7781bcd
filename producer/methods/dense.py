"""Dense: the uncompressed model, with which compressed runs are compared."""

from typing import Any

from producer.methods.shared.architectures import not_dense
from producer.methods.shared.contract import NOTHING, Job, Method
from schemas.levels import NO_LEVEL, Level


def accepts_none(level: Level) -> str:
    """Return why a method without levels cannot take a level, or ""."""
    return "" if level.kind == "none" else "it compresses nothing by itself"


def _keep(model: Any, job: Job) -> Any:
    return model


METHOD = Method(
    name="dense",
    kind="uncompressed",
    paper="-",
    default_level=NO_LEVEL,
    levels="no level",
    needs=NOTHING,
    models="what the backend runs",
    compress=_keep,
    settings_for=lambda level: {},
    accepts=accepts_none,
    fits=lambda config, level: not_dense(config),
    verify=lambda model, job: {},
    takes_cache=False,
)
