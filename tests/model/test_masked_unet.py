"""Peekaboo's masks in our U-Net, held against Peekaboo's own U-Net calls."""

import json

import pytest
import torch
from safetensors import safe_open

from adaptation.attention_masks import AttentionControl
from model.config import UNetConfig
from model.unet import UNet3D

SETTINGS = {
    "a_unmasked": None,
    "c_spatial_mid_up": {"where": ("mid", "up")},
    "d_spatial_up": {"where": ("up",)},
    "e_selfonly_mid_up": {"where": ("mid", "up"), "attention": ("self",)},
    "f_crossonly_mid_up": {"where": ("mid", "up"), "attention": ("cross",)},
}
CASES = [("peekaboo_s32", k) for k in SETTINGS] + [("peekaboo_z40", k) for k in list(SETTINGS)[:3]]


def load(path):
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["config"]), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


@pytest.fixture(scope="module")
def peers(fixtures, formula_weights):
    """For each of Peekaboo's two runs: the U-Net of its config, and its tensors."""
    runs = {name: load(fixtures / f"{name}.safetensors") for name in ("peekaboo_s32", "peekaboo_z40")}
    return {
        name: (formula_weights(UNet3D(UNetConfig.from_dict(config))), tensors)
        for name, (config, tensors) in runs.items()
    }


def control(tensors, **settings):
    tokens = torch.zeros(1, 77, dtype=torch.bool)
    tokens[0, [0, 3, 4]] = True  # the start token and the subject's words
    return AttentionControl(tensors["in.frozen_mask"].bool().transpose(0, 1), tokens, **settings)


@pytest.mark.parametrize(("name", "case"), CASES)
def test_equals_peekaboo(peers, relative_l2, name, case):
    unet, tensors = peers[name]
    masks = control(tensors, **SETTINGS[case]) if SETTINGS[case] else None
    assert torch.equal(tensors["in.sample"][0], tensors["in.sample"][1])  # a guidance batch: one z, two texts
    ours = unet(tensors["in.sample"][:1], tensors["in.timestep"], tensors["in.encoder_hidden_states"], masks)
    assert relative_l2(ours, tensors[f"out.{case}"]) <= 2e-5
