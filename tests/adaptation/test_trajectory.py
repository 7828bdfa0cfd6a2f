"""Boxes: keyframes, resampling, regions and construction. Files: see test_trajectory_file.py."""

import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from adaptation.trajectory import Trajectory, interpolate_keyframes
from tests.helpers import boxes, f64, same, track

ABSENT = [math.nan] * 4
BOX = [0.25, 0.25, 0.75, 0.75]


# ---- Keyframes and resampling --------------------------------------------------------------------------------------


def test_keyframes_are_joined_by_lines_and_held_outside():
    path = Trajectory.from_keyframes({2: [0.0, 0.2, 0.2, 0.4], 6: [0.8, 0.2, 1.0, 0.8]}, 8)
    assert path.boxes.shape == (1, 8, 4) and path.boxes.dtype == torch.float32
    # A quarter of the way per frame: x1 0, 0.2, 0.4, 0.6, 0.8 and y2 0.4, 0.5, 0.6, 0.7, 0.8.
    assert path.boxes[0, :, 0].tolist() == pytest.approx([0, 0, 0, 0.2, 0.4, 0.6, 0.8, 0.8], abs=1e-7)
    assert path.boxes[0, :, 3].tolist() == pytest.approx([0.4, 0.4, 0.4, 0.5, 0.6, 0.7, 0.8, 0.8], abs=1e-7)


def test_keyframes_are_joined_in_float64():
    assert interpolate_keyframes({0: [0.1, 0.2, 0.3, 0.4]}, 2).tolist() == [[0.1, 0.2, 0.3, 0.4]] * 2


def test_keyframes_without_words_have_none():
    path = Trajectory.from_keyframes({0: BOX}, 2)
    assert (path.subjects, path.prompt) == ([""], "")


def test_keyframes_in_any_order_and_as_tensors():
    first, last = [0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]
    path = Trajectory.from_keyframes({4: torch.tensor(last), 0: tuple(first)}, 5, subject="ball", prompt="a ball")
    assert path.boxes[0, 2].tolist() == [0.25, 0.25, 0.75, 0.75]
    assert (path.subjects, path.prompt) == (["ball"], "a ball")


def test_an_absent_keyframe_lasts_until_the_next():
    # A box until frame 2, absent in 2 and 3, and back from 4 on; before the absence the box is held, not faded.
    path = Trajectory.from_keyframes({0: BOX, 2: None, 4: [0.0, 0.0, 0.5, 0.5]}, 6)
    assert same(path.boxes[0], [BOX, BOX, ABSENT, ABSENT, [0, 0, 0.5, 0.5], [0, 0, 0.5, 0.5]])
    assert Trajectory.from_keyframes({1: None}, 2).boxes.isnan().all()


@given(boxes(), st.integers(1, 9), st.integers(0, 8))
def test_one_keyframe_holds_still(box, frames, at):
    path = Trajectory.from_keyframes({at % frames: box}, frames)
    assert same(path.boxes[0], [box] * frames)


@given(boxes(), boxes(), st.integers(2, 40))
def test_keyframes_are_met_exactly_and_nothing_leaves_their_range(first, last, frames):
    path = Trajectory.from_keyframes({0: first, frames - 1: last}, frames).boxes[0]
    assert path[0].tolist() == first and path[-1].tolist() == last
    low, high = torch.tensor([first, last]).aminmax(dim=0)
    assert ((path >= low) & (path <= high)).all()


@pytest.mark.parametrize(
    "keyframes, message",
    [
        ({8: BOX}, r"keyframe 8 is not one of the video's frames 0 to 7; .*resample"),
        ({-1: BOX}, "keyframe -1 is not one"),
        ({1.5: BOX}, "keyframe 1.5 is not one"),
        ({True: BOX}, "keyframe True is not one"),
        ({}, "at least one keyframe"),
        ({3: [0.5, 0.0, 0.5, 1.0]}, "keyframe 3: the box .* is empty"),
        ({3: [0.5, 0.0, 1.5, 1.0]}, "keyframe 3: the box .* outside the frame"),
        ({3: [0.5, 0.0, 10**400, 1.0]}, "keyframe 3: the box .* outside the frame"),
        ({3: [0.5, 0.0, math.inf, 1.0]}, "keyframe 3: the box .* not finite"),
        ({3: [0.5, 0.0, 1.0]}, "keyframe 3: a box is four numbers"),
        ({3: 0.5}, "keyframe 3: a box is four numbers"),
        ({3: torch.tensor(0.5)}, "keyframe 3: a box is four numbers"),
    ],
)
def test_keyframe_errors(keyframes, message):
    with pytest.raises(ValueError, match=message):
        Trajectory.from_keyframes(keyframes, 8)


