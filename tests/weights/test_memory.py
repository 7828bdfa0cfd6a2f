"""The estimate of a run's memory: the numbers by hand, what each switch changes, what a refusal says, and the choice of
switches that makes a run fit."""

from dataclasses import replace
from itertools import pairwise, product
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from model.config import UNetConfig, VAEConfig
from sampling.generate import Plan
from sampling.settings import CHOICES, preset
from weights.memory import (
    Footprint,
    Savings,
    check_memory,
    choose_savings,
    differentiated_halves,
    estimate_bytes,
    estimate_time,
)

FULL = preset("full")
SHAPE = (4, 10, 20, 30)
# Zeroscope's architecture with 10 channels where it has 320, and one where its autoencoder has 128
UNET = UNetConfig(block_out_channels=(10, 20, 40, 40), attention_head_dim=2, norm_num_groups=2, cross_attention_dim=8)
VAE = VAEConfig(block_out_channels=(1, 2, 4, 4), norm_num_groups=1)
SMALL = Footprint(UNET, VAE, itemsize=2, unet_bytes=2000, vae_bytes=600, text_bytes=400)
ZEROSCOPE = Footprint(UNetConfig(), VAEConfig(), 2, 2 * 1_411_233_860, 2 * 83_653_863, 2 * 340_387_840)  # float16
NATIVE = (4, 24, 40, 72)  # 24 frames of 576 x 320


def network(numbers: int, config: UNetConfig | VAEConfig | None) -> nn.Module:
    """Some float16 weights and a config."""
    module = nn.Linear(numbers, 1, bias=False).half()
    module.config, module.checkpoint_activations = config, False
    return module


@pytest.fixture
def pipeline():
    """The networks of SMALL: weights of 2000, 600 and 400 bytes."""
    text_encoder = SimpleNamespace(model=network(200, None))
    return SimpleNamespace(unet=network(1000, UNET), vae=network(300, VAE), text_encoder=text_encoder)


def estimate(settings=FULL, shape=SHAPE, networks=SMALL, steered=True, **savings) -> int:
    return estimate_bytes(networks, settings, shape, Savings(**savings), steered=steered)


def plan_of(shape=SHAPE, steered=True, settings=FULL) -> Plan:
    return Plan("a ball", settings, shape, torch.zeros(1, shape[1], 4) if steered else None, None)


# ---- The estimate --------------------------------------------------------------------------------------------------


def test_the_footprint_is_that_of_the_networks(pipeline):
    assert Footprint.of(pipeline) == SMALL


def test_by_hand():
    """A tensor of the U-Net's finest level is 2 halves x 10 frames x 600 cells x 10 channels x 2 bytes = 240,000.
    Plain sampling: 25.5 of them and 3000 bytes of weights. Decoding 4 frames: 6.1 x 4 x 600 x 64 x 2 = 1,873,920."""
    assert estimate(preset("plain"), steered=False) == pytest.approx(25.5 * 240_000 + 3000, abs=1)
    assert estimate(preset("plain"), steered=False, offload=True) == pytest.approx(25.5 * 240_000 + 2000, abs=1)
    assert estimate() == pytest.approx(685.3 * 240_000 + 3000, abs=1)
    assert estimate(checkpoint_activations=True) == pytest.approx(84.8 * 240_000 + 3000, abs=1)


def test_decoding_counts_where_it_needs_more():
    """With 32 channels decoding 4 frames takes 6.1 x 4 x 600 x 64 x 32 x 2 = 59,965,440, more than 25.5 x 240,000."""
    wide = replace(SMALL, vae=VAEConfig(block_out_channels=(32, 64, 128, 128)))
    for chunk, frames in ((4, 4), (20, 10)):  # no more than there are
        expected = 6.1 * frames * 600 * 64 * 32 * 2 + 3000
        found = estimate(preset("plain"), networks=wide, steered=False, frames_per_chunk=chunk, offload=True)
        assert found == pytest.approx(expected, abs=1)


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


def test_each_switch_saves_memory():
    whole, half, none = (estimate(replace(FULL, prior_gradient=g)) for g in CHOICES["prior_gradient"])
    assert whole > 1.8 * half > 1.8 * none
    assert estimate(sequential_guidance=True) == half
    assert estimate(replace(FULL, c_g=0.0), sequential_guidance=True) < 0.6 * none
    assert estimate(checkpoint_activations=True) < whole / 5


