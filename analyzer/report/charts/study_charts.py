"""The charts of the studies: cliffs, scale, transfer, cost. They read `rows` as the comparison charts do."""

from typing import Any

import altair as alt

from analyzer.report.charts.comparison_charts import ROWS, coloured, level, shaped, spec_of, tooltip, upright
from analyzer.report.charts.theme import SERIES, Spec

LISTED = 22  # height of a row of a list


def cliff(name: str, title: str, least: tuple[float, float], times: int = 1) -> Any:
    """Return the function that makes the chart of one figure at the levels that were measured, with its interval.

    least : smallest and largest value that the axis always shows, so that noise does not look like a cliff.
    """

    def chart(methods: list[str], facts: dict[str, Any]) -> Spec:
        base = (
            alt.Chart(ROWS)
            .transform_calculate(y=f"{times} * datum.{name}", low=f"{times} * datum.{name}_low", high=f"{times} * datum.{name}_high")
            .encode(
                x=alt.X("strength:Q", title="bits removed of 16, or share of weights", axis=alt.Axis(tickCount=6)),
                color=coloured(methods),
                tooltip=tooltip("y", "+.2f"),
            )
        )
        y = alt.Y("y:Q", title=title)
        ends_of_axis = [level(value, opacity=0) for value in (*least, *_tolerance(name, facts))]
        tolerance = [level(value, strokeDash=[4, 4]) for value in _tolerance(name, facts)]
        ends = base.mark_rule(strokeWidth=1.5, opacity=0.6).encode(y=alt.Y("low:Q"), y2=alt.Y2("high:Q"))
        lines = base.mark_line(strokeWidth=1, strokeDash=[2, 3]).encode(y=y)
        dots = base.mark_point(filled=True, size=70, opacity=1).encode(y=alt.Y("y:Q"), shape=shaped(methods))
        return spec_of(alt.layer(*ends_of_axis, *tolerance, ends, lines, dots), height=230)

    return chart


def scale(methods: list[str], facts: dict[str, Any]) -> Spec:
    """Draw the relative growth of the mean set size against parameters, one line per method and level; names where it is not noise."""
    base = (
        alt.Chart(ROWS)
        .transform_filter("datum.parameters != null && datum.inflation != null")
        .encode(
            x=alt.X(
                "parameters:Q",
                title="parameters",
                scale=alt.Scale(type="log", nice=False, padding=40),
                axis=alt.Axis(format=".3~s", grid=False, labelFlush=True),
            ),
            color=coloured(methods),
            detail=[alt.Detail("level:N"), alt.Detail("family:N")],
            tooltip=tooltip("inflation", "+.1%"),
        )
    )
    y = alt.Y("inflation:Q", title="growth of the mean set", axis=alt.Axis(format="+.0%"))
    lines = base.mark_line(strokeWidth=1.2, opacity=0.8).encode(y=y)
    whiskers = base.mark_rule(strokeWidth=1.2, opacity=0.6).encode(y=alt.Y("inflation_low:Q"), y2=alt.Y2("inflation_high:Q"))
    dots = base.mark_point(filled=True, size=70, opacity=1).encode(y=y, shape=shaped(methods))
    sizes = base.transform_aggregate(groupby=["model", "parameters"]).transform_joinaggregate(alike="count()", groupby=["parameters"])
    numbered = sizes.transform_window(place="row_number()", sort=[alt.SortField("model")], groupby=["parameters"])
    named = numbered.transform_calculate(named="datum.alike > 1 ? datum.model + ' and ' + (datum.alike - 1) + ' more' : datum.model")
    first = named.transform_filter("datum.place == 1")
    models = first.mark_text(angle=270, align="right", baseline="bottom", dx=-4, dy=-4, color="@soft").encode(
        y=alt.value(0), text=alt.Text("named:N"), color=alt.ColorValue("@soft"), detail=alt.Undefined, tooltip=alt.Undefined
    )
    largest = base.transform_joinaggregate(most="max(parameters)", groupby=["method", "level", "family"])
    last = largest.transform_filter("datum.parameters == datum.most && (datum.inflation_low > 0 || datum.inflation_high < 0)")
    levels = last.mark_text(align="left", dx=8, fontSize=11).encode(y=y, text=alt.Text("name:N"), color=alt.ColorValue("@soft"))
    return spec_of(alt.layer(level(0), lines, whiskers, dots, models, levels), height=360)