def test_resample_by_hand():
    path = track([0.0, 0.0, 0.25, 0.5], [0.5, 0.0, 0.75, 0.5], [0.5, 0.5, 0.75, 1.0])
    # 3 frames to 5: every other one is half way between its neighbours.
    assert path.resample(5).boxes[0, :, 0].tolist() == [0.0, 0.25, 0.5, 0.5, 0.5]
    assert path.resample(5).boxes[0, :, 1].tolist() == [0.0, 0.0, 0.0, 0.25, 0.5]
    assert same(path.resample(2).boxes[0], path.boxes[0, [0, 2]])
    assert same(path.resample(1).boxes[0], path.boxes[0, :1])
    assert (path.resample(5).subjects, path.resample(5).prompt) == (path.subjects, path.prompt)


def test_resample_beside_an_absent_frame_follows_the_nearer_one():
    # To 7 frames, thirds between neighbours: box (0), 1/3, 2/3, absent (1), 1 1/3, 1 2/3, box (2).
    path = track(BOX, ABSENT, [0.0, 0.0, 0.5, 0.5]).resample(7)
    other = [0.0, 0.0, 0.5, 0.5]
    assert same(path.boxes[0], [BOX, BOX, ABSENT, ABSENT, ABSENT, other, other])
    # To 5, halves: half way the earlier frame counts.
    path = track(BOX, ABSENT, other).resample(5)
    assert same(path.boxes[0], [BOX, BOX, ABSENT, ABSENT, other])


@given(st.lists(st.one_of(boxes(), st.just(ABSENT)), min_size=1, max_size=6), st.integers(1, 12))
def test_resample_keeps_the_ends_and_its_own_length(path, frames):
    path = track(*path)
    F = path.boxes.shape[1]
    resampled = path.resample(frames)
    assert resampled.boxes.shape == (1, frames, 4) and resampled.boxes.dtype == torch.float32
    assert same(resampled.boxes[:, 0], path.boxes[:, 0])
    if frames > 1:
        assert same(resampled.boxes[:, -1], path.boxes[:, -1])
        refined = resampled.resample((frames - 1) * 3 + 1)  # every third frame is an old one
        assert same(refined.boxes[:, ::3], resampled.boxes)
    assert same(path.resample(F).boxes, path.boxes)


def test_expected_frames():
    path = track(BOX, BOX)
    path.expect_frames(2)
    with pytest.raises(ValueError, match=r"boxes for 2 frames, but the video has 8; .* resample the trajectory"):
        path.expect_frames(8)
    path.resample(8).expect_frames(8)
    with pytest.raises(ValueError, match="at least 1 frame, not 0"):
        path.resample(0)


# ---- Regions -------------------------------------------------------------------------------------------------------


def test_rasterize_by_hand():
    # 4 x 8 cells with centres 1/16, 3/16, ... across and 1/8, 3/8, ... down. The box holds the centres 3/16 and 5/16
    # (not 7/16, where it ends) and 3/8, 5/8.
    region = track([3 / 16, 0.2, 7 / 16, 0.7]).rasterize(4, 8)
    assert region.shape == (1, 1, 4, 8) and region.dtype == torch.bool
    assert region[0, 0].int().tolist() == [[0] * 8, [0, 1, 1, 0, 0, 0, 0, 0], [0, 1, 1, 0, 0, 0, 0, 0], [0] * 8]


@pytest.mark.parametrize(
    "box, cell",
    [
        ([0.3, 0.3, 0.35, 0.35], (1, 2)),
        ([0.0, 0.0, 0.01, 0.01], (0, 0)),
        ([0.99, 0.99, 1.0, 1.0], (3, 7)),
        ([0.32, 0.0, 0.36, 1.0], (2, 2)),  # thin: between two columns of centres, its own centre at 0.5 down
        ([0.0, 0.26, 1.0, 0.36], (1, 4)),  # flat: between two rows of centres, its own centre at 0.5 across
        ([0.49, 0.2, 0.51, 0.3], (1, 4)),  # its centre on a border belongs to the cell after it
        ([1 - 2**-24, 1 - 2**-24, 1.0, 1.0], (3, 7)),  # so small that float32 rounds its centre to 1
    ],
)
def test_a_box_between_all_centres_keeps_the_cell_under_its_own(box, cell):
    assert track(box).rasterize(4, 8)[0, 0].nonzero().tolist() == [list(cell)]


