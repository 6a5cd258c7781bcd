"""`make bench`: every part of the bench as one command, each within its own time limit, and a table of all figures at the end.

    python tests/support/bench.py [--part NAME]... [--record]

A part that fails or takes too long costs only its own figures, and the command then ends with exit 1. Each figure is compared with that of
the last record of the same kind of machine (processor and number of cores); `--record` adds a record. The load of the machine is printed
with every part: wall-clock times of a busy machine say little, processor seconds somewhat more.
"""

import argparse
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
RECORDS = ROOT / "docs" / "bench_records.jsonl"
PUBLISHED = ROOT.parent / "shared" / "data" / "ye2024"
NUMBER = r"([\d,]+(?:\.\d+)?)"
FAILED = 124  # exit status of a part that took too long, as of timeout(1)


class Figure(NamedTuple):
    """A figure in what a part prints: the number between `before` and `after`, both regular expressions."""

    name: str
    unit: str
    before: str
    after: str = ""
    more_is_better: bool = False

    def find(self, text: str) -> float | None:
        match = re.search(f"{self.before}{NUMBER}{self.after}", text)
        return float(match[1].replace(",", "")) if match else None


class Part(NamedTuple):
    """A command of the bench, the seconds it may take, and the figures that are taken from what it prints."""

    command: tuple[str, ...]
    limit: int
    figures: tuple[Figure, ...] = ()


class Outcome(NamedTuple):
    """What became of a part: its exit status, processor seconds, and figures by name; None for one that it did not print."""

    status: int
    busy: float
    figures: Mapping[str, float | None]


