"""Coverage, IoUs, centroid distance, AP50, against numbers worked out by hand."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptation.trajectory import Trajectory
from evaluation.metrics.tracking import (
    ap50,
    areas,
    centroid_distance,
    frame_ious,
    frame_miou,
    is_covered,
    judge_track,
    needed,
    volume_iou,
)

NONE = [np.nan] * 4
LEFT, SHIFTED = [0, 0, 0.5, 0.5], [0.25, 0, 0.75, 0.5]  # areas 1/4; common 1/4 x 1/2 = 1/8


# ---- One video -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "found", "iou"),
    [
        ([LEFT], [LEFT], 1),
        ([LEFT], [SHIFTED], 1 / 3),  # (1/8) / (1/4 + 1/4 - 1/8)
        ([LEFT, LEFT], [SHIFTED, NONE], 0.2),  # (1/8) / (3/8 + 1/4): the missed frame adds its box
        ([LEFT, LEFT], [LEFT, SHIFTED], 0.6),  # (2/8 + 1/8) / (2/8 + 3/8), not the mean 2/3 of 1 and 1/3
        ([LEFT, NONE], [LEFT, LEFT], 0.5),  # found where it should be absent: (1/4) / (1/4 + 1/4)
        ([LEFT, NONE], [LEFT, NONE], 1),  # absent, and not found
        ([LEFT], [NONE], 0),
        ([[0, 0, 0.25, 0.25]], [[0.5, 0.5, 1, 1]], 0),  # apart along both axes: no product of two negatives
        ([LEFT], [[0.5, 0, 1, 0.5]], 0),  # touching
        ([LEFT], [[-0.5, -3, 0.5, 0.5]], 1),  # what lies outside the frame does not count
        ([[0, 0, 1, 1]], [[0.25, 0.25, 0.5, 0.75]], 1 / 8),  # one inside the other
    ],
)
def test_volume_iou_by_hand(wanted, found, iou):
    assert volume_iou(np.array(wanted), np.array(found)) == pytest.approx(iou, abs=1e-12)


@st.composite
def tracks(draw):
    """Two tracks of 3 frames whose boxes lie on the borders of an 8 x 8 grid."""
    edges = st.lists(st.integers(0, 8), min_size=2, max_size=2, unique=True).map(sorted)
    boxes = [[(draw(edges), draw(edges)) for _ in range(3)] for _ in range(2)]
    return [np.array([[x[0], y[0], x[1], y[1]] for x, y in track]) / 8 for track in boxes]


@settings(deadline=None, max_examples=30)
@given(tracks())
def test_volume_iou_counts_as_a_raster_does(pair):
    a, b = (Trajectory(torch.from_numpy(t)[None], [""], "").rasterize(8, 8)[0].numpy() for t in pair)
    assert volume_iou(*pair) == pytest.approx((a & b).sum() / (a | b).sum(), abs=1e-12)
    assert volume_iou(*pair) == pytest.approx(volume_iou(*pair[::-1]), abs=1e-12)


def test_what_is_found_outside_the_frame_is_cut_off():
    """A detector's (-2, 0, 5, 5) on 10 x 10 pixels has area 25, and not 0 as the slice [-2:5] would."""
    box = np.array([[-0.2, 0, 0.5, 0.5]])
    assert 100 * areas(box.clip(0, 1)) == pytest.approx(25)
    assert volume_iou(np.array([[0, 0, 0.5, 0.5]]), box) == 1
    assert frame_miou(np.array([[0, 0, 0.5, 1]]), box) == 0.5


def test_frame_iou_is_trailblazers_but_where_boxes_are_apart_on_both_axes(trailblazer):
    """Its code multiplies the overlaps along x and y, so that two negative ones count as common area. Ours do not.

    It rounds to four decimals, and has 0 for nothing found, in a frame as in a video.
    """
    tensors = trailblazer[1]
    wanted, found, video, frame = (tensors[f"miou.{name}"].numpy() for name in ("wanted", "found", "video", "frame"))
    overlap = np.minimum(wanted[..., 2:], found[..., 2:]) - np.maximum(wanted[..., :2], found[..., :2])
    ((v, f),) = np.argwhere((overlap < 0).all(-1))  # one frame of 144
    ours = [frame_miou(a[None], b[None]) for a, b in zip(wanted.reshape(-1, 4), found.reshape(-1, 4), strict=True)]
    ours = np.reshape(ours, frame.shape)
    assert (ours[v, f], frame[v, f]) == (0, 1.0349)
    ours[v, f] = 1.0349
    np.testing.assert_allclose(np.nan_to_num(ours), frame, rtol=0, atol=5e-5)

    videos = np.nan_to_num([frame_miou(a, b) for a, b in zip(wanted, found, strict=True)])
    assert videos[v] < video[v] - 0.17
    np.testing.assert_allclose(np.delete(videos, v), np.delete(video, v), rtol=0, atol=5e-5)


TOP = [0, 0, 1, 0.5]
FOUR = np.array([LEFT, TOP, [0, 0, 0.6, 1], LEFT])
FOUND = np.array([SHIFTED, [0, 0, 1, 0.25], [0, 0, 1, 1], NONE])  # IoU 1/3, (1/4) / (1/2), 0.6 / 1, none


