"""What was asked for: the command's options as one value, before anything is looked up."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Request:
    """Every combination of models, methods, levels, tasks and prompts is one run.

    levels : as text; empty takes each method's default level.
    tasks  : names or item files; empty takes urn and facts for the reference models, the published tasks for others.
    limit  : items drawn per task, 0 for all.
    device, dtype : "auto" takes an accelerator where there is one, and there the checkpoint's dtype; float32 on a CPU.
    compression_data : "auto" takes each task's default source.
    """

    models: tuple[str, ...]
    methods: tuple[str, ...] = ("dense",)
    levels: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ("base",)
    limit: int = 0
    data: Path | None = None
    prompt_file: Path | None = None
    backend: str = "transformers"
    device: str = "auto"
    dtype: str = "auto"
    seed: int = 0
    compression_data: str = "auto"
    allow_nonfinite: bool = False
    replace: bool = False