def module(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", *arguments)


def busy(name: str, before: str, unit: str = "s") -> Figure:
    return Figure(name, unit, rf"{before}.*\(", " s busy")


def rate(case: str) -> tuple[Figure, Figure]:
    return (
        Figure(f"{case}, engine", "items/s", rf"{case}, \d+ items: ", " items/s", more_is_better=True),
        Figure(f"{case}, lm-evaluation-harness", "times", rf"{case}, (?:.*\n)+?.*harness.*the engine is ", more_is_better=True),
    )


def share(dtype: str) -> Figure:
    return Figure(f"few-shot SmolLM2, {dtype}", "% of peak", rf"mmlu few-shot in {dtype}, .*unique tokens: ", "%", more_is_better=True)


PARTS: dict[str, Part] = {
    "law": Part(
        module("analyzer.bench", "--part", "law"),
        180,
        (busy("exact law of W", "all splits of W"), busy("1,000 splits, numpy", "of W, numpy"), busy("1,000 splits, numba", "of W, numba")),
    ),
    "scaling": Part(module("analyzer.bench", "--part", "scaling"), 300, (busy("exact law, 1,000,000 items", "1,000,000 items"),)),
    "published": Part(
        module("analyzer.bench", "--part", "published", *(("--ye2024", str(PUBLISHED)) if PUBLISHED.is_dir() else ())),
        300,
        (
            busy("54 runs x 99 alphas x 7 scorers", "published runs, 7 scorers"),
            busy("54 runs x 99 alphas x 2 scorers", "published runs, 2 scorers"),
        )
        if PUBLISHED.is_dir()
        else (),
    ),
    "gate": Part(
        module("analyzer.bench", "--part", "gate"),
        180,
        tuple(
            figure
            for items in ("200", "2,000", "10,000")
            for figure in (
                Figure(f"gate, {items} items", "ms", f" {items} items, all limits +", " ms"),
                Figure(f"exact tests and verdict, {items} items", "ms", f" {items} items, .* tests and verdict +", " ms"),
            )
        ),
    ),
    "predictor": Part(
        module("analyzer.bench", "--part", "predictor"),
        90,
        (Figure("predictor, one question", "us", "predictor: "), Figure("predictor, a row of many", "us", "by itself, ")),
    ),
    "report": Part(
        module("analyzer.bench", "--part", "report"),
        300,
        (
            busy("report of 150 runs", "report of 150 runs"),
            busy("report of 500 runs", "report of 500 runs"),
            Figure("page of 500 runs", "MB", "report of 500 runs .*page of "),
        ),
    ),
    "compare": Part(
        module("analyzer.bench", "--part", "compare"),
        120,
        (Figure("a comparison", "ms", "s of CPU, "), Figure("54,000 comparisons", "CPU s", "being alike: ")),
    ),
    "dry run": Part(
        module("producer", "--model", "ref-m", "--method", "wanda", "--task", "urn", "--limit", "40", "--device", "cpu", "--dry-run"), 180
    ),
    "store": Part(
        (sys.executable, "tests/support/store_servers.py", *module("store.bench", "--runs", "500", "--s3")),  # the server's address follows
        600,
        tuple(
            Figure(name, unit, f" {name} +")
            for name, unit in (("write a run, in batch", "ms"), ("store ls, cold", "s"), ("store ls, warm", "s"), ("read all logits", "s"))
        ),
    ),
    "rates": Part(module("producer.bench", "--part", "rates"), 1200, (*rate("smollm2-135m mmlu few-shot"), *rate("ref-l mmlu zero-shot"))),
    "share": Part(
        module("producer.bench", "--part", "share", "--model", "smollm2-135m", "--task", "mmlu"), 600, (share("float32"), share("bfloat16"))
    ),
    "paths": Part(
        module("producer.bench", "--part", "paths", "--model", "ref-l", "--task", "mmlu", "--shots", "zero-shot"),
        300,
        (Figure("every prompt whole, engine", "times", "whole takes the engine ", more_is_better=True),),
    ),
    "layers": Part(
        module("producer.bench", "--part", "layers"), 600, (Figure("layer by layer", "times", "", r" \(.* times the time in memory"),)
    ),
    "levels": Part(
        module("producer.bench", "--part", "levels"),
        300,
        (Figure("six levels one by one", "times", "per level takes ", more_is_better=True),),
    ),
    "journal": Part(
        module("producer.bench", "--part", "journal", "--items", "700", "--clock", "cpu"),
        300,
        (Figure("answers kept twice a second, in memory", "times", r"in memory, kept .*: "),),
    ),
    "saved": Part(module("producer.bench", "--part", "saved", "--model", "ref-l"), 600),
    "server": Part(
        (sys.executable, "tests/support/bench_server.py"),
        300,
        (Figure("server that answers at once", "ms an item", "at once: "),),
    ),
    "gpu": Part(module("producer.bench", "--part", "gpu"), 600),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=[*PARTS], action="append", help="only this part (repeatable)")
    parser.add_argument("--record", action="store_true", help=f"add these figures to {RECORDS.relative_to(ROOT)}")
    arguments = parser.parse_args()
    before = last_record(RECORDS.read_text(encoding="utf-8") if RECORDS.exists() else "", machine())
    outcomes = {name: run(name, PARTS[name]) for name in arguments.part or PARTS}
    print("\n".join(table(outcomes, before)))
    if arguments.record:
        with RECORDS.open("a", encoding="utf-8") as file:
            file.write(record(outcomes) + "\n")
    return int(any(outcome.status for outcome in outcomes.values()))


def run(name: str, part: Part) -> Outcome:
    """Run a part, show what it prints as it comes, and end it with all its processes when its time is up."""
    print(f"\n== {name} (at most {part.limit} s; {load()})", flush=True)
    used, text = children(), ""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        process = subprocess.Popen(part.command, cwd=ROOT, stdout=output, start_new_session=True)
        try:
            status = process.wait(part.limit)
        except subprocess.TimeoutExpired:
            status = FAILED
        finally:  # also after Ctrl-C, which does not reach a session of its own
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        output.seek(0)
        text = output.read()
    print(text, end="")
    seconds = children() - used
    if status:
        print(f"{name}: {f'not done within {part.limit} s' if status == FAILED else f'exit status {status}'}")
    return Outcome(status, seconds, {figure.name: figure.find(text) for figure in part.figures})


def table(outcomes: Mapping[str, Outcome], before: Mapping[str, float]) -> list[str]:
    """Return the lines of the summary: every figure, that of the last record of such a machine, and now over then."""
    lines = ["", f"{'figure':<44}{'now':>12}{'before':>12}{'ratio':>8}  unit"]
    for name, outcome in outcomes.items():
        part = PARTS[name]
        for figure, value in [(figure, outcome.figures[figure.name]) for figure in part.figures] + [
            (Figure(f"{name}: all of it", "CPU s", ""), outcome.busy)
        ]:
            then = before.get(figure.name)
            ratio = f"{value / then:.2f}" if value is not None and then else "-"
            better = " (more is better)" if figure.more_is_better else ""
            lines.append(f"{figure.name:<44}{shown(value):>12}{shown(then):>12}{ratio:>8}  {figure.unit}{better}")
        if outcome.status:
            lines.append(f"{name + ': FAILED':<44}")
    return [*lines, f"{machine()}, {load()}"]


def record(outcomes: Mapping[str, Outcome]) -> str:
    """Return the figures of the parts that were done as one line of JSON."""
    done = [(name, outcome) for name, outcome in outcomes.items() if not outcome.status]
    figures = {name: value for _, outcome in done for name, value in outcome.figures.items() if value is not None}
    figures |= {f"{name}: all of it": round(outcome.busy, 2) for name, outcome in done}
    return json.dumps({"date": f"{datetime.now(UTC):%Y-%m-%d}", "machine": machine(), "load": os.getloadavg()[0], "figures": figures})


def last_record(text: str, kind: str) -> dict[str, float]:
    """Return each figure's last value among the records of a kind of machine, since a record may hold some parts alone."""
    figures: dict[str, float] = {}
    for one in map(json.loads, text.splitlines()):
        if one["machine"] == kind:
            figures |= one["figures"]
    return figures


def machine() -> str:
    """Return the kind of this machine: its processor and number of cores."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    names: Sequence[str] = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else 'unknown processor'}, {os.cpu_count()} cores"


def load() -> str:
    return f"{time.strftime('%H:%M')}, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


def children() -> float:
    """Return the processor seconds of all programs run so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def shown(value: float | None) -> str:
    return "-" if value is None else f"{value:,.4g}"


if __name__ == "__main__":
    sys.exit(main())
