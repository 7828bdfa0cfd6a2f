import math

import pytest
import torch
import torch.nn.functional as F

from model.config import VAEConfig
from model.layers import Downsample, FrameConv, ResnetBlock, TemporalConvLayer, Upsample, timestep_embedding
from model.vae import AutoencoderKL, FrameAttention
from tests.helpers import normal


def test_timestep_embedding_by_hand():
    """dim 4: frequencies 10000^0 = 1 and 10000^(-1/2) = 0.01, so t = 3 gives cos 3, cos 0.03, sin 3, sin 0.03."""
    expected = [[math.cos(3), math.cos(0.03), math.sin(3), math.sin(0.03)]]
    torch.testing.assert_close(timestep_embedding(torch.tensor([3]), 4), torch.tensor(expected), rtol=0, atol=1e-6)


def test_timestep_embedding_is_float32_whatever_comes_in():
    exact = timestep_embedding(torch.tensor([981]), 320)
    assert exact.dtype == torch.float32
    assert torch.equal(timestep_embedding(torch.tensor([981.0], dtype=torch.float64), 320), exact)


def test_frame_conv_is_a_conv3d():
    layer = FrameConv(3, 5).double()
    x = normal(2, 3, 4, 6)  # B C F P
    wide = F.conv3d(x.unflatten(-1, (2, 3)), layer.weight, layer.bias, padding=(1, 0, 0)).flatten(-2)
    torch.testing.assert_close(layer(x), wide, rtol=0, atol=1e-12)


def test_temporal_conv_layer_starts_as_the_identity():
    x = normal(6, 8, 2, 3)
    assert torch.equal(TemporalConvLayer(8, 4).double().eval()(x, frames=3), x)


def test_temporal_norm_sees_all_frames_of_one_video_alone():
    torch.manual_seed(0)
    layer = TemporalConvLayer(8, 4).double().eval()
    torch.nn.init.normal_(layer.conv4[-1].weight)
    x = normal(6, 8, 2, 3)
    changed = x.clone()
    changed[0] *= 2  # the first frame of the first video
    moved = (layer(changed, 3) - layer(x, 3)).abs().amax(dim=(1, 2, 3))
    assert (moved[:3] > 0).all()  # every frame of its video, through the norm
    assert (moved[3:] == 0).all()


def test_resnet_norm_sees_one_frame():
    torch.manual_seed(0)
    layer, x = ResnetBlock(8, 8, 4, 1e-5).double(), normal(3, 8, 2, 3)
    changed = x.clone()
    changed[0] *= 2
    assert torch.equal(layer(changed)[1:], layer(x)[1:])


def test_downsampling_pads_as_the_unet_and_as_the_vae():
    """Ones, 3x3 windows of stride 2 on 4x4 cells: sums 4, 6, 6, 9 padded all round; 9, 6, 6, 4 right and below."""
    for pad, expected in ((None, [[4.0, 6.0], [6.0, 9.0]]), ((0, 1, 0, 1), [[9.0, 6.0], [6.0, 4.0]])):
        layer = Downsample(1, pad)
        torch.nn.init.ones_(layer.conv.weight)
        torch.nn.init.zeros_(layer.conv.bias)
        assert layer(torch.ones(1, 1, 4, 4))[0, 0].tolist() == expected


def test_upsampling_repeats_and_reaches_odd_sizes():
    layer = Upsample(1)
    torch.nn.init.dirac_(layer.conv.weight)
    torch.nn.init.zeros_(layer.conv.bias)
    x = torch.tensor([[[[1.0, 2.0]]]])
    assert layer(x)[0, 0].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2]]
    assert layer(x, size=(1, 3))[0, 0].tolist() == [[1, 1, 2]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_vae_attention_softmax_is_float32(dtype, monkeypatch):
    seen = []
    fused = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda q, k, v: seen.append(q.dtype) or fused(q, k, v))
    out = FrameAttention(8, 4).to(dtype)(normal(1, 8, 2, 3).to(dtype))
    assert (seen, out.dtype) == ([torch.float32], dtype)


def test_decoding_24_frames_works_on_a_few_at_a_time(largest_tensor):
    down, up = ("DownEncoderBlock2D",) * 2, ("UpDecoderBlock2D",) * 2
    config = VAEConfig(block_out_channels=(8, 8), norm_num_groups=4, down_block_types=down, up_block_types=up)
    vae = AutoencoderKL(config).requires_grad_(False)
    largest = {}
    for frames in (4, 23):  # 23 is no size of anything else
        with largest_tensor(beside=23) as mode:  # all but the video that goes in or comes out
            vae.decode(normal(1, 4, frames, 6, 5, dtype=torch.float32), frames_per_chunk=4)
        largest[frames] = mode.numbers
    assert largest[23] == largest[4] > 0
