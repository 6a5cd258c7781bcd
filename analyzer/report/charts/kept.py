"""The specifications of the page's charts, kept in the user's cache.

They depend on the names of the methods and on a few limits, and on nothing that was measured. Altair takes about a second to make them, its
import included, so it makes them only for methods or limits that no page has had before.
"""

import hashlib
import json
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from analyzer.report.charts.theme import Spec
from store.backend.user_cache import cache_folder, kept_text

KIND = "charts"


def kept_charts(methods: list[str], facts: dict[str, Any]) -> dict[str, Spec]:
    """Return every chart of the page by name. methods : the compressed methods.  facts : the limits at which charts draw lines."""
    modules = sorted((file for file in files("analyzer.report.charts").iterdir() if file.name.endswith(".py")), key=lambda file: file.name)
    made_from = json.dumps([version("altair"), [module.read_text("utf-8") for module in modules], methods, facts])
    path = cache_folder(KIND) / f"{hashlib.sha256(made_from.encode()).hexdigest()[:32]}.json"
    specs: dict[str, Spec] = json.loads(kept_text(path, lambda: _drawn(methods, facts)))
    return specs


def _drawn(methods: list[str], facts: dict[str, Any]) -> str:
    from analyzer.report.charts.drawn import CHARTS

    return json.dumps({name: draw(methods, facts) for name, draw in CHARTS.items()})
