"""Video and picture files: what is written can be read back, whole, by an independent reader."""

import os
import wave
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from evaluation.figures import video
from evaluation.figures.video import (
    contact_sheet,
    draw_boxes,
    enlarge,
    read_video,
    write_lossless,
    write_mp4,
    write_png,
    write_pngs,
)

COLORS = {"red": (200, 30, 30), "green": (40, 180, 60), "blue": (30, 60, 200), "gray": (128, 128, 128)}


def plain(*colors, height=96, width=128) -> np.ndarray:
    """A video with one frame of each colour."""
    return np.array(colors, dtype=np.uint8)[:, None, None].repeat(height, axis=1).repeat(width, axis=2)


def read_mp4(path) -> tuple[np.ndarray, av.VideoStream]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]), stream


# ---- mp4 -----------------------------------------------------------------------------------------------------------


def test_an_mp4_holds_every_frame_in_order_with_its_colour(tmp_path):
    frames = plain(*COLORS.values())
    write_mp4(tmp_path / "a.mp4", frames, fps=8)
    read, stream = read_mp4(tmp_path / "a.mp4")
    assert read.shape == (4, 288, 384, 3)  # 96 pixels need blocks of 3 x 3 to reach 256
    assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
    assert stream.average_rate == 8
    assert stream.duration * stream.time_base == Fraction(4, 8)  # seconds
    # 8-bit YUV in the range 16 to 235 is coarser than RGB: up to 3 levels off for a plain colour.
    assert np.abs(read.astype(int) - enlarge(frames)).max() <= 4


def test_colours_survive_a_reader_that_ignores_tags(tmp_path):
    """BT.601's inverse by hand, for the limited range: R = 1.164 (Y - 16) + 1.596 (V - 128), ..."""
    write_mp4(tmp_path / "a.mp4", plain(COLORS["red"]), fps=8)
    with av.open(str(tmp_path / "a.mp4")) as container:
        frame = next(container.decode(video=0))
        assert int(frame.colorspace) in (5, 6)  # BT.601 in the file's own words
        Y, U, V = (float(np.median(np.frombuffer(plane, np.uint8))) for plane in frame.planes)
    Y, U, V = 1.164 * (Y - 16), U - 128, V - 128
    rgb = (Y + 1.596 * V, Y - 0.392 * U - 0.813 * V, Y + 2.017 * U)
    assert rgb == pytest.approx(COLORS["red"], abs=4)


@pytest.mark.parametrize("fps", [1, 7.5, 24, 29.97])
def test_the_frame_rate_is_kept(tmp_path, fps):
    write_mp4(tmp_path / "a.mp4", plain(*COLORS.values(), height=16, width=16), fps)
    assert float(read_mp4(tmp_path / "a.mp4")[1].average_rate) == pytest.approx(fps, rel=1e-4)


