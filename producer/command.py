"""From the command line's options to what is done: dry run, emission, sweep, or one process that makes every run."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import click

from producer.dry_run import describe_plan
from producer.engine.memory import parse_size
from producer.produce import check_request, produce
from producer.progress import Bar
from producer.request import Request
from producer.settings import Settings
from producer.sweep.cells import split
from producer.sweep.emit import emit
from producer.sweep.plan_file import read_plan
from producer.sweep.run import run_sweep


class Invocation:
    """One call of the command. `given` holds the options the user gave, by name."""

    def __init__(self, store_url: str, given: dict[str, Any]) -> None:
        self.store_url, self.given = store_url, given
        changes = {f.name: given[f.name] for f in dataclasses.fields(Request) if f.name in given}
        self.requests = read_plan(given["plan"], changes) if "plan" in given else [Request(**changes)]
        sizes = {name: parse_size(given[name]) for name in ("device_memory", "host_memory") if name in given}
        self.settings = Settings(**sizes, **{n: given[n] for n in ("batch_tokens", "tensor_parallel", "self_check") if n in given})

    def lines(self) -> Iterable[str]:
        """Do it, and return what goes to stdout."""
        if self.given["dry_run"]:
            return describe_plan(self.requests, self.store_url, self.settings)
        if "form" in self.given:
            for request in self.requests:
                check_request(request)
            return [emit(split(self.requests, self.store_url, self.settings), self.given["form"])]
        if "plan" in self.given:
            return self._sweep()
        return self._produce()

    def _sweep(self) -> list[str]:
        written = run_sweep(self.requests, self.store_url, self.settings, self.given["executor"], self.given.get("workers", 0))
        click.echo(f"sweep complete: {_runs(len(written))} written to {self.store_url}, the others were there", err=True)
        return written

    def _produce(self) -> list[str]:
        outcome = produce(self.requests[0], self.store_url, self.settings, Bar())
        click.echo(f"{_runs(len(outcome.written))} written, {len(outcome.found)} already stored in {self.store_url}", err=True)
        return outcome.written


def _runs(number: int) -> str:
    return "1 run" if number == 1 else f"{number} runs"
