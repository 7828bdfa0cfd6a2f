"""Numbers of a row against those worked out by hand, from painted videos and from hand-written measurements."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from evaluation.benchmarks.items import Item, make_item
from evaluation.extractors.stand_ins import ColourDetector
from evaluation.metrics.distribution import mmd_unbiased
from evaluation.metrics.intervals import mean_interval, share_interval
from evaluation.tables.making import Suite, make_video, measure_video
from evaluation.tables.results import (
    Rules,
    best_boxes_over,
    differences,
    distances,
    judge_item,
    own_jedi,
    reduce_row,
    shares,
    summarize,
)

LEFT, SHIFTED = [0.0, 0.0, 0.5, 0.5], [0.25, 0.0, 0.75, 0.5]  # IoU 1/3, centres 1/4 of the width apart
TWO = Item("two", "static", "hand", 0, "a red ball and a dog", ("red ball", "dog"), ((LEFT, LEFT), (LEFT, LEFT)))
MADE = {"failure": None, "tau": 0.5, "latent_std": 1.25}


def boxes(*found, score=1.0):
    """What a detector found: for each frame a box, or None."""
    return [[] if box is None else [[*box, score]] for box in found]


# ---- A video whose truth is known ------------------------------------------------------------------------------------


def moving_square(frames=24):
    """An item whose boxes lie on the pixels of 64 x 128 frames, and the video that follows them."""
    pixels = [(4 * f, 16, 4 * f + 32, 48) for f in range(frames)]
    track = tuple((x1 / 128, y1 / 64, x2 / 128, y2 / 64) for x1, y1, x2, y2 in pixels)
    video = np.full((frames, 64, 128, 3), (77, 140, 56), np.uint8)  # grass
    for frame, (x1, y1, x2, y2) in zip(video, pixels, strict=True):
        frame[y1:y2, x1:x2] = (219, 31, 31)  # red
    return Item("square", "moving", "hand", 0, "a red box over the grass", ("red box",), (track,)), video


@pytest.mark.parametrize(
    ("erased", "covered", "iou"),
    [(0, 1, 1), (11, 1, 13 / 24), (12, 0, 12 / 24), (13, 0, 11 / 24)],  # equal areas: the share of frames
)
def test_a_painted_box_is_found_where_it_is(store, row, erased, covered, iou):
    item, video = moving_square()
    video[24 - erased :] = (77, 140, 56)
    row = replace(row, frames=24, height=64, width=128)
    store.write_record(item, row, video, MADE)
    suite = Suite(ColourDetector())
    measure_video(store, suite, item, row)
    result = reduce_row(store, suite.describe(), [item], row, Rules())
    (track,), summary = result["tracks"]["moving"], result["splits"]["moving"]
    assert (track["detections"], track["covered"]) == (24 - erased, bool(covered))
    assert track["iou"] == pytest.approx(iou, rel=1e-12)
    assert track["centroid_distance"] == 0
    assert summary["coverage"][0] == covered
    one = (pytest.approx(iou, rel=1e-12), None, None)  # a single video has no interval
    assert summary["miou_covered"] == (one if covered else None)
    assert summary["miou_all"] == (one if covered else (0, None, None))


# ---- One video -------------------------------------------------------------------------------------------------------


def test_each_subject_of_a_video_has_its_own_figures(row):
    """First subject: found in frame 1 alone, IoU 1/3 there. Intersection 1/8, union 3/8 + 1/4: volume IoU 1/5.

    Second: found where it should be in both frames. Centres of the first: 0.25 * 48 pixels of hypot(32, 48).
    """
    found = {"boxes": [boxes(SHIFTED, None), boxes(LEFT, LEFT)], "text": [100.0, -100.0]}
    first, second = judge_item(TWO, row, found, MADE, Rules())
    assert (first["id"], first["subject"], second["subject"]) == ("two", "red ball", "dog")
    assert first["iou"] == pytest.approx(0.2)
    assert first["frame_iou"] == pytest.approx(1 / 3)
    assert first["frame_iou_misses"] == pytest.approx(1 / 6)
    assert first["centroid_distance"] == pytest.approx(12 / math.hypot(32, 48))
    assert (first["detections"], first["covered"], first["ap50"], first["ap50_misses"]) == (1, False, 0, 0)
    assert (second["iou"], second["covered"], second["ap50"]) == (1, True, 1)
    assert [(f["clip_sim"], f["tau"], f["latent_std"]) for f in (first, second)] == [(50, 0.5, 1.25)] * 2


def test_rules_decide(row):
    """Scores 0.9 and 0.2; the mean over the frame in which it is found is 1/3, over none 0; 1 of 2 is more than 0."""
    found = {"boxes": [[[[*SHIFTED, 0.9]], [[*LEFT, 0.2]]], boxes(None, None)], "text": [100.0, -100.0]}

    def judged(**rules):
        return judge_item(TWO, row, found, MADE, Rules(**rules))

    assert [f["detections"] for f in judged()] == [2, 0]
    assert judged()[0]["iou"] == pytest.approx((1 / 8 + 1 / 4) / (3 / 8 + 1 / 4))
    assert [f["detections"] for f in judged(threshold=0.5)] == [1, 0]
    assert judged(threshold=0.2)[0]["detections"] == 2  # at least
    assert [f["iou"] for f in judged(threshold=0.5, iou="frame")] == [pytest.approx(1 / 3), 0]
    assert [f["covered"] for f in judged(threshold=0.5)] == [False, False]
    assert [f["covered"] for f in judged(threshold=0.5, coverage="count:0")] == [True, False]
    assert judged(clamp_clip=False)[0]["clip_sim"] == 0


def test_a_video_is_called_what_its_prompt_says_or_not(row):
    item = moving_square(2)[0]  # a red box over the grass
    called = {"color": "red", "shape": "box", "background": "grass", "motion": "still"}

    def named(item, **words):
        nowhere = [boxes(None, None)] * len(item.subjects)
        return [f["named"] for f in judge_item(item, row, {"boxes": nowhere, "names": called | words}, MADE, Rules())]

    assert named(item) == named(item, motion="zigzag") == [True]
    assert named(item, color="pink") == named(item, shape="ball") == named(item, background="sand") == [False]
    assert named(TWO) == [None, None]


def test_no_video_is_no_subject(row):
    for figures in judge_item(TWO, row, {}, {}, Rules()):
        assert figures["named"] is None
        assert (figures["iou"], figures["covered"], figures["detections"]) == (0, False, 0)
        assert (figures["clip_sim"], figures["tau"], figures["latent_std"]) == (None, None, None)


def test_the_best_box_over_the_threshold_counts():
    found = [[[*LEFT, 0.9], [*SHIFTED, 0.8]], [[*SHIFTED, 0.1]], []]
    nothing = [np.nan] * 4
    assert np.array_equal(best_boxes_over(found, 0.1), [LEFT, SHIFTED, nothing], equal_nan=True)
    assert np.array_equal(best_boxes_over(found, 0.95), [nothing] * 3, equal_nan=True)
    assert best_boxes_over([], 0.1).shape == (0, 4)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"coverage": "most"}, "a coverage rule is 'half' or 'count:N'"),
        ({"iou": "mean"}, "an IoU is of the 'volume' of a video or a mean over 'frame's, not 'mean'"),
        ({"threshold": 1.5}, "the threshold of a detection's score is from 0 to 1, not 1.5"),
        ({"threshold": math.nan}, "from 0 to 1, not nan"),
        ({"kid_subset": 1}, "KID needs subsets of at least 2 features, not 1"),
    ],
)
def test_rules_that_are_none_are_refused(rules, message):
    with pytest.raises(ValueError, match=message):
        Rules(**rules)


# ---- Many videos -----------------------------------------------------------------------------------------------------


def track(iou, covered, id="a", **figures):
    names = ("frame_iou", "frame_iou_misses", "centroid_distance", "ap50", "ap50_misses", "clip_sim", "tau")
    others = dict.fromkeys((*names, "latent_std"), 0.5) | figures
    return {"id": id, "subject": "b", "iou": iou, "covered": covered, "detections": 1, **others}


def test_a_summary_is_over_those_it_speaks_of():
    """A covered 0.6, B covered 0.2, C not covered 0.9: CoV 2/3, mIoU 0.4; with C as 0 it is 0.8/3."""
    last = track(0.9, False, id="C", tau=None, clip_sim=2.0)
    tracks = [track(0.6, True, id="A", tau=0.25), track(0.2, True, id="B", tau=0.75), last]
    summary = summarize(tracks)
    assert (summary["tracks"], summary["covered"]) == (3, 2)
    values = {name: interval[0] for name, interval in summary.items() if isinstance(interval, tuple)}
    assert values["coverage"] == pytest.approx(2 / 3)
    assert values["miou_covered"] == pytest.approx(0.4)
    assert values["miou_all"] == pytest.approx(0.8 / 3)
    assert values["tau"] == 0.5  # of the two that have one
    assert values["clip_sim"] == 1.0
    assert summary["miou_covered"] == mean_interval(np.array([0.6, 0.2]), ["A", "B"])
    assert summary["miou_all"] == mean_interval(np.array([0.6, 0.2, 0]), ["A", "B", "C"])
    assert summary["coverage"] == share_interval(np.array([True, True, False]), ["A", "B", "C"])


def test_what_no_track_has_is_none():
    summary = summarize([track(0.9, False, tau=None, clip_sim=None)] * 2)
    assert (summary["miou_covered"], summary["tau"], summary["clip_sim"]) == (None, None, None)
    assert summary["coverage"][0] == 0
    assert summary["miou_all"] == (0, None, None)


# ---- Distances -------------------------------------------------------------------------------------------------------


def test_distances_are_those_of_all_frames_and_videos():
    """Frames {0, 1} and {1, 2}: means 1 apart, equal variances, FID 1; KID 1 + 27 - 2 (1 + 1 + 8 + 27) / 4 = 9.5.

    Videos {(1, 0), (0, 1)} and {(1, 1), (0, 0)}: JEDi's kernel gives 12.5.
    """
    one, two, three = torch.tensor([[0.0]]), torch.tensor([[1.0]]), torch.tensor([[2.0]])
    ours = {"frames": [one, two], "videos": [torch.tensor([[1.0, 0]]), torch.tensor([[0.0, 1]])]}
    theirs = {"frames": [two, three], "videos": [torch.tensor([[1.0, 1]]), torch.tensor([[0.0, 0]])]}
    result = distances(ours, theirs, Rules())
    assert result["fid"] == (pytest.approx(1), None, None)
    assert result["kid"] == {"mean": pytest.approx(9.5), "std": None, "subsets": 1, "subset_size": 2}
    assert result["video_distance"] == (pytest.approx(12.5), None, None)
    assert result["frames"] == {"ours": 2, "reference": 2, "dimensions": 1}
    assert result["videos"] == {"ours": 2, "reference": 2, "dimensions": 2}
    many = {"frames": [one, two, three]}
    result = distances(many, many, Rules(kid_subset=2))
    assert result["kid"]["subset_size"] == 2
    assert result["kid"]["std"] > 0
    value, low, high = result["fid"]
    assert low < value < high
    assert distances(ours, {}, Rules()) == {}
    assert distances({}, theirs, Rules()) == {}


def test_a_splits_distance_by_hand():
    """Of 0, 1, 1 from 0, 0: the shares -7, 7, 7 (tests/evaluation/metrics/test_distribution.py), 7/3 in the mean, with
    a standard error of 14/3, which is also the jackknife's; t of 2 degrees of freedom is 4.302653. All times 1000."""
    videos = {name: torch.tensor([[value]]) for name, value in (("a", 0.0), ("b", 1.0), ("c", 1.0))}
    found = shares(videos, [torch.zeros(1, 1)] * 2)
    assert found == pytest.approx({"a": -7000, "b": 7000, "c": 7000})
    tracks = [track(0.5, True, id=name, distance=share) for name, share in found.items()]
    ends = (7000 / 3, 7000 / 3 - 4.302653 * 14000 / 3, 7000 / 3 + 4.302653 * 14000 / 3)
    assert summarize(tracks)["distance"] == pytest.approx(ends)
    assert shares({"a": videos["a"], "b": videos["b"]}, [torch.zeros(1, 1)] * 2) == {}


