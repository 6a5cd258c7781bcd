"""The page: a single HTML file that needs no network and runs only its own scripts.

A Content-Security-Policy allows these scripts by their hashes, so that markup in a name could not run even if it were not escaped.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from typing import Any

from analyzer.gate.ci_reports import again, correction, together, tool
from analyzer.gate.gate import FAIL, INCONCLUSIVE, PASS
from analyzer.predictor.document import PRICES
from analyzer.report.charts.kept import kept_charts
from analyzer.report.charts.metrics import METRICS
from analyzer.report.charts.theme import Spec, css_colours, for_page
from analyzer.report.data.study import Study
from analyzer.report.data.tables import Tables, first_question_tables, tables
from analyzer.report.panel import FILTERS, Panel
from analyzer.report.panels import panels_of
from analyzer.report.rows import deflated, pack
from analyzer.report.vega import vega_bundle
from analyzer.report.words import sentences
from analyzer.report.words.cards import MEANINGS, WORDS, Card, cards, policy_words
from analyzer.studies.collector import collector_rests
from analyzer.studies.threshold_transfer import COVERAGE_TOLERANCE
from analyzer.tables.cautions import dependent, of_columns, of_prompts, without_interval
from schemas.run import DENSE
from store.shown import printable

SCRIPTS = ("rows.js", "cost.js", "page.js")
ICONS = {PASS: "✓", INCONCLUSIVE: "?", FAIL: "✕"}
SHOWN_BARS = 4


@collector_rests()
def page(study: Study, *, live: str = "") -> str:
    """Return the page of a study as HTML.

    live : the version of a page that `analyze serve` serves, which asks the server every few seconds for a newer one; "" for a file.
    """
    with ThreadPoolExecutor(1) as beside:
        beside.submit(vega_bundle)  # takes 3 s on another core, unless the user's cache has it
        named_tables, all_cards = tables(study), cards(study)
    named_tables["checks"] = [check for card in all_cards for check in card.checks]
    document = {
        "scripts": _scripts(study, live),
        "style": f":root {{ {css_colours(False)} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {css_colours(True)} }} }}\n"
        f"@media print {{ :root {{ {css_colours(False)} }} }}\n{_read('page.css')}",
        "data": deflated(_data(study, named_tables)),
    }
    policy = _content_policy(document["scripts"], live)
    first_tables = first_question_tables(named_tables, study.request.questions[0])
    readings = {"verdict": sentences.verdicts(all_cards)}
    readings |= {panel.id: panel.reading(first_tables) for panel in _panels(study) if panel.reading}
    cautions = {"of_runs": _of_runs(first_tables), "of_panel": {panel.id: _of_panel(panel, first_tables) for panel in _panels(study)}}
    facts = _facts(study, all_cards)
    html: str = template("page.html").render(**document, policy=policy, live=live, readings=readings, cautions=cautions, **facts)
    return html


def _of_runs(first_tables: Tables) -> list[str]:
    """Return how the figures of all panels may be misread: dependent items, sets without intervals, one prompt."""
    runs = first_tables["runs"]
    return [sentence.replace("`", "") for sentence in (*dependent(runs), *without_interval(runs), *of_prompts(runs))]


def _of_panel(panel: Panel, first_tables: Tables) -> list[str]:
    return of_columns(first_tables[panel.table], [column.title for column in panel.columns])


def _scripts(study: Study, live: str) -> list[str]:
    shown = [vega_bundle(), "\n".join(_read(name) for name in SCRIPTS)] if study.runs.rows else []
    return [*shown, _read("live.js")] if live else shown


def chart_facts(study: Study) -> dict[str, Any]:
    """Return the tolerances and the alpha at which charts draw lines."""
    tolerances = study.request.tolerances
    facts = {"accuracy_tolerance": tolerances.accuracy, "set_size_tolerance": tolerances.set_size}
    return facts | {"coverage_tolerance": COVERAGE_TOLERANCE, "alpha": float(study.request.questions[0].alphas[0])}


def method_names(study: Study) -> list[str]:
    """Return the compressed methods, in the order that all charts use."""
    return sorted({cell.row["method"] for cells in study.cells.values() for cell in cells if cell.before})


def _data(study: Study, named_tables: Tables) -> dict[str, Any]:
    facts, prices = chart_facts(study), study.request.prices
    specs = kept_charts(method_names(study), facts)
    first = study.request.questions[0]
    return pack(study, named_tables) | {
        "snapshot": study.runs.reader.snapshot,
        "alpha": facts["alpha"],
        "scorer": first.scorers[0],
        "protocol": first.protocol,
        "prices": {name: getattr(prices, name) for name in (*PRICES, "ask_again_up_to")},
        "filters": FILTERS,
        "panels": [_panel(panel, specs) for panel in _panels(study)],
    }


def _panels(study: Study) -> tuple[Panel, ...]:
    return panels_of(study.request.watch is not None)


def _panel(panel: Panel, specs: Mapping[str, Spec]) -> dict[str, Any]:
    drawn = {name: for_page(specs[name]) for name in panel.charts}
    columns = [{name: value for name, value in vars(column).items() if value} | {"digits": column.digits} for column in panel.columns]
    listed = vars(panel.listed) if panel.listed else None
    return {"id": panel.id, "table": panel.table, "shows": vars(panel.shows), "columns": columns, "charts": drawn, "listed": listed}


def _facts(study: Study, all_cards: Sequence[Card]) -> dict[str, Any]:
    rows = study.runs.rows
    options: dict[str, list[str]] = {name: sorted({row[name] for row in rows} - {DENSE}) for name in FILTERS[:4]}
    options["scorer"] = list(dict.fromkeys(scorer for question in study.request.questions for scorer in question.scorers))
    options["protocol"] = [question.protocol for question in study.request.questions]
    return {
        "cards": all_cards,
        "columns": {result: _by_model([card for card in all_cards if card.result == result]) for result in (PASS, INCONCLUSIVE, FAIL)},
        "shown_bars": SHOWN_BARS,
        "words": WORDS,
        "meanings": MEANINGS,
        "icons": ICONS,
        "options": options,
        "metrics": {name: words for name, (words, *_) in METRICS.items()},
        "panels": _panels(study),
        "prices": {name: getattr(study.request.prices, name) for name in PRICES},
        "up_to": study.request.prices.ask_again_up_to,
        "policy_words": policy_words(study.request.policy.limits),
        "errors": _errors(all_cards),
        "alone": _without_partner(study),
        "tool": tool(),
        "n_runs": len(rows),
        "snapshot": study.runs.reader.snapshot,
        "parameters": study.request.parameters,
        "alpha": float(study.request.questions[0].alphas[0]),
    }


def _errors(all_cards: Sequence[Card]) -> str:
    """Return the gate's error probabilities, which models pass if all are judged together, and when the gate may be asked again."""
    checks = [check for card in all_cards for check in card.checks]
    return " ".join(filter(None, [correction(checks), together(checks), again(checks)]))


