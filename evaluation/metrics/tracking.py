"""How well a subject follows its boxes in one video: coverage, IoUs, centroid distance, AP50.

Boxes are x1 y1 x2 y2 relative to the frame, (F, 4) for one video, NaN = absent or not detected. Areas are exact rather
than counted on a raster, so that no pixel grid enters; relative and pixel coordinates give the same IoU.
"""

import math
import re

import numpy as np

Array = np.ndarray


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
    wanted, found = _checked(wanted, found)
    common = intersections(wanted, found)
    union = (areas(wanted) + areas(found) - common).sum()
    if union == 0:
        raise ValueError("a video whose subject is neither wanted nor found in any frame has no IoU")
    return float(common.sum() / union)


def frame_ious(wanted: Array, found: Array, misses: bool = False) -> Array:
    """IoU of each frame in which the subject is found, (F, 4) and (F, 4) -> (n,).

    misses: those frames in which it is wanted and not found stand in it too, as 0.
    """
    wanted, found = _checked(wanted, found)
    common = intersections(wanted, found)
    union = areas(wanted) + areas(found) - common
    iou = np.divide(common, union, out=np.zeros_like(union), where=union > 0)
    return iou[is_present(found) | (misses & is_present(wanted))]


def frame_miou(wanted: Array, found: Array, misses: bool = False) -> float:
    """Mean of `frame_ious`; NaN where no frame counts.

    TrailBlazer's code has this for its IoU of a video, but takes boxes apart on both axes for overlapping, and leaves
    what is found outside the frame.
    """
    return _mean(frame_ious(wanted, found, misses))


def ap50(wanted: Array, found: Array, misses: bool = False) -> float:
    """Share of the frames of `frame_ious` with an IoU of at least 1/2; NaN where no frame counts."""
    return _mean(frame_ious(wanted, found, misses) >= 0.5)


def centroid_distance(wanted: Array, found: Array, height: int, width: int) -> float:
    """Mean distance of the boxes' centres in pixels over the frame's diagonal; NaN where the subject is never found.

    A frame in which the subject is not found has no centre, and one in which it is not wanted has none to be at:
    neither counts.
    """
    wanted, found = _checked(wanted, found)
    both = is_present(wanted) & is_present(found)
    offset = (centres(wanted[both]) - centres(found[both])) * (width, height)
    return _mean(np.hypot(*offset.T)) / math.hypot(width, height)


def is_covered(wanted: Array, found: Array, rule: str = "half") -> bool:
    """Whether the subject is found in enough of the frames in which it is wanted; both (F, 4), rule: `needed`."""
    asked = is_present(wanted)
    return int((asked & is_present(found)).sum()) >= needed(rule, int(asked.sum()))


def needed(rule: str, wanted: int) -> int:
    """In how many of the `wanted` frames a subject that is covered is found at least.

    rule: "half" = in more than half of them; "count:N" = in more than N, whatever their number (Peekaboo's code has 8,
        which is half of 16 frames)
    """
    if rule == "half":
        return wanted // 2 + 1
    if match := re.fullmatch(r"count:(\d+)", rule):
        return int(match[1]) + 1
    raise ValueError(f"a coverage rule is 'half' or 'count:N' with a whole number N, such as 'count:8', not {rule!r}")


def judge_track(
    wanted: Array, found: Array, height: int, width: int, rule: str = "half"
) -> dict[str, float | int | bool | None]:
    """Every figure of one subject in one video, ready for JSON; None = there is none. Both boxes (F, 4)."""
    figures = {
        "iou": volume_iou(wanted, found),
        "frame_iou": frame_miou(wanted, found),
        "frame_iou_misses": frame_miou(wanted, found, misses=True),
        "centroid_distance": centroid_distance(wanted, found, height, width),
        "ap50": ap50(wanted, found),
        "ap50_misses": ap50(wanted, found, misses=True),
    }
    counts = {"detections": int(is_present(found).sum()), "covered": is_covered(wanted, found, rule)}
    return {name: None if math.isnan(value) else value for name, value in figures.items()} | counts


def is_present(boxes: Array) -> Array:
    """(..., 4) -> bool (...): whether there is a box."""
    return ~np.isnan(boxes).any(axis=-1)


def centres(boxes: Array) -> Array:
    """(..., 4) -> (..., 2): x, y."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def _checked(wanted: Array, found: Array) -> tuple[Array, Array]:
    """Both as float64 (F, 4), what is found cut to the frame; neither argument is changed."""
    wanted, found = np.asarray(wanted, dtype=np.float64), np.asarray(found, dtype=np.float64).clip(0, 1)
    if wanted.shape != found.shape or wanted.ndim != 2 or wanted.shape[1] != 4:
        raise ValueError(f"wanted and found boxes must both be (F, 4), not {wanted.shape} and {found.shape}")
    return wanted, found


def _mean(values: Array) -> float:
    return float(np.mean(values)) if len(values) else math.nan
