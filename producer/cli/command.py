"""From the command line's options to what is done: dry run, emission, sweep, or one process that makes every run."""

from collections.abc import Iterable
from typing import Any

import click

from producer.request.parse import ask
from producer.run.dry_run import describe_plan
from producer.run.produce import check_request, produce
from producer.run.progress import Bar
from producer.sweep.cells import split
from producer.sweep.emit import emit
from producer.sweep.run import run_sweep
from producer.sweep.sweep_file import read_plan


class Invocation:
    """One call of the command. `given` holds the options the user gave, by name."""

    def __init__(self, store_url: str, given: dict[str, Any]) -> None:
        self.store_url, self.given = store_url, given
        self.asked = read_plan(given["plan"], given) if "plan" in given else [ask(given)]

    def lines(self) -> Iterable[str]:
        """Do it, and return what goes to stdout."""
        if "dry_run" in self.given:
            return describe_plan(self.asked, self.store_url)
        if "emit" in self.given:
            for asked in self.asked:
                check_request(asked.request)
            return [emit(split(self.asked, self.store_url), self.given["emit"])]
        if "plan" in self.given:
            return self._sweep()
        return self._produce()

    def _sweep(self) -> list[str]:
        written = run_sweep(self.asked, self.store_url, self.given.get("executor", "local"), self.given.get("workers", 0))
        click.echo(f"sweep complete: {_runs(len(written))} written to {self.store_url}, the others were there", err=True)
        return written

    def _produce(self) -> list[str]:
        (asked,) = self.asked
        outcome = produce(asked.request, self.store_url, asked.settings, Bar())
        click.echo(f"{_runs(len(outcome.written))} written, {len(outcome.found)} already stored in {self.store_url}", err=True)
        return outcome.written


def _runs(number: int) -> str:
    return "1 run" if number == 1 else f"{number} runs"
