"""Trajectories: where each subject should be, frame by frame (the b of the paper). Files: see `trajectory_file.py`."""

import math
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from adaptation import trajectory_file
from storage import write_bytes

Box = Sequence[float] | Tensor | None


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Boxes of K subjects over F frames, and the words that they belong to.

    boxes: (K, F, 4) float32 or float64, x1 y1 x2 y2 relative to the frame, in [0, 1]; NaN = absent in that frame
    subjects: K phrases of the prompt
    """

    boxes: Tensor
    subjects: list[str]
    prompt: str

    def __post_init__(self) -> None:
        shape, dtype = tuple(self.boxes.shape), self.boxes.dtype
        if len(shape) != 3 or shape[-1] != 4 or 0 in shape or dtype not in (torch.float32, torch.float64):
            raise ValueError(f"boxes must be float32 or float64 of shape (K, F, 4) with K, F >= 1, not {dtype} {shape}")
        if isinstance(self.subjects, str) or len(self.subjects) != shape[0]:
            raise ValueError(f"boxes of {shape[0]} subjects need a list of as many phrases, not {self.subjects!r}")
        x1, y1, x2, y2 = rearrange(self.boxes, "k f xyxy -> xyxy k f")
        inside = (x1 >= 0) & (y1 >= 0) & (x2 <= 1) & (y2 <= 1) & (x1 < x2) & (y1 < y2)
        absent = self.boxes.isnan().all(-1)
        for k, frame in (~(inside | absent)).nonzero().tolist():
            _checked_box(self.boxes[k, frame], f"subject {reprlib.repr(self.subjects[k])}, frame {frame}")

    @classmethod
    def load(cls, path: str | Path, frames: int | None = None) -> "Trajectory":
        """Read a trajectory file; every fault is a ValueError that names the file and the place.

        frames: how many frames the caller's video has. Any other number of boxes is then an error, and keyframes fill
            that many, the last one held. None: as many as there are boxes, or the last keyframe plus one; to bring
            those to another length say `Trajectory.load(path).resample(frames)`.
        """
        try:
            prompt, subjects, tracks = trajectory_file.parse(trajectory_file.read_bytes(path))
            if frames is None:
                frames = max(len(track) if isinstance(track, list) else max(track) + 1 for track in tracks)
            boxes = [
                _frame_boxes(track, frames, f"subject {reprlib.repr(subject)}")
                for track, subject in zip(tracks, subjects, strict=True)
            ]
            return cls(torch.stack(boxes).float(), subjects, prompt)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def save(self, path: str | Path) -> None:
        """Write a file that `load` reads back to the same float32 boxes; it appears whole or not at all."""
        as_read = replace(self, boxes=self.boxes.float())  # refuses a box that float32 makes empty
        content = trajectory_file.dump(self.prompt, self.subjects, as_read.as_lists())
        trajectory_file.parse(content)  # refuses what could not be read again, such as a subject without words
        write_bytes(path, content)

    def as_lists(self) -> list[list[list[float] | None]]:
        """The boxes (K, F, 4) as JSON has them: 0.1 rather than 0.10000000149, and None for an absent subject."""
        return [
            [None if math.isnan(box[0]) else [float(str(value)) for value in box] for box in track]
            for track in self.boxes.float().cpu().numpy()
        ]

    @classmethod
    def from_keyframes(
        cls, keyframes: Mapping[int, Box], frames: int, subject: str = "", prompt: str = ""
    ) -> "Trajectory":
        """One subject's boxes for `frames` frames, linear between keyframes {frame: box} and held outside them.

        A box of None means absent from that keyframe until the next.
        """
        return cls(interpolate_keyframes(keyframes, frames).float()[None], [subject], prompt)

    def expect_frames(self, frames: int) -> None:
        """Raise unless there is a box for each frame of the caller's video."""
        _expect_boxes(self.boxes.shape[1], frames, "the trajectory")

    def resample(self, frames: int) -> "Trajectory":
        """The same path in another number of frames, linear in time, first and last frame kept.

        Beside an absent frame the nearer of the two decides.
        """
        if frames < 1:
            raise ValueError(f"a trajectory is resampled to at least 1 frame, not {frames}")
        F, span = self.boxes.shape[1], max(frames - 1, 1)
        position = torch.arange(frames, device=self.boxes.device) * (F - 1)  # in units of 1 / span source frames
        earlier, weight = position // span, (position % span).double()[:, None] / span
        before, after = self.boxes[:, earlier], self.boxes[:, (earlier + 1).clamp(max=F - 1)]
        boxes = _between(before, after, weight, torch.where(weight <= 0.5, before, after))
        return replace(self, boxes=boxes.to(self.boxes))

    def rasterize(self, H: int, W: int) -> Tensor:
        """Regions on an H x W grid, bool (K, F, H, W): cells with x1 <= centre < x2 and y1 <= centre < y2.

        A box that covers no cell keeps the one under its centre; an absent subject has none.
        """
        if H < 1 or W < 1:
            raise ValueError(f"boxes are drawn on a grid of at least 1 x 1 cells, not {H} x {W}")
        x1, y1, x2, y2 = rearrange(self.boxes, "k f xyxy -> xyxy k f 1 1")
        column = torch.arange(W).to(self.boxes)
        row = rearrange(torch.arange(H).to(self.boxes), "h -> h 1")
        x, y = (column + 0.5) / W, (row + 0.5) / H
        inside = (x1 <= x) & (x < x2) & (y1 <= y) & (y < y2)
        centre_column = ((x1 + x2) / 2 * W).floor().clamp(max=W - 1)
        centre_row = ((y1 + y2) / 2 * H).floor().clamp(max=H - 1)
        under_centre = (column == centre_column) & (row == centre_row)
        return torch.where(inside.flatten(-2).any(-1)[..., None, None], inside, under_centre)


