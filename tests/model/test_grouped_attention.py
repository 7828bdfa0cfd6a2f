"""Masked self-attention by groups: equal to the dense mask, forward and backward, and never N x N."""

import pytest
import torch
from torch import Tensor

from adaptation.attention_masks import AttentionControl
from adaptation.grouped_mask import AttentionMask
from adaptation.mask_normalization import axis_dims, match_distribution
from model.attention import Attention
from model.config import UNetConfig
from model.grouped_attention import grouped_attention
from model.transformers import masking
from model.unet import UNet3D
from tests.helpers import normal

L = 9  # words


def boxes(frames, h, w, *subjects):
    """Regions (K, F, h, w) of subjects, each a list with a box (y1, y2, x1, x2) in cells, or None, for every frame."""
    regions = torch.zeros(len(subjects), frames, h, w, dtype=torch.bool)
    for subject, places in zip(regions, subjects, strict=True):
        for frame, box in zip(subject, places, strict=True):
            if box:
                y1, y2, x1, x2 = box
                frame[y1:y2, x1:x2] = True
    return regions


WHOLE = (0, 9, 0, 15)
REGIONS = {
    "static": boxes(3, 4, 6, [(1, 3, 2, 5)] * 3),
    "moving": boxes(3, 4, 6, [(1, 3, i, i + 2) for i in range(3)]),
    "growing, odd sizes": boxes(3, 5, 7, [(0, 2 + i, 1, 3 + i) for i in range(3)]),
    "whole frame, absent, there": boxes(3, 4, 6, [WHOLE, None, (0, 1, 0, 1)]),
    "nowhere": boxes(2, 4, 6, [None, None]),
    "everywhere": boxes(2, 4, 6, [WHOLE, WHOLE]),
    "two apart": boxes(3, 4, 6, [(0, 2, 0, 2)] * 3, [(2, 4, 3, 6), None, (2, 4, 4, 6)]),
    "two overlap": boxes(2, 5, 7, [(0, 3, 0, 4), (1, 4, 1, 5)], [(2, 5, 2, 7), (0, 5, 3, 6)]),
    "three in a chain": boxes(2, 3, 9, [(0, 3, 0, 4)] * 2, [(0, 3, 3, 7)] * 2, [(0, 3, 6, 9), WHOLE]),
    "one frame": boxes(1, 3, 4, [(0, 2, 0, 2)]),
}


def controlled(regions, **settings):
    words = torch.zeros(len(regions), L, dtype=torch.bool)
    words[range(len(regions)), range(2, 2 + len(regions))] = True
    return AttentionControl(regions, words, **settings)