def test_rows_are_compared_over_the_same_videos():
    """What one row adds to another's distance is the difference of both, with the interval of shares' differences."""
    generator = torch.Generator().manual_seed(0)
    features = [{n: torch.randn(1, 4, generator=generator) for n in "abcde"} for _ in range(2)]
    real = list(torch.randn(9, 1, 4, generator=generator))
    rows = {}
    for label, videos in zip(("plain", "mask"), features, strict=True):
        tracks = [track(0.5, True, id=name, distance=share) for name, share in shares(videos, real).items()]
        rows[label] = {"tracks": {"static": tracks}}
    value, low, high = differences(rows)["mask minus plain"]["static"]["distance"]
    R = torch.cat(real)
    one, two = (
        1000 * mmd_unbiased((torch.cat(list(videos.values())) - R.mean(0)) / R.std(0), (R - R.mean(0)) / R.std(0))
        for videos in features
    )
    assert value == pytest.approx(two - one)
    assert low < value < high


def test_few_frames_are_warned_of():
    features = torch.rand(3, 5, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match="FID from 3 features of 5 dimensions is biased"):
        distances({"frames": [features]}, {"frames": [features]}, Rules())


def test_jedi_is_of_the_users_own_features(tmp_path):
    """X = {(2, 0)}, Y = {(0, 2)}: 800. The reference is all that lies in its folder."""
    (tmp_path / "reference").mkdir()
    for name, feature in (("a-01", [2.0, 0]), ("other", [9.0, 9]), ("reference/x", [0.0, 2])):
        np.save(tmp_path / f"{name}.npy", np.array(feature))
    counts = {"ours": 1, "reference": 1, "dimensions": 2}
    assert own_jedi(tmp_path, ["a-01"]) == {"jedi": (pytest.approx(800), None, None), "jedi_videos": counts}
    assert own_jedi(None, ["a-01"]) == {}
    with pytest.raises(ValueError, match="has no features for 1 of 2 videos, the first is b"):
        own_jedi(tmp_path, ["a-01", "b"])


