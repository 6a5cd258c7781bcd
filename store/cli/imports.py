"""The `store import` commands: one for each entry of `IMPORTERS`, built from the importer's declaration, and `zip` for our own exports."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from store.cli.share import conflict, restore_option, say_left_out, tell
from store.command import begin, friendly_errors, note_option, store_option
from store.shown import counted

if TYPE_CHECKING:
    from store.importers.importer import Importer


class ImportGroup(click.Group):
    """The importers as commands. Their Python files are imported when a command is looked up, so that `store --help` is instant."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all importers and of the commands added by hand."""
        from store.importers import IMPORTERS

        return sorted([*IMPORTERS, *self.commands])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of an importer, or one added by hand."""
        from store.importers import IMPORTERS

        if cmd_name in self.commands:
            return self.commands[cmd_name]
        return import_command(cmd_name, IMPORTERS[cmd_name]) if cmd_name in IMPORTERS else None


@click.group("import", cls=ImportGroup)
def import_() -> None:
    """Import logits from other tools' files; all runs of an import go into one commit.

    Example: store import table --model my-model --task mmlu logits.csv
    """


def import_command(name: str, importer: "Importer") -> click.Command:
    """Return the command that reads files with an importer and writes the runs to a store."""
    from store.importers.importer import Description, description_options

    def run(store_url: str, allow_nonfinite: bool, replace: bool, note: str, **options: Any) -> None:
        begin(f"importing into {store_url}")
        from store.exchange.import_runs import Words, import_runs

        if importer.described:
            options["described"] = Description(**{field: options.pop(field) for field in vars(Description())})
        words = Words(f"import {name} {_first_name(options)}".strip(), note, tell)
        imported = import_runs(store_url, importer.read(**options), words, allow_nonfinite=allow_nonfinite, replace=replace)
        click.echo(f"imported {counted(len(imported.names), 'run')} into {store_url} at {imported.snapshot}", err=True)

    writing = [
        click.Option(["--allow-nonfinite"], is_flag=True, help="Store NaN or infinite logits, marked unreliable, instead of failing."),
        click.Option(["--replace"], is_flag=True, help="Replace runs with the same key; the old ones stay in the history."),
    ]
    described = description_options() if importer.described else []
    command = click.Command(name, callback=friendly_errors(run), params=[*importer.parameters, *described, *writing], help=importer.help)
    note_option(command)
    store_option(command)
    return command


@import_.command("zip")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@store_option
@restore_option
@note_option
@friendly_errors
def import_zip_command(file: Path, store_url: str, restore: tuple[str, ...], note: str) -> None:
    """Import a .zip file written by `store export`.

    Runs that differ from stored ones, and runs that were removed from the store, are listed and not copied.

    Example: store import zip logits.zip
    """
    begin(f"importing {file.name} into {store_url}")
    from store.exchange.push_pull import Wish
    from store.exchange.zip_file import import_zip

    done = import_zip(file, store_url, Wish(note, restore, tell))
    click.echo(f"imported {counted(len(done.copied), 'run')} into {store_url} at {done.snapshot}; {done.present} already there", err=True)
    say_left_out(done, file.name, store_url)
    if done.conflicts:
        raise conflict(done, file.name, store_url)


def _first_name(options: Mapping[str, Any]) -> str:
    """Return the name of the first file or folder among the options, without its path, which is private to this machine."""
    values = [one for value in options.values() for one in (value if isinstance(value, tuple) else (value,))]
    return next((value.name for value in values if isinstance(value, Path)), "")
