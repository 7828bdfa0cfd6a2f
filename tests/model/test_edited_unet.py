"""TrailBlazer's edit inside the U-Net: which layers and which half of the guidance batch it reaches."""

from dataclasses import replace

import pytest
import torch

from adaptation.trailblazer import TrailBlazerControl, edit_probabilities, gaussian_map
from model.attention import Attention, softmax_attention
from model.transformers import masking
from model.unet import UNet3D
from tests.helpers import SMALL_UNET, normal

F, H, W, L = 2, 4, 6, 5


@pytest.fixture(scope="module")
def unet(formula_weights):
    """Cross-attention on a grid of 4 x 6 going down and up, and on 2 x 3 in the middle."""
    return formula_weights(UNet3D(SMALL_UNET)).double()


@pytest.fixture
def control():
    """From the upper left quarter to the lower right one; tokens 2 and 4 of 5."""
    boxes = torch.tensor([[[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]]])
    return TrailBlazerControl(boxes, torch.tensor([[False, False, True, False, True]]), strengthen=0.5, weaken=0.001)


@pytest.fixture
def inputs():
    """One latent video and [uncond, text]."""
    return normal(1, 4, F, H, W), 500, normal(2, L, 16, seed=1)


def test_the_text_half_changes_and_the_other_does_not(unet, control, inputs):
    plain, edited = unet(*inputs), unet(*inputs, control)
    torch.testing.assert_close(edited[0], plain[0], rtol=0, atol=1e-12)
    assert (edited[1] - plain[1]).abs().max() > 1e-3


def test_a_call_without_guidance_is_edited(unet, control, inputs):
    z, t, text = inputs
    torch.testing.assert_close(unet(z, t, text[1:], control)[0], unet(z, t, text, control)[1], rtol=0, atol=1e-12)


def test_videos_of_a_batch_do_not_know_of_each_other(unet, control, inputs):
    """Two videos of one batch, [uncond, uncond, text, text], and each alone; their maxima of A differ."""
    z, t, text = torch.cat([inputs[0], 3 * normal(1, 4, F, H, W, seed=2)]), 500, normal(4, L, 16, seed=3)
    together = unet(z, t, text, control)
    for i in (0, 1):
        alone = unet(z[i : i + 1], t, text[i::2], control)
        torch.testing.assert_close(together[i::2], alone, rtol=0, atol=1e-12)


def test_every_cross_attention_is_edited_and_no_other(unet, control, inputs):
    given = {}
    hooks = [
        module.register_forward_pre_hook(lambda _, args, how, name=name: given.update({name: how}), with_kwargs=True)
        for name, module in unet.named_modules()
        if isinstance(module, Attention)
    ]
    unet(*inputs, control)
    for hook in hooks:
        hook.remove()
    edited = {name for name, how in given.items() if how["edit"] is not None}
    cross = {name for name in given if ".attentions." in name and name.endswith("attn2")}
    assert edited == cross
    assert {name.split(".")[0] for name in edited} == {"down_blocks", "mid_block", "up_blocks"}
    assert len(edited) == 4  # a layer down, one in the middle, two up


def test_no_edit_equals_no_control(unet, control, inputs):
    """Nothing is added inside, everything is left outside: rounding apart, as the fused kernel computes it."""
    nothing = replace(control, strengthen=0.0, weaken=1.0)
    torch.testing.assert_close(unet(*inputs, nothing), unet(*inputs), rtol=0, atol=1e-12)
    single, numbers = unet.float(), [x.float() if isinstance(x, torch.Tensor) else x for x in inputs]
    torch.testing.assert_close(single(*numbers, nothing), single(*numbers), rtol=0, atol=1e-6)
    unet.double()


def test_strength_and_weakness_both_matter(unet, control, inputs):
    outputs = [unet(*inputs, replace(control, **c)) for c in ({}, {"strengthen": 0.0}, {"weaken": 1.0})]
    assert (outputs[0] - outputs[1]).abs().max() > 1e-4
    assert (outputs[0] - outputs[2]).abs().max() > 1e-4


def test_the_edit_is_differentiable_through_the_u_net(unet, control, inputs):
    z, t, text = inputs
    z = z.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(unet(z, t, text, control)[1].sum(), z)
    step = 1e-5 * normal(*z.shape, seed=5)
    with torch.no_grad():
        rise = unet(z + step, t, text, control)[1].sum() - unet(z - step, t, text, control)[1].sum()
    assert (2 * gradient * step).sum().item() == pytest.approx(rise.item(), rel=1e-5)


def test_a_control_for_other_frames_or_another_text_is_refused(unet, control, inputs):
    z, t, text = inputs
    for latents, words in ((normal(1, 4, F + 1, H, W), text), (z, normal(2, L + 1, 16))):
        with pytest.raises(ValueError, match="but the boxes and tokens are for"):
            unet(latents, t, words, control)


# ---- One layer -----------------------------------------------------------------------------------------------------


def test_a_layer_by_hand():
    """Head by head: with one-hot values attention returns its probabilities; edited, they weigh the true values."""
    torch.manual_seed(0)
    layer = Attention(6, heads=2, head_dim=3, context_dim=7).double()
    x, text = normal(2 * 24, 6).reshape(2, 24, 6), normal(1, 4, 7, seed=1)  # one video of two frames
    tokens = torch.tensor([[False, True, True, False]])
    control = TrailBlazerControl(torch.tensor([[[0, 0, 0.5, 0.5]] * 2]), tokens, strengthen=0.5, weaken=0.1)

    q, k, v = layer.to_q(x), layer.to_k(text)[0], layer.to_v(text)[0]
    heads = [slice(0, 3), slice(3, 6)]
    A = torch.stack([softmax_attention(q[..., h], k[..., h], torch.eye(4, dtype=torch.float64)) for h in heads])[None]
    A = edit_probabilities(A, gaussian_map(control.boxes, 4, 6), tokens, 0.5, 0.1)
    by_hand = layer.to_out[0](torch.cat([A[0, i] @ v[:, h] for i, h in enumerate(heads)], dim=-1))

    masked = masking(control, "encoder", "cross", 4, 6)
    torch.testing.assert_close(layer(x, text, *masked), by_hand, rtol=0, atol=1e-12)
    assert (layer(x, text) - by_hand).abs().max() > 1e-2
