"""How well subjects follow their boxes: coverage, the two mIoUs, and bootstrap intervals.

Boxes are x1 y1 x2 y2 relative to the frame, (F, 4) for one video, NaN = absent or not detected. Areas are exact rather
than counted on a raster, so that no pixel grid enters; relative and pixel coordinates give the same IoU.
Statistics are over the last axis, V videos, so that one call serves all resamples of a bootstrap.
"""

from collections.abc import Callable

import numpy as np

Array = np.ndarray
Statistic = Callable[..., Array]

RESAMPLES = 10_000


# ---- One video -----------------------------------------------------------------------------------------------------


def areas(boxes: Array) -> Array:
    """(..., 4) -> (...): zero for a box that is absent or turned inside out."""
    x1, y1, x2, y2 = np.moveaxis(np.asarray(boxes, dtype=np.float64), -1, 0)
    return np.nan_to_num((x2 - x1).clip(0) * (y2 - y1).clip(0))


def intersections(a: Array, b: Array) -> Array:
    """Common area of boxes (..., 4) and (..., 4)."""
    return areas(np.concatenate([np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])], axis=-1))


def volume_iou(wanted: Array, found: Array) -> float:
    """Sum of intersections over sum of unions of all frames, both (F, 4): Peekaboo's IoU of a video.

    A frame in which the subject is not found adds its wanted box to the union. What is found outside the frame does
    not count.
    """
    wanted, found = np.asarray(wanted, dtype=np.float64), np.asarray(found, dtype=np.float64).clip(0, 1)
    if wanted.shape != found.shape or wanted.ndim != 2 or wanted.shape[1] != 4:
        raise ValueError(f"wanted and found boxes must both be (F, 4), not {wanted.shape} and {found.shape}")
    common = intersections(wanted, found)
    union = (areas(wanted) + areas(found) - common).sum()
    if union == 0:
        raise ValueError("a video whose subject is neither wanted nor found in any frame has no IoU")
    return float(common.sum() / union)


def is_covered(found: Array) -> bool:
    """Whether the subject is found in more than half of the frames (F, 4)."""
    seen = ~np.isnan(found).any(axis=-1)
    return bool(2 * seen.sum() > len(seen))


# ---- Many videos ---------------------------------------------------------------------------------------------------


def coverage(covered: Array) -> Array:
    """Share of covered videos: bool (..., V) -> (...)."""
    return np.mean(covered, axis=-1)


def mean_where(values: Array, chosen: Array) -> Array:
    """Mean over the chosen of V videos, (..., V) and bool (..., V) -> (...); NaN where none is chosen."""
    total, count = np.where(chosen, values, 0).sum(axis=-1), np.sum(chosen, axis=-1)
    return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)


def miou_covered(iou: Array, covered: Array) -> Array:
    """Mean IoU of the covered videos; NaN where there is none. Both (..., V)."""
    return mean_where(iou, covered)


def miou_all(iou: Array, covered: Array) -> Array:
    """Mean IoU in which a video that is not covered counts as 0. Both (..., V)."""
    return np.mean(iou * covered, axis=-1)


def bootstrap(statistic: Statistic, *columns: Array, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """Percentile interval, 95 %, of statistic(*columns) over videos drawn with replacement; the columns are (V,).

    Resamples in which the statistic is not defined are left out; NaN where that leaves none.
    """
    V = len(columns[0])
    if V == 0 or any(np.shape(column) != (V,) for column in columns):
        raise ValueError(f"columns need the same videos, at least 1, not {[np.shape(c) for c in columns]}")
    drawn = np.random.default_rng(seed).integers(V, size=(resamples, V))
    values = statistic(*(np.asarray(column)[drawn] for column in columns))  # (resamples,)
    values = values[~np.isnan(values)]
    low, high = np.percentile(values, (2.5, 97.5)) if len(values) else (np.nan, np.nan)
    return float(low), float(high)
