"""The charts of the comparison, one Vega-Lite specification each. They read the data set `rows`, which the page fills and filters.

Rows come with `name` (method and level), `where` (task, and prompt where there are several) and `role` (dense, compressed, other).
Channels are written out, `alt.Y2("high:Q")` and not "high:Q": Altair goes through its whole schema to find the class of a bare text.
"""

from typing import Any

import altair as alt

from analyzer.report.charts.metrics import METRICS, WORSE_BELOW
from analyzer.report.charts.theme import SERIES, SHAPES, Spec, series, shapes

ROWS = alt.NamedData("rows")
ONE = alt.InlineData([{}])
BARE: dict[str, Any] = {"domain": False, "ticks": False, "labelPadding": 8}
DENSE_AND_COMPRESSED = alt.Scale(domain=["dense", "compressed", "other"], range=["@ink", SERIES[1], "@soft"])


def heat_map(methods: list[str], facts: dict[str, Any]) -> Spec:
    """Draw methods and levels by models and tasks; the colour shows how much better or worse than the dense run they are."""
    metric = alt.param(name="metric", value="set_size_change")
    times = " : ".join(f"metric == '{name}' ? {times}" for name, (_, times, _, _) in METRICS.items())
    full = " : ".join(f"metric == '{name}' ? {-full if name in WORSE_BELOW else full}" for name, (_, _, _, full) in METRICS.items())
    form = " : ".join(f"metric == '{name}' ? '{form}'" for name, (_, _, form, _) in METRICS.items())
    base = (
        alt.Chart(ROWS)
        .transform_calculate(
            amount=f"datum[metric] == null ? null : datum[metric] * ({times} : 1)",
            shade=f"clamp(datum.amount / ({full} : 1), -1, 1)",
            strength="abs(datum.shade)",
            sure="datum[metric + '_low'] > 0 || datum[metric + '_high'] < 0",
            said=f"datum.amount == null ? '-' : format(datum.amount, {form} : '.2f')",
            shown="(test(/^.0[.]0+$/, datum.said) ? slice(datum.said, 1) : datum.said) + (datum.unreliable ? ' !' : '')",
        )
        .encode(
            x=alt.X("column:N", sort=None, title=None, axis=alt.Axis(**BARE, labelAngle=0, labelExpr="split(datum.label, ' · ')")),
            y=alt.Y("name:N", sort=None, title=None, axis=alt.Axis(**BARE)),
            tooltip=tooltip("amount", ".3f"),
        )
    )
    cells = base.mark_rect(cornerRadius=3, fill="@card", stroke="@page", strokeWidth=2)
    shades = base.mark_rect(cornerRadius=3, stroke="@page", strokeWidth=2).encode(
        fill=alt.condition("datum.shade < 0", alt.value("@better"), alt.value("@worse")),
        fillOpacity=alt.FillOpacity("strength:Q", scale=alt.Scale(domain=[0, 1], range=[0, 1]), legend=None),
    )
    words = base.mark_text(fontSize=12).encode(text=alt.Text("shown:N"))
    bold = base.transform_filter("datum.sure").mark_text(fontSize=12, fontWeight=700).encode(text=alt.Text("shown:N"))
    return spec_of(alt.layer(cells, shades, words.transform_filter("!datum.sure"), bold).add_params(metric), step=30)


def decoupling(methods: list[str], facts: dict[str, Any]) -> Spec:
    """Draw the change in set size against change in accuracy, with both intervals and the four quadrants that the tolerances define."""
    falls, grows = -100 * facts["accuracy_tolerance"], facts["set_size_tolerance"]
    points = _points(methods).encode(
        x=alt.X("x:Q", title="change in accuracy, points", axis=alt.Axis(tickCount=10)),
        y=alt.Y("set_size_change:Q", title="change in set size, options"),
    )
    across = points.mark_rule(opacity=0.35).encode(x=alt.X("x_low:Q"), x2=alt.X2("x_high:Q"))
    along = points.mark_rule(opacity=0.35).encode(y=alt.Y("set_size_change_low:Q"), y2=alt.Y2("set_size_change_high:Q"))
    dots = points.mark_point(filled=True, size=80, opacity=1).encode(shape=shaped(methods))
    untrusted = points.transform_filter("datum.unreliable").mark_text(text="!", dx=9, fontWeight=700).encode(color=alt.ColorValue("@ink"))
    lines = [upright(falls, strokeDash=[4, 4]), level(grows, strokeDash=[4, 4])]
    return spec_of(alt.layer(*lines, across, along, dots, untrusted, *_quadrants()), height=420)


