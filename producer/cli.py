"""The command `produce`: a thin shell over `producer.produce.produce`."""

import logging
from pathlib import Path
from typing import Any

import click

from schemas.command import friendly_errors, store_option

EXAMPLE = """
\b
Example:
  produce --model ref-m --method rtn --level w4a16-g64 --task urn --prompt base --limit 200
"""


@click.command(epilog=EXAMPLE)
@click.option("--model", "models", multiple=True, metavar="M", help="Alias, Hub id, folder or .gguf file (repeatable).")
@click.option("--method", "methods", multiple=True, metavar="X", help="How to compress (repeatable). [dense]")
@click.option("--level", "levels", multiple=True, metavar="L", help="How much, e.g. 0.5, 2:4, w4a16-g128 (repeatable). [the method's own]")
@click.option("--task", "tasks", multiple=True, metavar="T", help="Named task or .json/.jsonl file (repeatable).")
@click.option("--prompt", "prompts", multiple=True, metavar="P", help="base, shared or task (repeatable). [base]")
@click.option("--prompt-file", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="TOML with another wording.")
@click.option("--limit", type=click.IntRange(min=1), help="Items drawn per task by --seed. [all]")
@click.option("--data", type=click.Path(path_type=Path), metavar="DIR", help="Folder with the published tasks' item files. [the Hub]")
@store_option
@click.option("--backend", default="transformers", show_default=True, help="What runs the model.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ...")
@click.option("--dtype", default="auto", show_default=True, help="float32, bfloat16 or float16.")
@click.option("--seed", default=0, show_default=True, help="Seed of draws and of methods.")
@click.option("--compression-data", default="auto", show_default=True, metavar="NAME", help="Text a method sees: a name or a text file.")
@click.option("--allow-nonfinite", is_flag=True, help="Store NaN or infinite logits, flagged.")
@click.option("--replace", is_flag=True, help="Make runs again that are stored, and put them in place of the old.")
@click.option("--dry-run", is_flag=True, help="Print runs, tokens, memory and what is stored, and do nothing.")
@click.option("--list", "listed", type=click.Choice(["models", "methods", "tasks", "prompts", "backends"]), help="List known names.")
@click.option("-v", "--verbose", count=True, help="Log more.")
@friendly_errors
def main(*, store_url: str, listed: str | None, dry_run: bool, verbose: int, **options: Any) -> None:
    """Run models over tasks and put their option logits into a store, each run once."""
    logging.basicConfig(level=max(logging.DEBUG, logging.WARNING - 10 * verbose), format="%(levelname)s %(name)s: %(message)s")
    if listed:
        from producer.listing import list_names

        for line in list_names(listed):
            click.echo(line)
        return
    request = _request(options)
    if dry_run:
        from producer.dry_run import describe_plan

        for line in describe_plan(request, store_url):
            click.echo(line)
        return
    _produce(request, store_url)


def _request(options: dict[str, Any]) -> Any:
    from producer.request import Request

    if not options["models"]:
        raise click.UsageError("no --model given; produce --list models shows the known ones")
    given = {name: value for name, value in options.items() if value not in ((), None)}
    return Request(**given)


def _produce(request: Any, store_url: str) -> None:
    from producer.produce import produce
    from producer.progress import Bar

    outcome = produce(request, store_url, progress=Bar())
    for name in outcome.written:
        click.echo(name)
    click.echo(f"{len(outcome.written)} runs written, {len(outcome.found)} already stored in {store_url}", err=True)
