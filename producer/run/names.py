"""What models and runs are called in messages."""

from producer.request.planned import PlannedRun, RunGroup
from schemas.levels import NO_LEVEL, Level


def group_name(group: RunGroup) -> str:
    """Return model and method of a group."""
    return f"{group.model.files.name} {group.method.name}"


def level_name(group: RunGroup, level: Level) -> str:
    """Return model, method and level of a group's model; the dense model has no level."""
    return group_name(group) if level.text == NO_LEVEL else f"{group_name(group)} {level.text}"


def run_name(planned: PlannedRun) -> str:
    """Return the name that a planned run has in the store."""
    assert planned.key is not None, "weights are fetched before a run is made"
    return planned.key.name


def compressed_name(planned: PlannedRun) -> str:
    """Return model, method and level as the gate names them."""
    assert planned.key is not None, "weights are fetched before a run is made"
    return f"{planned.key.model} {planned.key.method} {planned.key.level}"
