"""The command `produce`: a thin shell over `producer.run.produce` and `producer.sweep`."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from store.command import friendly_errors, store_option

EXAMPLE = """
\b
Examples:
  produce --model ref-m --method wanda --level 0.5 --task urn --limit 200
  produce --plan sweep.toml --executor local --dry-run
"""
KINDS = ["models", "methods", "tasks", "prompts", "backends"]
OPTIONS = (
    click.option("--model", "models", multiple=True, metavar="M", help="Alias, Hub id, folder or .gguf file (repeatable)."),
    click.option("--method", "methods", multiple=True, metavar="X", help="How to compress (repeatable). [dense]"),
    click.option("--level", "levels", multiple=True, metavar="L", help="E.g. 0.5, 0:0.5:0.1, 2:4, w4a16 (repeatable). [the method's own]"),
    click.option("--task", "tasks", multiple=True, metavar="T", help="Named task or .json/.jsonl file of items (repeatable)."),
    click.option("--prompt", "prompts", multiple=True, metavar="P", help="base, shared or task (repeatable). [base]"),
    click.option("--prompt-file", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Another wording, e.g. words.toml."),
    click.option("--limit", type=click.IntRange(min=1), help="Items drawn per task by --seed. [all]"),
    click.option("--data", type=click.Path(path_type=Path), metavar="DIR", help="Folder with the published tasks' items. [the Hub]"),
    click.option("--backend", help="transformers or vllm. [transformers]"),
    click.option("--device", help="cpu, cuda, cuda:1, ... [an accelerator where there is one]"),
    click.option("--dtype", help="float32, bfloat16 or float16. [the model's own; float32 on a CPU]"),
    click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Seed of draws and of methods. [0]"),
    click.option("--compression-data", metavar="NAME", help="Text a method sees: a name or file, and its size: packaged:16x128. [by task]"),
    click.option("--allow-nonfinite", is_flag=True, default=None, help="Store NaN or infinite logits, flagged."),
    click.option("--replace", is_flag=True, default=None, help="Make stored runs again and put them in place of the old."),
)
SIZES = (
    click.option("--batch-tokens", type=click.IntRange(min=1), help="Most tokens in a batch. [by free memory]"),
    click.option("--device-memory", metavar="SIZE", help="Budget, e.g. 24G; a larger model goes through layer by layer. [what is free]"),
    click.option("--host-memory", metavar="SIZE", help="Budget of waiting hidden states; a file takes the rest. [half of what is free]"),
    click.option("--tensor-parallel", type=click.IntRange(min=1), help="Devices that share a model (vllm). [1]"),
    click.option("--self-check", type=click.IntRange(min=1), metavar="N", help="Measure the noise floor on N items of each run."),
)


def _add(options: tuple[Callable[[Any], Any], ...]) -> Callable[[Any], Any]:
    def add(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return add


@click.command(epilog=EXAMPLE)
@_add(OPTIONS)
@store_option
@_add(SIZES)
@click.option("--plan", type=click.Path(path_type=Path), metavar="FILE", help="Sweep file (TOML); options given here come before it.")
@click.option("--executor", help="What runs a sweep: local or ray. [local]")
@click.option("--workers", type=click.IntRange(min=1), help="Cells at a time. [one per accelerator]")
@click.option("--emit", type=click.Choice(["sbatch", "k8s", "json"]), help="Print the sweep for another scheduler and run nothing.")
@click.option("--dry-run", is_flag=True, default=None, help="Print runs, tokens, memory and what is stored, and do nothing.")
@click.option("--list", "listed", type=click.Choice(KINDS), help="List known names.")
@click.option("-v", "--verbose", count=True, help="Log more.")
@friendly_errors
def main(*, store_url: str, listed: str | None, verbose: int, **given: Any) -> None:
    """Run models over tasks and put their option logits into a store, each run once."""
    logging.basicConfig(level=max(logging.DEBUG, logging.WARNING - 10 * verbose), format="%(levelname)s %(name)s: %(message)s")
    if listed:
        from producer.cli.listing import list_names

        lines = list_names(listed)
    else:
        lines = _run(store_url, {name: value for name, value in given.items() if value not in ((), None)})
    for line in lines:
        click.echo(line)


def _run(store_url: str, given: dict[str, Any]) -> Any:
    from producer.cli.command import Invocation
    from producer.machine.free_memory import tame_malloc

    tame_malloc()
    if not given.get("models") and "plan" not in given:
        raise click.UsageError("no --model given; produce --list models shows the known ones")
    return Invocation(store_url, given).lines()
