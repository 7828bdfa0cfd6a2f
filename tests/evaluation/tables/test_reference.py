"""The videos that a row is compared with: all of them, each as it is, and measured once."""

import shutil

import numpy as np
import pytest
import torch

from evaluation.extractors.stand_ins import see
from evaluation.figures.video import write_lossless, write_mp4
from evaluation.tables.making import Suite
from evaluation.tables.reference import Reference, draw, read_features, rebuild

RANDOM = np.random.default_rng(0).integers(0, 256, (3, 5, 32, 48, 3), dtype=np.uint8)  # three videos


@pytest.fixture
def folder(tmp_path):
    """Two videos of one stem, one in capitals, and what is none."""
    folder = tmp_path / "kingdom"
    folder.mkdir()
    for name, frames in zip(("cat.mkv", "cat.old.mkv", "Z.MKV"), RANDOM, strict=True):
        write_lossless(folder / name, frames)
    write_mp4(folder / "cat.mp4", RANDOM[0], fps=8)
    for name in ("cat.txt", "zebra.json", ".hidden.mkv"):
        (folder / name).write_text("no video")
    return folder


def measure(reference, store, suite):
    """Features of all its videos, each measured unless it was before."""
    reference.note(store)
    for name in reference.names:
        reference.measure(store, suite, name)
    return read_features(store, suite.describe(), reference.what)[1]


def shapes(features):
    return {role: [tuple(one.shape) for one in own] for role, own in features.items()}


def test_every_video_of_a_folder_and_below_is_taken(folder):
    (folder / "b" / "c").mkdir(parents=True)
    write_lossless(folder / "b" / "c" / "cat.mkv", RANDOM[2])
    (folder / ".cache").mkdir()
    write_lossless(folder / ".cache" / "cat.mkv", RANDOM[2])
    reference = Reference.of(str(folder), frames=4)
    assert list(reference.names) == ["Z.MKV", "b/c/cat.mkv", "cat.mkv", "cat.mp4", "cat.old.mkv"]
    assert reference.description == "5 videos of kingdom, the first 4 frames of each"
    assert np.array_equal(reference.clip("b/c/cat.mkv"), RANDOM[2][:4])


def test_a_clip_has_as_many_frames_as_the_rows_videos(folder):
    assert np.array_equal(Reference.of(str(folder), 2).clip("cat.old.mkv"), RANDOM[1][:2])
    strided = Reference.of(str(folder), 3, stride=2)
    assert np.array_equal(strided.clip("cat.old.mkv"), RANDOM[1][[0, 2, 4]])  # 5 frames are just enough
    assert strided.description == "4 videos of kingdom, 3 frames, every 2-th, of each"
    with pytest.raises(
        ValueError, match="--reference-stride has no effect on world:2, whose scenes are drawn to length"
    ):
        Reference.of("world:2", 4, 2)


@pytest.mark.parametrize(("frames", "stride", "words"), [(6, 1, ""), (4, 2, " with --reference-stride 2")])
def test_a_video_that_is_too_short_is_named_and_gives_no_fewer_frames(folder, frames, stride, words):
    given = 5 if stride == 1 else 3
    with pytest.raises(
        ValueError, match=rf"cat\.old\.mkv gives {given} frames{words}, and the rows' videos have {frames}"
    ):
        Reference.of(str(folder), frames, stride).clip("cat.old.mkv")


def test_features_are_read_without_the_videos(folder, store, suite):
    """On another machine, which has the folder of the evaluation alone."""
    reference = Reference.of(str(folder), frames=4)
    features = measure(reference, store, suite)
    shutil.rmtree(folder)
    description, again = read_features(store, suite.describe(), str(folder))
    assert description == reference.description
    assert torch.equal(torch.cat(again["frames"]), torch.cat(features["frames"]))
    with pytest.raises(ValueError, match=r"--reference world:9 is not measured yet; measured are .*kingdom; run "):
        read_features(store, suite.describe(), "world:9")
    with pytest.raises(ValueError, match=r"is measured by no extractor of this --suite"):
        read_features(store, Suite(suite.boxes).describe(), str(folder))


