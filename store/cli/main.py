"""The command `store`: a thin layer over the library. Data go to stdout, progress and messages to stderr."""

import logging
from pathlib import Path

import click

from schemas.fields import FIELDS
from store.cli.imports import import_
from store.cli.items import items
from store.cli.printing import format_option, print_table
from store.cli.share import SHARE_COMMANDS
from store.command import EXISTING_FILE, ShellGroup, begin, friendly_errors, log_to_stderr, store_option
from store.shown import counted, message

LS_COLUMNS = ["name", *FIELDS, "n_items", "nonfinite", "created"]
LEFT_OUT = ["created", "nonfinite", *FIELDS]  # the last first where a terminal is narrow: a name has them all

at_option = click.option("--at", metavar="SNAPSHOT|TAG", help="Read this snapshot or tag, such as v1, instead of the newest snapshot.")


@click.group(cls=ShellGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hedgemark", message="%(package)s %(version)s")
@click.option("-v", "--verbose", is_flag=True, help="Log every run that is written.")
def main(verbose: bool) -> None:
    """Store runs with versions and checksums, and share them.

    Example: store ls --model ref-m --store ./hedgemark-store
    """
    log_to_stderr(logging.INFO if verbose else logging.WARNING)


@main.command()
@store_option
@friendly_errors
def init(store_url: str) -> None:
    """Create an empty store; an existing store is not changed.

    Example: store init --store s3://bucket/logits
    """
    from store import init_store

    init_store(store_url)
    click.echo(f"store at {store_url}", err=True)


@main.command()
@store_option
@at_option
@click.option("--model", multiple=True, help="Only runs of this model (repeatable, like the other filters).")
@click.option("--method", multiple=True, help="Only this method, such as wanda.")
@click.option("--level", multiple=True, help="Only this level, such as 0.5; .50 means the same.")
@click.option("--task", multiple=True, help="Only this task, such as urn.")
@click.option("--prompt", multiple=True, help="Only this prompt, such as base.")
@format_option
@friendly_errors
def ls(store_url: str, at: str | None, format_: str, **filters: tuple[str, ...]) -> None:
    """List runs, one per line.

    Example: store ls --model Llama-2-7b-hf --task mmlu --format json
    """
    from store.reading.catalog import cached_newest, select_runs

    catalog = cached_newest(store_url) if at is None else None
    if catalog is None:
        from store import open_reader

        catalog = open_reader(store_url, at).catalog
    table = select_runs(catalog, filters, at or "the newest snapshot")
    print_table(table if format_ != "table" else table.select(LS_COLUMNS), format_, LEFT_OUT, empty="no runs")


@main.command()
@click.argument("name", required=False)
@store_option
@at_option
@click.option("--format", "format_", type=click.Choice(["table", "json"]), default="table", show_default=True, help="How to print.")
@friendly_errors
def show(name: str | None, store_url: str, at: str | None, format_: str) -> None:
    """Show all that is recorded about one run, or a summary of the store.

    Example: store show Llama-2-7b-hf~dense~mmlu~base.5c9ce9a0
    """
    from store.cli.printing import print_record
    from store.upkeep.describe import describe_run, describe_store

    print_record(describe_run(store_url, name, at) if name else describe_store(store_url, at), format_)


@main.command()
@store_option
@at_option
@format_option
@friendly_errors
def log(store_url: str, at: str | None, format_: str) -> None:
    """List the commits of the store, newest first.

    Example: store log --format json
    """
    from store.upkeep.history import history

    print_table(history(store_url, at), format_)


@main.command()
@click.argument("before", metavar="A")
@click.argument("after", metavar="[B]", required=False)
@store_option
@format_option
@friendly_errors
def diff(before: str, after: str | None, store_url: str, format_: str) -> None:
    """List the runs added, removed and replaced from snapshot or tag A to B, or to now.

    Example: store diff v1
    """
    from store.upkeep.history import diff_snapshots

    print_table(diff_snapshots(store_url, before, after), format_, empty="no difference")


@main.command()
@click.argument("name")
@store_option
@click.option("--at", metavar="SNAPSHOT|TAG", help="The snapshot to name, by its id or another tag. [newest snapshot]")
@click.option("--sign", type=EXISTING_FILE, help="First sign the newest snapshot with this private key (PEM).")
@friendly_errors
def tag(name: str, store_url: str, at: str | None, sign: Path | None) -> None:
    """Name a snapshot, by default the newest; a tag never moves.

    Example: store tag paper-v1 --sign team.pem
    """
    from store.upkeep.signature import sign_store
    from store.upkeep.tags import tag_snapshot

    if sign and at:
        raise click.UsageError("--sign signs the newest snapshot, so it cannot be combined with --at")
    at = sign_store(store_url, sign, name) if sign else at
    click.echo(f"{name} is {tag_snapshot(store_url, name, at)}", err=True)


@main.command()
@click.argument("names", nargs=-1)
@store_option
@click.option("--model", multiple=True, help="Remove all runs of this model (repeatable, like the other filters).")
@click.option("--method", multiple=True, help="Only this method, such as wanda.")
@click.option("--level", multiple=True, help="Only this level, such as 0.5.")
@click.option("--task", multiple=True, help="Only this task, such as urn.")
@click.option("--prompt", multiple=True, help="Only this prompt, such as base.")
@click.option("--message", "reason", default="", metavar="TEXT", help="Why, such as 'wrong tokenizer'; required, and kept in the history.")
@click.option("--dry-run", is_flag=True, help="Print what would be removed; remove nothing.")
@friendly_errors
def rm(names: tuple[str, ...], store_url: str, reason: str, dry_run: bool, **filters: tuple[str, ...]) -> None:
    """Remove runs in a new commit. Earlier snapshots and tags keep them; the bytes stay on disk.

    Example: store rm --model my-model --method gptq --message "wrong tokenizer"
    """
    from store.upkeep.removal import remove_runs

    done = remove_runs(store_url, names, filters, reason, dry_run=dry_run)
    for name in done.names:
        click.echo(message(name))
    verb = "would remove" if dry_run else "removed"
    click.echo(f"{verb} {counted(len(done.names), 'run')} from {store_url} at {done.snapshot}", err=True)


@main.command()
@store_option
@click.option("--older-than", "days", type=click.IntRange(7, 36_500), default=7, show_default=True, help="Age in days, at least 7.")
@click.option("--dry-run", is_flag=True, help="Print what would be deleted; delete nothing.")
@friendly_errors
def gc(store_url: str, days: int, dry_run: bool) -> None:
    """Delete leftovers of crashed writers: files older than a week that no tag or branch uses.

    Example: store gc --dry-run
    """
    begin(f"looking for leftovers in {store_url}")
    from datetime import timedelta

    from store.upkeep.garbage import collect_garbage

    freed = collect_garbage(store_url, timedelta(days=days), dry_run=dry_run)
    verb = "would delete" if dry_run else "deleted"
    parts = ((freed.chunks, "chunk"), (freed.manifests, "manifest"), (freed.snapshots, "snapshot"))
    click.echo(f"{verb} {counted(freed.bytes, 'byte')}: {', '.join(counted(*part) for part in parts)}", err=True)


@main.command()
@store_option
@friendly_errors
def migrate(store_url: str) -> None:
    """Convert an older store to the current schema; a tag keeps the store as it was.

    Example: store migrate --store ./hedgemark-store
    """
    begin(f"reading {store_url}")
    from store.upkeep.migration import migrate_store

    done = migrate_store(store_url)
    click.echo(f"{store_url}: {f'{done.before} is now {done.after}' if done else 'has the current schema already'}", err=True)


@main.command()
@store_option
@at_option
@click.option("--key", type=EXISTING_FILE, help="Also check the signature with this public key (PEM).")
@friendly_errors
def verify(store_url: str, at: str | None, key: Path | None) -> None:
    """Read every byte of the store and list all problems; exit code 4 if there are any.

    Example: store verify --at paper-v1 --key team.pub.pem
    """
    begin(f"reading every byte of {store_url}")
    from schemas.errors import StoreInvalidError
    from store.upkeep.verify import verify_store

    report = verify_store(store_url, at, key)
    for note in report.notes:
        click.echo(message(f"note: {note}"), err=True)
    for problem in report.problems:
        click.echo(message(problem))
    read = f"{counted(report.runs, 'run')} and {counted(report.item_sets, 'item set')}"
    click.echo(f"read {read} in {counted(len(report.snapshots), 'snapshot')}", err=True)
    if report.problems:
        raise StoreInvalidError(f"{store_url}: {counted(len(report.problems), 'problem')}")


main.add_command(import_)
main.add_command(items)
for _name, _command in SHARE_COMMANDS.items():
    main.add_command(_command, _name)