def test_odd_sizes_are_padded_and_one_frame_is_a_video(tmp_path):
    write_mp4(tmp_path / "a.mp4", plain(COLORS["blue"], height=257, width=301), fps=8)
    read, _ = read_mp4(tmp_path / "a.mp4")
    assert read.shape == (1, 258, 302, 3)
    assert np.abs(read.astype(int) - COLORS["blue"]).max() <= 4  # the padding repeats the edge


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf"), 2000])
def test_a_senseless_frame_rate_is_refused(tmp_path, fps):
    with pytest.raises(ValueError, match="fps must be a number above 0"):
        write_mp4(tmp_path / "a.mp4", plain(COLORS["red"]), fps)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((2, 8, 8, 3), np.float32),
        np.zeros((2, 3, 8, 8), np.uint8),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((0, 8, 8, 3), np.uint8),
    ],
)
def test_what_is_no_video_is_refused(tmp_path, frames):
    for write in (lambda: write_mp4(tmp_path / "a", frames, 8), lambda: write_pngs(tmp_path / "a", frames)):
        with pytest.raises(ValueError, match=r"frames must be uint8 of shape \(F, H, W, 3\), not"):
            write()
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_mp4_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")

    def interrupt(*_):
        assert len(list(tmp_path.iterdir())) == 2  # the old file and the unfinished one
        raise KeyboardInterrupt

    monkeypatch.setattr(video.Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_mp4(path, plain(*COLORS.values()), 8)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_missing_is_named(tmp_path):
    for name, write in {
        "a.mp4": lambda path: write_mp4(path, plain(COLORS["red"]), 8),
        "a.png": lambda path: write_png(path, plain(COLORS["red"])[0]),
        "frames": lambda path: write_pngs(path, plain(COLORS["red"])),
    }.items():
        with pytest.raises(FileNotFoundError) as raised:
            write(tmp_path / "missing" / name)
        assert raised.value.filename == str(tmp_path / "missing" / name)


# ---- Without loss ---------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 6), st.integers(8, 35), st.integers(8, 35), st.integers(0, 99))
def test_lossless_is_bit_for_bit_at_any_size(tmp_path_factory, frames, height, width, seed):
    video = np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
    path = tmp_path_factory.mktemp("lossless") / "a.mkv"
    write_lossless(path, video)
    assert np.array_equal(read_video(path), video)


def test_lossless_keeps_frames_that_repeat(tmp_path):
    """Six frames of which four repeat the one before: formats of pictures that move merge such frames."""
    frames = plain(*[COLORS["red"]] * 3, *[COLORS["blue"]] * 3, height=5, width=7)
    write_lossless(tmp_path / "a.mkv", frames)
    assert np.array_equal(read_video(tmp_path / "a.mkv"), frames)
    with av.open(str(tmp_path / "a.mkv")) as container:
        assert container.streams.video[0].codec_context.name == "ffv1"


def test_the_same_frames_are_the_same_file(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (4, 96, 128, 3), dtype=np.uint8)
    for name in ("a.mkv", "b.mkv"):
        write_lossless(tmp_path / name, frames)
    assert (tmp_path / "a.mkv").read_bytes() == (tmp_path / "b.mkv").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mkv", "b.mkv"]  # nothing unfinished


def test_an_mp4_is_read_as_its_decoder_gives_it(tmp_path):
    frames = plain(*COLORS.values(), height=256, width=256)
    write_mp4(tmp_path / "a.mp4", frames, fps=8)
    read = read_video(tmp_path / "a.mp4")
    assert np.array_equal(read, read_mp4(tmp_path / "a.mp4")[0])
    assert np.abs(read.astype(int) - frames).max() <= 4


@pytest.mark.parametrize("content", [b"", b"a red ball " * 99, None])
def test_what_is_no_video_is_named_and_not_read(tmp_path, content):
    path = tmp_path / "a.mkv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.mkv is not a video that can be read \((Invalid data|No such file)"):
        read_video(path)


def test_a_file_of_sound_holds_no_frames(tmp_path):
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(1600))
    with pytest.raises(ValueError, match=r"a\.wav is a file without frames of a video"):
        read_video(tmp_path / "a.wav")