def layer(dtype=torch.float64, channels=6):
    torch.manual_seed(0)
    return Attention(channels, heads=2, head_dim=channels // 2).to(dtype)


def normalization(axis):
    return axis and (lambda a_m, a_u: match_distribution(a_m, a_u, axis_dims(axis)))


@pytest.mark.parametrize("videos", [1, 2])
@pytest.mark.parametrize("case", REGIONS)
def test_equals_the_dense_mask_forward_and_backward(case, videos):
    regions = REGIONS[case]
    _, frames, h, w = regions.shape
    mask, attention = controlled(regions).mask("self", h, w), layer()
    upstream, found = normal(videos * frames, h * w, 6, seed=2), []
    for form in (mask, mask.dense()):
        x = normal(videos * frames, h * w, 6).requires_grad_()
        out = attention(x, mask=form)
        found.append([out.detach(), *torch.autograd.grad(out, [x, *attention.parameters()], upstream)])
    for grouped, dense in zip(*found, strict=True):
        torch.testing.assert_close(grouped, dense, rtol=0, atol=1e-12)


@pytest.mark.parametrize("axis", ["joint", "channel"])
@pytest.mark.parametrize("case", ["growing, odd sizes", "two overlap"])
def test_equals_the_dense_mask_normalized(case, axis):
    """The unmasked output whose values are taken is the same, and rounding of 1e-16 swaps no ranks here."""
    regions = REGIONS[case]
    _, frames, h, w = regions.shape
    mask, attention, x = controlled(regions).mask("self", h, w), layer(), normal(frames, h * w, 6)
    grouped, dense = (attention(x, None, form, normalization(axis)) for form in (mask, mask.dense()))
    torch.testing.assert_close(grouped, dense, rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", REGIONS)
def test_equals_the_dense_mask_in_float32(case):
    regions = REGIONS[case]
    _, frames, h, w = regions.shape
    mask, attention = controlled(regions).mask("self", h, w), layer(torch.float32)
    x = normal(frames, h * w, 6, dtype=torch.float32)
    torch.testing.assert_close(attention(x, mask=mask), attention(x, mask=mask.dense()), rtol=0, atol=2e-5)


def test_by_hand():
    """Two frames of three pixels, the subject at pixel 0, then at pixel 2; equal logits, so A_m is the mean of the
    values a query may see: 1, (2 + 6) / 2 for pixels 1 and 2; then (10 + 20) / 2 for pixels 0 and 1, and 40."""
    mask = controlled(boxes(2, 1, 3, [(0, 1, 0, 1), (0, 1, 2, 3)])).mask("self", 1, 3)
    q = torch.zeros(2, 3, 1)
    v = torch.tensor([[[1.0], [2.0], [6.0]], [[10.0], [20.0], [40.0]]])
    a_m = grouped_attention(q, q, v, 1, mask)
    assert a_m.flatten().tolist() == pytest.approx([1, 4, 4, 15, 15, 40], abs=1e-5)


# ---- No N x N tensor -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [None, "joint"])
@pytest.mark.parametrize("h, w", [(16, 24), (9, 15), (5, 8)])
def test_no_result_is_larger_than_the_tokens(largest_tensor, h, w, axis):
    """At any resolution nothing exceeds the B F N C numbers of x, with C = 2, forward and backward."""
    regions = boxes(3, h, w, [(1, h // 2, i, i + w // 2) for i in range(3)])
    attention, x = layer(torch.float32, channels=2), normal(6, h * w, 2, dtype=torch.float32).requires_grad_()
    mask = controlled(regions).mask("self", h, w)
    numbers = []
    for form in (mask, mask.dense()):
        with largest_tensor() as mode:
            attention(x, None, form, normalization(axis)).sum().backward()
        numbers.append(mode.numbers)
    assert numbers[0] == x.numel() < numbers[1]


@pytest.mark.parametrize("normalize", [False, True])
def test_the_whole_unet_makes_no_dense_mask(largest_tensor, normalize):
    """Grids of 24 x 32 = 768 and 12 x 16 cells; one frame's N x N would be 590,000 numbers."""
    torch.manual_seed(0)
    down, up = ("CrossAttnDownBlock3D", "DownBlock3D"), ("UpBlock3D", "CrossAttnUpBlock3D")
    sizes = {"block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 4}
    unet = UNet3D(UNetConfig(down_block_types=down, up_block_types=up, cross_attention_dim=5, **sizes)).eval()
    control = controlled(
        boxes(2, 24, 32, [(4, 20, 3, 25)] * 2), where=("encoder", "mid", "decoder"), normalize=normalize
    )
    z = normal(1, 4, 2, 24, 32, dtype=torch.float32).requires_grad_()
    with largest_tensor() as mode:
        unet(z, 500, normal(2, L, 5, dtype=torch.float32), control).sum().backward()
    assert mode.numbers < (24 * 32) ** 2
    masks = [control.mask("self", h, w) for h, w in ((24, 32), (12, 16))]
    assert all("packs" in vars(mask) for mask in masks)  # it was used
    assert not any("_dense" in vars(mask) for mask in masks)


@pytest.mark.parametrize(
    "kind, w, form", [("self", 8, Tensor), ("self", 9, AttentionMask), ("cross", 9, Tensor), ("temporal", 9, Tensor)]
)
def test_few_cells_few_words_and_few_frames_are_masked_entry_by_entry(kind, w, form):
    """A mask between cells is used by groups from 65 cells on."""
    control = controlled(boxes(2, 8, w, [(1, 4, 1, 4)] * 2), where=("decoder", "temporal"))
    assert isinstance(masking(control, "decoder", kind, 8, w).mask, form)
