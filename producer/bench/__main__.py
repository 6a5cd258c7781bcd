"""`python -m producer.bench`: how fast the prefill engine is.

rates : items per second, compared with lm-evaluation-harness and with one prompt per forward pass
share : speed as a share of this machine's peak speed of matrix products
paths : processor seconds of the model's own forward pass, which answers the models that the engine cannot, compared with the engine's
layers: running layer by layer in little memory, compared with all weights in memory
levels: a range of levels in one command, compared with one command per level
saved : answers of saved models loaded again, and one more prompt with --models, compared with compressing again
journal: keeping answers while a run is under way, compared with keeping none
gpu   : models of 8B and 70B parameters on a GPU

Each part runs alone and takes minutes; `--record` appends what it printed to a file, with command, date and device.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from producer.bench.cases import SHOTS, TASKS
from producer.bench.gpu import gpu
from producer.bench.journal import journal
from producer.bench.layer_major import layers
from producer.bench.levels import levels
from producer.bench.rates import CLOCKS, rates
from producer.bench.saved import SAVEABLE, saved
from producer.bench.share import share
from producer.bench.two_paths import paths
from producer.machine.environment import device_name
from producer.machine.free_memory import share_malloc_arena
from schemas.errors import HedgemarkError

Part = Callable[[argparse.Namespace], Iterator[str]]
PARTS: dict[str, Part] = {
    "rates": rates, "share": share, "paths": paths, "layers": layers, "levels": levels, "saved": saved, "journal": journal,
    "gpu": gpu
}  # fmt: skip
PATHS = ("--data", "--lm-eval", "--record")  # left out of the records, since paths of one machine mean nothing to their readers


def main() -> None:
    """Print the figures of the selected parts."""
    share_malloc_arena()  # as `produce` does
    arguments = _arguments()
    lines = []
    try:
        for name in arguments.part or PARTS:
            for line in PARTS[name](arguments):
                print(line, flush=True)
                lines.append(line)
    except HedgemarkError as error:
        sys.exit(f"Error: {error}")
    if arguments.record:
        with arguments.record.open("a", encoding="utf-8") as file:
            file.write(record(sys.argv[1:], arguments.device, lines))


def record(options: list[str], device: str, lines: list[str]) -> str:
    """Return a section for the records file: date, device, load, command, figures."""
    import torch

    shown = [option for before, option in zip(["", *options], options, strict=False) if not {before, option.split("=")[0]} & set(PATHS)]
    command = shlex.join(["python", "-m", "producer.bench", *shown])
    where = f"{device_name(device)}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    busy = f"load {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores"
    figures = "".join(f"    {line}\n" for line in lines)
    return f"\n## {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {where}, {busy}\n\n    $ {command}\n\n{figures}"


def _arguments() -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m producer.bench", description=__doc__, formatter_class=raw)
    parser.add_argument("--part", choices=[*PARTS], action="append", help="only this part (repeatable)")
    about_models = "only this model, for rates, share and paths (repeatable); for saved, the first"
    parser.add_argument("--model", choices=[*TASKS], action="append", help=about_models)
    parser.add_argument("--method", choices=[*SAVEABLE], action="append", help="only this method, for saved (repeatable)")
    parser.add_argument("--task", choices=sorted(set().union(*TASKS.values())), action="append", help="only this task (repeatable)")
    parser.add_argument("--shots", choices=[*SHOTS], action="append", help="only with or without demonstrations (repeatable)")
    parser.add_argument("--items", type=int, default=0, help="items per case; 0: as many as two cores answer in a minute or two")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds; their median and range are shown")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with the published tasks' items")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clock", choices=[*CLOCKS], default="wall", help="cpu: processor time, for a busy machine")
    parser.add_argument("--batch-size", type=int, default=16, help="batch size of lm-evaluation-harness")
    lm_eval = Path(".venv-lmeval/bin/python")
    parser.add_argument("--lm-eval", type=Path, default=lm_eval, metavar="PYTHON", help="Python of an environment with lm-eval")
    parser.add_argument("--record", type=Path, metavar="FILE", help="append the figures to this file, e.g. producer/bench/records.md")
    return parser.parse_args()


if __name__ == "__main__":
    main()
