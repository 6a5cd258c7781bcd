"""Alphas and ranks are exact rationals."""

from fractions import Fraction

import pytest

from analyzer.conformal.ranks import threshold_rank
from analyzer.protocols.ask import parse_alphas
from schemas.errors import UsageError

BAD_RANGES = ["0.1:0.2", "0.2:0.1:0.01", "0.1:0.2:0", "0.1:0.2:1e-9"]


@pytest.mark.parametrize("text", ["0", "1", "-0.1", "x", "1.5", "nan", "inf", "1/0", "", *BAD_RANGES])
def test_what_is_no_alpha_is_refused_by_name(text: str) -> None:
    """Alpha 0, 1, -0.1 or 'x' is a usage error that quotes the value."""
    with pytest.raises(UsageError, match="alpha") as caught:
        parse_alphas([text])
    assert repr(text.split(":", maxsplit=1)[0]) in str(caught.value) or repr(text) in str(caught.value)


def test_a_range_names_every_alpha_once() -> None:
    """0.01:0.99:0.01 is 99 exact alphas, and repeating one changes nothing."""
    alphas = parse_alphas(["0.01:0.99:0.01", "1/10"])
    assert alphas == tuple(Fraction(i, 100) for i in range(1, 100))


def test_rank_is_exact_where_floats_pick_the_wrong_one_golden() -> None:
    """k = ceil((n+1)(1-alpha)) worked by hand: 100 * 0.93 is 93, which floating point rounds up to 94."""
    assert threshold_rank(99, Fraction("0.07")) == 93
    assert threshold_rank(99, Fraction("0.1")) == 90
    assert threshold_rank(8, Fraction("0.1")) == 9  # ceil(8.1): more than n, so +inf
    assert threshold_rank(1, Fraction(1, 2)) == 1
