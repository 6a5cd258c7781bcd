"""Numbers in tables: no minus before 0, one minus sign, and a bound that excludes 0 does not look like 0."""

import json

import pytest
import vl_convert

from analyzer.report.charts.theme import CONFIG
from analyzer.tables.numbers import fixed, fixed_interval
from analyzer.tables.terminal import estimate, interval, number, span


@pytest.mark.parametrize(
    ("value", "digits", "sign", "text"),
    [
        (-0.0004, 3, False, "0.000"),
        (-0.0004, 3, True, "0.000"),
        (0.0004, 3, True, "0.000"),
        (-0.0, 2, True, "0.00"),
        (-0.0005001, 3, True, "-0.001"),
        (2.306, 2, False, "2.31"),
        (2.306, 2, True, "+2.31"),
        (-0.4, 0, False, "0"),
        (float("inf"), 2, False, "inf"),
    ],
)
def test_what_rounds_to_zero_has_no_sign(value: float, digits: int, sign: bool, text: str) -> None:
    """Every number goes through one form, in which 0 has no sign and no other number loses its own."""
    assert fixed(value, digits, sign=sign) == text


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (-0.014, -0.0003, "[-0.014, -0.0003]"),
        (0.0000021, 0.02, "[+0.000002, +0.020]"),
        (0.001, 0.002, "[+0.001, +0.002]"),
        (-0.0003, 0.02, "[0.000, +0.020]"),
        (0.0, 0.02, "[0.000, +0.020]"),
        (-1e-15, 0.5, "[0.000, +0.500]"),
        (0.0005, 0.01, "[+0.001, +0.010]"),
        (0.00049999, 0.01, "[+0.0005, +0.010]"),
    ],
)
def test_a_bound_that_excludes_zero_shows_it(low: float, high: float, text: str) -> None:
    """An interval on one side of 0 has enough decimals to say so; one that holds 0 has no more than the others."""
    assert fixed_interval(low, high, 3, sign=True) == text


def test_cells_of_tables_use_these_forms() -> None:
    """Estimates, intervals, numbers and spans alike; a value whose interval excludes 0 shows its side as well."""
    record = {"x": -0.0004, "x_low": -0.0009, "x_high": -0.0001, "y_least": -0.001, "y_most": 0.2, "z": -0.0001, "s": 0.02}
    assert estimate("x", sign=True)(record) == "-0.0004 [-0.001, -0.0001]"
    assert interval("x")(record) == "[-0.001, -0.0001]"
    assert (number("z")(record), number("z", 1, sd="s")(record)) == ("0.000", "0.0 ±0.0")
    assert span("y", sign=True)(record) == "0.00 to +0.20"


def test_charts_have_the_minus_of_tables() -> None:
    """A chart's axis prints the same minus as a table, not the longer one of its library."""
    spec = {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "data": {"values": [{"a": -0.5}, {"a": 0.3}]},
        "mark": "point",
        "encoding": {"x": {"field": "a", "type": "quantitative", "axis": {"format": "+.2f"}}},
    }
    drawn = vl_convert.vegalite_to_svg(json.dumps(spec | {"config": {"locale": CONFIG["locale"]}}))
    assert "\u2212" not in drawn and "-0.5" in drawn
