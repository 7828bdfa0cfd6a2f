"""Means over tracks, intervals over videos, and what one row adds to another, by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.metrics.tracking import bootstrap, mean_where
from evaluation.tables.results import by_video, differences, mean_and_interval, summarize

ALWAYS = np.ones(8, dtype=bool)


def track(id, iou, covered=True, tau=0.5):
    """A track's figures, as `judge_item` gives them."""
    names = ("frame_iou", "frame_iou_misses", "centroid_distance", "ap50", "ap50_misses", "clip_sim", "latent_std")
    return {"id": id, "subject": "ball", "iou": iou, "covered": covered, "tau": tau, **dict.fromkeys(names, 0.25)}


def tracks_of(figures):
    return [track(f"item-{n}", iou, covered, tau) for n, (iou, covered, tau) in enumerate(figures)]


# ---- Videos of one subject -------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=10)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.none() | st.floats(-1, 1)), min_size=1, max_size=40))
def test_with_one_subject_a_video_is_a_track_to_the_last_bit(figures):
    """Against the bootstrap over tracks, on the formulas of each figure."""
    iou, covered = (np.array(column) for column in list(zip(*figures, strict=True))[:2])
    tau = np.array([figure[2] for figure in figures], dtype=float)
    known = ~np.isnan(tau)
    by_hand = {
        "coverage": (lambda c: np.mean(c, axis=-1), covered),
        "miou_covered": (mean_where, iou, covered),
        "miou_all": (lambda i, c: np.mean(i * c, axis=-1), iou, covered),
        "tau": (mean_where, np.nan_to_num(tau), known),
    }
    summary = summarize(tracks_of(figures))
    for name, (statistic, *columns) in by_hand.items():
        value = float(statistic(*columns))
        assert summary[name] == (None if np.isnan(value) else [value, *bootstrap(statistic, *columns)])


# ---- Videos of several subjects --------------------------------------------------------------------------------------


def test_subjects_stand_in_the_row_of_their_video():
    grid = by_video(["a", "b", "a", "c"], np.array([1.0, 2.0, 3.0, 4.0]))
    assert grid.tolist() == [[1, 3], [2, 0], [4, 0]]
    assert by_video(["a", "b", "a"], ALWAYS[:3]).tolist() == [[True, True], [True, False]]


def test_whole_videos_are_drawn():
    """Of four videos with two subjects each, two have both covered: all four drawn are covered, and none is, with a
    chance of 1/16 each, so that 95 % reach from 0 to 1. Eight tracks on their own would be so with 1/256."""
    videos, covered = list("aabbccdd"), np.array([1.0, 1, 1, 1, 0, 0, 0, 0])
    assert mean_and_interval(videos, covered, ALWAYS) == [0.5, 0, 1]
    _, low, high = mean_and_interval(list("abcdefgh"), covered, ALWAYS)
    assert 0 < low < high < 1


def test_a_video_weighs_as_many_tracks_as_it_has_subjects():
    """1 and 2 in video a, 3 in video b: mean 2; draws a a, a b, b b have means 3/2, 2, 3."""
    values = np.array([1.0, 2.0, 3.0])
    assert mean_and_interval(["a", "a", "b"], values, ALWAYS[:3]) == [2, 1.5, 3]
    assert mean_and_interval(["a", "a", "b"], values, np.array([True, False, True])) == [2, 1, 3]
    assert mean_and_interval(["a", "a", "b"], values, ~ALWAYS[:3]) is None


# ---- Rows ------------------------------------------------------------------------------------------------------------


def rows(**tracks):
    return {label: {"tracks": {"static": own}} for label, own in tracks.items()}


def test_a_difference_is_of_the_same_track():
    """mIoU: +0.1 on each of four tracks that lie far apart, so both ends are 0.1. tau: +0.25, +0.75, and two tracks
    that have none in one of the rows."""
    one = tracks_of([(0.0, True, 0), (0.25, True, 0), (0.5, True, None), (0.75, True, 0.5)])
    two = tracks_of([(0.1, True, 0.25), (0.35, True, 0.75), (0.6, True, 1), (0.85, True, None)])
    added = differences(rows(plain=one, mask=two))
    assert list(added) == ["mask minus plain"]
    assert added["mask minus plain"]["static"]["miou_all"] == pytest.approx([0.1, 0.1, 0.1])
    assert added["mask minus plain"]["static"]["tau"] == [0.5, 0.25, 0.75]
    _, low, high = summarize(two)["miou_all"]
    assert high - low > 0.3  # what the two rows' own intervals would have hidden


def test_a_track_that_is_not_covered_counts_as_0():
    one, two = [track("a", 0.75), track("b", 0.5)], [track("a", 0.75, covered=False), track("b", 0.75)]
    mean, low, high = differences(rows(mask=one, full=two))["full minus mask"]["static"]["miou_all"]
    assert (mean, low, high) == (-0.25, -0.75, 0.25)


def test_every_row_but_the_first_is_compared_with_the_one_above_it():
    one, two = [track("a", 0.5)], [track("a", 0.75)]
    added = differences(rows(plain=one, full=two, mask=one))
    means = {label: splits["static"]["miou_all"][0] for label, splits in added.items()}
    assert means == {"full minus plain": 0.25, "mask minus full": -0.25}
    assert differences(rows(plain=one)) == {}


def test_what_no_track_has_in_both_rows_is_none():
    added = differences(rows(plain=[track("a", 0.5, tau=None)], mask=[track("a", 0.5)]))
    assert added["mask minus plain"]["static"] == {"miou_all": [0, 0, 0], "tau": None}
