"""Importers: other people's logits as item sets and runs. One file and one line in `store.cli_import.IMPORT_COMMANDS` each."""