def interpolate_keyframes(keyframes: Mapping[int, object], frames: int, where: str = "") -> Tensor:
    """Boxes (frames, 4) float64: linear between keyframes, held outside them; an absent one lasts until the next."""
    if not keyframes:
        raise ValueError(f"{where}a path needs at least one keyframe, but there is none")
    for frame in keyframes:
        if isinstance(frame, bool) or not isinstance(frame, int) or not 0 <= frame < frames:
            raise ValueError(
                f"{where}keyframe {frame!r} is not one of the video's frames 0 to {frames - 1}; "
                "move it, or resample the trajectory (--resample)"
            )
    times = torch.tensor(sorted(keyframes))
    checked = [_checked_box(keyframes[t], f"{where}keyframe {t}") for t in times.tolist()]
    boxes = torch.tensor(checked, dtype=torch.float64)  # (keyframes, 4)
    now = torch.arange(frames)
    after = torch.searchsorted(times, now, right=True)
    before, after = (after - 1).clamp(min=0), after.clamp(max=len(times) - 1)  # (frames,) each, numbers of keyframes
    weight = (now - times[before]).double() / (times[after] - times[before]).clamp(min=1)
    return _between(boxes[before], boxes[after], weight[:, None], boxes[before])


def _between(before: Tensor, after: Tensor, weight: Tensor, otherwise: Tensor) -> Tensor:
    """Linear interpolation in float64, and `otherwise` where one of the two boxes is absent."""
    mixed = before.double() + weight * (after.double() - before.double())
    return torch.where(mixed.isnan(), otherwise.double(), mixed)


def _frame_boxes(track: trajectory_file.Track, frames: int, where: str) -> Tensor:
    """A file's track as boxes (frames, 4) float64."""
    if isinstance(track, dict):
        return interpolate_keyframes(track, frames, f"{where}, ")
    _expect_boxes(len(track), frames, where)
    boxes = [_checked_box(box, f"{where}, frame {frame}") for frame, box in enumerate(track)]
    return torch.tensor(boxes, dtype=torch.float64)


def _expect_boxes(boxes: int, frames: int, what: str) -> None:
    if boxes != frames:
        raise ValueError(
            f"{what} has boxes for {boxes} frames, but the video has {frames}; give every frame a box (null = absent) "
            "or resample the trajectory (--resample)"
        )


def _checked_box(box: object, where: str) -> list[float]:
    """x1 y1 x2 y2 as numbers, four NaN if absent (None or four NaN); a fault is an error that starts with `where`."""
    if box is None:
        return [math.nan] * 4
    values: Any = box.tolist() if hasattr(box, "tolist") else box
    if fault := _box_fault(values):
        raise ValueError(f"{where}: {fault}")
    return [float(v) for v in values]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _box_fault(values: object) -> str:
    """What is wrong with x1 y1 x2 y2, or "" for a box, and for the four NaN of an absent subject."""
    if not isinstance(values, list | tuple) or len(values) != 4 or not all(map(_is_number, values)):
        return f"a box is four numbers x1 y1 x2 y2 or null, not {reprlib.repr(values)}"
    if all(v != v for v in values):
        return ""
    if any(v != v or abs(v) == math.inf for v in values):
        return f"the box {reprlib.repr(values)} is not finite"
    if not all(0 <= v <= 1 for v in values):
        return f"the box {reprlib.repr(values)} reaches outside the frame, whose coordinates go from 0 to 1"
    x1, y1, x2, y2 = values
    if x2 <= x1 or y2 <= y1:
        return f"the box {reprlib.repr(values)} is empty, since x1 y1 x2 y2 need x1 < x2 and y1 < y2"
    return ""
