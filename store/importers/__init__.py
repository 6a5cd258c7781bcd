"""Importers by name: other people's logits as item sets and runs. One file and one line each."""

from typing import Any

from schemas.plug_ins import add_plug_ins
from store.importers import inspect_log, lighteval, lm_eval, table, ye2024
from store.importers.importer import Importer

IMPORTERS: dict[str, Importer] = {
    "inspect": inspect_log.IMPORTER,
    "lighteval": lighteval.IMPORTER,
    "lm-eval": lm_eval.IMPORTER,
    "table": table.IMPORTER,
    "ye2024": ye2024.IMPORTER,
}


def _problem(name: str, loaded: Any) -> str:
    return "" if isinstance(loaded, Importer) else f"it is a {type(loaded).__name__}, not an Importer of store.importers"


add_plug_ins("hedgemark.importers", IMPORTERS, _problem)
