"""Mask Normalization inside the U-Net: output and gradient are those of attention written out over the bare network.

`masked_unet` is the paper's attention in plain loops; it shares no line with adaptation or model.attention.
"""

from itertools import combinations, product

import pytest
import torch

from adaptation.attention_masks import AttentionControl
from model.unet import UNet3D
from tests.algorithm_1 import Choices, inside, masked_unet
from tests.helpers import TWO_GRIDS, bools, normal

F, H, W, L = 3, 5, 7, 6  # the half grid is 3 x 4
TRACKS = [
    [(0.0, 0.0, 0.45, 0.62), (0.2, 0.2, 0.7, 0.85), (0.4, 0.1, 1.0, 0.7)],
    [(0.5, 0.55, 0.95, 1.0), None, (0.1, 0.05, 0.5, 0.6)],
]
WORDS = bools("001100", "000010")
NORMALIZED = [("self", "cross"), ("self",), ("cross",)]
GRADIENTS = {"exact": False, "straight-through": True}
AXES = {"channel": False, "joint": True}


@pytest.fixture(scope="module")
def unet(formula_weights):
    return formula_weights(UNet3D(TWO_GRIDS)).double()


@pytest.fixture(scope="module")
def ours(unet):
    """ours(**settings) -> (output, gradient) under an `AttentionControl`."""
    regions = torch.stack([torch.stack([inside(box, H, W) for box in track]) for track in TRACKS])
    return lambda **settings: run(unet, AttentionControl(regions, WORDS, **settings))


def run(unet, *control):
    """The noise for one video and its text, and what a fixed direction of it sends back to the latents."""
    z, text = normal(1, 4, F, H, W).requires_grad_(), normal(1, L, 16, seed=1)
    eps = unet(z, 500, text, *control)
    (gradient,) = torch.autograd.grad(eps, z, normal(*eps.shape, seed=2))
    return eps.detach(), gradient


@pytest.mark.parametrize("normalize_in", NORMALIZED, ids=str)
@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("block", ["decoder", "mid", "encoder"])
def test_equals_attention_written_out(unet, ours, block, axis, gradient, normalize_in):
    actual = ours(normalize=True, where=(block,), axis=axis, gradient=gradient, normalize_in=normalize_in)

    choices = Choices(blocks=(block,), joint=AXES[axis], straight=GRADIENTS[gradient], normalized=normalize_in)
    with masked_unet(unet, TRACKS, WORDS, (F, H, W), choices):
        expected = run(unet)
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_every_choice_shows(unet, ours):
    """No two choices give the same output or, where only the gradient differs, the same gradient."""
    outputs = {"unmasked": run(unet)[0], "masked": ours()[0]}
    outputs |= {
        choice: ours(normalize=True, axis=choice[0], normalize_in=choice[1])[0] for choice in product(AXES, NORMALIZED)
    }
    for one, other in combinations(outputs, 2):
        assert (outputs[one] - outputs[other]).abs().max() > 1e-3, (one, other)
    for axis in AXES:
        exact, straight = (ours(normalize=True, axis=axis, gradient=gradient) for gradient in GRADIENTS)
        assert torch.equal(exact[0], straight[0]) and (exact[1] - straight[1]).abs().max() > 1e-3