def set_size_by_alpha(methods: list[str], facts: dict[str, Any]) -> Spec:
    """Draw the mean set size at every alpha, with a band of two standard deviations over splits."""
    return _by_alpha("set_size", "mean options in a set", None)


def coverage_by_alpha(methods: list[str], facts: dict[str, Any]) -> Spec:
    """Draw coverage at every alpha, with a band of two standard deviations over splits."""
    return _by_alpha("coverage", "share of sets with the right answer", ".0%")


def set_sizes(methods: list[str], facts: dict[str, Any]) -> Spec:
    """Draw the share of questions by the size of their set, dense beside compressed, with intervals."""
    base = alt.Chart(ROWS).encode(
        x=alt.X("size:O", title="options in the set", axis=alt.Axis(labelAngle=0)),
        xOffset=alt.XOffset("role:N", sort=["dense", "compressed"]),
        color=alt.Color("role:N", scale=DENSE_AND_COMPRESSED, legend=alt.Legend(values=["dense", "compressed"])),
        tooltip=tooltip("rate", ".1%"),
    )
    bars = base.mark_bar(cornerRadiusEnd=2).encode(y=alt.Y("rate:Q", title="share of questions", axis=alt.Axis(format=".0%")))
    whiskers = base.mark_rule(strokeWidth=1.5).encode(y=alt.Y("rate_low:Q"), y2=alt.Y2("rate_high:Q"), color=alt.ColorValue("@soft"))
    return spec_of(alt.layer(bars, whiskers), height=280)


def flips(methods: list[str], facts: dict[str, Any]) -> Spec:
    """Draw the share of flips in each subject: right to wrong points left, wrong to right points right."""
    base = (
        alt.Chart(ROWS)
        .transform_calculate(
            sign="datum.direction == 'right to wrong' ? -100 : 100",
            amount="datum.sign * datum.share",
            low="datum.sign * datum.share_low",
            high="datum.sign * datum.share_high",
        )
        .encode(
            y=alt.Y("subject:N", sort=None, title=None),
            color=alt.Color("direction:N", scale=alt.Scale(domain=["right to wrong", "wrong to right"], range=[SERIES[1], SERIES[0]])),
            tooltip=[alt.Tooltip("subject:N"), *tooltip("amount", "+.1f"), alt.Tooltip("n_items:Q", title="items")],
        )
    )
    x = alt.X("amount:Q", title="percent of the subject's items", axis=alt.Axis(labelExpr="abs(datum.value)", orient="top", tickCount=10))
    bars = base.mark_bar(height={"band": 0.7}).encode(x=x)
    whiskers = base.mark_rule(strokeWidth=1.5).encode(x=alt.X("low:Q"), x2=alt.X2("high:Q"), color=alt.ColorValue("@ink"))
    return spec_of(alt.layer(bars, whiskers), step=24)


