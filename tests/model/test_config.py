import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.config import UNetConfig, VAEConfig

# Zeroscope's unet/config.json and vae/config.json, as diffusers 0.17 wrote them
UNET = json.loads("""{
  "_class_name": "UNet3DConditionModel",
  "_diffusers_version": "0.17.0.dev0",
  "_name_or_path": "./models/model_scope_diffusers/",
  "act_fn": "silu",
  "attention_head_dim": 64,
  "block_out_channels": [320, 640, 1280, 1280],
  "cross_attention_dim": 1024,
  "down_block_types": ["CrossAttnDownBlock3D", "CrossAttnDownBlock3D", "CrossAttnDownBlock3D", "DownBlock3D"],
  "downsample_padding": 1,
  "in_channels": 4,
  "layers_per_block": 2,
  "mid_block_scale_factor": 1,
  "norm_eps": 1e-05,
  "norm_num_groups": 32,
  "out_channels": 4,
  "sample_size": 32,
  "up_block_types": ["UpBlock3D", "CrossAttnUpBlock3D", "CrossAttnUpBlock3D", "CrossAttnUpBlock3D"]
}""")
VAE = json.loads("""{
  "_class_name": "AutoencoderKL",
  "act_fn": "silu",
  "block_out_channels": [128, 256, 512, 512],
  "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
  "in_channels": 3,
  "latent_channels": 4,
  "layers_per_block": 2,
  "norm_num_groups": 32,
  "out_channels": 3,
  "sample_size": 512,
  "scaling_factor": 0.18215,
  "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"]
}""")
# What a newer diffusers adds to them
NEWER_UNET = {"num_attention_heads": None, "time_cond_proj_dim": None}
NEWER_VAE = {
    "force_upcast": True,
    "latents_mean": None,
    "latents_std": None,
    "mid_block_add_attention": True,
    "shift_factor": None,
    "use_post_quant_conv": True,
    "use_quant_conv": True,
}


def test_zeroscope_is_the_default():
    assert UNetConfig.from_dict(UNET) == UNetConfig(sample_size=32)
    assert VAEConfig.from_dict(VAE) == VAEConfig(sample_size=512)
    assert UNetConfig.from_dict({}) == UNetConfig() and VAEConfig.from_dict({}) == VAEConfig()


def test_newer_keys_at_their_neutral_value_change_nothing():
    assert UNetConfig.from_dict(UNET | NEWER_UNET) == UNetConfig.from_dict(UNET)
    assert VAEConfig.from_dict(VAE | NEWER_VAE) == VAEConfig.from_dict(VAE)
    assert VAEConfig.from_dict(VAE | {"shift_factor": 0, "force_upcast": False}) == VAEConfig.from_dict(VAE)


def test_null_means_absent():
    assert UNetConfig.from_dict(UNET | {"norm_num_groups": None, "anything": None}).norm_num_groups == 32


@given(st.text(), st.integers() | st.text() | st.lists(st.integers()))
def test_private_keys_are_ignored(name, value):
    assert UNetConfig.from_dict(UNET | {"_" + name: value}) == UNetConfig.from_dict(UNET)


