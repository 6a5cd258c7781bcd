"""The `store` commands that copy runs between stores and files: push, pull and export."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from store.command import FILE, begin, friendly_errors, note_option, store_option
from store.shown import counted, message

if TYPE_CHECKING:
    from schemas.errors import RunConflictError
    from store.exchange.push_pull import Transfer

restore_option = click.option(
    "--restore",
    multiple=True,
    metavar="NAME",
    help="Also copy removed runs with this name or beginning of a name, such as my-model~gptq (repeatable).",
)
tags_option = click.option("--tags", is_flag=True, help="Also copy the tags (with --at TAG, that one), with the runs that they name.")


@click.command()
@click.argument("target")
@store_option
@click.option("--at", metavar="SNAPSHOT|TAG", help="Push this snapshot or tag, such as v1, instead of the newest snapshot.")
@tags_option
@restore_option
@note_option
@friendly_errors
def push(target: str, store_url: str, at: str | None, *, tags: bool, restore: tuple[str, ...], note: str) -> None:
    """Copy runs to another store that lacks them.

    Runs that differ, and runs that were removed there, are listed and not copied. Runs that were removed here stay there.

    Example: store push s3://bucket/logits
    """
    _copy(store_url, target, at, tags=tags, restore=restore, note=note)


@click.command()
@click.argument("source")
@store_option
@click.option("--at", metavar="SNAPSHOT|TAG", help="Pull this snapshot or tag of the source, such as v1, instead of its newest.")
@tags_option
@restore_option
@note_option
@friendly_errors
def pull(source: str, store_url: str, at: str | None, *, tags: bool, restore: tuple[str, ...], note: str) -> None:
    """Copy runs that this store lacks from another store.

    Runs that differ, and runs that were removed here, are listed and not copied. Runs that were removed there stay here.

    Example: store pull s3://bucket/logits --at paper-v1
    """
    from schemas.errors import StoreNotFoundError

    try:
        _copy(source, store_url, at, tags=tags, restore=restore, note=note)
    except StoreNotFoundError as error:
        raise StoreNotFoundError(f"there is no store at {source} to pull from; check the address") from error


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


def tell(line: str) -> None:
    """Say on stderr how far a command is."""
    click.echo(message(line), err=True)


def say_left_out(done: "Transfer", source: str, target: str) -> None:
    """Say which runs were not copied, and why, and which the target keeps although the source removed them."""
    from store.repository.commits import removed_sentences

    for sentence in removed_sentences(done.removed, target):
        click.echo(message(f"not copied: {sentence}"), err=True)
    if done.removed:
        click.echo("the same command with --restore NAME copies a removed run all the same", err=True)
    for sentence in removed_sentences(done.kept, source):
        click.echo(message(f"kept in {target}: {sentence}"), err=True)
    if done.kept:
        click.echo(message(f"to remove one there too: store rm NAME --store {target} --message WHY"), err=True)
    for name in done.conflicts:
        click.echo(message(f"conflict: {name}"))


def conflict(done: "Transfer", source: str, target: str) -> "RunConflictError":
    """Return the error about runs that differ, with what to do about it."""
    from schemas.errors import RunConflictError

    runs = "1 run differs" if len(done.conflicts) == 1 else f"{len(done.conflicts)} runs differ"
    return RunConflictError(
        f"{runs} between {source} and {target}; nothing was overwritten, and the rest was copied. To have the one of {source} in {target}, "
        f"remove the other first (store rm --store {target} {done.conflicts[0]} --message WHY) and copy again; else leave them as they are"
    )


def _copy(source: str, target: str, at: str | None, *, tags: bool, restore: Sequence[str], note: str) -> None:
    begin(f"copying runs from {source} to {target}")
    from store.exchange.push_pull import Wish, copy_runs

    done = copy_runs(source, target, at, Wish(note, restore, tell))
    click.echo(f"copied {counted(len(done.copied), 'run')} to {target} at {done.snapshot}; {done.present} already there", err=True)
    say_left_out(done, source, target)
    if tags:
        _copy_tags(source, target, at, note)
    if done.conflicts:
        raise conflict(done, source, target)


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
        raise RunConflictError(
            f"tag {done.conflicts[0]!r} names other contents in {target}; tags do not move. Give the snapshot another name as well: "
            f"store tag NAME --at {done.conflicts[0]} --store {source}, and copy the tags again"
        )


SHARE_COMMANDS = {"push": push, "pull": pull, "export": export}