def test_a_reference_that_changes_is_measured_anew(folder, store, suite):
    measure(Reference.of(str(folder), frames=4), store, suite)
    write_lossless(folder / "cat.mkv", RANDOM[2])
    features = measure(Reference.of(str(folder), frames=4), store, suite)
    assert torch.equal(features["videos"][0], features["videos"][1])  # of Z.MKV, which is the same
    assert suite.videos.calls == 5


def test_features_are_of_all_videos_in_order(folder, store, suite):
    reference = Reference.of(str(folder), frames=4)
    features = measure(reference, store, suite)
    assert shapes(features) == {"frames": [(4, 3)] * 4, "videos": [(1, 3)] * 4}
    means = torch.from_numpy(RANDOM[[2, 0], :4].mean((1, 2, 3))).float()
    assert torch.equal(torch.cat(features["videos"][:2]), means)
    again = measure(reference, store, suite)
    assert suite.frames.calls == suite.videos.calls == 4  # each video once
    assert all(torch.equal(torch.cat(again[role]), torch.cat(features[role])) for role in features)


def test_features_are_not_measured_where_they_are_only_read(store, suite):
    Reference.of("world:2", 4).note(store)
    with pytest.raises(ValueError, match=r"the reference's world-0000 is not measured yet .*; run .*extract. first"):
        read_features(store, suite.describe(), "world:2")
    assert suite.frames.calls == suite.videos.calls == 0


def test_only_roles_of_features_are_measured(store, suite):
    features = measure(Reference.of("world:2", 4), store, Suite(suite.boxes, suite.text, videos=suite.videos))
    assert shapes(features) == {"videos": [(1, 3)] * 2}
    assert suite.boxes.calls == suite.text.calls == 0


def test_scenes_of_the_world_have_the_rows_length_and_differ():
    reference = Reference.of("world:3", frames=5)
    assert reference.description == "3 scenes of the tiny world, as drawn"
    videos = [reference.clip(name) for name in reference.names]
    assert {video.shape for video in videos} == {(5, 96, 128, 3)}
    assert len({video.tobytes() for video in videos}) == 3
    assert np.array_equal(reference.clip(reference.names[1]), videos[1])
    assert len({Reference.of("world:2", 5).clip(name).tobytes() for name in reference.names[:2]}) == 2
    assert any(sum(d.blobs for d in see(videos[0], color)) for color in ("red", "blue"))  # there is a subject


def test_more_scenes_than_four_digits_hold_are_still_different():
    names = Reference.of("world:10002", frames=1).names
    assert len(set(names)) == 10002
    assert not np.array_equal(draw(names[10001], 1), draw(names[1], 1))


def test_further_scenes_are_others(pipeline):
    """As drawn, or rebuilt: the small autoencoder keeps tanh of the means of 8 x 8 pixels."""
    further, rebuilt = Reference.further(3, 2, 4), Reference.further(3, 2, 4, pipeline)
    assert list(further.names) == list(rebuilt.names) == ["world-0003", "world-0004"]
    assert further.what != rebuilt.what != Reference.further(4, 2, 4, pipeline).what
    video, again = (reference.clip("world-0004") for reference in (further, rebuilt))
    assert np.array_equal(video, draw("world-0004", 4))
    assert np.array_equal(again, rebuild(pipeline, video)) and again.shape == video.shape
    means = video[:, :8, :8].mean((1, 2)) / 127.5 - 1
    assert np.abs(again[:, 0, 0] - 127.5 * (np.tanh(means) + 1)).max() < 0.51  # rounded to whole levels


@pytest.mark.parametrize("what", ["nowhere", "world:0", "world:x", "world:", "world:-1"])
def test_what_is_no_reference_is_one_sentence(what):
    with pytest.raises(ValueError, match=f"--reference {what} is neither a folder with videos .* nor world:N"):
        Reference.of(what, 4)


def test_a_folder_without_videos_is_one_sentence(tmp_path):
    (tmp_path / "a.txt").write_text("no video")
    with pytest.raises(ValueError, match="neither a folder with videos"):
        Reference.of(str(tmp_path), 4)


def test_a_broken_video_is_named(folder, store, suite):
    (folder / "cat.mp4").write_bytes(b"no video at all")
    with pytest.raises(ValueError, match=r"kingdom/cat\.mp4 is not a video that can be read"):
        measure(Reference.of(str(folder), 4), store, suite)
