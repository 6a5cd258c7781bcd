"""Where the four commands begin: Ctrl-C is one sentence from the first moment on, while Python still imports them."""

import sys
from importlib import import_module

INTERRUPTED = 130  # what shells report for a program that Ctrl-C ended


def produce() -> None:
    """Run the command `produce`."""
    _begin("producer.cli.main", "produce")


def store() -> None:
    """Run the command `store`."""
    _begin("store.cli.main", "store")


def analyze() -> None:
    """Run the command `analyze`."""
    _begin("analyzer.cli.main", "analyze")


def hedgemark() -> None:
    """Run the command `hedgemark`."""
    _begin("store.cli.hedgemark", "hedgemark")


def _begin(module: str, name: str) -> None:
    try:
        main = import_module(module).main
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        sys.exit(INTERRUPTED)
    main(prog_name=name)
