import json

import pytest
import torch

from model.config import UNetConfig
from model.unet import UNet3D
from tests.helpers import read_safetensors

CASES = ["3x40x72", "5x24x40", "2x20x36", "3x10x18", "1x12x20", "4x9x15", "2x16x24"]
SMALL = UNetConfig(block_out_channels=(16, 32), norm_num_groups=8, cross_attention_dim=12, attention_head_dim=8,
                   layers_per_block=1, down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
                   up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"))  # fmt: skip


@pytest.fixture(scope="module")
def reference(fixtures):
    metadata, tensors = read_safetensors(fixtures / "diffusers_unet.safetensors")
    return UNetConfig.from_dict(json.loads(metadata["config"])), tensors


@pytest.fixture(scope="module")
def unet(reference, formula_weights):
    return formula_weights(UNet3D(reference[0]))


@pytest.fixture
def small(formula_weights):
    return formula_weights(UNet3D(SMALL)).double()


def inputs(seed=0, b=1, f=3, h=6, w=5, length=4, dim=12):
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(b, 4, f, h, w, generator=g, dtype=torch.float64)
    return z, torch.randn(2 * b, length, dim, generator=g, dtype=torch.float64)


def test_the_formula_weights_are_the_references(unet):
    """The check values that came with the reference outputs."""
    state = unet.state_dict()
    assert len(state) == 1478
    assert sum(p.numel() for p in state.values()) == 5_343_972
    assert float(state["conv_in.weight"].double().sum()) == pytest.approx(0.565116, abs=1e-5)
    name = "up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    assert float(state[name].double().sum()) == pytest.approx(-3.491167, abs=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_equals_the_reference(unet, reference, relative_l2, case):
    z, t, text, out = (reference[1][f"{case}.{k}"] for k in ("sample", "timestep", "encoder_hidden_states", "out"))
    assert relative_l2(unet(z, t, text), out) <= 2e-5


def test_zeroscope_size():
    with torch.device("meta"):
        parameters = list(UNet3D(UNetConfig()).parameters())
    assert (sum(p.numel() for p in parameters), len(parameters)) == (1_411_233_860, 1480)


def test_shared_halves_equal_two_calls(small):
    z, text = inputs(b=2)
    both = small(z, 500, text)
    torch.testing.assert_close(both, torch.cat([small(z, 500, text[:2]), small(z, 500, text[2:])]), rtol=0, atol=1e-12)


def test_one_timestep_for_each_video(small):
    z, text = inputs(b=2)
    both = small(z, torch.tensor([500, 20]), text)
    alone = small(z[1:], 20, text[1::2])
    torch.testing.assert_close(both[1::2], alone, rtol=0, atol=1e-12)


def test_frames_know_their_order(small):
    """Without the temporal convolutions the network would not see a video's direction."""
    z, text = inputs()
    assert not torch.allclose(small(z.flip(2), 500, text).flip(2), small(z, 500, text), atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(reference, formula_weights, relative_l2, dtype):
    unet = formula_weights(UNet3D(reference[0])).to(dtype)
    z, t, text, out = (reference[1][f"3x10x18.{k}"] for k in ("sample", "timestep", "encoder_hidden_states", "out"))
    ours = unet(z, t, text)
    assert ours.dtype == dtype
    # Rounding to 11, 8 and 53 bits of mantissa, grown over some three hundred layers.
    assert relative_l2(ours, out) < {torch.float16: 1e-2, torch.bfloat16: 8e-2}.get(dtype, 2e-5)


def test_activation_checkpointing_keeps_gradients(small):
    z, text = inputs()
    gradients = []
    for keep in (False, True):
        small.checkpoint_activations = keep
        leaf = z.clone().requires_grad_()
        small(leaf, 500, text).square().sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-10, atol=1e-12)


def test_wrong_shapes_are_refused(small):
    z, text = inputs()
    with pytest.raises(ValueError, match=r"expected \(B, 4, F, H, W\)"):
        small(z[:, :3], 500, text)
    with pytest.raises(ValueError, match=r"expected \(B, L, 12\)"):
        small(z, 500, text[..., :8])
    with pytest.raises(ValueError, match="3 entries for 1 videos"):
        small(z, 500, torch.cat([text, text[:1]]))
