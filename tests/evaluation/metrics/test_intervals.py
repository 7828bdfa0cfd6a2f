"""Intervals by hand, and that they hold as often as they say; means over tracks, and what one row adds to another."""

from math import comb

import numpy as np
import pytest
import torch
from scipy.stats import ttest_1samp

from evaluation.metrics.distribution import fid, jedi
from evaluation.metrics.intervals import distance_interval, mean_interval, share_interval
from evaluation.tables.results import differences, summarize

T_1, T_2, T_3 = 12.706205, 4.302653, 3.182446  # 97.5 % quantiles of Student's t with 1, 2, 3 degrees of freedom


def alone(values):
    """One subject in each video."""
    return [f"video-{n}" for n in range(len(values))]


# ---- By hand ---------------------------------------------------------------------------------------------------------


def test_of_one_subject_a_video_the_interval_is_the_t_tests():
    values = np.random.default_rng(0).beta(0.7, 1.3, 16)
    expected = ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean_interval(values, alone(values)) == pytest.approx(
        (values.mean(), expected.low, expected.high), abs=1e-12
    )
    assert mean_interval(np.array([0.0, 1.0]), ["a", "b"]) == pytest.approx((0.5, 0.5 - T_1 / 2, 0.5 + T_1 / 2))


def test_subjects_of_one_video_are_no_independent_values():
    """1 and 2 in video a, 3 in b: mean 2, residuals -1 and 1, SE^2 = 2 / 1 x 2 / 9. Eight values in pairs that are
    equal say no more than four."""
    assert mean_interval(np.array([1.0, 2, 3]), ["a", "a", "b"]) == pytest.approx((2, 2 - T_1 * 2 / 3, 2 + T_1 * 2 / 3))
    pairs, four = np.array([1.0, 1, 2, 2, 4, 4, 5, 5]), np.array([1.0, 2, 4, 5])
    assert mean_interval(pairs, list("aabbccdd")) == pytest.approx(mean_interval(four, list("abcd")))
    assert share_interval(pairs > 1, list("aabbccdd")) == share_interval(four > 1, list("abcd"))


def test_what_does_not_count_is_left_out():
    values = np.array([1.0, np.nan, 3.0, np.nan])
    assert mean_interval(values, list("abcd")) == mean_interval(values[::2], list("ac"))
    assert mean_interval(values, list("aabb")) == mean_interval(values[::2], list("ab"))
    assert mean_interval(values[1::2], list("bd")) is None


def test_one_video_has_a_value_and_no_interval():
    assert mean_interval(np.array([0.25, 0.75]), ["a", "a"]) == (0.5, None, None)


def test_wilsons_interval_by_hand():
    """32 of 32: the upper end is 1, the lower 1 / (1 + z^2 / 32) with z^2 = 3.8415. 0 of n is its mirror image."""
    assert share_interval(np.ones(32, bool), alone(range(32))) == pytest.approx((1, 1 / (1 + 3.841459 / 32), 1))
    assert share_interval(np.zeros(32, bool), alone(range(32))) == pytest.approx((0, 0, 1 - 1 / (1 + 3.841459 / 32)))
    # 1 of 2: 1/2 -+ z sqrt(1/8 + z^2/16) / (1 + z^2/2)
    half = (3.841459 * (1 / 8 + 3.841459 / 16)) ** 0.5 / (1 + 3.841459 / 2)
    assert share_interval(np.array([True, False]), ["a", "b"]) == pytest.approx((0.5, 0.5 - half, 0.5 + half))


# ---- As often as they say --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("draw", "truth", "least"),
    [
        (lambda rng, n: rng.standard_normal(n), 0, 0.94),  # as of paired differences where rows do not differ
        (lambda rng, n: rng.beta(2, 3, n), 0.4, 0.935),
        (lambda rng, n: rng.beta(2, 3, n) * (rng.random(n) < 0.8), 0.32, 0.93),  # IoU with one subject in five lost
    ],
    ids=["normal", "IoU", "IoU, lost as 0"],
)
@pytest.mark.parametrize("tracks", [32, 16])
def test_the_interval_of_a_mean_holds_its_95_percent(draw, truth, least, tracks):
    """4,000 seeded draws: a rate of 0.95 is seen within 0.007 with 95 %."""
    rng, held = np.random.default_rng(tracks), 0
    names = alone(range(tracks))
    for _ in range(4000):
        _, low, high = mean_interval(draw(rng, tracks), names)
        held += low <= truth <= high
    assert least < held / 4000 < 0.96


def test_two_subjects_that_share_a_video_hold_it_too():
    """Half of the variance is the video's. Tracks as if they were independent would hold 0.89."""
    rng, names, held = np.random.default_rng(0), [name for name in alone(range(16)) for _ in range(2)], 0
    for _ in range(4000):
        values = np.repeat(rng.standard_normal(16), 2) + rng.standard_normal(32)
        _, low, high = mean_interval(values, names)
        held += low <= 0 <= high
    assert 0.94 < held / 4000 < 0.96


@pytest.mark.parametrize(("p", "holds"), [(0.9, 0.96), (0.95, 0.98), (0.97, 0.93), (0.99, 0.96)])
def test_wilsons_interval_holds_near_1(p, holds):
    """Exactly, by the binomial chances of every count at 32 tracks; a percentile bootstrap has 0.84 to 0.27 there."""
    chance = 0.0
    for covered in range(33):
        _, low, high = share_interval(np.arange(32) < covered, alone(range(32)))
        chance += comb(32, covered) * p**covered * (1 - p) ** (32 - covered) * (low <= p <= high)
    assert chance == pytest.approx(holds, abs=0.006)


