"""Sums over groups of array elements, which numpy has no words for. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
BoolArray = NDArray[np.bool_]


def summed(group: IntArray, values: FloatArray | BoolArray, groups: int) -> FloatArray:
    """Sum of ``values`` by group number, 0 for groups without any."""
    return np.bincount(group, weights=values, minlength=groups).astype(np.float64, copy=False)


def running(values: FloatArray, first: IntArray, group: IntArray) -> FloatArray:
    """Running sums that start anew with every group.

    Args:
        first: by group, where its elements start; elements come sorted by group.
    """
    total = np.cumsum(values)
    before: FloatArray = np.concatenate([[0.0], total])[first]
    return total - before[group]