def test_each_frame_is_asked_by_itself_whether_its_box_covers_a_cell():
    """The first frame's box covers all cells, the second's none: there the cell under its centre is kept."""
    regions = track([0.0, 0.0, 1.0, 1.0], [0.3, 0.3, 0.35, 0.35]).rasterize(4, 8)[0]
    assert regions[0].all()
    assert regions[1].nonzero().tolist() == [[1, 2]]


def test_float64_boxes_meet_float64_centres():
    """Of 3 cells the first has its centre at 1/6. A box that begins 3e-9 after it leaves it out; float32 would not."""
    path = Trajectory(f64([[[1 / 6 + 3e-9, 0.0, 1.0, 1.0]]])[0], ["ball"], "a ball")
    assert path.rasterize(1, 3)[0, 0, 0].tolist() == [False, True, True]
    flat = Trajectory(f64([[[0.0, 1 / 6 + 3e-9, 1.0, 1.0]]])[0], ["ball"], "a ball")
    assert flat.rasterize(3, 1)[0, 0, :, 0].tolist() == [False, True, True]


def test_an_absent_subject_has_no_region():
    regions = track(BOX, ABSENT).rasterize(3, 5)
    assert regions[0, 0].any() and not regions[0, 1].any()


@given(boxes(), st.integers(1, 20), st.integers(1, 20))
@example(
    [0.125, 0.125, 0.375, 0.375], 4, 4
)  # from centre to centre: one cell, though another is under the box's centre
def test_rasterize_is_its_definition(box, H, W):
    x1, y1, x2, y2 = box
    expected = [
        (i, j) for i in range(H) for j in range(W) if x1 <= (j + 0.5) / W < x2 and y1 <= (i + 0.5) / H < y2
    ] or [(int((y1 + y2) / 2 * H), int((x1 + x2) / 2 * W))]
    assert track(box).rasterize(H, W)[0, 0].nonzero().tolist() == [list(cell) for cell in expected]


@given(boxes(), st.integers(1, 6))
def test_a_box_on_cell_borders_is_a_slice(box, scale):
    H, W = 8 * scale, 16 * scale
    x1, y1, x2, y2 = (int(v * size) for v, size in zip(box, (W, H, W, H), strict=True))
    expected = torch.zeros(H, W, dtype=torch.bool)
    expected[y1:y2, x1:x2] = True
    assert torch.equal(track(box).rasterize(H, W)[0, 0], expected)


def test_grids_without_cells_are_an_error():
    with pytest.raises(ValueError, match="at least 1 x 1 cells, not 0 x 4"):
        track(BOX).rasterize(0, 4)


# ---- Construction --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "box, message",
    [
        ([0.5, 0.0, 0.5, 1.0], "frame 1: the box .* is empty, since x1 y1 x2 y2 need x1 < x2 and y1 < y2"),
        ([0.0, 0.75, 1.0, 0.5], "is empty"),
        ([0.0, 0.5, 1.0, 0.5], "is empty"),
        ([-0.5, 0.0, 0.5, 1.0], "outside the frame"),
        ([0.0, 0.0, 0.5, 1.5], "outside the frame"),
        ([0.0, 0.0, 1.5, 0.5], "outside the frame"),
        ([0.0, math.nan, 0.5, 1.0], "not finite"),
        ([0.0, 0.0, math.inf, 1.0], "not finite"),
    ],
)
def test_boxes_are_checked_when_made(box, message):
    with pytest.raises(ValueError, match=f"^subject 'red ball', frame 1: .*{message}|^subject 'red ball', {message}"):
        track(BOX, box)


@pytest.mark.parametrize("shape", [(2, 4), (1, 2, 3), (0, 2, 4), (1, 0, 4)])
def test_shapes_are_checked_when_made(shape):
    with pytest.raises(ValueError, match=r"boxes must be float32 or float64 of shape \(K, F, 4\)"):
        Trajectory(torch.full(shape, math.nan), ["ball"], "a ball")


def test_subjects_are_counted_when_made():
    path = torch.tensor([[BOX]])
    for subjects in ([], ["red", "ball"], "b"):
        with pytest.raises(ValueError, match="boxes of 1 subjects need a list"):
            Trajectory(path, subjects, "a ball")
    with pytest.raises(ValueError, match="float32 or float64"):
        Trajectory(path.half(), ["ball"], "a ball")
