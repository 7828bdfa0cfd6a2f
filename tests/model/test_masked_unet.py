"""Peekaboo's masks in our U-Net, held against Peekaboo's own U-Net calls."""

import json

import pytest
import torch

from adaptation.attention_masks import AttentionControl
from model.config import UNetConfig
from model.unet import UNet3D
from sampling.sampler import State, Streams, sample
from sampling.schedule import NoiseSchedule
from sampling.settings import SamplingSettings, preset
from tests.helpers import read_safetensors

SETTINGS = {
    "a_unmasked": None,
    "b_native": {"where": ("mid", "decoder", "temporal")},
    "c_spatial_mid_up": {"where": ("mid", "decoder")},
    "d_spatial_up": {"where": ("decoder",)},
    "e_selfonly_mid_up": {"where": ("mid", "decoder"), "attention": ("self",)},
    "f_crossonly_mid_up": {"where": ("mid", "decoder"), "attention": ("cross",)},
}
CASES = [("peekaboo_s32", k) for k in SETTINGS] + [("peekaboo_z40", k) for k in list(SETTINGS)[:4]]


@pytest.fixture(scope="module")
def peers(fixtures, formula_weights):
    """For each of Peekaboo's two runs: the U-Net of its config, and its tensors."""
    runs = {name: read_safetensors(fixtures / f"{name}.safetensors") for name in ("peekaboo_s32", "peekaboo_z40")}
    return {
        name: (formula_weights(UNet3D(UNetConfig.from_dict(json.loads(metadata["config"])))), tensors)
        for name, (metadata, tensors) in runs.items()
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


@pytest.mark.parametrize("masked", [True, False])
def test_whole_run_equals_peekaboos_pipeline(fixtures, formula_weights, relative_l2, masked):
    """Ten DDIM steps at guidance 9 through our sampler; masks, temporal ones too, in the first two."""
    about, tensors = read_safetensors(fixtures / "peekaboo_pipeline.safetensors")
    unet = formula_weights(UNet3D(UNetConfig.from_dict(json.loads(about["config"]))))
    schedule = NoiseSchedule.from_config(json.loads(about["scheduler"]))
    tokens = torch.zeros(1, 77, dtype=torch.bool)
    tokens[0, [int(i) for i in about["fg_tokens"].split(",")]] = True
    regions = tensors["frozen_mask"].bool().transpose(0, 1)
    masks = AttentionControl(regions, tokens, where=("mid", "decoder", "temporal")) if masked else None
    settings = preset("peekaboo", SamplingSettings(steps=10, guidance_scale=9.0))
    boxes = torch.tensor([0.25, 0.25, 0.75, 0.75]).expand(1, 4, 4)  # only recorded, masks are given above

    def denoise(z, t, frozen):
        return unet(z, t, tensors["prompt_embeds"], masks if frozen else None).chunk(2)

    first = State(0, tensors["latents"], Streams((0,)))
    states = list(sample(denoise, schedule, first, settings, boxes if masked else None))
    if masked:
        for step, kept in zip(tensors["kept_steps"], tensors["latents_after_kept_steps"], strict=True):
            assert relative_l2(states[int(step)].z[0], kept) <= 2e-5
    else:
        assert relative_l2(states[-1].z, tensors["unmasked_final"]) <= 2e-5