# ---- A row -----------------------------------------------------------------------------------------------------------


def test_a_row_tells_its_rules_and_extractors(store, pipeline, item, row, suite):
    make_video(store, pipeline, item, row)
    measure_video(store, suite, item, row)
    rules = Rules(threshold=0.3, coverage="count:2", iou="frame", clamp_clip=False, kid_subset=2)
    frames = store.read_frames(item, row).mean((1, 2))
    reference = {"frames": [torch.from_numpy(frames).float()], "videos": [torch.zeros(1, 3)] * 2}
    result = reduce_row(store, suite.describe(), [item], row, rules, reference)
    assert result["rules"] == {
        "threshold": 0.3, "coverage": "count:2", "iou": "frame", "clamp_clip": False, "kid_subset": 2
    }  # fmt: skip
    assert result["extractors"] == suite.describe()
    assert (result["missing"], result["failed"]) == ([], [])
    assert result["splits"]["moving"]["clip_sim"] == (20, None, None)  # -10, 20, 30, 40, not clamped
    assert result["distances"]["fid"][0] == pytest.approx(0, abs=1e-6)  # the row's own frames
    assert result["distances"]["videos"] == {"ours": 1, "reference": 2, "dimensions": 3}
    assert result["row"]["model"] == "0123456789abcdef"
    assert type(row).from_dict(json.loads(json.dumps(result, allow_nan=False))["row"]) == row


