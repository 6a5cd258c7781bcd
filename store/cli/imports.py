"""The `store import` commands: one for each entry of `IMPORTERS`, made from what it declares, and `zip` for our own exports."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from store.command import friendly_errors, store_option

if TYPE_CHECKING:
    from store.importers.importer import Importer


class ImportGroup(click.Group):
    """The importers as commands; their files are imported when a command is asked for, so that `store --help` is instant."""

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
    """Bring in runs from elsewhere, all of them in one commit.

    Example: store import table --model my-model --task mmlu logits.csv
    """


def import_command(name: str, importer: "Importer") -> click.Command:
    """Return the command that reads with an importer and writes what it yields."""
    from store.importers.importer import Description, description_options

    def run(store_url: str, allow_nonfinite: bool, replace: bool, **given: Any) -> None:
        from store.exchange.import_runs import import_runs

        if importer.described:
            given["described"] = Description(**{field: given.pop(field) for field in vars(Description())})
        message = f"import {name} {_first_name(given)}"
        imported = import_runs(store_url, importer.read(**given), message, allow_nonfinite=allow_nonfinite, replace=replace)
        click.echo(f"imported {len(imported.names)} runs into {store_url} at {imported.snapshot}", err=True)

    writing = [
        click.Option(["--allow-nonfinite"], is_flag=True, help="Store NaN or infinite logits, flagged."),
        click.Option(["--replace"], is_flag=True, help="Replace a run of the same key; the old one stays in the history."),
    ]
    described = description_options() if importer.described else []
    command = click.Command(name, callback=friendly_errors(run), params=[*importer.parameters, *described, *writing], help=importer.help)
    store_option(command)
    return command


@import_.command("zip")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@store_option
@friendly_errors
def import_zip_command(file: Path, store_url: str) -> None:
    """Import a file that `store export` wrote, bit for bit; conflicts are listed and left alone.

    Example: store import zip logits.zip
    """
    from schemas.errors import RunConflictError
    from store.exchange.zip_file import import_zip

    done = import_zip(file, store_url)
    click.echo(f"imported {len(done.copied)} runs into {store_url} at {done.snapshot}; {done.present} were there already", err=True)
    if done.conflicts:
        raise RunConflictError(f"{len(done.conflicts)} runs have other content in {store_url}: {', '.join(done.conflicts[:5])}")


def _first_name(given: Mapping[str, Any]) -> str:
    """Return the name of the first file or folder given, without its path, which says more of a machine than of the runs."""
    values = [one for value in given.values() for one in (value if isinstance(value, tuple) else (value,))]
    return next((value.name for value in values if isinstance(value, Path)), "")
