"""How far a number over some videos can be trusted: 95 % intervals of a mean, of a share, of a distance between sets.

Videos are independent of each other, subjects of one video are not: what counts is the number of videos V.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

Interval = tuple[float, float | None, float | None]  # a value and the ends of its interval, None = there are none

LEVEL = 0.95
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)  # standard errors from the middle to an end, by the normal law
GROUPS = 20  # of videos, left out one after the other; more would only take longer


def mean_interval(values: np.ndarray, videos: Sequence[str]) -> Interval | None:
    """Mean of T values and its interval by Student's t; None without a value, no ends from one video.

    With n_v values of sum s_v in video v, V videos, and n values in all:

        SE^2 = V / (V - 1) sum_v (s_v - n_v mean)^2 / n^2,    ends: mean -+ t_{V-1} SE

    (the ratio estimator of cluster sampling; with one value in each video it is the usual s^2 / n, and exact for values
    of the normal law). It is symmetric: an end may lie where no value can.

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


def share_interval(chosen: np.ndarray, videos: Sequence[str]) -> Interval:
    """Share p of the chosen among T tracks and its interval by Wilson (1927), which holds near 0 and 1 as well:

        (p + z^2 / 2V -+ z sqrt(p (1 - p) / V + z^2 / 4V^2)) / (1 + z^2 / V)

    Several subjects of one video count as one trial, as if they were always chosen together: rather too wide than too
    narrow.

    chosen: bool (T,), T >= 1
    videos: T names
    """
    p, V = float(np.mean(chosen)), len(set(videos))
    centre, half = p + Z**2 / (2 * V), Z * math.sqrt(p * (1 - p) / V + Z**2 / (4 * V**2))
    low, high = ((centre + side * half) / (1 + Z**2 / V) for side in (-1, 1))
    return p, max(low, 0.0), min(high, 1.0)


def distance_interval(
    statistic: Callable[[Tensor, Tensor], float], ours: Sequence[Tensor], theirs: Sequence[Tensor]
) -> Interval:
    """A distance between two sets of videos and 1.96 standard errors to either side.

    The error is a jackknife's over groups of videos of both sets (Busing et al., 1999, delete-m_j): with n videos in a
    set, m_j in group j, h_j = n / m_j, the distance theta, and theta_j without the group,

        p_j = h_j theta - (h_j - 1) theta_j,    SE^2 = mean_j (p_j - sum_i p_i / h_i)^2 / (h_j - 1), added for both sets

    The bias of a distance between small sets is not in it. A bootstrap is no help here: with fewer vectors than
    dimensions its spread is 2 to 5 times the true one, for a video that is drawn twice makes the set smaller.

    statistic: of features (n, D) and (m, D)
    ours, theirs: features of each video, (F, D); no ends where one has less than 3 videos
    """
    X, Y = torch.cat(list(ours)), torch.cat(list(theirs))
    whole = statistic(X, Y)
    if min(len(ours), len(theirs)) < 3:
        return whole, None, None
    variance = _jackknife_variance(lambda some: statistic(some, Y), ours, whole)
    variance += _jackknife_variance(lambda some: statistic(X, some), theirs, whole)
    half = Z * math.sqrt(variance)
    return whole, whole - half, whole + half


def _jackknife_variance(statistic: Callable[[Tensor], float], videos: Sequence[Tensor], whole: float) -> float:
    """Of a statistic of one set's features, whose value is `whole` with all of its videos."""
    n, G = len(videos), min(GROUPS, len(videos))
    without = np.array([statistic(torch.cat([v for i, v in enumerate(videos) if i % G != j])) for j in range(G)])
    h = np.array([n / len(videos[j::G]) for j in range(G)])
    p = h * whole - (h - 1) * without
    return float(np.mean((p - np.sum(p / h)) ** 2 / (h - 1)))


def student_t(degrees: int) -> float:
    """How many standard errors from the mean the interval's ends are, with this many degrees of freedom."""
    try:
        from scipy.special import stdtrit
    except ImportError:
        raise ImportError('intervals need scipy; install it with: pip install -e ".[evaluate]"') from None
    return float(stdtrit(degrees, (1 + LEVEL) / 2))
