"""Dense: the model as it is, partner of every comparison."""

from typing import Any

from producer.methods.shared.architectures import not_dense
from producer.methods.shared.contract import NOTHING, Job, Method
from schemas.levels import NO_LEVEL, Level


def accepts_none(level: Level) -> str:
    """Return why a level was given to a method that has none, or ""."""
    return "" if level.kind == "none" else "it compresses nothing by itself"


def _keep(model: Any, job: Job) -> Any:
    return model


METHOD = Method(
    name="dense",
    kind="reference",
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
)
