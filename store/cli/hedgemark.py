"""The command `hedgemark`: `produce`, `store` and `analyze` under one name, for machines where other programs have their plain names.

Packages above the store are imported by name, and only when their command is asked for.
"""

from importlib import import_module

import click

from store.command import ShellGroup

HOMES = {"produce": "producer.cli.main", "store": "store.cli.main", "analyze": "analyzer.cli.main"}


class Commands(ShellGroup):
    """The three commands as one group."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the three commands."""
        return [*HOMES]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return one of the three commands."""
        if cmd_name not in HOMES:
            return None
        command: click.Command = import_module(HOMES[cmd_name]).main
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hedgemark", message="%(package)s %(version)s")
def main() -> None:
    """Does a compressed language model still know when to hedge?

    Example: hedgemark analyze compare --model ref-m --task urn
    """