# ---- Distances -------------------------------------------------------------------------------------------------------


def videos(rng, count, frames, D, scale=1.0):
    """Features of some videos, (frames, D) each, whose frames are like each other; later dimensions vary less."""
    width = scale * torch.linspace(1, 0.1, D, dtype=torch.float64)
    means, frames = rng.standard_normal((count, 1, D)), rng.standard_normal((count, frames, D))
    return list(torch.from_numpy(0.8 * means + 0.6 * frames) * width)


def test_of_a_mean_the_jackknife_gives_the_usual_standard_error():
    """Of the difference of two means it is sqrt(s_1^2 / n + s_2^2 / m) for single videos, by hand; and it is the same
    whether videos are left out alone or in groups that need not be equal, up to what groups leave to chance."""
    rng = np.random.default_rng(0)
    ours, theirs = (torch.from_numpy(rng.standard_normal((n, 1))) for n in (12, 18))
    value, low, high = distance_interval(lambda x, y: float(x.mean() - y.mean()), ours.split(1), theirs.split(1))
    error = float((ours.var() / 12 + theirs.var() / 18) ** 0.5)
    assert (value, low, high) == pytest.approx((value, value - 1.959964 * error, value + 1.959964 * error))
    many = torch.from_numpy(rng.standard_normal((4010, 1)))
    _, low, high = distance_interval(lambda x, y: float(x.mean() - y.mean()), many.split(1), many.split(1))
    assert (high - low) / 2 == pytest.approx(1.96 * float((2 * many.var() / 4010) ** 0.5), rel=0.25)  # of 20 groups


@pytest.mark.parametrize(
    ("statistic", "frames", "D"), [(fid, 4, 8), (fid, 4, 64), (jedi, 1, 8)], ids=["FID", "FID, n near D", "JEDi"]
)
def test_the_standard_error_is_that_of_sets_drawn_anew(statistic, frames, D):
    """Of 24 and 32 videos: the mean error of 30 pairs of sets against the spread of 200. It is rather too large."""
    rng = np.random.default_rng(0)
    pairs = [(videos(rng, 24, frames, D, 1.2), videos(rng, 32, frames, D)) for _ in range(200)]
    spread = np.std([statistic(torch.cat(ours), torch.cat(theirs)) for ours, theirs in pairs])
    ends = [distance_interval(statistic, *pair)[1:] for pair in pairs[:30]]
    error = np.mean([(high - low) / 2 / 1.959964 for low, high in ends])
    assert 0.9 * spread < error < 1.5 * spread


def test_fewer_than_three_videos_have_no_interval():
    rng = np.random.default_rng(0)
    _, low, high = distance_interval(fid, videos(rng, 2, 4, 3), videos(rng, 9, 4, 3))
    assert (low, high) == (None, None)


# ---- Rows ------------------------------------------------------------------------------------------------------------


def track(id, iou, covered=True, tau=0.5):
    """A track's figures, as `judge_item` gives them."""
    names = ("frame_iou", "frame_iou_misses", "centroid_distance", "ap50", "ap50_misses", "clip_sim", "latent_std")
    return {"id": id, "subject": "ball", "iou": iou, "covered": covered, "tau": tau, **dict.fromkeys(names, 0.25)}


def tracks_of(figures):
    return [track(f"item-{n}", iou, covered, tau) for n, (iou, covered, tau) in enumerate(figures)]


def rows(**tracks):
    return {label: {"tracks": {"static": own}} for label, own in tracks.items()}


def test_a_difference_is_of_the_same_track():
    """mIoU: +0.1 on each of four tracks that lie far apart, so both ends are 0.1. tau: +0.25, +0.75, and two tracks
    that have none in one of the rows."""
    one = tracks_of([(0.0, True, 0), (0.25, True, 0), (0.5, True, None), (0.75, True, 0.5)])
    two = tracks_of([(0.1, True, 0.25), (0.35, True, 0.75), (0.6, True, 1), (0.85, True, None)])
    added = differences(rows(plain=one, mask=two))
    assert list(added) == ["mask minus plain"]
    assert added["mask minus plain"]["static"]["miou_all"] == pytest.approx((0.1, 0.1, 0.1))
    assert added["mask minus plain"]["static"]["tau"] == pytest.approx((0.5, 0.5 - T_1 / 4, 0.5 + T_1 / 4))
    _, low, high = summarize(two)["miou_all"]
    assert high - low > 0.3  # what the two rows' own intervals would have hidden


def test_a_track_that_is_not_covered_counts_as_0():
    """+0.25 - 0.75 = two differences whose mean is -0.25 and whose standard error is 0.5."""
    one, two = [track("a", 0.75), track("b", 0.5)], [track("a", 0.75, covered=False), track("b", 0.75)]
    difference = differences(rows(mask=one, full=two))["full minus mask"]["static"]["miou_all"]
    assert difference == pytest.approx((-0.25, -0.25 - T_1 / 2, -0.25 + T_1 / 2))


def test_every_row_but_the_first_is_compared_with_the_one_above_it():
    one, two = [track("a", 0.5)], [track("a", 0.75)]
    added = differences(rows(plain=one, full=two, mask=one))
    means = {label: splits["static"]["miou_all"][0] for label, splits in added.items()}
    assert means == {"full minus plain": 0.25, "mask minus full": -0.25}
    assert differences(rows(plain=one)) == {}


def test_what_no_track_has_in_both_rows_is_none():
    added = differences(rows(plain=[track("a", 0.5, tau=None)], mask=[track("a", 0.5)]))
    assert added["mask minus plain"]["static"] == {"miou_all": (0, None, None), "tau": None}
