"""Find the world's subjects in generated frames by their colour. Needs scipy."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy import ndimage

from weights.train_tiny.world import BACKGROUNDS, COLORS, PATCHES, SHAPES, distance

MIN_AREA = 60  # pixels; the smallest subject, a diamond of 24 pixels, has 288


def _anchors() -> tuple[np.ndarray, np.ndarray]:
    """Reference colours (A, 3) and the class of each: subject colours first, then backgrounds, lit and shaded."""
    points, classes = [], []
    for i, color in enumerate(COLORS.values()):
        for shade in (0.8, 0.9, 1.0):
            points.append(np.array(color) * shade)
            classes.append(i)
    for i, (top, bottom, patches) in enumerate(BACKGROUNDS.values()):
        for fall, cover in product((0.0, 0.5, 1.0), (0.0, PATCHES / 2, PATCHES)):
            shading = np.array(top) * (1 - fall) + np.array(bottom) * fall
            points.append(shading * (1 - cover) + np.array(patches) * cover)
            classes.append(len(COLORS) + i)
    return np.array(points, np.float32), np.array(classes)


@dataclass(frozen=True)
class Detection:
    """What one frame shows. `box`: relative x1 y1 x2 y2 of the largest blob of the asked colour, or None."""

    box: tuple[float, float, float, float] | None
    shape: str | None  # of that blob
    blobs: int  # subjects of any colour
    background: str  # the background with most pixels


def classify(frames: np.ndarray) -> np.ndarray:
    """Nearest reference colour of each pixel: uint8 (F, H, W, 3) -> class (F, H, W), subject colours come first."""
    points, classes = _anchors()
    pixels = frames.astype(np.float32) / 255
    distances = np.stack([np.square(pixels - p).sum(-1) for p in points])
    return classes[distances.argmin(0)]


def detect(frames: np.ndarray, color: str) -> list[Detection]:
    """One `Detection` a frame, uint8 (F, H, W, 3). Blobs thinner than 3 pixels are blended edges and do not count."""
    return [_detect_frame(labels, list(COLORS).index(color)) for labels in classify(frames)]


def _detect_frame(labels: np.ndarray, wanted: int) -> Detection:
    h, w = labels.shape
    blobs, box, shape = 0, None, None
    for i in range(len(COLORS)):
        marked, count = ndimage.label(ndimage.binary_opening(labels == i, np.ones((3, 3))))
        areas = ndimage.sum_labels(marked > 0, marked, range(1, count + 1)) if count else np.zeros(0)
        blobs += int((areas >= MIN_AREA).sum())
        if i == wanted and count and areas.max() >= MIN_AREA:
            largest = int(areas.argmax()) + 1
            rows, columns = ndimage.find_objects(marked)[largest - 1]
            shape = name_shape(_with_corners(marked == largest, labels == i))
            box = (columns.start / w, rows.start / h, columns.stop / w, rows.stop / h)
    pixels = np.bincount(labels.ravel(), minlength=len(COLORS) + len(BACKGROUNDS))[len(COLORS) :]
    return Detection(box, shape, blobs, list(BACKGROUNDS)[int(pixels.argmax())])


def _with_corners(blob: np.ndarray, colored: np.ndarray) -> np.ndarray:
    """The piece of `colored` that the blob is of, with the corners that were too thin to count; cut at its edges."""
    pieces = ndimage.label(colored)[0]
    number = pieces[blob][0]
    return pieces[ndimage.find_objects(pieces)[number - 1]] == number


def name_shape(blob: np.ndarray) -> str:
    """The world's shape that covers most of what a blob covers, and least else: bool (h, w), cut at the blob's edges.

    Each shape is stretched over (h, w); the largest intersection over union names it.
    """
    h, w = blob.shape
    v, u = np.meshgrid((np.arange(h) + 0.5) / h * 2 - 1, (np.arange(w) + 0.5) / w * 2 - 1, indexing="ij")
    covers = {shape: distance(shape, u, v) < 0 for shape in SHAPES}
    return max(SHAPES, key=lambda shape: (blob & covers[shape]).sum() / (blob | covers[shape]).sum())
