"""Figure 3 on the tiny checkpoint, made short: what is recorded is what the network used, and the curves are CDFs."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from adaptation.trajectory import Trajectory
from evaluation.figures.activations import observed_layer
from evaluation.figures.distributions import Matching, cdf, record_matching, watch, write_distributions
from sampling.settings import SamplingSettings, preset
from weights.load import load_pipeline

SIZE = {"frames": 4, "height": 48, "width": 64}
BALL = Trajectory.from_keyframes(
    {0: (0.0, 0.2, 0.5, 0.8), 3: (0.5, 0.2, 1.0, 0.8)}, 4, "red ball", "a red ball moving over the grass"
)
MASK_NORM = preset("mask-norm", SamplingSettings(steps=25))


@pytest.fixture(scope="module")
def tiny():
    return load_pipeline("tiny")


@pytest.mark.parametrize("axis", ["channel", "joint"])
def test_the_matched_output_has_the_values_of_A_u_and_the_ranks_of_A_m(tiny, axis):
    matchings = record_matching(tiny, BALL, replace(MASK_NORM, axis=axis), seed=1, **SIZE)
    assert list(matchings) == ["self", "cross"]
    for found in matchings.values():
        assert found.A_u.shape == found.A_m.shape == found.matched.shape == (8, 12, 64)  # both halves of 4 frames
        flat = (1, 2) if axis == "joint" else (1,)
        A_u, A_m, matched = (x.flatten(1) if len(flat) == 2 else x for x in (found.A_u, found.A_m, found.matched))
        assert torch.equal(matched.sort(1).values, A_u.sort(1).values)
        assert torch.equal(matched.gather(1, A_m.argsort(dim=1, stable=True)), A_u.sort(1).values)
        assert not torch.equal(A_m.sort(1).values, A_u.sort(1).values)


def test_it_is_what_the_network_used(tiny):
    """Output projection of the matched output = what the attention returned, and the hook is gone afterwards."""
    attention = observed_layer(tiny.unet).transformer_blocks[0].attn1
    returned = []
    handle = attention.register_forward_hook(lambda _, __, output: returned.append(output))
    found = record_matching(tiny, BALL, MASK_NORM, **SIZE)["self"]
    handle.remove()
    assert len(returned) == 1
    assert torch.equal(attention.to_out[0](found.matched), returned[0])
    assert not attention._forward_pre_hooks


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        ({"normalize_in": ("self",)}, ["self"]),
        ({"attention": ("cross",)}, ["cross"]),
        ({"mask_normalization": False}, []),
        ({"where": ("mid",)}, []),
    ],
)
def test_what_is_not_normalized_is_not_recorded(tiny, change, kinds):
    assert list(record_matching(tiny, BALL, replace(MASK_NORM, **change), **SIZE)) == kinds


def test_the_hook_is_gone_after_an_interrupt(tiny):
    attention = observed_layer(tiny.unet).transformer_blocks[0].attn1
    with pytest.raises(KeyboardInterrupt), watch(attention):
        raise KeyboardInterrupt
    assert not attention._forward_pre_hooks


def test_cdf_of_four_values():
    """A quarter of 1, 2, 2, 4 is at most 1, three quarters are at most 2, and all are at most 4."""
    x, share = cdf(torch.tensor([[2.0, 4.0], [1.0, 2.0]]), points=4)
    assert x.tolist() == [1, 2, 2, 4]
    assert share.tolist() == [0.25, 0.5, 0.75, 1]
    many = torch.randn(5000)
    x, share = cdf(many)
    assert np.abs((many.numpy()[None] <= x[:, None]).mean(1) - share).max() <= 1 / 5000


def test_the_picture(tmp_path):
    values = torch.randn(2, 30, 4)
    matching = Matching(A_u=values, A_m=3 * values, matched=values)
    write_distributions(tmp_path, {"self": matching, "cross": matching})
    picture = np.asarray(Image.open(tmp_path / "distributions.png").convert("RGB")).astype(int)
    assert picture.shape[1] > 2 * picture.shape[0]  # two panels
    for panel in np.array_split(picture, 2, axis=1):
        for color in ((44, 160, 44), (31, 119, 180), (255, 127, 14)):  # green, blue, orange
            assert (np.abs(panel - color).sum(-1) < 30).sum() > 60
    (tmp_path / "distributions.png").unlink()
    write_distributions(tmp_path, {})
    assert not list(tmp_path.iterdir())
