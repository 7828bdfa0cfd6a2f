"""Half precision on the tiny checkpoint: how near it comes to float32, and that torch's sums do not overflow.

The whole tables are printed by precision.py, and stand in docs/zeroscope.md.
"""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))

from precision import LARGEST, Subject, cosine, distance, magnitudes

from model.attention import Attention
from sampling.denoise import make_denoise
from sampling.sampler import gradients, initial_state, sample
from sampling.settings import SamplingSettings, preset

HALVES = [torch.float16, torch.bfloat16]


@pytest.fixture(scope="module")
def tiny():
    return Subject("tiny")


def test_magnitudes_by_hand():
    """A layer that doubles, and one that takes half of that; two groups with squares of 1 + 4 and 9 + 16."""
    network = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    for layer, factor in zip(network, (2.0, 0.5), strict=True):
        nn.init.eye_(layer.weight)
        layer.weight.data *= factor
    assert magnitudes(network, lambda: network(torch.tensor([1.0, -3.0]))) == {"Linear": (6.0, "0")}
    norm = nn.Sequential(nn.GroupNorm(2, 4))
    found = magnitudes(norm, lambda: norm(torch.tensor([1.0, 2, 3, 4]).view(1, 4, 1, 1)))
    assert found["sum of squares in a GroupNorm"] == (25.0, "0")


@torch.no_grad()
def test_no_logit_exceeds_its_bound():
    torch.manual_seed(0)
    layer = Attention(8, heads=2, head_dim=4)
    x = torch.randn(3, 5, 8)
    found, _ = magnitudes(layer, lambda: layer(x))["attention logits, at most"]
    q, k = (y.unflatten(-1, (2, 4)).transpose(1, 2) for y in (layer.to_q(x), layer.to_k(x)))
    assert found >= float((q @ k.mT * 4**-0.5).abs().max()) > found / 10


@pytest.mark.parametrize("dtype", HALVES)
def test_sums_of_a_group_norm_do_not_overflow(dtype):
    """Its squares add up to 250 times float16's largest number; torch adds them in float32."""
    x = 16 * torch.randn(1, 8, 128, 64, generator=torch.Generator().manual_seed(0))
    assert x.square().sum() > 200 * LARGEST
    norm = nn.GroupNorm(1, 8)
    for given in (x, x.contiguous(memory_format=torch.channels_last)):
        found = norm.to(dtype)(given.to(dtype))
        assert distance(found, norm.float()(given)) < {torch.float16: 1e-3, torch.bfloat16: 1e-2}[dtype]


@pytest.mark.parametrize(("dtype", "least"), [(torch.float16, 0.995), (torch.bfloat16, 0.98)])
def test_the_priors_gradient_keeps_its_direction(tiny, dtype, least):
    found = {}
    for number_type in (torch.float32, dtype):
        denoise = make_denoise(tiny.network(number_type), tiny.text, tiny.control)
        level = tiny.schedule.alpha_bar[801].float()
        with torch.no_grad():
            found[number_type], _, _ = gradients(
                denoise, tiny.z, 801, True, level, SamplingSettings(), tiny.boxes.boxes
            )
    assert cosine(found[dtype], found[torch.float32]) > least
    assert float((found[dtype] == 0).float().mean()) < 0.001  # nothing of it is rounded to zero


@pytest.mark.parametrize(("dtype", "most"), [(torch.float16, 0.03), (torch.bfloat16, 0.08)])
def test_two_steps_of_the_whole_method_stay_near_float32(tiny, dtype, most):
    settings = replace(preset("full"), steps=2, frozen_steps=1, refine_steps=1, iterations=1, c_g=1480.0)
    ends = []
    for number_type in (torch.float32, dtype):
        denoise = make_denoise(tiny.network(number_type), tiny.text, tiny.control)
        state = initial_state((0,), tiny.z.shape[1:])
        *_, last = sample(denoise, tiny.schedule, state, settings, tiny.boxes.boxes)
        ends.append(last.z)
    assert 0 < distance(ends[1], ends[0]) < most
