from dataclasses import replace

import numpy as np
import pytest

from evaluation.benchmarks.items import make_item
from evaluation.benchmarks.oracle import bare_video, oracle_video
from weights.train_tiny.detect import detect


def item(boxes, prompt="a red box resting over the sand", subjects=("red box",)):
    return replace(
        make_item("smooth", "tiny", "static", 0, len(boxes[0])), prompt=prompt, subjects=subjects, boxes=boxes
    )


def test_the_subject_is_in_its_box():
    """128 x 96 pixels: the box from (32, 24) to (64, 56.. is 32 pixels wide and high, and so is the subject."""
    still = (0.25, 0.25, 0.5, 24 / 96 + 32 / 96)
    frames = oracle_video(item((2 * (still,),)))
    assert frames.shape == (2, 96, 128, 3)
    for seen in detect(frames, "red"):
        assert seen.box == pytest.approx(still, abs=1e-6)
        assert (seen.shape, seen.blobs, seen.background) == ("box", 1, "sand")


def test_a_subject_is_as_wide_as_high_and_of_a_known_size():
    """A box of 64 x 32 pixels holds a subject of 32; one of 8 x 8 has none so small: it gets the least, 19.2."""
    frames = oracle_video(item((((0.25, 0.25, 0.75, 0.25 + 32 / 96), (0.5, 0.5, 0.5 + 8 / 128, 0.5 + 8 / 96)),)))
    (x1, y1, x2, y2), (a1, b1, a2, b2) = (seen.box for seen in detect(frames, "red"))
    assert (x1, x2) == pytest.approx((48 / 128, 80 / 128), abs=1e-6)
    assert (y1, y2) == pytest.approx((24 / 96, 56 / 96), abs=1e-6)
    assert ((a2 - a1) * 128, (b2 - b1) * 96) == pytest.approx((19.2, 19.2), abs=1.5)


def test_each_of_two_subjects_has_its_own_boxes():
    left, right = (0.1, 0.3, 0.35, 0.3 + 32 / 96), (0.6, 0.3, 0.85, 0.3 + 32 / 96)
    pair = item(((left,), (right,)), "a red box and a white ring moving over the sand", ("red box", "white ring"))
    frames = oracle_video(pair)
    assert detect(frames, "red")[0].box == pytest.approx(left, abs=0.02)
    assert detect(frames, "white")[0].box == pytest.approx(right, abs=0.02)


def test_bare_is_the_same_without_the_subject():
    asked = item((((0.25, 0.25, 0.5, 0.5),) * 2,))
    with_subject, without = oracle_video(asked), bare_video(asked)
    differ = (with_subject != without).any(-1)  # (F, H, W)
    assert differ[:, 24:48, 32:64].mean() > 0.5
    assert not differ[:, :20].any()
    assert {seen.blobs for seen in detect(without, "red")} == {0}


def test_what_the_world_cannot_draw_is_refused():
    whole = (0.25, 0.25, 0.5, 0.5)
    with pytest.raises(ValueError, match="smooth-static-0000 is no video of the tiny world"):
        oracle_video(item(((whole, None),)))
    with pytest.raises(ValueError, match="no video of the tiny world, with cat in each frame"):
        oracle_video(item(((whole,),), "a cat asleep", ("cat",)))
    three = "a red box, a white ring and a pink ball over the sand"
    with pytest.raises(ValueError, match="has 3 subjects, and the tiny world at most 2"):
        oracle_video(item(((whole,),) * 3, three, ("red box", "white ring", "pink ball")))
    assert isinstance(oracle_video(item(((whole,),))), np.ndarray)
