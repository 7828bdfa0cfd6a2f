"""Colours of the tiny world, and what its judge says."""

import builtins
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.extractors.protocols import key
from evaluation.extractors.stand_ins import (
    ColourDetector,
    ColourScorer,
    JudgedFrames,
    JudgedNames,
    JudgedVideo,
)
from evaluation.metrics.distribution import mmd_unbiased
from weights.train_tiny.world import render, sample_scene

GRASS, RED, WHITE = (77, 140, 56), (219, 31, 31), (250, 250, 250)
STAND_INS = (ColourDetector(), ColourScorer(), JudgedFrames(), JudgedVideo(), JudgedNames())


@pytest.fixture(scope="module")
def frames():
    """Grass; in frame 0 a red and a smaller white box, in frame 1 a white one, in frame 2 nothing."""
    frames = np.full((3, 96, 128, 3), GRASS, np.uint8)
    frames[0, 24:48, 32:64] = RED
    frames[:2, 60:84, 96:120] = WHITE
    return frames


# ---- Colours -------------------------------------------------------------------------------------------------------


def test_the_subject_is_found_by_its_colour(frames):
    """32 / 128 = 0.25, 24 / 96 = 0.25 and so on; the white box is at 96 / 128 = 0.75, 60 / 96 = 0.625."""
    assert ColourDetector().detect(frames, "red ball") == [[(0.25, 0.25, 0.5, 0.5, 1.0)], [], []]
    white = (0.75, 0.625, 0.9375, 0.875, 1.0)
    assert ColourDetector().detect(frames, "white ring") == [[white], [white], []]


def test_the_world_is_recognised():
    rng = np.random.default_rng(0)
    for _ in range(5):
        scene = sample_scene(rng, frames=2)
        video = render(scene)
        assert ColourScorer().score(video, scene.caption).tolist() == [100, 100]
        found = ColourDetector().detect(video, scene.subject)
        assert np.allclose([boxes[0][:4] for boxes in found], scene.boxes, atol=0.05)


def test_the_share_of_what_is_named_and_seen(frames):
    """Red and grass: both, grass alone, grass alone. With white: three of three, two, one. Ocean: never."""
    score = ColourScorer().score
    assert score(frames, "a red ball moving over the grass").tolist() == [100, 50, 50]
    both = score(frames, "The GRASS, with a red ball and a white ring").tolist()
    assert both == pytest.approx([100, 200 / 3, 100 / 3])
    assert score(frames, "a red ball over the ocean").tolist() == [50, 0, 0]
    assert score(frames, "the grass").tolist() == [100, 100, 100]
    assert score(frames, "a red ball").tolist() == [100, 0, 0]


def test_words_outside_the_world(frames):
    with pytest.raises(ValueError, match=r"knows only red, .*night; the prompt 'a reddish horse' names none of them"):
        ColourScorer().score(frames, "a reddish horse")
    for subject in ("horse", "", "ball red"):
        with pytest.raises(ValueError, match=f"found by a colour in front, one of red, .*; got '{subject}'"):
            ColourDetector().detect(frames, subject)


def test_without_scipy(frames, monkeypatch):
    real = builtins.__import__

    def refuse(name, *arguments):
        if name == "weights.train_tiny.detect":
            raise ImportError("No module named 'scipy'")
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r'needs scipy; install it with: pip install -e ".\[evaluate\]"'):
        ColourDetector().detect(frames, "red ball")


# ---- The world's judge ---------------------------------------------------------------------------------------------


def scenes(count, **changes):
    """Random scenes of 8 frames that its training never saw."""
    rng = np.random.default_rng(5)
    return [replace(sample_scene(rng, held=True), **changes) for _ in range(count)]


@given(st.integers(0, 2**31), st.integers(1, 5), st.integers(1, 5))
@settings(max_examples=5)
def test_a_frames_feature_does_not_depend_on_its_company(seed, first, count):
    frames = np.random.default_rng(seed).integers(0, 256, (5, 24, 32, 3), dtype=np.uint8)
    features = JudgedFrames().embed(frames)
    assert features.shape == (5, 64) and features.dtype == torch.float32
    some = slice(first - 1, first - 1 + count)
    assert torch.equal(JudgedFrames().embed(frames[some]), features[some])


def test_a_frames_feature_is_that_of_a_still_video(frames):
    features = JudgedFrames().embed(frames)
    for frame, feature in zip(frames, features, strict=True):
        torch.testing.assert_close(JudgedVideo().embed(np.stack([frame] * 3)), feature)


def test_what_differs_is_told_apart(frames):
    """Frames with other content; videos with other motion, though their frames are the same ones."""
    a, b, c = JudgedFrames().embed(frames)
    assert min((a - b).norm(), (b - c).norm(), (a - c).norm()) > 1e-3
    video = JudgedVideo()
    still, backward = video.embed(frames[[0, 0, 0]]), video.embed(frames[::-1].copy())
    forward = video.embed(frames)
    assert forward.shape == (64,) and torch.equal(video.embed(frames), forward)
    assert min((forward - backward).norm(), (forward - still).norm()) > 1e-3


def test_videos_are_called_what_they_show():
    """Of 12 that training never saw; one in ten may have another shape (see tests/weights/test_judge.py)."""
    named = [JudgedNames().name(render(scene)) for scene in scenes(12)]
    right = [
        [words[kind] == getattr(scene, kind) for kind in words] for words, scene in zip(named, scenes(12), strict=True)
    ]
    assert named[0].keys() == {"shape", "color", "background", "motion"}
    shape, color, background, _ = np.mean(right, axis=0)
    assert shape >= 0.75 and color == background == 1


def test_what_the_world_does_not_show_is_farther_from_it():
    """Noise, a background that no scene has, and frames that do not belong together: each is farther than real ones."""
    embed = JudgedVideo().embed
    real = [render(scene) for scene in scenes(24)]
    rng = np.random.default_rng(0)
    theirs = torch.stack([embed(video) for video in real[8:]])

    def away(videos):
        return mmd_unbiased(torch.stack([embed(video) for video in videos]), theirs)

    own = away(real[:8])
    noise = [rng.integers(0, 256, video.shape, dtype=np.uint8) for video in real[:8]]
    inverted = [255 - video for video in real[:8]]
    mixed = [np.stack([real[(n + f) % 8][f] for f in range(8)]) for n in range(8)]
    assert min(away(noise), away(inverted), away(mixed)) > 3 * abs(own)


@pytest.mark.parametrize("extractor", STAND_INS, ids=lambda e: type(e).__name__)
def test_each_says_that_it_is_a_stand_in(extractor):
    described = extractor.describe()
    assert described.keys() == {"class", "checkpoint", "revision", "resize", "dtype"}
    assert described["class"] == type(extractor).__name__
    assert described["checkpoint"].startswith("stand-in: ")


def test_keys_differ():
    assert len({key(e.describe()) for e in STAND_INS}) == 5
