"""How far a number over some videos can be trusted: 95 % intervals of a mean and of a share.

Videos are independent of each other, subjects of one video are not: what counts is the number of videos V.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

Array = np.ndarray
Interval = tuple[float, float | None, float | None]  # a value and the ends of its interval, None = there are none

LEVEL = 0.95


def mean_interval(values: Array, videos: Sequence[str]) -> Interval | None:
    """Mean of T values and its interval by Student's t; None without a value, no ends from one video.

    With n_v values of sum s_v in video v, V videos, and n values in all:

        SE^2 = V / (V - 1) sum_v (s_v - n_v mean)^2 / n^2,    ends: mean -+ t_{V-1} SE

    (the ratio estimator of cluster sampling; with one value in each video it is the usual s^2 / n). It is exact for
    values of the normal law, and as symmetric as that: an end may lie where no value can.

    values: (T,), NaN = does not count
    videos: T names
    """
    counted = ~np.isnan(values)
    names, video = np.unique(np.asarray(videos)[counted], return_inverse=True)
    values, V, n = values[counted], len(names), int(counted.sum())
    if not V:
        return None
    mean = float(values.mean())
    if V == 1:
        return mean, None, None
    residuals = np.bincount(video, weights=values - mean)  # s_v - n_v mean
    half = student_t(V - 1) * math.sqrt(V / (V - 1) * float(np.square(residuals).sum())) / n
    return mean, mean - half, mean + half


def share_interval(chosen: Array, videos: Sequence[str]) -> Interval:
    """Share p of the chosen among T tracks and its interval by Wilson (1927), which holds near 0 and 1 as well:

        (p + z^2 / 2V -+ z sqrt(p (1 - p) / V + z^2 / 4V^2)) / (1 + z^2 / V)

    Several subjects of one video count as one trial, as if they were always chosen together: rather too wide than too
    narrow.

    chosen: bool (T,), T >= 1
    videos: T names
    """
    p, V = float(np.mean(chosen)), len(set(videos))
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    centre, half = p + z**2 / (2 * V), z * math.sqrt(p * (1 - p) / V + z**2 / (4 * V**2))
    low, high = ((centre + side * half) / (1 + z**2 / V) for side in (-1, 1))
    return p, max(low, 0.0), min(high, 1.0)


def student_t(degrees: int) -> float:
    """How many standard errors from the mean the interval's ends are, with this many degrees of freedom."""
    try:
        from scipy.special import stdtrit
    except ImportError:
        raise ImportError('intervals need scipy; install it with: pip install -e ".[evaluate]"') from None
    return float(stdtrit(degrees, (1 + LEVEL) / 2))
