"""The `store` commands that copy runs between stores and files: push, pull and export."""

from pathlib import Path

import click

from store.command import FILE, begin, friendly_errors, note_option, store_option
from store.shown import counted, message

tags_option = click.option("--tags", is_flag=True, help="Also copy the tags (with --at TAG, that one), with the runs that they name.")


@click.command()
@click.argument("target")
@store_option
@click.option("--at", metavar="SNAPSHOT|TAG", help="Push this snapshot or tag, such as v1, instead of the newest snapshot.")
@tags_option
@note_option
@friendly_errors
def push(target: str, store_url: str, at: str | None, tags: bool, note: str) -> None:
    """Copy runs to another store that lacks them. Runs that differ are listed, not overwritten.

    Example: store push s3://bucket/logits
    """
    _copy(store_url, target, at, note, tags=tags)


@click.command()
@click.argument("source")
@store_option
@click.option("--at", metavar="SNAPSHOT|TAG", help="Pull this snapshot or tag of the source, such as v1, instead of its newest.")
@tags_option
@note_option
@friendly_errors
def pull(source: str, store_url: str, at: str | None, tags: bool, note: str) -> None:
    """Copy runs that this store lacks from another store. Runs that differ are listed, not overwritten.

    Example: store pull s3://bucket/logits --at paper-v1
    """
    _copy(source, store_url, at, note, tags=tags)


@click.command()
@click.argument("file", type=FILE)
@store_option
@click.option("--at", metavar="SNAPSHOT|TAG", help="Export this snapshot or tag, such as v1, instead of the newest snapshot.")
@friendly_errors
def export(file: Path, store_url: str, at: str | None) -> None:
    """Write one snapshot to a file: .zip (Zarr, for xarray and import) or .parquet (a flat table).

    Example: store export logits.zip --at paper-v1
    """
    begin(f"reading {store_url}")
    from schemas.errors import UsageError
    from store import open_reader
    from store.exchange.parquet_file import write_parquet
    from store.exchange.zip_file import write_zip

    writers = {".zip": write_zip, ".parquet": write_parquet}
    if file.suffix not in writers:
        raise UsageError(f"{file} ends in {file.suffix!r}; an export ends in {' or '.join(writers)}")
    reader = open_reader(store_url, at)
    count = writers[file.suffix](reader.keys, file)
    click.echo(f"wrote {counted(count, 'run')} of {store_url} at {reader.snapshot} to {file}", err=True)


def _copy(source: str, target: str, at: str | None, note: str, *, tags: bool) -> None:
    begin(f"copying runs from {source} to {target}")
    from schemas.errors import RunConflictError
    from store.exchange.push_pull import copy_runs

    done = copy_runs(source, target, at, note=note)
    click.echo(f"copied {counted(len(done.copied), 'run')} to {target} at {done.snapshot}; {done.present} already there", err=True)
    for name in done.conflicts:
        click.echo(message(f"conflict: {name}"))
    if tags:
        _copy_tags(source, target, at, note)
    if done.conflicts:
        runs = "1 run differs" if len(done.conflicts) == 1 else f"{len(done.conflicts)} runs differ"
        raise RunConflictError(f"{runs} between {source} and {target}; nothing was overwritten, see store show")


def _copy_tags(source: str, target: str, at: str | None, note: str) -> None:
    from schemas.errors import RunConflictError
    from store.upkeep.tag_copies import copy_tags

    done = copy_tags(source, target, at, note)
    click.echo(f"copied {counted(len(done.copied), 'tag')}; {len(done.present)} already there", err=True)
    for tag in done.older:
        click.echo(message(f"not copied: tag {tag} names a store of an older schema; migrate and tag that one anew"), err=True)
    for tag in done.conflicts:
        click.echo(message(f"conflict: tag {tag}"))
    if done.conflicts:
        raise RunConflictError(f"tag {done.conflicts[0]!r} names other contents in {target}; tags do not move")


SHARE_COMMANDS = {"push": push, "pull": pull, "export": export}
