"""Random static and moving boxes: TrailBlazer's, Peekaboo's, and pairs that keep apart.

TrailBlazer's are those of its metric runs (Ma et al., 2024), the random static and dynamic boxes of public code. They
are used as they are, for comparability, although the tiny world's subjects are square, 1/4 to 1/2 of the height, and
slower.
"""

import numpy as np

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


# ---- Peekaboo's Interactive Motion Control (Jain et al., 2024) ------------------------------------------------------

CANVAS = 224  # pixels in height and width
IMC_FRAMES = 16
IMC_SIZES = (0.25, 0.3, 0.3)  # of the canvas: small, medium, large; the last two are the same there
IMC_SHAPES = ((1, 1.33), (1.33, 1), (1, 1))  # factors of width and height
IMC_STARTS = (0.1, 0.25, 0.45, 0.7)  # of the canvas, where left and top begin
JITTER = 2  # pixels
MOTIONS = {"still": None, "across": 0, "up": 1, "down": 1}  # the axis along which the box moves


def imc_boxes(rng: np.random.Generator, motion: str) -> np.ndarray:
    """Boxes (16, 4) that tremble in place, or that also move: up, down, or across to a random side.

    A box is cut at the canvas, and its edges are whole pixels.
    """
    axis = MOTIONS[motion]
    forward = motion == "down" if axis == 1 else bool(rng.integers(2))
    scale, shape = IMC_SIZES[rng.integers(3)], IMC_SHAPES[rng.integers(3)]
    size = [int(CANVAS * scale * factor) for factor in shape]
    corner = [0.0, 0.0]
    for a in (0, 1):
        starts = IMC_STARTS if a != axis else IMC_STARTS[:2] if forward else IMC_STARTS[2:]
        corner[a] = CANVAS * starts[rng.integers(len(starts))] + _jitter(rng)
    speed = 0.0
    if axis is not None:  # 8, 12 or 16 pixels a frame, less where that would lead too far
        end = CANVAS - size[axis] if forward else size[axis]
        speed = min(4 * int(rng.integers(2, 5)), abs(end - corner[axis]) / IMC_FRAMES)
    boxes = []
    for _ in range(IMC_FRAMES):
        for a in (0, 1):
            corner[a] += (speed if forward else -speed) if a == axis else _jitter(rng)
        edges = [*corner, corner[0] + size[0], corner[1] + size[1]]
        boxes.append([int(min(max(edge, 0), CANVAS)) / CANVAS for edge in edges])
    return np.array(boxes)


def _jitter(rng: np.random.Generator) -> int:
    return int(rng.integers(-JITTER, JITTER + 1))


# ---- Two subjects ---------------------------------------------------------------------------------------------------

PAIR_SIZES = (0.2, 0.4)  # of the frame, width and height
PAIR_TRAVEL = 0.25  # of the frame, at least, along one axis


def pair_ends(rng: np.random.Generator, split: str) -> list[tuple[Box, Box]]:
    """First and last box of two subjects that, moving straight from one to the other, never overlap."""
    while True:
        first, second = _ends(rng, split), _ends(rng, split)
        if _stay_apart(first, second):
            return [first, second]


def _ends(rng: np.random.Generator, split: str) -> tuple[Box, Box]:
    """Two places, or one twice, anywhere in the frame for a box of one size, to two decimals."""
    size = rng.uniform(*PAIR_SIZES, 2).round(2)
    start = end = rng.uniform(0, 1 - size)
    while split == "moving" and np.abs(end - start).max() < PAIR_TRAVEL:
        end = rng.uniform(0, 1 - size)
    corners = (corner.round(2) for corner in (start, end))
    return tuple(tuple(np.concatenate([corner, corner + size]).round(2).tolist()) for corner in corners)


def _stay_apart(first: tuple[Box, Box], second: tuple[Box, Box]) -> bool:
    """Whether one is beyond the other's edge, along one axis, at both ends; then it is so all the way."""
    return any(
        all(a[axis + 2] <= b[axis] for a, b in zip(before, after, strict=True))
        for before, after in ((first, second), (second, first))
        for axis in (0, 1)
    )