@pytest.mark.parametrize("allow_missing", [False, True])
def test_what_is_not_measured_yet_is_one_sentence(store, pipeline, item, row, suite, allow_missing):
    make_video(store, pipeline, item, row)
    with pytest.raises(ValueError, match=rf"the video of {item.id} is not measured yet .*; run .*extract. first"):
        reduce_row(store, suite.describe(), [item], row, Rules(), allow_missing=allow_missing)
    assert suite.boxes.calls == 0


def test_two_subjects_of_a_video_are_two_tracks(store, pipeline, row, suite):
    pair = make_item("pairs", "tiny", "moving", 0, frames=4)
    make_video(store, pipeline, pair, row)
    measure_video(store, suite, pair, row)
    result = reduce_row(store, suite.describe(), [pair], row, Rules())
    assert [(track["id"], track["subject"]) for track in result["tracks"]["moving"]] == [
        (pair.id, subject) for subject in pair.subjects
    ]
    ious = [track["iou"] for track in result["tracks"]["moving"]]
    assert ious[0] != ious[1]  # one and the same box was found for both
    assert result["splits"]["moving"]["tracks"] == 2


def test_a_missing_video_is_an_error_or_listed(store, pipeline, item, row, suite):
    lost = replace(item, id="lost", split="static")
    make_video(store, pipeline, item, row)
    measure_video(store, suite, item, row)
    with pytest.raises(ValueError, match=r"the video of lost is not there or not whole; .* --allow-missing"):
        reduce_row(store, suite.describe(), [item, lost], row, Rules())
    result = reduce_row(store, suite.describe(), [item, lost], row, Rules(), allow_missing=True)
    assert (result["missing"], result["failed"]) == (["lost"], [])
    assert result["splits"]["static"]["coverage"][0] == 0  # counted, not dropped
    assert result["splits"]["moving"]["coverage"][0] == 1