def test_a_video_that_was_cut_short_has_fewer_frames(tmp_path):
    """So that whoever counts them knows."""
    frames = np.random.default_rng(0).integers(0, 256, (8, 32, 48, 3), dtype=np.uint8)
    write_lossless(tmp_path / "a.mkv", frames)
    whole = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "a.mkv").write_bytes(whole[: len(whole) // 2])
    read = read_video(tmp_path / "a.mkv")
    assert 0 < len(read) < 8
    assert np.array_equal(read[0], frames[0])


# ---- Pictures ------------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 600), st.integers(1, 600))
def test_enlarging_is_by_the_smallest_factor_that_serves(height, width):
    large = enlarge(np.zeros((1, height, width, 3), np.uint8))
    k, rest = divmod(large.shape[1], height)
    assert (rest, large.shape[2]) == (0, k * width)
    assert k * max(height, width) <= 4096
    assert k * min(height, width) >= 256 or (k + 1) * max(height, width) > 4096  # large enough, or at its limit
    assert k == 1 or (k - 1) * min(height, width) < 256  # and no larger than that needs


def test_enlarging_makes_blocks():
    """2 x 3 pixels to a short side of 4: k = 2, each pixel a block of 2 x 2."""
    frame = np.arange(18, dtype=np.uint8).reshape(1, 2, 3, 3)
    large = enlarge(frame, short_side=4)
    assert large.shape == (1, 4, 6, 3)
    for y in range(4):
        for x in range(6):
            assert large[0, y, x].tolist() == frame[0, y // 2, x // 2].tolist()
    assert np.array_equal(enlarge(frame, short_side=2), frame)


def test_pngs_are_the_frames_bit_for_bit(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (3, 5, 7, 3), dtype=np.uint8)
    write_pngs(tmp_path / "frames", frames)
    names = sorted(path.name for path in (tmp_path / "frames").iterdir())
    assert names == ["0000.png", "0001.png", "0002.png"]
    for name, frame in zip(names, frames, strict=True):
        assert np.array_equal(np.asarray(Image.open(tmp_path / "frames" / name)), frame)
    assert [path.name for path in tmp_path.iterdir()] == ["frames"]
    with pytest.raises(FileExistsError):
        write_pngs(tmp_path / "frames", frames[:1])
    assert len(os.listdir(tmp_path / "frames")) == 3


def test_a_contact_sheet_reads_row_by_row():
    """3 frames of 2 x 2 in 2 columns with a gap of 1: a 5 x 5 picture, its last quarter left white."""
    frames = plain((1, 0, 0), (2, 0, 0), (3, 0, 0), height=2, width=2)
    W = 255
    assert contact_sheet(frames, columns=2, gap=1)[..., 0].tolist() == [
        [1, 1, W, 2, 2],
        [1, 1, W, 2, 2],
        [W, W, W, W, W],
        [3, 3, W, W, W],
        [3, 3, W, W, W],
    ]
    assert contact_sheet(frames, columns=8, gap=0).shape == (2, 6, 3)  # no more columns than frames
    with pytest.raises(ValueError, match="at least 1 column"):
        contact_sheet(frames, columns=0)


def test_boxes_are_drawn_along_their_inside():
    """On 8 x 8, the box (0.25, 0.25, 1, 0.75) is rows 2 to 5 and columns 2 to 7; its inner line is dark."""
    frames = plain((9, 9, 9), (9, 9, 9), height=8, width=8)
    box, absent = [0.25, 0.25, 1.0, 0.75], [np.nan] * 4
    drawn = draw_boxes(frames, np.array([[box, absent]]), colors=[(255, 0, 1)])
    assert drawn[0, :, :, 0].tolist() == [
        [9] * 8,
        [9] * 8,
        [9, 9, 255, 255, 255, 255, 255, 255],
        [9, 9, 255, 0, 0, 0, 0, 255],
        [9, 9, 255, 0, 0, 0, 0, 255],
        [9, 9, 255, 255, 255, 255, 255, 255],
        [9] * 8,
        [9] * 8,
    ]
    assert np.array_equal(drawn[1], frames[1])  # absent there
    assert (frames == 9).all()  # drawn into a copy


def test_every_subject_has_its_colour():
    boxes = np.array([[[0.0, 0.0, 0.5, 0.5]], [[0.5, 0.5, 1.0, 1.0]], [[0.5, 0.0, 1.0, 0.5]]])
    drawn = draw_boxes(plain((9, 9, 9), height=16, width=16), boxes, colors=[(1, 2, 3), (4, 5, 6)])
    assert [drawn[0, y, x].tolist() for y, x in ((0, 0), (8, 8), (0, 8))] == [[1, 2, 3], [4, 5, 6], [1, 2, 3]]


@settings(deadline=None)
@given(st.lists(st.integers(0, 20), min_size=4, max_size=4), st.integers(1, 3), st.integers(1, 3))
def test_nothing_is_drawn_outside_a_box(corners, height, width):
    """Not even for a box that is smaller than a pixel, or whose lines would meet."""
    x1, x2 = sorted(corners[:2])
    y1, y2 = sorted(corners[2:])
    frames = plain((9, 9, 9), height=10 * height, width=10 * width)
    box = np.array([x1, y1, x2, y2]) / 20
    drawn = draw_boxes(frames, box[None, None])[0]
    X1, Y1, X2, Y2 = np.rint(box * (10 * width, 10 * height, 10 * width, 10 * height)).astype(int)
    outside = np.ones((10 * height, 10 * width), bool)
    outside[Y1:Y2, X1:X2] = False
    assert (drawn[outside] == 9).all()
    assert (drawn[Y1:Y2, X1:X2][:1] != 9).all()  # and the upper edge is there


def test_boxes_of_another_video_are_refused():
    with pytest.raises(ValueError, match=r"boxes must be \(K, F, 4\) with F = 2"):
        draw_boxes(plain((0, 0, 0), (0, 0, 0)), np.zeros((1, 3, 4)))
