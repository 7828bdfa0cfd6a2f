"""The videos that a row is compared with: all of them, each as it is, and measured once."""

import numpy as np
import pytest
import torch

from evaluation.extractors.stand_ins import see
from evaluation.figures.video import write_lossless, write_mp4
from evaluation.tables.making import Suite
from evaluation.tables.reference import Reference, draw

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
    for name in reference.names:
        reference.measure(store, suite, name)
    return reference.features(store, suite)


def shapes(features):
    return {role: [tuple(one.shape) for one in own] for role, own in features.items()}


def test_every_video_of_a_folder_is_taken(folder):
    reference = Reference.of(str(folder), frames=4)
    assert list(reference.names) == ["Z.MKV", "cat.mkv", "cat.mp4", "cat.old.mkv"]
    assert reference.description == "4 videos of kingdom"
    assert np.array_equal(reference.frames("cat.old.mkv"), RANDOM[1])  # all of its frames, however many rows have


def test_features_are_of_all_videos_in_order(folder, store, suite):
    reference = Reference.of(str(folder), frames=4)
    features = measure(reference, store, suite)
    assert shapes(features) == {"frames": [(5, 3)] * 4, "videos": [(1, 3)] * 4}
    means = torch.from_numpy(RANDOM[[2, 0]].mean((1, 2, 3))).float()
    assert torch.equal(torch.cat(features["videos"][:2]), means)
    again = measure(reference, store, suite)
    assert suite.frames.calls == suite.videos.calls == 4  # each video once
    assert all(torch.equal(torch.cat(again[role]), torch.cat(features[role])) for role in features)


def test_features_are_not_measured_where_they_are_only_read(store, suite):
    with pytest.raises(ValueError, match=r"the reference's world-0000 is not measured yet .*; run .*extract. first"):
        Reference.of("world:2", 4).features(store, suite)
    assert suite.frames.calls == suite.videos.calls == 0


def test_only_roles_of_features_are_measured(store, suite):
    features = measure(Reference.of("world:2", 4), store, Suite(suite.boxes, suite.text, videos=suite.videos))
    assert shapes(features) == {"videos": [(1, 3)] * 2}
    assert suite.boxes.calls == suite.text.calls == 0


def test_scenes_of_the_world_have_the_rows_length_and_differ():
    reference = Reference.of("world:3", frames=5)
    assert reference.description == "3 scenes of the tiny world, as drawn"
    videos = [reference.frames(name) for name in reference.names]
    assert {video.shape for video in videos} == {(5, 96, 128, 3)}
    assert len({video.tobytes() for video in videos}) == 3
    assert np.array_equal(reference.frames(reference.names[1]), videos[1])
    assert len({Reference.of("world:2", 5).frames(name).tobytes() for name in reference.names[:2]}) == 2
    assert any(sum(d.blobs for d in see(videos[0], color)) for color in ("red", "blue"))  # there is a subject


def test_more_scenes_than_four_digits_hold_are_still_different():
    names = Reference.of("world:10002", frames=1).names
    assert len(set(names)) == 10002
    assert not np.array_equal(draw(names[10001], 1), draw(names[1], 1))


def test_no_reference_is_none():
    assert Reference.of(None, 4) is None


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