def test_the_users_features_are_asked_for_of_videos_that_are_there(store, pipeline, item, row, suite, tmp_path):
    """X = {(1, 0)}, Y = {(-1, 0)}: 0, for the kernel does not see the sign. The lost video needs no features."""
    lost, folder = replace(item, id="lost"), tmp_path / "jepa"
    make_video(store, pipeline, item, row)
    measure_video(store, suite, item, row)
    (folder / "reference").mkdir(parents=True)
    np.save(folder / "reference" / "x.npy", np.array([-1.0, 0]))
    np.save(folder / f"{store.record_path(item, row).stem}.npy", np.array([1.0, 0]))
    told = reduce_row(store, suite.describe(), [item, lost], row, Rules(), None, folder, allow_missing=True)
    assert told["distances"] == {"jedi": (0, None, None), "jedi_videos": {"ours": 1, "reference": 1, "dimensions": 2}}
    make_video(store, pipeline, lost, row)
    measure_video(store, suite, lost, row)
    with pytest.raises(ValueError, match="has no features for 1 of 2 videos, the first is lost-"):
        reduce_row(store, suite.describe(), [item, lost], row, Rules(), None, folder)


def test_features_of_a_video_that_was_made_anew_are_not_taken_for_it(store, pipeline, item, row, suite, tmp_path):
    """Under the same id, with another seed: found by id alone, the old features would be stale."""
    (tmp_path / "reference").mkdir()
    for name in ("reference/x", store.record_path(item, row).stem):
        np.save(tmp_path / f"{name}.npy", np.array([1.0, 0]))
    again = replace(item, seed=item.seed + 1)
    make_video(store, pipeline, again, row)
    measure_video(store, suite, again, row)
    with pytest.raises(ValueError, match=f"has no features for 1 of 1 videos, the first is {item.id}-"):
        reduce_row(store, suite.describe(), [again], row, Rules(), jedi_features=tmp_path)


def test_a_broken_video_is_as_good_as_none(store, pipeline, item, row, suite):
    make_video(store, pipeline, item, row)
    measure_video(store, suite, item, row)
    video = store.record_path(item, row).with_suffix(".mkv")
    video.write_bytes(video.read_bytes()[:-1])
    with pytest.raises(ValueError, match="not there or not whole"):
        reduce_row(store, suite.describe(), [item], row, Rules())
    assert reduce_row(store, suite.describe(), [item], row, Rules(), allow_missing=True)["missing"] == [item.id]


def test_latents_that_were_not_finite_count_as_not_covered(store, pipeline, item, row, suite):
    pipeline.unet.scale.fill_(math.nan)
    make_video(store, pipeline, item, row)
    measure_video(store, suite, item, row)
    result = reduce_row(
        store, suite.describe(), [item], row, Rules(), {"frames": [torch.zeros(2, 3)], "videos": [torch.zeros(1, 3)]}
    )
    assert (result["missing"], result["failed"]) == ([], [item.id])
    assert result["splits"]["moving"]["miou_all"] == (0, None, None)
    assert result["distances"] == {}  # no frame is left to compare
