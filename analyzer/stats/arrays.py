"""Names of array types, and reductions over options; functions document the dimensions of their arrays."""

from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.integer[Any]]
BoolArray = NDArray[np.bool_]
AnyArray = NDArray[Any]


def over_options(combine: np.ufunc, values: AnyArray) -> AnyArray:
    """Return (item,) the reduction of (item, option) values over an item's options, such as the largest for `np.maximum`.

    It goes column by column: numpy's own reduction over so few columns takes one call an item, and ten times as long.
    """
    return np.asarray(reduce(combine, values.T))


def sum_of_known(values: FloatArray) -> FloatArray:
    """Return (item,) the sum of (item, option) values over an item's options, without those that are NaN."""
    return over_options(np.add, np.where(np.isnan(values), 0.0, values))
