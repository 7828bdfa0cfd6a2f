"""torch-fidelity need not be installed: what it is asked, and what is made of its answer."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from evaluation.extractors.inception import READ_SIDE, InceptionFeatures, resize_clean
from evaluation.extractors.protocols import key
from weights.files import CheckpointError


class Means(torch.nn.Module):
    """In place of Inception: the means of the three channels. It notes the sizes that it saw."""

    def __init__(self, name="inception-v3-compat", features=("2048",)):
        super().__init__()
        assert (name, list(features)) == ("inception-v3-compat", ["2048"])
        self.sizes = []

    def forward(self, images):
        assert images.dtype == torch.uint8
        self.sizes.append(tuple(images.shape))
        return (images.double().mean((2, 3)),)


@pytest.fixture
def frames():
    frames = np.zeros((5, 6, 8, 3), np.uint8)
    frames[:, :3, :, 1] = 100
    frames[..., 2] = np.arange(5)[:, None, None]
    return frames


def test_without_torch_fidelity(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(ImportError, match=r'^FID and KID need torch-fidelity, .*: pip install -e ".\[fidelity\]"$'):
        InceptionFeatures.load()


def test_weights_that_cannot_be_fetched(monkeypatch):
    def refuse(name, features):
        raise OSError("no\nnetwork")

    monkeypatch.setitem(sys.modules, "torch_fidelity", SimpleNamespace(FeatureExtractorInceptionV3=refuse))
    with pytest.raises(
        CheckpointError, match=r"Inception's weights \(OSError: no network\); check the network, or put"
    ):
        InceptionFeatures.load()


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_a_feature_for_each_frame(monkeypatch, frames, batch_size):
    """Channel means by hand: red 0, green 100 in the upper half, blue the frame's number."""
    monkeypatch.setitem(sys.modules, "torch_fidelity", SimpleNamespace(FeatureExtractorInceptionV3=Means))
    extractor = InceptionFeatures.load(batch_size=batch_size)
    features = extractor.embed(frames)
    assert features.dtype == torch.float32
    assert features.tolist() == [[0, 50, i] for i in range(5)]
    assert sum(size[0] for size in extractor.network.sizes) == 5
    assert {size[1:] for size in extractor.network.sizes} == {(3, 6, 8)}  # it resizes on its own


def test_the_clean_resize_comes_before_the_network(frames):
    """Green is 150 above and 50 below, so that its overshoots are the same on both sides and its mean stays 100."""
    network = Means()
    frames[..., 1] += 50
    features = InceptionFeatures(network, resize="clean").embed(frames)
    assert network.sizes == [(5, 3, READ_SIDE, READ_SIDE)]
    assert torch.allclose(features, torch.tensor([[0.0, 100, i] for i in range(5)]), atol=1e-2)


def test_the_clean_resize():
    """A column of 0 and one of 200, 299 wide: 100 in the middle, and bicubic's overshoots on both sides of the step,
    the lower one cut at 0. Rows stay equal, and channels do not mix."""
    frame = np.zeros((4, 2, 3), np.uint8)
    frame[:, 1, 0] = 200
    resized = resize_clean(frame)
    assert resized.shape == (READ_SIDE, READ_SIDE, 3) and resized.dtype == np.uint8
    assert np.array_equal(resized[0], resized[-1]) and not resized[..., 1:].any()
    row = resized[0, :, 0].astype(int)
    assert row[READ_SIDE // 2] == 100
    assert row.min() == 0 and 200 < row.max() < 230
    assert row[: READ_SIDE // 2].max() < 100 < row[READ_SIDE // 2 + 1 :].min()


def test_the_resize_is_part_of_the_name():
    tf, clean = InceptionFeatures(Means()), InceptionFeatures(Means(), resize="clean")
    assert tf.describe().keys() == {"class", "checkpoint", "revision", "resize", "dtype"}
    assert key(tf.describe()) != key(clean.describe())
    assert key(tf.describe()) == key(InceptionFeatures(Means(), batch_size=1).describe())
    with pytest.raises(ValueError, match="resize must be one of tf, clean, got 'pil'"):
        InceptionFeatures(Means(), resize="pil")
