"""The baseline's edit in a layer and in the U-Net, against TrailBlazer's released code around diffusers' networks."""

import pytest
import torch

from adaptation.trailblazer import TrailBlazerControl, edited_tokens
from model.attention import Attention
from model.config import UNetConfig
from model.transformers import masking
from model.unet import UNet3D


def control(about, tensors, case):
    how = about[case]
    words = torch.zeros(1, 77, dtype=torch.bool)
    words[0, how["token_inds"]] = True
    return TrailBlazerControl(
        tensors[f"{case}.boxes"][None],
        edited_tokens(words, how["prompt"], how["trailing"]),
        strengthen=how["strengthen"],
        weaken=how["weaken"],
    )


def test_a_layer_equals_the_original(trailblazer, relative_l2):
    """Measured: 2.7e-7 to `exact`, 1.7e-5 to `out`."""
    about, tensors = trailblazer
    how, parameters = about["layer"], ("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight", "to_out.0.bias")
    layer = Attention(16, heads=how["heads"], head_dim=8, context_dim=12)
    layer.load_state_dict({name: tensors[f"layer.{name}"] for name in parameters})
    x, text = tensors["layer.hidden_states"], tensors["layer.text"]  # [uncond, text] x 3 frames, and once
    edited = layer(x, text, *masking(control(about, tensors, "layer"), "mid", "cross", how["h"], how["w"])).detach()
    plain = layer(x, text).detach()
    assert relative_l2(plain, tensors["layer.plain"]) <= 2e-6
    assert relative_l2(edited, tensors["layer.exact"]) <= 2e-6
    assert relative_l2(edited, tensors["layer.out"]) <= 1e-4
    assert relative_l2(plain, tensors["layer.exact"]) > 0.1  # the edit is not small


@pytest.fixture(scope="module")
def halves(trailblazer, formula_weights):
    """Ours of [uncond, text], edited and not."""
    about, tensors = trailblazer
    unet = formula_weights(UNet3D(UNetConfig.from_dict(about["unet"]["config"])))
    inputs = tensors["unet.sample"], about["unet"]["timestep"], tensors["unet.encoder_hidden_states"]
    return {"edited": unet(*inputs, control(about, tensors, "unet")), "plain": unet(*inputs)}


def test_the_unet_equals_the_original(trailblazer, halves, relative_l2):
    """40 x 72 down to 5 x 9 cells. Measured: uncond 1.8e-6; text 1.8e-6 to `exact`, 6.2e-5 to `out`."""
    tensors = trailblazer[1]
    uncond, text = halves["edited"]
    assert relative_l2(uncond, tensors["unet.out"][0]) <= 2e-5
    assert relative_l2(text, tensors["unet.exact_text_half"][0]) <= 2e-5
    assert relative_l2(text, tensors["unet.out"][1]) <= 2e-4


def test_without_the_edit_the_text_half_is_another(trailblazer, halves, relative_l2):
    tensors = trailblazer[1]
    assert relative_l2(halves["plain"][0], tensors["unet.out"][0]) <= 2e-5
    assert relative_l2(halves["plain"][1], tensors["unet.exact_text_half"][0]) > 0.3