def test_frame_ious_by_hand():
    np.testing.assert_allclose(frame_ious(FOUR, FOUND), [1 / 3, 0.5, 0.6], atol=1e-12)
    np.testing.assert_allclose(frame_ious(FOUR, FOUND, misses=True), [1 / 3, 0.5, 0.6, 0], atol=1e-12)
    # Two frames, the second missed: 1/3 over the detected one, 1/6 over both; the volume has 0.2.
    assert frame_miou(np.array([LEFT, LEFT]), np.array([SHIFTED, NONE])) == pytest.approx(1 / 3)
    assert frame_miou(np.array([LEFT, LEFT]), np.array([SHIFTED, NONE]), misses=True) == pytest.approx(1 / 6)
    # Boxes apart along both axes: an overlap of (-1/4) x (-1/4) would make up for the union.
    assert frame_miou(np.array([[0, 0, 0.25, 0.25]]), np.array([[0.5, 0.5, 0.75, 0.75]])) == 0


def test_frames_in_which_the_subject_is_not_wanted():
    """Found all the same: 0. Not found: the frame does not count."""
    wanted, found = np.array([LEFT, NONE, NONE]), np.array([LEFT, LEFT, NONE])
    for misses in (False, True):
        assert frame_ious(wanted, found, misses).tolist() == [1, 0]
    assert centroid_distance(wanted, found, 320, 576) == 0
    assert frame_ious(np.array([NONE]), np.array([[2.0, 2, 3, 3]])).tolist() == [0]  # found outside: no 0 / 0


def test_ap50_by_hand():
    assert ap50(FOUR, FOUND) == pytest.approx(2 / 3)  # 1/2 and 0.6 of 1/3, 1/2, 0.6
    assert ap50(FOUR, FOUND, misses=True) == pytest.approx(2 / 4)


def test_centroid_distance_by_hand():
    # dx = 0.25 of 576 pixels = 144; diagonal sqrt(576^2 + 320^2) = 658.9...
    assert centroid_distance(np.array([LEFT]), np.array([SHIFTED]), 320, 576) == pytest.approx(0.218540, abs=1e-6)
    # dy = 0.25 of 320 = 80: 80 / 658.9; the diagonal is the video's own, not always that of 320 x 576
    down = np.array([[0, 0.25, 0.5, 0.75]])
    assert centroid_distance(np.array([LEFT]), down, 320, 576) == pytest.approx(80 / math.hypot(320, 576))
    assert centroid_distance(np.array([LEFT]), down, 96, 128) == pytest.approx(24 / 160)
    # A frame in which nothing is found has no centre, least of all (0, 0).
    two = np.array([LEFT, LEFT]), np.array([down[0], NONE])
    assert centroid_distance(*two, 96, 128) == pytest.approx(24 / 160)


def test_a_subject_that_is_never_found():
    wanted, found = np.array([LEFT] * 3), np.array([NONE] * 3)
    for figure in (frame_miou(wanted, found), ap50(wanted, found), centroid_distance(wanted, found, 96, 128)):
        assert math.isnan(figure)
    assert (frame_miou(wanted, found, misses=True), ap50(wanted, found, misses=True)) == (0, 0)
    figures = judge_track(wanted, found, 96, 128)
    assert figures["frame_iou"] is figures["centroid_distance"] is figures["ap50"] is None
    assert (figures["ap50_misses"], figures["detections"], figures["covered"]) == (0, 0, False)


def test_all_figures_of_a_track_are_ready_for_json_and_leave_the_boxes_alone():
    wanted, found = FOUR.copy(), FOUND.copy()
    found[2] = [-1, 0, 1, 1]
    before = found.copy()
    figures = judge_track(wanted, found, 96, 128, "count:2")
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    assert (figures["detections"], figures["covered"]) == (3, True)
    assert (figures["iou"], figures["ap50"]) == (volume_iou(wanted, found), ap50(wanted, found))
    assert judge_track(wanted, found, 96, 128, "count:3")["covered"] is False
    np.testing.assert_array_equal(found, before)
    np.testing.assert_array_equal(wanted, FOUR)


@pytest.mark.parametrize(
    ("frames", "rule", "least"),
    [(24, "half", 13), (24, "count:8", 9), (16, "half", 9), (16, "count:8", 9), (8, "half", 5), (3, "count:0", 1)],
)
def test_covered_is_more_than_half_of_the_frames_or_more_than_a_count(frames, rule, least):
    wanted = np.array([LEFT] * frames)
    for seen in range(frames + 1):
        assert is_covered(wanted, np.array([LEFT] * seen + [NONE] * (frames - seen)), rule) is (seen >= least)


def test_frames_in_which_no_box_is_wanted_do_not_count_for_coverage():
    """Found exactly in the 12 of 24 frames that have a box is IoU 1 and covered; found in the 12 others is nothing."""
    first, last = np.array([LEFT] * 12 + [NONE] * 12), np.array([NONE] * 12 + [LEFT] * 12)
    figures = judge_track(first, first, 96, 128)
    assert (figures["iou"], figures["covered"]) == (1, True)
    assert not is_covered(first, last)
    assert not is_covered(first, last, "count:0")
    for seen in range(13):
        assert is_covered(first, np.array([LEFT] * seen + [NONE] * (24 - seen))) is (seen >= 7)


def test_what_cannot_be_compared_is_refused():
    """Boxes of 16 frames are not held against the first 16 of 24."""
    for figure in (volume_iou, frame_miou, ap50, lambda a, b: centroid_distance(a, b, 96, 128)):
        with pytest.raises(ValueError, match=r"must both be \(F, 4\), not \(16, 4\) and \(24, 4\)"):
            figure(np.array([LEFT] * 16), np.array([LEFT] * 24))
    with pytest.raises(ValueError, match="neither wanted nor found"):
        volume_iou(np.array([NONE]), np.array([NONE]))
    for rule in ("most", "count:", "count:-1", "count:8.5"):
        with pytest.raises(ValueError, match=f"'half' or 'count:N'.*, not '{rule}'"):
            needed(rule, 8)