def _by_model(chosen: Sequence[Card]) -> Mapping[str, list[Card]]:
    models: dict[str, list[Card]] = {}
    for card in chosen:
        models.setdefault(card.model, []).append(card)
    return models


def _without_partner(study: Study) -> list[str]:
    """Return the names of compressed models without a dense run."""
    cells = study.cells[study.request.questions[0].protocol]
    alone = [cell.row for cell in cells if not cell.before and cell.row["method"] != DENSE]
    return list(dict.fromkeys(printable(f"{row['model']} ({row['method']})") for row in alone))


def _content_policy(scripts: Sequence[str], live: str) -> str:
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    hashes = " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
    server = "; connect-src 'self'" if live else ""
    return f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'{server}"


def template(name: str) -> Any:
    """Return a template of the folder web, which escapes everything that is put into it."""
    import jinja2

    loader = jinja2.FunctionLoader(_read)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=_shown)
    environment.filters["unbroken"] = _unbroken
    return environment.get_template(name)


def _unbroken(text: str) -> str:
    """Return a sentence in which no number is parted from its % by the end of a line."""
    return text.replace(" %", "\u00a0%")


def _shown(value: Any) -> Any:
    """Return what the page shows of a value: a text without marks that turn its direction; what is marked safe is our own."""
    return printable(value) if type(value) is str else value


def _read(name: str) -> str:
    return files("analyzer.report").joinpath("web", name).read_text(encoding="utf-8")
