"""Random static and moving box tracks for subjects of the tiny world, each made from its own number alone.

The boxes are those of TrailBlazer's metric runs (Ma et al., 2024), the random static and dynamic boxes of public code,
as they are, for comparability, although the world's subjects are square, 1/4 to 1/2 of the height, and slower.
"""

from dataclasses import dataclass

import numpy as np

from adaptation.trajectory import Trajectory
from weights.train_tiny.world import sample_scene

Box = tuple[float, float, float, float]  # x1 y1 x2 y2 relative to the frame

SPLITS = ("static", "moving")
ENDS: tuple[tuple[Box, Box], ...] = (  # where a moving track starts, and where it turns
    ((0.0, 0.35, 0.3, 0.65), (0.7, 0.35, 1.0, 0.65)),  # across
    ((0.7, 0.35, 1.0, 0.65), (0.0, 0.35, 0.3, 0.65)),
    ((0.0, 0.0, 0.2, 0.2), (0.5, 0.5, 1.0, 1.0)),  # along the diagonal, growing
    ((0.0, 0.0, 0.5, 0.5), (0.5, 0.5, 1.0, 1.0)),
    ((0.5, 0.5, 1.0, 1.0), (0.0, 0.0, 0.2, 0.2)),
    ((0.5, 0.5, 1.0, 1.0), (0.0, 0.0, 0.5, 0.5)),
)


@dataclass(frozen=True, eq=False)
class Track:
    """One video to make. Static and moving track of one number share their prompt and their noise."""

    split: str
    number: int  # seed of the boxes, the prompt and the noise
    trajectory: Trajectory  # of one subject, "colour shape"


def make_track(split: str, number: int, frames: int) -> Track:
    """The track with this number, whose prompt is a combination that training never saw."""
    if split not in SPLITS:
        raise ValueError(f"a track is one of {', '.join(SPLITS)}, not {split!r}")
    scene = sample_scene(np.random.default_rng(number), held=True)
    rng = np.random.default_rng((number, 1 + SPLITS.index(split)))  # from 1: NumPy draws the same for (n, 0) and n
    keyframes = static_keyframes(rng) if split == "static" else moving_keyframes(rng, frames)
    return Track(split, number, Trajectory.from_keyframes(keyframes, frames, scene.subject, scene.caption))


def static_keyframes(rng: np.random.Generator) -> dict[int, Box]:
    """{frame: box} of a box that stays: left, top ~ U(0, 0.5), width, height ~ U(0.2, 0.5), to two decimals."""
    left, top = rng.uniform(0, 0.5, 2).round(2).tolist()
    width, height = rng.uniform(0.2, 0.5, 2).round(2).tolist()
    return {0: (left, top, left + width, top + height)}


def moving_keyframes(rng: np.random.Generator, frames: int) -> dict[int, Box]:
    """{frame: box} of a box that goes to and fro: 2 to 6 keyframes, equally spaced from the first frame to the last."""
    if frames < 2:
        raise ValueError(f"a box moves over at least 2 frames, not {frames}")
    count = min(int(rng.integers(2, 7)), frames)
    ends = ENDS[rng.integers(len(ENDS))]
    return {k * (frames - 1) // (count - 1): ends[k % 2] for k in range(count)}
