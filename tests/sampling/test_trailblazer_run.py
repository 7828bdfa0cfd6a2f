"""A whole run of the baseline, through our settings, sampler and U-Net, against TrailBlazer's own pipeline on DDIM."""

import torch

from adaptation.trailblazer import TrailBlazerControl, edited_tokens
from model.config import UNetConfig
from model.unet import UNet3D
from sampling.denoise import make_denoise
from sampling.sampler import State, Streams, sample
from sampling.schedule import NoiseSchedule
from sampling.settings import SamplingSettings, preset


def test_a_run_equals_the_originals(trailblazer, formula_weights, relative_l2):
    """10 steps, the first 5 edited. Measured at the end: 8.5e-6 to `exact`, 3.6e-4 to `latents`, the code as it is."""
    about, tensors = trailblazer
    how = about["pipeline"]
    settings = preset("trailblazer", SamplingSettings(steps=how["steps"], guidance_scale=how["guidance_scale"]))
    assert (settings.frozen_steps, settings.trailing) == (how["spatial_steps"], how["trailing"])
    assert (settings.strengthen, settings.weaken) == (how["strengthen"], how["weaken"])
    words = torch.zeros(1, 77, dtype=torch.bool)
    words[0, how["token_inds"]] = True
    boxes = tensors["pipeline.boxes"][None]
    control = TrailBlazerControl(
        boxes,
        edited_tokens(words, how["prompt"], settings.trailing),
        strengthen=settings.strengthen,
        weaken=settings.weaken,
    )
    unet = formula_weights(UNet3D(UNetConfig.from_dict(how["config"])))
    denoise = make_denoise(unet, tensors["pipeline.encoder_hidden_states"], control)
    schedule = NoiseSchedule.from_config(how["scheduler"])
    first = State(0, tensors["pipeline.start"], Streams((0,)))
    with torch.no_grad():
        states = list(sample(denoise, schedule, first, settings, boxes))
    for step, latents in zip(how["exact_after_steps"], tensors["pipeline.exact"], strict=True):
        assert relative_l2(states[step].z[0], latents) <= 4e-5
    for step, latents in zip(how["after_steps"], tensors["pipeline.latents"], strict=True):
        assert relative_l2(states[step].z[0], latents) <= 2e-3
