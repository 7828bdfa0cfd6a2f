"""Colours of the tiny world, and features by random convolutions."""

import builtins

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evaluation.extractors.protocols import key
from evaluation.extractors.stand_ins import (
    ColourDetector,
    ColourScorer,
    ConvFrameFeatures,
    ConvVideoFeatures,
    convolve,
    random_kernels,
    shrink,
)
from weights.train_tiny.world import render, sample_scene

GRASS, RED, WHITE = (77, 140, 56), (219, 31, 31), (250, 250, 250)
STAND_INS = (ColourDetector(), ColourScorer(), ConvFrameFeatures(), ConvVideoFeatures())


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


# ---- Random convolutions -------------------------------------------------------------------------------------------


def test_a_layer_by_hand():
    """Ones under a kernel of 3 x 3 ones in each of 3 channels, stride 2 and a border of zeros: the first place sees 2
    rows, the next 3, so 3 * 2 * 2 = 12, 3 * 2 * 3 = 18, 3 * 3 * 3 = 27. The negative kernel leaves nothing."""
    kernel = torch.ones(1, 3, 1, 3, 3, dtype=torch.float64)
    video = torch.ones(3, 2, 4, 4, dtype=torch.float64)
    assert convolve(video, [kernel]).tolist() == [[[[12, 18], [18, 27]]] * 2]
    assert not convolve(video, [-kernel]).any()
    assert convolve(video, [kernel.expand(1, 3, 3, 3, 3)]).tolist() == [[[[24, 36], [36, 54]]] * 2]  # 2 of 3 frames


def test_frames_are_averaged_into_64_x_64():
    """Chequers of 1 pixel are 127.5, which is 0 between -1 and 1; white is 1."""
    chequers = np.indices((128, 192)).sum(0) % 2 * 255
    frames = np.stack([np.repeat(chequers[..., None], 3, -1), np.full((128, 192, 3), 255)]).astype(np.uint8)
    video = shrink(frames)
    assert video.shape == (3, 2, 64, 64) and video.dtype == torch.float64
    assert video[:, 0].abs().max() < 1e-12
    assert (video[:, 1] == 1).all()


def test_the_kernels_variance_is_hes():
    kernels = random_kernels(seed=0, dim=64, time=3)
    assert [tuple(k.shape) for k in kernels] == [(16, 3, 3, 3, 3), (32, 16, 3, 3, 3), (64, 32, 3, 3, 3)]
    assert kernels[2].var().item() == pytest.approx(2 / (32 * 27), rel=0.02)
    with pytest.raises(ValueError, match=r"dim must be at least 1, got 0"):
        random_kernels(0, 0, 1)


@given(st.integers(0, 2**31), st.integers(1, 5), st.integers(1, 5))
def test_a_frames_feature_does_not_depend_on_its_company(seed, first, count):
    frames = np.random.default_rng(seed).integers(0, 256, (5, 24, 32, 3), dtype=np.uint8)
    extractor = ConvFrameFeatures(dim=8)
    features = extractor.embed(frames)
    assert features.shape == (5, 8) and features.dtype == torch.float32
    some = slice(first - 1, first - 1 + count)
    assert torch.equal(extractor.embed(frames[some]), features[some])


@pytest.mark.parametrize("extractor", [ConvFrameFeatures, ConvVideoFeatures])
def test_features_come_from_the_seed_alone(extractor, frames):
    state = torch.random.get_rng_state()
    features = extractor().embed(frames)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(extractor(seed=0).embed(frames), features)
    assert (extractor(seed=1).embed(frames) - features).abs().max() > 0.01
    assert features.shape[-1] == 64 and features.std() > 0.01


def test_what_differs_is_told_apart(frames):
    """Frames with other content; videos with other motion, though their frames are the same ones."""
    a, b, c = ConvFrameFeatures().embed(frames)
    assert min((a - b).norm(), (b - c).norm(), (a - c).norm()) > 1e-3
    video = ConvVideoFeatures()
    still, backward = video.embed(frames[[0, 0, 0]]), video.embed(frames[::-1])
    forward = video.embed(frames)
    assert forward.shape == (64,)
    assert min((forward - backward).norm(), (forward - still).norm()) > 1e-3


@pytest.mark.parametrize("extractor", STAND_INS, ids=lambda e: type(e).__name__)
def test_each_says_that_it_is_a_stand_in(extractor):
    described = extractor.describe()
    assert described.keys() == {"class", "checkpoint", "revision", "resize", "dtype"}
    assert described["class"] == type(extractor).__name__
    assert described["checkpoint"].startswith("stand-in: ")


def test_keys_differ():
    assert len({key(e.describe()) for e in (*STAND_INS, ConvFrameFeatures(seed=1), ConvFrameFeatures(dim=32))}) == 6
