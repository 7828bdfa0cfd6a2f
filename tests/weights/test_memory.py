"""The estimate of a run's memory: the numbers by hand, what each switch changes, and what a refusal says."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sampling.generate import Plan
from sampling.settings import CHOICES, preset
from weights.memory import check_memory, differentiated_halves, estimate_bytes

FULL = preset("full")
SHAPE = (4, 10, 20, 30)


def network(numbers: int, channels: int) -> nn.Module:
    """Some float16 weights and a config."""
    module = nn.Linear(numbers, 1, bias=False).half()
    module.config = SimpleNamespace(block_out_channels=(channels, 2 * channels), downscale=8)
    module.checkpoint_activations = False
    return module


@pytest.fixture
def pipeline():
    """Weights of 2000, 600 and 400 bytes."""
    text_encoder = SimpleNamespace(model=network(200, 1))
    return SimpleNamespace(unet=network(1000, 10), vae=network(300, 1), text_encoder=text_encoder)


def estimate(pipeline, settings=FULL, shape=SHAPE, steered=True, **how):
    return estimate_bytes(pipeline, settings, shape, steered=steered, **how)


def test_by_hand(pipeline):
    """A tensor of the U-Net's finest level is 2 halves x 10 frames x 600 cells x 10 channels x 2 bytes = 240,000.
    Plain sampling: 30.5 of them and 3000 bytes of weights. Decoding 4 frames: 6.1 x 4 x 600 x 64 x 2 = 1,873,920."""
    assert estimate(pipeline, preset("plain"), steered=False) == 30.5 * 240_000 + 3000
    assert estimate(pipeline, preset("plain"), steered=False, offload=True) == 30.5 * 240_000 + 2000
    assert estimate(pipeline) == pytest.approx(658.1 * 240_000 + 3000, abs=1)
    pipeline.unet.checkpoint_activations = True
    assert estimate(pipeline) == pytest.approx(107.6 * 240_000 + 3000, abs=1)


def test_decoding_counts_where_it_needs_more(pipeline):
    """With a single channel in the U-Net, 30.5 x 24,000 = 732,000 is less than what decoding takes."""
    pipeline.unet.config.block_out_channels = (1,)
    plain = {"settings": preset("plain"), "steered": False}
    for chunk, frames in ((4, 4), (20, 10)):  # no more than there are
        expected = 6.1 * frames * 600 * 64 * 2 + 3000
        assert estimate(pipeline, frames_per_chunk=chunk, offload=True, **plain) == pytest.approx(expected, abs=1)


@pytest.mark.parametrize(
    ("changes", "steered", "halves", "sequential"),
    [
        ({}, True, "whole", "half"),
        ({"prior_gradient": "text-half"}, True, "half", "half"),
        ({"prior_gradient": "tweedie"}, True, "none", "none"),
        ({"c_g": 0.0}, True, "none", "none"),
        ({"iterations": 0}, True, "none", "none"),
        ({"refine_steps": 0}, True, "none", "none"),
        ({}, False, "none", "none"),
    ],
)
def test_what_is_differentiated(changes, steered, halves, sequential):
    settings = replace(FULL, **changes)
    assert differentiated_halves(settings, steered, False) == halves
    assert differentiated_halves(settings, steered, True) == sequential


def test_each_switch_saves_memory(pipeline):
    whole, half, detached = (estimate(pipeline, replace(FULL, prior_gradient=g)) for g in CHOICES["prior_gradient"])
    assert whole > 1.8 * half > 1.8 * detached
    assert estimate(pipeline, sequential_guidance=True) == half
    assert estimate(pipeline, replace(FULL, c_g=0.0), sequential_guidance=True) < 0.6 * detached
    pipeline.unet.checkpoint_activations = True
    assert estimate(pipeline) < whole / 5


def plan_of(shape=SHAPE, steered=True):
    return Plan("a ball", FULL, shape, torch.zeros(1, shape[1], 4) if steered else None, None)


def test_what_fits_passes(pipeline):
    capacity = estimate(pipeline)
    check_memory(pipeline, plan_of(), capacity)
    check_memory(pipeline, plan_of())  # on a CPU whatever the size
    with pytest.raises(ValueError, match="need at least"):
        check_memory(pipeline, plan_of(), capacity - 1)
    check_memory(pipeline, plan_of(), capacity - 1, sequential_guidance=True)
    check_memory(pipeline, plan_of(steered=False), capacity - 1)


def test_a_refusal_names_what_fits(pipeline):
    """A frame is 658.1 x 24,000 = 15,794,400 bytes: 100 MB hold 6 frames of 600 cells, or 10 of 379. Of 20 x 30 cells,
    7 tenths along each side leave 14 x 21 = 294, 8 tenths would be 16 x 24 = 384."""
    with pytest.raises(ValueError) as caught:
        check_memory(pipeline, plan_of(), 100_000_000)
    assert str(caught.value) == (
        "10 frames of 240x160 need at least 0.2 GB, but the device has 0.1 GB; --frames 6 or --height 112 --width 168 "
        "would fit, or try --checkpoint-activations, --sequential-guidance and --offload"
    )
    for shape in ((4, 6, 20, 30), (4, 10, 14, 21)):
        check_memory(pipeline, plan_of(shape), 100_000_000)
    for shape in ((4, 7, 20, 30), (4, 10, 16, 24)):
        with pytest.raises(ValueError, match="need at least"):
            check_memory(pipeline, plan_of(shape), 100_000_000)


def test_where_not_even_the_weights_fit(pipeline):
    with pytest.raises(ValueError, match=r"the device has 0\.0 GB; no number of frames would fit"):
        check_memory(pipeline, plan_of(), 1000)


def test_a_gpu_is_asked_what_is_free_or_ours(pipeline, monkeypatch):
    needed = estimate(pipeline)
    free = {"bytes": needed - 1000}
    fake = SimpleNamespace(
        parameters=lambda: iter([SimpleNamespace(device=torch.device("cuda"), nbytes=2000, itemsize=2)])
    )
    fake.config, fake.checkpoint_activations = pipeline.unet.config, False
    monkeypatch.setattr(pipeline, "unet", fake)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free["bytes"], 10 * needed))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 1000)
    check_memory(pipeline, plan_of())
    free["bytes"] -= 1
    with pytest.raises(ValueError, match="need at least"):
        check_memory(pipeline, plan_of())
