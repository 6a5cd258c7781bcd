"""Colours and fonts of the charts. A name such as `@ink` is replaced by a colour when a chart is made for the page or for paper.

On the page they become CSS variables, so that a chart follows the system's dark mode without being drawn again.
"""

import json
from collections.abc import Sequence
from typing import Any

# After Okabe & Ito 2008, darkened or lightened until each has a contrast of 3 to 1 on the light and on the dark page.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#b8669a", "#a8780a", "#3b8fc2", "#8f6bd1", "#7d7d7d")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right")
LIGHT = {
    "ink": "#1c2127",
    "soft": "#59636e",
    "line": "#d4d9de",
    "page": "#ffffff",
    "card": "#f6f7f9",
    "better": "#3b8fc2",
    "worse": "#e07b39",
}
DARK = {
    "ink": "#e8eaed",
    "soft": "#a5afb9",
    "line": "#3a4149",
    "page": "#14171a",
    "card": "#1e2226",
    "better": "#2b6d97",
    "worse": "#a84c14",
}
STATUS = {"pass": ("#0a6b4b", "#5fd3a6"), "inconclusive": ("#7a5200", "#f0c05a"), "fail": ("#b3340a", "#ff9a6c")}
FONT = "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

Spec = dict[str, Any]


def for_page(spec: Spec) -> Spec:
    """Return a chart whose colours are the page's."""
    return _bound(spec | {"config": CONFIG, "autosize": {"type": "fit-x", "contains": "padding"}}, "var(--{})")


def for_paper(spec: Spec) -> Spec:
    """Return a chart for SVG and PNG: light, on a white background."""
    return _bound(spec | {"config": CONFIG | {"background": "@page"}}, "", LIGHT)


def css_colours(dark: bool) -> str:
    """Return the page's colours as CSS declarations."""
    plain = DARK if dark else LIGHT
    status = {f"status-{name}": both[dark] for name, both in STATUS.items()}
    return " ".join(f"--{name}: {colour};" for name, colour in {**plain, **status}.items())


def series(names: Sequence[str]) -> dict[str, Any]:
    """Return the domain and range of a colour scale for names, the same name in the same colour on every chart."""
    return _scale(names, SERIES)


def shapes(names: Sequence[str]) -> dict[str, Any]:
    """Return the domain and range of a shape scale; shapes and colours together distinguish 56 names, shapes alone 7."""
    return _scale(names, SHAPES)


def _scale(names: Sequence[str], values: Sequence[str]) -> dict[str, Any]:
    return {"domain": list(names), "range": [values[number % len(values)] for number in range(len(names))]}


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours. Source: WCAG 2.2, definition of contrast ratio."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4 for channel in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _bound(spec: Spec, form: str, colours: dict[str, str] | None = None) -> Spec:
    text = json.dumps(spec)
    for name in LIGHT:
        text = text.replace(f'"@{name}"', json.dumps(colours[name] if colours else form.format(name)))
    bound: Spec = json.loads(text)
    return bound


_TEXT = {"labelColor": "@soft", "titleColor": "@ink", "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": 500}
CONFIG: Spec = {
    "background": "transparent",
    "locale": {"number": {"decimal": ".", "thousands": ",", "grouping": [3], "currency": ["$", ""], "minus": "-"}},  # the minus of tables
    "font": FONT,
    "view": {"stroke": "transparent"},
    "axis": _TEXT | {"gridColor": "@line", "domainColor": "@soft", "tickColor": "@line", "labelLimit": 240} | {"labelFlush": False},
    "legend": _TEXT | {"orient": "top", "labelLimit": 220, "columns": 6, "title": None} | {"symbolStrokeWidth": 2, "symbolOpacity": 1},
    "text": {"color": "@ink", "fontSize": 12},
    "rule": {"color": "@soft"},
    "title": {"color": "@ink", "fontSize": 13, "fontWeight": 600, "anchor": "start", "offset": 6},
}
