"""Random static and moving boxes.

Jain et al.'s (2024), which the paper says its tables are about; TrailBlazer's (Ma et al., 2024), between keyframes;
ours that go one smooth way; and ours of two subjects that keep apart.
"""

import numpy as np

Box = tuple[float, float, float, float]  # x1 y1 x2 y2 relative to the frame

SPLITS = ("static", "moving")

# ---- Jain et al.'s: Interactive Motion Control ----------------------------------------------------------------------

CANVAS = 224  # pixels in height and width
JAIN_FRAMES = 16
JAIN_SIZES = (0.25, 0.3, 0.3)  # of the canvas: small, medium, large; the last two are the same there
JAIN_SHAPES = ((1, 1.33), (1.33, 1), (1, 1))  # factors of width and height
JAIN_STARTS: tuple[float, ...] = (0.1, 0.25, 0.45, 0.7)  # of the canvas, where left and top begin
JITTER = 2  # pixels
# The axes along which a box moves; up and down are those of a prompt that tells which, up-down is either.
JAIN_AXES = {"still": (), "left-right": (0,), "up-down": (1,), "up": (1,), "down": (1,), "zig-zag": (0, 1)}


def jain_boxes(rng: np.random.Generator, motion: str) -> np.ndarray:
    """Boxes (16, 4) of a motion in `JAIN_AXES`, by the rules of the generator that Peekaboo released.

    A box moves at one speed, and trembles along an axis on which it does not move; in a zig-zag it moves along x and y
    in turn, and does not tremble. It is cut at the canvas, and its edges are whole pixels.
    """
    axes = JAIN_AXES[motion]
    scale, shape = JAIN_SIZES[rng.integers(3)], JAIN_SHAPES[rng.integers(3)]
    size = [int(CANVAS * scale * factor) for factor in shape]
    corner, step = [0.0, 0.0], [0.0, 0.0]
    for a in (0, 1):
        starts = JAIN_STARTS
        if a in axes:
            forward = motion == "down" if motion in ("up", "down") else bool(rng.integers(2))
            starts = JAIN_STARTS[:2] if forward else JAIN_STARTS[2:]
        corner[a] = CANVAS * starts[rng.integers(len(starts))] + _jitter(rng)
        if a in axes:  # 8, 12 or 16 pixels a frame, less where that would lead too far
            end = CANVAS - size[a] if forward else size[a]
            speed = min(4 * int(rng.integers(2, 5)), abs(end - corner[a]) / JAIN_FRAMES)
            step[a] = speed if forward else -speed
    boxes = []
    for frame in range(JAIN_FRAMES):
        for a in (0, 1):
            if motion == "zig-zag":
                corner[a] += step[a] if frame % 2 == a else 0
            else:
                corner[a] += step[a] if a in axes else _jitter(rng)
        edges = [*corner, corner[0] + size[0], corner[1] + size[1]]
        boxes.append([int(min(max(edge, 0), CANVAS)) / CANVAS for edge in edges])
    return np.array(boxes)


def _jitter(rng: np.random.Generator) -> int:
    return int(rng.integers(-JITTER, JITTER + 1))


# ---- TrailBlazer's: between keyframes, as its metric runs draw them -------------------------------------------------

ENDS: tuple[tuple[Box, Box], ...] = (  # where a moving track starts, and where it turns
    ((0.0, 0.35, 0.3, 0.65), (0.7, 0.35, 1.0, 0.65)),  # across
    ((0.7, 0.35, 1.0, 0.65), (0.0, 0.35, 0.3, 0.65)),
    ((0.0, 0.0, 0.2, 0.2), (0.5, 0.5, 1.0, 1.0)),  # along the diagonal, growing
    ((0.0, 0.0, 0.5, 0.5), (0.5, 0.5, 1.0, 1.0)),
    ((0.5, 0.5, 1.0, 1.0), (0.0, 0.0, 0.2, 0.2)),
    ((0.5, 0.5, 1.0, 1.0), (0.0, 0.0, 0.5, 0.5)),
)


def static_keyframes(rng: np.random.Generator) -> dict[int, Box]:
    """{frame: box} of a box that stays: left, top ~ U(0, 0.5), width, height ~ U(0.2, 0.5), to two decimals."""
    left, top = rng.uniform(0, 0.5, 2).round(2).tolist()
    width, height = rng.uniform(0.2, 0.5, 2).round(2).tolist()
    return {0: (left, top, left + width, top + height)}


def moving_keyframes(rng: np.random.Generator, frames: int) -> dict[int, Box]:
    """{frame: box} of a box that goes to and fro: 2 to 6 keyframes, equally spaced from the first frame to the last.

    As in the original, which has 25 frames, the box rests at an inner keyframe for one frame more, and then moves
    faster than a straight line between the keyframes; where the very next frame is a keyframe too, it cannot.
    """
    if frames < 2:
        raise ValueError(f"a box moves over at least 2 frames, not {frames}")
    count = min(int(rng.integers(2, 7)), frames)
    ends = ENDS[rng.integers(len(ENDS))]
    keyframes = {k * (frames - 1) // (count - 1): ends[k % 2] for k in range(count)}
    rests = {frame + 1: box for frame, box in keyframes.items() if 0 < frame < frames - 1}
    return rests | keyframes


# ---- One straight way, and two for two subjects ----------------------------------------------------------------------

SIZES = (0.2, 0.4)  # of the frame, width and height
PAIR_TRAVEL = 0.25  # of the frame, at least, along one axis
SMOOTH_TRAVEL = 0.4  # the same; at most it is 0.8, so that in 8 frames no box goes further than 0.12 at a time


def smooth_ends(rng: np.random.Generator) -> tuple[Box, Box]:
    """First and last place of a box of one size, which moves straight from one to the other at one speed."""
    while True:
        start, end = _ends(rng, "moving")
        if max(abs(b - a) for a, b in zip(start, end, strict=True)) >= SMOOTH_TRAVEL:
            return start, end


def pair_ends(rng: np.random.Generator, split: str) -> list[tuple[Box, Box]]:
    """First and last box of two subjects that, moving straight from one to the other, never overlap."""
    while True:
        first, second = _ends(rng, split), _ends(rng, split)
        if _stay_apart(first, second):
            return [first, second]


def _ends(rng: np.random.Generator, split: str) -> tuple[Box, Box]:
    """Two places, or one twice, anywhere in the frame for a box of one size, to two decimals."""
    size = rng.uniform(*SIZES, 2).round(2)
    start = end = rng.uniform(0, 1 - size)
    while split == "moving" and np.abs(end - start).max() < PAIR_TRAVEL:
        end = rng.uniform(0, 1 - size)
    return _box_at(start, size), _box_at(end, size)


def _box_at(corner: np.ndarray, size: np.ndarray) -> Box:
    """The box of this size (2,) with its left and top (2,) at the corner, to two decimals."""
    corner = corner.round(2)
    x1, y1, x2, y2 = np.concatenate([corner, corner + size]).round(2).tolist()
    return x1, y1, x2, y2


def _stay_apart(first: tuple[Box, Box], second: tuple[Box, Box]) -> bool:
    """Whether one is beyond the other's edge, along one axis, at both ends; then it is so all the way."""
    return any(
        all(a[axis + 2] <= b[axis] for a, b in zip(before, after, strict=True))
        for before, after in ((first, second), (second, first))
        for axis in (0, 1)
    )
