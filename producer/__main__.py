"""`python -m producer` is the command `produce`, whatever is on the path."""

from store.cli.start import produce

produce()