def frontier(name: str, title: str, times: int = 1) -> Any:
    """Return the function that makes the chart of one figure against the bytes of the weights, dense runs included."""

    def chart(methods: list[str], facts: dict[str, Any]) -> Spec:
        base = (
            alt.Chart(ROWS)
            .transform_filter(f"datum.bytes != null && datum.{name} != null")
            .transform_calculate(y=f"{times} * datum.{name}", low=f"{times} * datum.{name}_low", high=f"{times} * datum.{name}_high")
            .encode(
                x=alt.X(
                    "bytes:Q",
                    title="bytes of the weights",
                    scale=alt.Scale(zero=False, padding=20),
                    axis=alt.Axis(format=".3~s", labelFlush=True),
                ),
                color=alt.condition("datum.method == 'dense'", alt.value("@ink"), coloured(methods)) if methods else alt.value("@ink"),
                tooltip=[*tooltip("y", ".2f"), alt.Tooltip("finding:N")],
            )
        )
        whiskers = base.mark_rule(strokeWidth=1.2, opacity=0.6).encode(y=alt.Y("low:Q"), y2=alt.Y2("high:Q"))
        y = alt.Y("y:Q", title=title, scale=alt.Scale(zero=False))
        on = base.transform_filter("datum.finding == 'frontier'").mark_point(filled=True, size=90, opacity=1).encode(y=y)
        off = base.transform_filter("datum.finding == 'dominated'").mark_point(shape="cross", size=80, strokeWidth=1.5).encode(y=y)
        open_ones = "datum.finding != 'frontier' && datum.finding != 'dominated'"
        unclear = base.transform_filter(open_ones).mark_point(size=80, strokeWidth=1.5).encode(y=y)
        return spec_of(alt.layer(whiskers, on, off, unclear), height=260)

    return chart


def transfer(methods: list[str], facts: dict[str, Any]) -> Spec:
    """Draw coverage with the dense threshold, with its interval, beside that after recalibrating."""
    goal, floor = 1 - facts["alpha"], 1 - facts["alpha"] - facts["coverage_tolerance"]
    base = _listed().encode(tooltip=tooltip("coverage", ".3f"))
    axis = alt.Axis(format=".1%", orient="top", tickCount=6, labelSeparation=8)
    ends = alt.X("coverage_low:Q", title="coverage", scale=alt.Scale(zero=False, padding=12), axis=axis)
    whiskers = base.mark_rule(strokeWidth=2, color=SERIES[1]).encode(x=ends, x2=alt.X2("coverage_high:Q"))
    from_dense = base.mark_point(filled=True, size=64, opacity=1, color=SERIES[1]).encode(x=alt.X("coverage:Q"))
    again = base.mark_point(size=64, opacity=1, color="@ink", strokeWidth=1.5).encode(x=alt.X("recalibrated_coverage:Q"))
    lines = [upright(goal), upright(floor, strokeDash=[4, 4])]
    return spec_of(alt.layer(*lines, whiskers, again, from_dense), step=LISTED)


def cost(methods: list[str], facts: dict[str, Any]) -> Spec:
    """Draw the cost per 1,000 questions at the given prices, with its interval; a tick marks the dense run's."""
    base = _listed().encode(tooltip=tooltip("cost", ",.2f"))
    x = alt.X("cost:Q", title="cost per 1,000 questions", axis=alt.Axis(orient="top"))
    bars = base.mark_bar(color=SERIES[5], height={"band": 0.65}).encode(x=x)
    whiskers = base.mark_rule(strokeWidth=1.5, color="@ink").encode(x=alt.X("cost_low:Q"), x2=alt.X2("cost_high:Q"))
    dense = base.mark_tick(color="@ink", thickness=2.5, height={"band": 0.95}).encode(x=alt.X("dense_cost:Q"))
    return spec_of(alt.layer(bars, whiskers, dense), step=LISTED)


def _listed() -> alt.Chart:
    """Return rows below each other by their names, an untrusted one marked."""
    marked = alt.Chart(ROWS).transform_calculate(marked="datum.label + (datum.unreliable ? ' !' : '')")
    return marked.encode(y=alt.Y("marked:N", sort=None, title=None))


def _tolerance(name: str, facts: dict[str, Any]) -> list[float]:
    """Return the largest change that counts as none; nothing for a figure without one."""
    limits = {"set_size_change": facts["set_size_tolerance"], "accuracy_change": -100 * facts["accuracy_tolerance"]}
    return [limits[name]] if name in limits else []
