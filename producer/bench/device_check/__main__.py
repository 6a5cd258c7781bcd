"""`python -m producer.bench.device_check`: does everything work on this GPU, and how fast and within how much memory?

Needs no network. Each step runs in a process of its own with a time limit, so that one that fails or hangs costs no other; together
they take at most eight minutes on a machine with a GPU. With `--device cpu --small` the same steps are rehearsed in small.
Exit code 0 if all steps passed, 1 if one did not, 2 for wrong usage.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from producer.bench.device_check.finding import Where
from producer.bench.device_check.run import OK, Ended, run_all, run_inside
from producer.bench.device_check.steps import STEPS


def main() -> None:
    """Run the selected steps, print a line for each thing tried and a table last."""
    arguments = _arguments()
    where = Where(arguments.device, arguments.small)
    if arguments.inside:
        run_inside(arguments.inside, where, arguments.findings)
        return
    ended, clock = list[Ended](), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for step in run_all(arguments.step or [*STEPS], where, Path(folder), arguments.limit_factor):
            ended.append(step)
            print(*step.lines(), sep="\n", flush=True)
            if arguments.json:
                arguments.json.write_text(_as_json(ended, where), encoding="utf-8")  # after every step: the last may never end
    print(f"\n{_table(ended)}\n\n{len(ended)} steps in {time.monotonic() - clock:.0f} s on {where.device}", flush=True)
    sys.exit(0 if all(step.outcome == OK for step in ended) else 1)


def _as_json(ended: list[Ended], where: Where) -> str:
    steps = [{**step._asdict(), "findings": [finding._asdict() for finding in step.findings]} for step in ended]
    return json.dumps({"device": where.device, "small": where.small, "steps": steps}, indent=1, default=str)


def _table(ended: list[Ended]) -> str:
    """Return one row per step: how it ended, seconds, findings without a fault of all, the first fault."""
    rows = [("step", "outcome", "seconds", "passed", "first fault")]
    for step in ended:
        passed = sum(not finding.fault for finding in step.findings)
        rows.append((step.name, step.outcome, f"{step.seconds:.0f}", f"{passed}/{len(step.findings)}", step.fault[:100]))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]).rstrip() for row in rows)


def _arguments() -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m producer.bench.device_check", description=__doc__, formatter_class=raw)
    parser.add_argument("--device", default="cuda:0", help="the device to check, cuda:0 or cpu")
    parser.add_argument("--small", action="store_true", help="small models and few items, for a rehearsal on a CPU")
    parser.add_argument("--step", choices=[*STEPS], action="append", help="only this step (repeatable)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to this file")
    parser.add_argument("--limit-factor", type=float, default=1.0, help="multiply all time limits by this, for a slow or busy machine")
    parser.add_argument("--inside", choices=[*STEPS], help=argparse.SUPPRESS)
    parser.add_argument("--findings", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
