"""Random tracks: the boxes that TrailBlazer describes, and prompts that training never saw."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.tracks import ENDS, SPLITS, make_track, moving_keyframes, static_keyframes
from weights.train_tiny.world import BACKGROUNDS, held_out

NUMBERS = st.integers(0, 10**6)


def draws(*values):
    """A generator that draws these integers."""
    values = iter(values)
    return SimpleNamespace(integers=lambda *_: next(values))


@settings(deadline=None, max_examples=25)
@given(NUMBERS, st.integers(1, 24))
def test_a_static_box_stays_and_has_its_ranges(number, frames):
    boxes = make_track("static", number, frames).trajectory.boxes
    assert boxes.shape == (1, frames, 4)
    assert torch.equal(boxes, boxes[:, :1].expand_as(boxes))
    x1, y1, x2, y2 = boxes[0, 0].tolist()
    for start, size in ((x1, x2 - x1), (y1, y2 - y1)):
        assert 0 <= start <= 0.5
        assert 0.2 - 1e-6 <= size <= 0.5 + 1e-6  # float32 of two decimals
    assert torch.allclose(100 * boxes, (100 * boxes).round(), atol=1e-4)


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
    boxes = make_track("moving", number, frames).trajectory.boxes[0].double()
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
    ("count", "frames", "at"),
    [
        (2, 24, [0, 23]),
        (6, 24, [0, 4, 9, 13, 18, 23]),  # 23 k / 5 = 0, 4.6, 9.2, 13.8, 18.4, 23
        (6, 8, [0, 1, 2, 4, 5, 7]),  # 7 k / 5 = 0, 1.4, 2.8, 4.2, 5.6, 7
        (4, 8, [0, 2, 4, 7]),
        (6, 3, [0, 1, 2]),  # no more keyframes than frames
    ],
)
def test_keyframes_are_equally_spaced_and_alternate(count, frames, at):
    keyframes = moving_keyframes(draws(count, 2), frames)
    assert list(keyframes) == at
    first, second = (0, 0, 0.2, 0.2), (0.5, 0.5, 1, 1)
    assert list(keyframes.values()) == [(first, second)[k % 2] for k in range(len(at))]


def test_all_ends_and_all_counts_occur():
    keyframes = [moving_keyframes(np.random.default_rng(n), 24) for n in range(300)]
    assert {len(k) for k in keyframes} == {2, 3, 4, 5, 6}
    assert {(k[0], list(k.values())[1]) for k in keyframes} == set(ENDS)


def test_a_track_is_its_number_alone():
    for split in SPLITS:
        first, again = make_track(split, 7, 8), make_track(split, 7, 8)
        assert torch.equal(first.trajectory.boxes, again.trajectory.boxes)
        assert first.trajectory.prompt == again.trajectory.prompt
    # NumPy draws the same for (7, 0) and 7: boxes from the prompt's own draws would go with its words.
    boxes = make_track("static", 7, 1).trajectory.boxes.flatten().tolist()
    assert boxes != pytest.approx(static_keyframes(np.random.default_rng(7))[0], abs=1e-3)
    others = {tuple(make_track("static", n, 1).trajectory.boxes.flatten().tolist()) for n in range(20)}
    assert len(others) == 20
    assert len({make_track("static", n, 1).trajectory.prompt for n in range(20)}) > 15


@settings(deadline=None, max_examples=25)
@given(NUMBERS)
def test_prompts_are_held_out_and_name_the_subject(number):
    static, moving = (make_track(split, number, 2).trajectory for split in SPLITS)
    assert (static.prompt, static.subjects) == (moving.prompt, moving.subjects)
    (subject,) = static.subjects
    assert subject in static.prompt
    (background,) = [name for name in BACKGROUNDS if name in static.prompt.replace(",", " ").split()]
    assert held_out(*subject.split(), background)


def test_what_is_no_track_is_refused():
    with pytest.raises(ValueError, match="one of static, moving, not 'still'"):
        make_track("still", 0, 8)
    with pytest.raises(ValueError, match="moves over at least 2 frames, not 1"):
        make_track("moving", 0, 1)
