"""The charts of the watch: how the evidence of its tests grew, and what was promised beside what is seen."""

from typing import Any

import altair as alt

from analyzer.report.charts.comparison_charts import ROWS, level, spec_of
from analyzer.report.charts.theme import SERIES, Spec

MOST_DRAWN = 100  # multiples of the alarm level; more evidence than this adds nothing to see


def evidence(methods: list[str], facts: dict[str, Any]) -> Spec:
    """Draw the evidence of every test over the questions, as a multiple of the level at which it is an alarm."""
    base = (
        alt.Chart(ROWS)
        .transform_flatten(["questions", "evidence"])
        .transform_calculate(statistic="replace(datum.check, '_', ' ')")
        .encode(
            x=alt.X("questions:Q", title="live questions seen by the test"),
            color=alt.Color("statistic:N", scale=alt.Scale(range=list(SERIES)), legend=alt.Legend(columns=2)),
            detail=[alt.Detail("test:N")],
            tooltip=[
                alt.Tooltip("test:N"),
                alt.Tooltip("questions:Q", format=","),
                alt.Tooltip("evidence:Q", title="of the alarm level", format=".2g"),
            ],
        )
    )
    scale = alt.Scale(type="log", domainMax=MOST_DRAWN, clamp=True)
    y = alt.Y("evidence:Q", title="evidence (1 is an alarm)", scale=scale, axis=alt.Axis(format="~g", tickCount=5))
    lines = base.mark_line(strokeWidth=1.8, interpolate="step-before").encode(y=y)
    return spec_of(alt.layer(level(1, strokeDash=[4, 4]), lines), height=260)


def shares(methods: list[str], facts: dict[str, Any]) -> Spec:
    """Draw shares of the live questions, with their range where it is known, beside those of the calibration questions."""
    base = (
        alt.Chart(ROWS)
        .transform_filter("datum.share")
        .encode(
            y=alt.Y("test:N", sort=None, title=None),
            tooltip=[alt.Tooltip("test:N"), *[alt.Tooltip(f"{name}:Q", format=".1%") for name in ("calibrated", "live")]],
        )
    )
    x = alt.X("live:Q", title="share of questions", axis=alt.Axis(format=".0%", orient="top"))
    whiskers = base.mark_rule(strokeWidth=2, color=SERIES[1]).encode(x=alt.X("live_low:Q"), x2=alt.X2("live_high:Q"))
    moved = base.mark_rule(color="@soft").encode(x=alt.X("calibrated:Q"), x2=alt.X2("live:Q"))
    live_points = base.mark_point(filled=True, size=64, opacity=1, color=SERIES[1]).encode(x=x)
    promised = base.mark_point(size=64, opacity=1, color="@ink", strokeWidth=1.5).encode(x=alt.X("calibrated:Q"))
    return spec_of(alt.layer(moved, whiskers, promised, live_points), step=26)
