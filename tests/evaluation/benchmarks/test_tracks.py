"""Random boxes by the rules of Jain et al. and of TrailBlazer, on one smooth way, and in pairs that keep apart."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptation.trajectory import Trajectory, interpolate_keyframes
from evaluation.benchmarks.tracks import (
    ENDS,
    JAIN_AXES,
    SPLITS,
    jain_boxes,
    moving_keyframes,
    pair_ends,
    smooth_ends,
    static_keyframes,
)

NUMBERS = st.integers(0, 10**6)


def draws(*values):
    """A generator that draws these integers."""
    values = iter(values)
    return SimpleNamespace(integers=lambda *_: next(values))


# ---- Jain et al.'s: Interactive Motion Control -----------------------------------------------------------------------

SIZES = {(int(224 * s * w), int(224 * s * h)) for s in (0.25, 0.3) for w, h in ((1, 1), (1, 1.33), (1.33, 1))}


def pixels(motion, number):
    boxes = 224 * jain_boxes(np.random.default_rng(number), motion)
    assert boxes.shape == (16, 4)
    np.testing.assert_allclose(boxes, boxes.round(), atol=1e-9)
    assert boxes.min() >= 0
    assert boxes.max() <= 224
    return boxes.round()


@pytest.mark.parametrize("motion", JAIN_AXES)
def test_jain_boxes_have_their_sizes_unless_the_canvas_cuts_them(motion):
    seen = set()
    for number in range(60):
        for x1, y1, x2, y2 in pixels(motion, number):
            size = (x2 - x1, y2 - y1)
            assert size[0] > 0
            assert size[1] > 0
            if x1 > 0 and y1 > 0 and x2 < 224 and y2 < 224:
                # left and right edge are cut to whole pixels separately, so that a speed of parts of pixels shows
                assert min(max(abs(size[0] - w), abs(size[1] - h)) for w, h in SIZES) <= 1
                seen.add(size)
    assert seen >= SIZES


def test_still_jain_boxes_start_at_their_places_and_tremble():
    """A step is at most 2 pixels; the first box is one step of 2 beside a start that is itself up to 2 off."""
    starts = np.array([0.1, 0.25, 0.45, 0.7]) * 224
    first = []
    for number in range(120):
        corners = pixels("still", number)[:, :2]
        assert 0 < np.abs(np.diff(corners, axis=0)).max() <= 2
        first.append(np.abs(corners[0][:, None] - starts).argmin(1))
        assert np.abs(corners[0][:, None] - starts).min(1).max() <= 5
    assert {tuple(f) for f in first} == {(a, b) for a in range(4) for b in range(4)}


@pytest.mark.parametrize(
    ("motion", "axis", "forward"), [("up", 1, False), ("down", 1, True), ("up-down", 1, None), ("left-right", 0, None)]
)
def test_moving_jain_boxes_go_their_way_and_tremble_across_it(motion, axis, forward):
    """One speed, at most 8, 12 or 16 pixels a frame and never so much that the canvas would cut the box."""
    ways = set()
    for number in range(80):
        boxes = pixels(motion, number)
        steps = np.diff(boxes[:, :2], axis=0)
        along, aside = steps[:, axis], steps[:, 1 - axis]
        way = bool(along.sum() > 0)
        ways.add(way)
        assert np.abs(aside).max() <= 2
        assert ((along >= 0) if way else (along <= 0)).all()
        assert np.ptp(along) <= 1  # but for the cut to whole pixels
        assert not way or boxes[-1, axis + 2] - boxes[-1, axis] >= 55  # forward, it stays whole to the end
        start = boxes[0, axis] / 224
        assert (start < 0.4) if way else (start > 0.3)  # forward from the first two places, back from the last two
    assert ways == ({True, False} if forward is None else {forward})


def test_zig_zag_jain_boxes_move_along_x_and_y_in_turn():
    """Along x into the first, third .. frame, along y into the others; one speed on each axis, nothing trembles."""
    ways = set()
    for number in range(80):
        boxes = pixels("zig-zag", number)
        into_second, into_third = np.diff(boxes[:, :2], axis=0)[::2], np.diff(boxes[:, :2], axis=0)[1::2]
        assert (into_second[:, 0] == 0).all()
        assert (into_third[:, 1] == 0).all()
        way = []
        for along, axis in ((into_third[:, 0], 0), (into_second[:, 1], 1)):
            way.append(bool(along.sum() > 0))
            assert ((along >= 0) if way[-1] else (along <= 0)).all()
            assert np.ptp(along) <= 1  # but for the cut to whole pixels
            assert np.abs(along).max() <= 16
            start = boxes[0, axis] / 224
            assert (start < 0.4) if way[-1] else (start > 0.3)
        ways.add(tuple(way))
    assert ways == {(a, b) for a in (False, True) for b in (False, True)}


def close_below(boxes, expected):
    """Whether pixels are the expected edges cut to whole ones."""
    below = np.array(expected) - 224 * boxes
    return below.min() > -1e-9 and below.max() < 1 + 1e-9


def test_falling_jain_boxes_by_hand():
    """Draws: small, square (56 x 56); x from 0.25 x 224 + 1 = 57, y from 0.1 x 224 - 2 = 20.4; then 16 times 0 in x.

    Speed 2 x 4 = 8 goes into the room of (224 - 56 - 20.4) / 16 = 9.225, speed 4 x 4 = 16 does not.
    """
    for speed, last in ((2, 148.4), (4, 168)):
        boxes = jain_boxes(draws(0, 2, 1, 1, 0, -2, speed, *[0] * 16), "down")
        step = min(4 * speed, 9.225)
        expected = [[57, 20.4 + step * k, 113, 76.4 + step * k] for k in range(1, 17)]
        assert expected[-1][1] == pytest.approx(last)
        assert close_below(boxes, expected)


def test_zig_zag_jain_boxes_by_hand():
    """Draws: medium, flat (int(67.2 x 1.33) = 89 wide, 67 high); x forward from 0.25 x 224 = 56 at up to 8 a frame, of
    which (224 - 89 - 56) / 16 = 4.9375 are possible; y back from 0.7 x 224 + 1 = 157.8 at up to 12, of which
    (157.8 - 67) / 16 = 5.675 are."""
    boxes = jain_boxes(draws(1, 1, 1, 1, 0, 2, 0, 1, 1, 3), "zig-zag")
    moved = [((k + 2) // 2, (k + 1) // 2) for k in range(16)]  # times along x and y: 1 0, 1 1, 2 1, 2 2 ..
    corners = [(56 + 4.9375 * a, 157.8 - 5.675 * b) for a, b in moved]
    assert close_below(boxes, [[x, y, x + 89, min(y + 67, 224)] for x, y in corners])


# ---- TrailBlazer's: between keyframes --------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(NUMBERS)
def test_a_static_box_stays_and_has_its_ranges(number):
    ((frame, box),) = static_keyframes(np.random.default_rng(number)).items()
    assert frame == 0  # and held from there on
    x1, y1, x2, y2 = box
    for start, size in ((x1, x2 - x1), (y1, y2 - y1)):
        assert 0 <= start <= 0.5
        assert 0.2 - 1e-9 <= size <= 0.5 + 1e-9
    assert np.allclose(100 * np.array(box), np.round(100 * np.array(box)), atol=1e-9)  # two decimals


def test_static_boxes_fill_their_ranges():
    """300 draws of U(0, 0.5) and U(0.2, 0.5): extremes within 0.02 of the ends, means within 0.03 of 0.25 and 0.35."""
    boxes = np.array([static_keyframes(np.random.default_rng(n))[0] for n in range(300)])
    for values, low, high in ((boxes[:, :2], 0, 0.5), (boxes[:, 2:] - boxes[:, :2], 0.2, 0.5)):
        assert values.min() < low + 0.02
        assert values.max() > high - 0.02
        assert values.mean(0) == pytest.approx([(low + high) / 2] * 2, abs=0.03)


@settings(deadline=None, max_examples=25)
@given(NUMBERS, st.integers(2, 24))
def test_a_moving_box_goes_to_and_fro_between_two_ends(number, frames):
    keyframes = moving_keyframes(np.random.default_rng(number), frames)
    boxes = Trajectory.from_keyframes(keyframes, frames).boxes[0].double()
    start = boxes[0]
    on_the_way = []
    for end in [torch.tensor(b).double() for a, b in ENDS if torch.tensor(a).double().allclose(start, atol=1e-6)]:
        progress = ((boxes - start) @ (end - start)) / (end - start).square().sum()
        on_the_way.append(
            torch.allclose(boxes, start + progress[:, None] * (end - start), atol=1e-6)
            and progress.min() >= -1e-6
            and progress.max() <= 1 + 1e-6
            and min(progress[-1].abs(), (progress[-1] - 1).abs()) < 1e-6  # a keyframe is the last frame
        )
    assert any(on_the_way)


@pytest.mark.parametrize(
    ("count", "frames", "at", "rests"),
    [
        (2, 24, [0, 23], []),
        (6, 24, [0, 4, 9, 13, 18, 23], [5, 10, 14, 19]),  # 23 k / 5 = 0, 4.6, 9.2, 13.8, 18.4, 23
        (6, 8, [0, 1, 2, 4, 5, 7], [3, 6]),  # 7 k / 5 = 0, 1.4, 2.8, 4.2, 5.6, 7; after 1 and 4 comes a keyframe
        (4, 8, [0, 2, 4, 7], [3, 5]),
        (6, 3, [0, 1, 2], []),  # no more keyframes than frames
    ],
)
def test_keyframes_are_equally_spaced_and_alternate_and_inner_ones_rest(count, frames, at, rests):
    keyframes = moving_keyframes(draws(count, 2), frames)
    first, second = (0, 0, 0.2, 0.2), (0.5, 0.5, 1, 1)
    expected = {frame: (first, second)[k % 2] for k, frame in enumerate(at)}
    assert keyframes == expected | {frame: expected[frame - 1] for frame in rests}


def test_static_boxes_equal_the_originals(trailblazer):
    """64 of its draws, from numpy's older generator with seed 0."""
    rng = np.random.RandomState(0)
    ours = [static_keyframes(rng)[0] for _ in range(64)]
    np.testing.assert_allclose(ours, trailblazer[1]["static.boxes"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("count", range(2, 7))
@pytest.mark.parametrize("choice", range(6))
def test_moving_boxes_equal_the_originals(trailblazer, count, choice):
    """All its counts of keyframes and all its ends, in its 25 frames. Without the rests they are up to 0.16 off."""
    tensors = trailblazer[1]
    keyframes = moving_keyframes(draws(count, choice), 25)
    at = tensors[f"dynamic.{count}.frames"].tolist()
    assert np.array_equal([keyframes[frame] for frame in at], tensors[f"dynamic.{count}.keyframes"][choice])
    expected = tensors[f"dynamic.{count}.boxes"][choice]
    torch.testing.assert_close(interpolate_keyframes(keyframes, 25), expected, rtol=0, atol=1e-12)
    off = (interpolate_keyframes({frame: keyframes[frame] for frame in at}, 25) - expected).abs().max()
    way = max(abs(a - b) for a, b in zip(*ENDS[choice], strict=True))
    assert off == pytest.approx(way / {2: float("inf"), 3: 12, 4: 8, 5: 6, 6: 5}[count])  # a frame's part of a segment


def test_two_keyframes_on_24_frames():
    """From the left edge in frame 0 to the right one in the last of 24, never a 25th."""
    boxes = Trajectory.from_keyframes(moving_keyframes(draws(2, 0), 24), 24).boxes[0]
    assert len(boxes) == 24
    torch.testing.assert_close(boxes[[0, 23]], torch.tensor([[0, 0.35, 0.3, 0.65], [0.7, 0.35, 1, 0.65]]))


def test_all_ends_and_all_counts_occur():
    keyframes = [moving_keyframes(np.random.default_rng(n), 24) for n in range(300)]
    assert {len(k) for k in keyframes} == {2, 3 + 1, 4 + 2, 5 + 3, 6 + 4}  # with those in which inner ones rest
    assert {(k[0], k[sorted(k)[1]]) for k in keyframes} == set(ENDS)


def test_one_frame_is_no_movement():
    with pytest.raises(ValueError, match="moves over at least 2 frames, not 1"):
        moving_keyframes(np.random.default_rng(0), 1)


# ---- One smooth way --------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=100)
@given(NUMBERS, st.integers(8, 100))
def test_a_smooth_box_keeps_its_size_and_its_speed_and_never_jumps(number, frames):
    start, end = smooth_ends(np.random.default_rng(number))
    boxes = interpolate_keyframes({0: start, frames - 1: end}, frames).numpy()
    assert boxes.min() >= 0
    assert boxes.max() <= 1
    sizes, steps = boxes[:, 2:] - boxes[:, :2], np.diff(boxes, axis=0)
    np.testing.assert_allclose(sizes, sizes[:1].repeat(frames, 0), atol=1e-9)
    assert sizes.min() >= 0.2 - 1e-9
    assert sizes.max() <= 0.4 + 1e-9
    np.testing.assert_allclose(steps, steps[:1].repeat(frames - 1, 0), atol=1e-9)  # one speed, one direction
    assert np.abs(steps).max() <= 0.25
    assert np.abs(steps).max() <= 0.8 / 7 + 1e-9
    assert np.abs(boxes[-1] - boxes[0]).max() >= 0.4 - 1e-9


def test_smooth_boxes_go_every_way():
    ways = {tuple(np.sign(np.subtract(*smooth_ends(np.random.default_rng(n))[::-1])[:2])) for n in range(100)}
    assert ways >= {(a, b) for a in (-1, 1) for b in (-1, 1)}


# ---- Two subjects ---------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(NUMBERS, st.sampled_from(SPLITS))
def test_the_boxes_of_a_pair_keep_their_size_stay_inside_and_never_overlap(number, split):
    pair = pair_ends(np.random.default_rng(number), split)
    time = np.linspace(0, 1, 101)[:, None]
    a, b = (np.array(start) * (1 - time) + np.array(end) * time for start, end in pair)
    overlap = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    assert (overlap.min(1) <= 1e-9).all()
    for start, end in np.array(pair):
        size, travel = start[2:] - start[:2], np.abs(end - start).max()
        assert start.min() >= 0
        assert max(start.max(), end.max()) <= 1
        assert size.min() >= 0.2 - 1e-9
        assert size.max() <= 0.4 + 1e-9
        np.testing.assert_allclose(end[2:] - end[:2], size, atol=1e-9)
        assert travel == 0 if split == "static" else travel >= 0.24  # 0.25 before rounding to two decimals


def test_a_pair_is_its_generator_alone():
    for split in SPLITS:
        pairs = [pair_ends(np.random.default_rng(number), split) for number in (5, 5, 6)]
        assert pairs[0] == pairs[1] != pairs[2]
