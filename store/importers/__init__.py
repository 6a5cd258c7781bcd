"""Importers: other people's logits as item sets and runs. One file and one line in `store.cli.imports.IMPORT_COMMANDS` each."""
