"""Videos and pictures on disk: mp4, PNG, contact sheets, boxes drawn. Frames are uint8 (F, H, W, 3) RGB everywhere.

A file appears under its name whole or not at all.
"""

import math
import os
from collections.abc import Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from einops import rearrange, repeat
from PIL import Image

from storage import appearing

Color = tuple[int, int, int]
COLORS: tuple[Color, ...] = ((0, 255, 255), (255, 0, 255), (190, 255, 0), (255, 255, 255))  # of boxes, by subject
LOOKING_SIZE = 256  # pixels along the short side that a video needs to be looked at
LARGEST_SIDE = 4096  # pixels that players of H.264 are sure to take


def check_frames(frames: np.ndarray) -> np.ndarray:
    """The frames, laid out in order in memory; what is no video is refused."""
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or 0 in frames.shape:
        raise ValueError(f"frames must be uint8 of shape (F, H, W, 3), not {frames.dtype} {frames.shape}")
    return np.ascontiguousarray(frames)


def enlarge(frames: np.ndarray, short_side: int = LOOKING_SIZE) -> np.ndarray:
    """Every pixel as a k x k block, with the smallest k that makes the short side at least `short_side` pixels.

    Large frames are returned as they are; k stops where the long side would exceed `LARGEST_SIDE`.
    """
    H, W = check_frames(frames).shape[1:3]
    k = max(1, min(math.ceil(short_side / min(H, W)), LARGEST_SIDE // max(H, W)))
    return repeat(frames, "f h w c -> f (h k1) (w k2) c", k1=k, k2=k)


def write_mp4(path: str | Path, frames: np.ndarray, fps: float) -> None:
    """H.264 that any player takes: yuv420p, enlarged for looking (see `enlarge`), odd sizes padded by one pixel.

    The colour matrix is tagged and is BT.601, which is also what a reader that ignores the tag assumes.
    """
    frames = enlarge(frames)
    if not 0 < fps <= 1000:
        raise ValueError(f"fps must be a number above 0 and at most 1000, got {fps!r}")
    H, W = frames.shape[1:3]
    frames = np.pad(frames, ((0, 0), (0, H % 2), (0, W % 2), (0, 0)), mode="edge")  # chroma is stored 2 x 2
    with appearing(path) as unfinished, av.open(str(unfinished), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000), options={"crf": "15"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.colorspace = Colorspace.ITU601
        stream.codec_context.color_range = ColorRange.MPEG
        stream.codec_context.color_primaries = ColorPrimaries.BT709
        stream.codec_context.color_trc = ColorTrc.IEC61966_2_1  # sRGB, as the pixels are
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture = picture.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU601)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def write_lossless(path: str | Path, frames: np.ndarray, fps: float = 8) -> None:
    """FFV1 in Matroska (.mkv): every frame pixel for pixel, repeated ones too, in one file."""
    H, W = check_frames(frames).shape[1:3]
    bitexact = {"fflags": "+bitexact"}  # no random name inside: the same frames give the same file
    with (
        appearing(path) as unfinished,
        av.open(str(unfinished), "w", format="matroska", options=bitexact) as container,
    ):
        stream = container.add_stream("ffv1", rate=Fraction(fps).limit_denominator(1000))
        stream.height, stream.width, stream.pix_fmt = H, W, "bgr0"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())


def read_video(path: str | Path, most: int | None = None, stride: int = 1) -> np.ndarray:
    """Frames of a video file as its decoder gives them: from `write_lossless`, what was written.

    A file that was cut short may give the frames that are left; who must know compares their number.

    most, stride: only every `stride`-th frame from the first on, until there are so many; None = all
    """
    end = None if most is None else (most - 1) * stride + 1
    try:
        with av.open(str(path)) as container:
            decoded = islice(container.decode(video=0), 0, end, stride)
            frames = [frame.to_ndarray(format="rgb24") for frame in decoded]
    except av.FFmpegError as error:
        raise ValueError(f"{path} is not a video that can be read ({error.strerror})") from None
    except IndexError:  # no stream of pictures
        frames = []
    if not frames:
        raise ValueError(f"{path} is a file without frames of a video")
    return np.stack(frames)


def write_png(path: str | Path, picture: np.ndarray) -> None:
    """One picture, uint8 (H, W, 3)."""
    check_frames(picture[None])
    with appearing(path) as unfinished:
        Image.fromarray(np.ascontiguousarray(picture)).save(unfinished, format="PNG")


def write_pngs(folder: str | Path, frames: np.ndarray) -> None:
    """A new folder with 0000.png, 0001.png, ...: the frames as they are, pixel for pixel."""
    check_frames(frames)
    if os.path.lexists(folder):
        raise FileExistsError(17, "the folder for the frames already exists", str(folder))
    with appearing(folder) as unfinished:
        unfinished.mkdir()
        for index, frame in enumerate(frames):
            write_png(unfinished / f"{index:04d}.png", frame)


def contact_sheet(frames: np.ndarray, columns: int = 4, gap: int = 4) -> np.ndarray:
    """All frames in one picture, row by row in reading order, with white in between: uint8 (H', W', 3)."""
    F = len(check_frames(frames))
    if columns < 1 or gap < 0:
        raise ValueError(f"a contact sheet needs at least 1 column and no negative gap, got {columns} and {gap}")
    columns = min(columns, F)
    framed = np.pad(frames, ((0, -F % columns), (0, gap), (0, gap), (0, 0)), constant_values=255)
    sheet = rearrange(framed, "(rows columns) h w c -> (rows h) (columns w) c", columns=columns)
    return sheet[: sheet.shape[0] - gap, : sheet.shape[1] - gap]


def draw_boxes(frames: np.ndarray, boxes: np.ndarray, colors: Sequence[Color] = COLORS) -> np.ndarray:
    """A copy of the frames with an outline along the inside of every box, a colour for each subject.

    boxes: (K, F, 4), x1 y1 x2 y2 relative to the frame, in [0, 1]; NaN = absent. A dark line inside the coloured one
    keeps it visible on any background.
    """
    boxes = np.asarray(boxes, dtype=np.float64)
    if boxes.ndim != 3 or boxes.shape[1:] != (len(check_frames(frames)), 4):
        raise ValueError(f"boxes must be (K, F, 4) with F = {len(frames)} as the frames, got {boxes.shape}")
    frames = frames.copy()
    H, W = frames.shape[1:3]
    line = max(1, round(min(H, W) / 100))
    for k, track in enumerate(boxes):
        for frame, box in zip(frames, track, strict=True):
            if not np.isnan(box).any():
                x1, y1, x2, y2 = np.rint(box * (W, H, W, H)).astype(int)
                inside = frame[y1:y2, x1:x2]  # a view: what is drawn into it is drawn into the frame
                _outline(inside, line, colors[k % len(colors)])
                _outline(inside[line : len(inside) - line, line : inside.shape[1] - line], max(1, line // 2), (0, 0, 0))
    return frames


def _outline(area: np.ndarray, width: int, color: Color) -> None:
    """Colour the border of an area (h, w, 3) in place."""
    for side in (area, area.swapaxes(0, 1)):
        side[:width] = color
        side[max(0, len(side) - width) :] = color
