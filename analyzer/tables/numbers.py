"""Numbers as people read them: one minus sign, no `-0.000`, and a bound that excludes 0 never looks like 0."""

import math

MOST_DIGITS = 12


def fixed(value: float, digits: int, *, sign: bool = False) -> str:
    """Return a number with so many decimals, such as `2.31`, or `+2.31` with its sign; what rounds to 0 is 0 without a sign."""
    text = f"{value:{'+' if sign else ''}.{digits}f}"
    return text if float(text) else text.lstrip("+-")


def fixed_interval(low: float, high: float, digits: int, *, sign: bool = False) -> str:
    """Return an interval such as `[2.25, 2.37]`; a bound that excludes 0 and would round to it has as many decimals as it takes to show."""
    shown = (fixed(bound, digits_that_show(bound, digits) if low > 0 or high < 0 else digits, sign=sign) for bound in (low, high))
    return f"[{', '.join(shown)}]"


def digits_that_show(value: float, digits: int) -> int:
    """Return how many decimals, `digits` or more, keep a number from looking like 0; it is 0 below 1e-12."""
    if not abs(value) >= 10.0**-MOST_DIGITS:
        return digits
    return max(digits, -math.floor(math.log10(abs(value)) + 1e-9)) if not float(f"{value:.{digits}f}") else digits
