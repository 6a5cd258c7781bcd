"""Importers by name: other people's logits as item sets and runs. One file and one line each."""

from store.importers import inspect_log, lighteval, lm_eval, table, ye2024
from store.importers.importer import Importer

IMPORTERS: dict[str, Importer] = {
    "inspect": inspect_log.IMPORTER,
    "lighteval": lighteval.IMPORTER,
    "lm-eval": lm_eval.IMPORTER,
    "table": table.IMPORTER,
    "ye2024": ye2024.IMPORTER,
}