@given(st.text(min_size=1).filter(lambda key: not key.startswith("_") and key not in (UNET | NEWER_UNET)))
def test_unknown_keys_are_named(key):
    with pytest.raises(ValueError, match="is not one that this model has") as error:
        UNetConfig.from_dict(UNET | {key: 1})
    assert repr(key) in str(error.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_attention_heads", 8),
        ("time_cond_proj_dim", 256),
        ("act_fn", "gelu"),
        ("downsample_padding", 0),
        ("downsample_padding", True),
        ("mid_block_scale_factor", 2**0.5),
        ("center_input_sample", True),
        ("attention_head_dim", [5, 10, 20, 20]),
        ("attention_head_dim", 0),
        ("block_out_channels", []),
        ("block_out_channels", 320),
        ("block_out_channels", [320, 640, 1280, "1280"]),
        ("block_out_channels", [320, 640, 1280, -1280]),
        ("layers_per_block", [2, 2, 2, 2]),
        ("layers_per_block", 2.0),
        ("layers_per_block", True),
        ("layers_per_block", 2**40),
        ("layers_per_block", 33),
        ("cross_attention_dim", 2**16 + 1),
        ("down_block_types", ["DownBlock3D"] * 11),
        ("norm_eps", "1e-5"),
        ("norm_eps", 0),
        ("norm_eps", float("nan")),
        ("in_channels", -4),
        ("down_block_types", "DownBlock3D"),
        ("down_block_types", [1, 2, 3, 4]),
        ("down_block_types", ["DownBlock2D"] * 4),
        ("up_block_types", ["CrossAttnUpBlock2D"] * 4),
    ],
)
def test_unet_values_that_are_not_supported_are_named(key, value):
    with pytest.raises(ValueError, match=key):
        UNetConfig.from_dict(UNET | {key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("shift_factor", 0.1159),
        ("latents_mean", [0.0] * 4),
        ("latents_std", [1.0] * 4),
        ("mid_block_add_attention", False),
        ("use_quant_conv", False),
        ("use_post_quant_conv", False),
        ("act_fn", "relu"),
        ("scaling_factor", 0.0),
        ("scaling_factor", float("inf")),
        ("scaling_factor", "0.18215"),
        ("down_block_types", ["AttnDownEncoderBlock2D"] * 4),
        ("up_block_types", ["UpDecoderBlock2D"] * 3),
        ("cross_attention_dim", 1024),
    ],
)
def test_vae_values_that_are_not_supported_are_named(key, value):
    with pytest.raises(ValueError, match=key):
        VAEConfig.from_dict(VAE | {key: value})


def test_levels_have_to_agree():
    with pytest.raises(ValueError, match="down_block_types has 4 entries but block_out_channels has 3"):
        UNetConfig.from_dict(UNET | {"block_out_channels": [320, 640, 1280]})


def test_groups_have_to_divide_the_channels():
    with pytest.raises(ValueError, match="block_out_channels holds 336, which norm_num_groups 32 does not divide"):
        UNetConfig.from_dict(UNET | {"block_out_channels": [336, 640, 1280, 1280]})
    with pytest.raises(ValueError, match="block_out_channels holds 100, which norm_num_groups 32 does not divide"):
        VAEConfig.from_dict(VAE | {"block_out_channels": [128, 100, 512, 512]})


def test_a_layer_needs_a_head_and_an_embedding_an_even_width():
    with pytest.raises(ValueError, match="attention_head_dim 64 is larger than the narrowest"):
        UNetConfig.from_dict(UNET | {"block_out_channels": [32, 640, 1280, 1280]})
    with pytest.raises(ValueError, match=r"block_out_channels\[0\] is 321; it must be even"):
        UNetConfig.from_dict(UNET | {"block_out_channels": [321, 642, 1284, 1284], "norm_num_groups": 3})


@pytest.mark.parametrize("raw", [[], "unet", None, 3])
def test_a_config_is_an_object(raw):
    with pytest.raises(ValueError, match="a config must be a JSON object"):
        UNetConfig.from_dict(raw)


@pytest.mark.parametrize(("levels", "downscale"), [(1, 1), (2, 2), (3, 4), (4, 8)])
def test_each_level_but_the_last_halves_the_image(levels, downscale):
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * levels, "up_block_types": ["UpDecoderBlock2D"] * levels}
    assert VAEConfig.from_dict(VAE | blocks | {"block_out_channels": [32] * levels}).downscale == downscale


def test_a_config_can_be_a_key():
    assert len({UNetConfig.from_dict(UNET), UNetConfig.from_dict(UNET), VAEConfig.from_dict(VAE)}) == 2
