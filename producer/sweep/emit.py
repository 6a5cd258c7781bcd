"""`--emit`: print a sweep as a job for another scheduler, without running it.

In: commands.  Out: an sbatch array script, a Kubernetes indexed Job, or JSON. Where the job runs, `produce` must be on the PATH.
"""

import json
import shlex
from collections.abc import Callable, Sequence

from producer.sweep.cells import Command

GRACE_S = 120  # seconds between SIGTERM and SIGKILL, in which a cell finishes its batch and commits


def emit(commands: Sequence[Command], form: str) -> str:
    """Return the sweep as text in the form of that name, one of `FORMS`."""
    return FORMS[form](commands)


def _cells(commands: Sequence[Command]) -> str:
    """Return a bash array with the command line of every cell."""
    lines = (shlex.join(["produce", *command.arguments]) for command in commands)
    return "cells=(\n" + "\n".join(f"  {shlex.quote(line)}" for line in lines) + "\n)"


def _json(commands: Sequence[Command]) -> str:
    return json.dumps([{"name": command.name, "command": ["produce", *command.arguments]} for command in commands], indent=2)


def _sbatch(commands: Sequence[Command]) -> str:
    """Return a Slurm array job. The signal needs "B:", because `produce` replaces the batch shell and Slurm else signals job steps only."""
    return f"""#!/bin/bash
#SBATCH --job-name=hedgemark
#SBATCH --array=0-{len(commands) - 1}
#SBATCH --ntasks=1
#SBATCH --gpus={_devices(commands)}
#SBATCH --signal=B:TERM@{GRACE_S}
{_cells(commands)}
exec bash -c "exec ${{cells[$SLURM_ARRAY_TASK_ID]}}"
"""


def _devices(commands: Sequence[Command]) -> int:
    return max(command.devices for command in commands)


def _k8s(commands: Sequence[Command]) -> str:
    """Return a Job in JSON, which is also YAML. The user inserts the image's name by hand or with `envsubst '$HEDGEMARK_IMAGE'`."""
    script = f'{_cells(commands)}\nexec bash -c "exec ${{cells[$JOB_COMPLETION_INDEX]}}"\n'
    container = {
        "name": "produce",
        "image": "${HEDGEMARK_IMAGE}",
        "command": ["bash", "-c", script],
        "resources": {"limits": {"nvidia.com/gpu": _devices(commands)}},
    }
    pod = {"restartPolicy": "Never", "terminationGracePeriodSeconds": GRACE_S, "containers": [container]}
    spec = {
        "completions": len(commands),
        "parallelism": len(commands),
        "completionMode": "Indexed",
        "backoffLimit": len(commands),
        "template": {"spec": pod},
    }
    return json.dumps({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "hedgemark"}, "spec": spec}, indent=2)


FORMS: dict[str, Callable[[Sequence[Command]], str]] = {"sbatch": _sbatch, "k8s": _k8s, "json": _json}