@pytest.mark.parametrize(
    ("frames", "height", "width", "gigabytes"),
    [
        (24, 320, 576, (5.9, 11.2)),  # Zeroscope
        (30, 256, 448, (5.4, 9.5)),  # zeroscope_v2_30x448x256
        (24, 576, 1024, (10.9, 27.7)),  # zeroscope_v2_XL
        (16, 256, 256, (4.2, 5.4)),  # text-to-video-ms-1.7b
    ],
)
def test_the_checkpoints_of_the_hub_in_float16(frames, height, width, gigabytes):
    """Plain, and full with checkpointing. tests/benchmarks/memory.py counts the same at each size, but for the second
    of 448 x 256, which is in proportion."""
    shape = (4, frames, height // 8, width // 8)
    plain = estimate(preset("plain"), shape, ZEROSCOPE, steered=False)
    full = estimate(FULL, shape, ZEROSCOPE, checkpoint_activations=True)
    assert (round(plain / 1e9, 1), round(full / 1e9, 1)) == gigabytes


# ---- Another architecture ------------------------------------------------------------------------------------------

DEEPER = {"layers_per_block": 3}
SHALLOWER = {
    "block_out_channels": (10, 20),
    "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
    "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
}
OTHERS = {
    "deeper": replace(SMALL, unet=replace(UNET, **DEEPER)),
    "shallower": replace(SMALL, unet=replace(UNET, **SHALLOWER)),
    "of other proportions": replace(SMALL, unet=replace(UNET, block_out_channels=(10, 10, 20, 40))),
    "with wider heads": replace(SMALL, unet=replace(UNET, attention_head_dim=5)),
    "with another autoencoder": replace(SMALL, vae=replace(VAE, layers_per_block=1)),
}


@pytest.mark.parametrize("channels", [10, 80, 320, 640])
def test_any_width_is_known(channels):
    levels = tuple(channels * c for c in (1, 2, 4, 4))
    wide = replace(UNET, block_out_channels=levels, attention_head_dim=channels // 5, cross_attention_dim=77)
    networks = replace(SMALL, unet=wide)
    assert networks.known
    assert estimate(networks=networks) == pytest.approx(685.3 * 24_000 * channels + 3000, abs=1)


@pytest.mark.parametrize("networks", OTHERS.values(), ids=OTHERS)
def test_of_another_architecture_the_weights_alone_are_known(pipeline, networks):
    assert not networks.known
    assert estimate(networks=networks, shape=(4, 1000, 500, 500)) == 3000
    pipeline.unet.config, pipeline.vae.config = networks.unet, networks.vae
    check_memory(pipeline, plan_of((4, 1000, 500, 500)), 3000)  # not judged by another's numbers
    with pytest.raises(ValueError, match="no number of frames would fit"):
        check_memory(pipeline, plan_of(), 2999)


# ---- Refusing ------------------------------------------------------------------------------------------------------


def test_what_fits_passes(pipeline):
    capacity = estimate()
    check_memory(pipeline, plan_of(), capacity)
    check_memory(pipeline, plan_of())  # on a CPU whatever the size
    with pytest.raises(ValueError, match="need at least"):
        check_memory(pipeline, plan_of(), capacity - 1)
    check_memory(pipeline, plan_of(), capacity - 1, sequential_guidance=True)
    check_memory(pipeline, plan_of(steered=False), capacity - 1)
    pipeline.unet.checkpoint_activations = True
    check_memory(pipeline, plan_of(), capacity - 1)


def test_a_refusal_names_what_fits(pipeline):
    """A frame is 685.3 x 24,000 = 16,447,200 bytes: 100 MB hold 6 frames of 600 cells, or 10 of 364. Of 20 x 30 cells,
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
    needed = estimate()
    free = {"bytes": needed - 1000}
    fake = SimpleNamespace(
        parameters=lambda: iter([SimpleNamespace(device=torch.device("cuda"), nbytes=2000, itemsize=2)])
    )
    fake.config, fake.checkpoint_activations = UNET, False
    monkeypatch.setattr(pipeline, "unet", fake)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free["bytes"], 10 * needed))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 1000)
    check_memory(pipeline, plan_of())
    free["bytes"] -= 1
    with pytest.raises(ValueError, match="need at least"):
        check_memory(pipeline, plan_of())


# ---- Choosing ------------------------------------------------------------------------------------------------------


def test_time_by_hand():
    """Of 50 steps each is a forward pass, and 100 refinements are 1 / 0.41 = 2.44 each: 293.9; checkpointed 3.24 each;
    one half after the other 1.04, and 1.04 x 2.44 + 0.5."""
    assert estimate_time(FULL, Savings(), steered=True) == pytest.approx(50 + 100 / 0.41)
    assert estimate_time(FULL, Savings(True), steered=True) == pytest.approx(50 + 100 * 1.33 / 0.41)
    assert estimate_time(FULL, Savings(False, True), steered=True) == pytest.approx(52 + 100 * (1.04 / 0.41 + 0.5))
    assert estimate_time(FULL, Savings(offload=True, frames_per_chunk=1), steered=True) == pytest.approx(293.9, abs=0.1)
    assert estimate_time(replace(FULL, refine_steps=8), Savings(), steered=True) == pytest.approx(50 + 16 / 0.41)
    assert estimate_time(replace(FULL, prior_gradient="text-half"), Savings(), steered=True) == pytest.approx(
        226, abs=1
    )
    for cheap in (replace(FULL, prior_gradient="tweedie"), replace(FULL, c_g=0.0)):
        assert estimate_time(cheap, Savings(True), steered=True) == 150
    assert estimate_time(FULL, Savings(True), steered=False) == 50


@pytest.mark.parametrize("capacity", [4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 34, 35, 40, 48, 60, 62, 80])
@pytest.mark.parametrize("method", ["plain", "mask-norm+id", "full", "text-half", "tweedie"])
def test_no_other_combination_that_fits_is_faster(capacity, method):
    gradients = CHOICES["prior_gradient"]
    settings = replace(FULL, prior_gradient=method) if method in gradients else preset(method)
    plan = plan_of(NATIVE, settings=settings)
    choice = choose_savings(ZEROSCOPE, [plan], capacity * 10**9)
    plainly = estimate_time(settings, Savings(), steered=True)
    fitting = []
    for switches in product((False, True), (False, True), (False, True), (4, 2, 1)):
        savings = Savings(*switches)
        if estimate_bytes(ZEROSCOPE, settings, NATIVE, savings, steered=True) <= capacity * 10**9:
            fitting.append((estimate_time(settings, savings, steered=True) / plainly, savings))
    if choice is None:
        assert fitting == []
        return
    assert choice.bytes == estimate_bytes(ZEROSCOPE, settings, NATIVE, choice.savings, steered=True)
    assert (choice.time, choice.savings) in fitting
    assert choice.time == min(time for time, _ in fitting)
    assert choice.savings.switched == min(savings.switched for time, savings in fitting if time == choice.time)


def test_switches_are_counted():
    assert [s.switched for s in (Savings(), Savings(True), Savings(offload=True, frames_per_chunk=1))] == [0, 1, 2]


def test_after_memory_ran_out_the_next_needs_less_and_in_the_end_there_is_none():
    tried, capacity = [], 80 * 10**9
    while (choice := choose_savings(ZEROSCOPE, [plan_of(NATIVE)], capacity)) is not None:
        tried.append(choice)
        capacity = choice.bytes - 1
    assert tried[0].savings == Savings() and tried[-1].savings.offload
    assert all(a.bytes > b.bytes and a.time <= b.time for a, b in pairwise(tried))
    assert len(tried) >= 4


def test_several_plans_all_have_to_fit():
    """Plain sampling alone needs no switch on 16 GB; beside the full method it takes what that needs."""
    plain, full = plan_of(NATIVE, settings=preset("plain")), plan_of(NATIVE)
    assert choose_savings(ZEROSCOPE, [plain], 16 * 10**9).savings == Savings()
    choice = choose_savings(ZEROSCOPE, [plain, full], 16 * 10**9)
    assert choice.savings == Savings(checkpoint_activations=True)
    assert 1 < choice.time < choose_savings(ZEROSCOPE, [full], 16 * 10**9).time


def test_an_unknown_architecture_is_left_as_it_is():
    for networks in OTHERS.values():
        choice = choose_savings(networks, [plan_of()], 3000)
        assert (choice.savings, choice.bytes, choice.time) == (Savings(), 3000, 1.0)
        assert choose_savings(networks, [plan_of()], 2999).savings == Savings(offload=True)
        assert choose_savings(networks, [plan_of()], 1999) is None