def _by_alpha(name: str, title: str, form: str | None) -> Spec:
    alpha = alt.param(name="alpha", value=0.1)
    base = (
        alt.Chart(ROWS)
        .transform_calculate(alpha="sequence(0.01, 0.995, 0.01)")
        .transform_flatten(["alpha", name, f"{name}_sd"])
        .transform_calculate(low=f"max(0, datum.{name} - 2 * datum.{name}_sd)", high=f"datum.{name} + 2 * datum.{name}_sd")
        .encode(
            x=alt.X(
                "alpha:Q",
                title="alpha, the share of misses allowed",
                scale=alt.Scale(domain=[0, 1], nice=False),
                axis=alt.Axis(tickCount=10),
            ),
            color=alt.Color("role:N", scale=DENSE_AND_COMPRESSED),
            detail=[alt.Detail("run:N")],
        )
    )
    y = alt.Y(f"{name}:Q", title=title, axis=alt.Axis(format=form) if form else alt.Axis())
    others = base.transform_filter("datum.role == 'other'").mark_line(strokeWidth=1, opacity=0.35).encode(y=y)
    pair = base.transform_filter("datum.role != 'other'")
    band = pair.mark_area(opacity=0.25).encode(y=alt.Y("low:Q"), y2=alt.Y2("high:Q"))
    lines = pair.mark_line(strokeWidth=2).encode(y=y)
    here = pair.transform_filter("abs(datum.alpha - alpha) < 0.005")
    rule = here.mark_rule(strokeDash=[2, 2]).encode(x=alt.X("alpha:Q"), color=alt.ColorValue("@soft"))
    dots = here.mark_point(filled=True, size=70, opacity=1).encode(y=y, tooltip=tooltip(name, ".3f"))
    return spec_of(alt.layer(others, band, lines, rule, dots).add_params(alpha), height=260)


def _points(methods: list[str]) -> alt.Chart:
    """Return rows in percentage points, coloured and shaped by method."""
    return (
        alt.Chart(ROWS)
        .transform_calculate(
            x="100 * datum.accuracy_change", x_low="100 * datum.accuracy_change_low", x_high="100 * datum.accuracy_change_high"
        )
        .encode(
            color=coloured(methods),
            tooltip=[*tooltip("x", "+.1f"), alt.Tooltip("set_size_change:Q", format="+.3f"), alt.Tooltip("verdict:N")],
        )
    )


def coloured(methods: list[str]) -> Any:
    """Return the colours that distinguish methods, the same in every chart.

    methods : the compressed methods; if there are none, all rows have the same colour. Rows of another method, such as dense runs, are not
    drawn; a chart that shows them too is coloured by `role`, as `set_sizes` is.
    """
    return alt.ColorValue(SERIES[0]) if not methods else alt.Color("method:N", scale=alt.Scale(**series(methods)))


def shaped(methods: list[str]) -> Any:
    """Return the shapes that distinguish methods for readers who cannot see the colours; `methods` as in `coloured`."""
    return alt.ShapeValue(SHAPES[0]) if not methods else alt.Shape("method:N", scale=alt.Scale(**shapes(methods)))


def _quadrants() -> list[Any]:
    """Return the names of the quadrants in the corners of the plot."""
    corners: dict[tuple[str, str], tuple[Any, Any, Any, int]] = {
        ("accuracy holds,", "sets grow"): ("width", 0, "right", 12),
        ("both", "degrade"): (0, 0, "left", 12),
        ("both", "hold"): ("width", "height", "right", -24),
        ("accuracy falls,", "sets do not warn"): (0, "height", "left", -24),
    }
    one = alt.Chart(ONE)
    return [
        one.mark_text(align=align, dx=-6 if align == "right" else 6, dy=down, color="@soft", lineHeight=15).encode(
            x=alt.value(x), y=alt.value(y), text=alt.TextValue(list(words))
        )
        for words, (x, y, align, down) in corners.items()
    ]


def level(value: float, **style: Any) -> Any:
    """Return a horizontal line."""
    return alt.Chart(ONE).mark_rule(color="@soft", **style).encode(alt.YDatum(value))


def upright(value: float, **style: Any) -> Any:
    """Return a vertical line."""
    return alt.Chart(ONE).mark_rule(color="@soft", **style).encode(alt.XDatum(value))


def tooltip(name: str, form: str) -> list[Any]:
    """Return a tooltip that names the run and one of its figures."""
    run = [alt.Tooltip("model:N"), alt.Tooltip("name:N", title="method"), alt.Tooltip("where:N", title="task")]
    return [*run, alt.Tooltip(f"{name}:Q", format=form)]


def spec_of(chart: Any, *, height: int | None = None, step: int | None = None) -> Spec:
    """Return the specification of a chart as wide as its container, `height` pixels high or `step` pixels per row."""
    spec: Spec = chart.properties(width="container", height=height or alt.Step(step or 24)).to_dict(validate=False)
    return {name: value for name, value in spec.items() if name != "config"}
