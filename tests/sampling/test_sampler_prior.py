"""Lines 4 and 5 of Algorithm 1: the prior's gradient in its three readings, against closed forms on two Gaussians."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from adaptation.temporal_prior import temporal_consistency
from sampling import sampler
from sampling.sampler import State, initial_state, sample
from sampling.settings import SamplingSettings
from tests.helpers import MOVING, SHAPE, normal, start, strength

MU = normal(*SHAPE, seed=1)
WHOLE = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(1, 3, 4)  # one subject that fills all three frames
# One refinement before the first of two steps, t = 501
ONCE = SamplingSettings(steps=2, guidance_scale=3.0, frozen_steps=0, iterations=1, c_g=strength(100.0, *SHAPE))


def tau_gradient(z0: Tensor) -> Tensor:
    """grad tau for boxes that are the whole of F = 3 frames, from d rho(a, b) / da = (b^ - rho a^) / |a - mean a|,
    where ^ is "centred, of unit length"; the first and last frame are in one pair, the middle one in two."""
    B, C, _, H, W = z0.shape
    centred = [x - x.mean(1, keepdim=True) for x in (frame.flatten(1) for frame in z0.unbind(dim=2))]
    length = [x.norm(dim=1, keepdim=True) for x in centred]
    unit = [x / n for x, n in zip(centred, length, strict=True)]
    gradient = [torch.zeros_like(x) for x in unit]
    for i, j in ((0, 1), (1, 0), (1, 2), (2, 1)):
        rho = (unit[i] * unit[j]).sum(1, keepdim=True)
        gradient[i] += (unit[j] - rho * unit[i]) / length[i] / 2  # mean over two pairs
    return torch.stack([x.reshape(B, C, H, W) for x in gradient], dim=2)


def applied(network, schedule, settings: SamplingSettings, state: State) -> Tensor:
    """G_g of the first iteration, read off the latents that the network is given before and after it."""
    next(sample(network, schedule, state, settings, WHOLE))
    z, refined = network.latents[:2]
    a = schedule.alpha_bar[501].double()
    eps_uncond, eps_text = network.eps(z, 501)
    G_p = -(eps_uncond + settings.guidance_scale * (eps_text - eps_uncond)) / (1 - a).sqrt()
    eta_l, eta_k = 0.05 * (1 - a), (0.05 * 1.95 * (1 - a)).sqrt()  # gamma = 0.05
    noise = state.streams.draw("refinement", SHAPE, step=0, iteration=0).double()
    # Zeroscope has 23 pairs of frames of 11,520 values each, these latents 2 of 2 x 4 x 5; of lengths it is the root
    c_g = settings.c_g * ((3 * 40 / (24 * 11_520)) ** 0.5 if settings.unit_gradient else 2 * 40 / (23 * 11_520))
    return ((refined - z - eta_k * noise) / eta_l - G_p) / c_g


@pytest.mark.parametrize("w", [1.0, 3.0, 9.0])
@pytest.mark.parametrize(("mu", "v"), [(0.0, 1.0), (MU, 1.0), (MU, 0.2)])
@pytest.mark.parametrize("prior_gradient", ["unet", "text-half", "tweedie"])
def test_closed_forms(gaussians, schedule, prior_gradient, mu, v, w):
    """With r = sqrt(a), z0_u = r z, z0_t = mu + (r v / q)(z - r mu); Tweedie is linear in eps, so the guided
    estimate is z0_w = (1 - w) z0_u + w z0_t. By the chain rule:
        full         ((1 - w) r + w r v / q) grad tau(z0_w)
        conditional  (r v / q) grad tau(z0_t)
        detached     (1 / r) grad tau(z0_w)
    """
    state = start(0, 1)
    z, a = state.z, schedule.alpha_bar[501].double()
    r, q = a.sqrt(), a * v + 1 - a
    z0_t = mu + (r * v / q) * (z - r * mu)
    z0_w = (1 - w) * r * z + w * z0_t
    expected = {
        "unet": ((1 - w) * r + w * r * v / q) * tau_gradient(z0_w),
        "text-half": (r * v / q) * tau_gradient(z0_t),
        "tweedie": tau_gradient(z0_w) / r,
    }[prior_gradient]
    settings = replace(ONCE, guidance_scale=w, prior_gradient=prior_gradient)
    torch.testing.assert_close(applied(gaussians(mu, v), schedule, settings, state), expected, rtol=1e-8, atol=1e-12)


def test_unit_gaussian(gaussians, schedule):
    """z0_hat = r z and tau does not see scale: tau(z0_hat(z)) = tau(z), so that "unet" and "text-half" are
    grad tau(z). For "tweedie", grad tau(r z) / r = grad tau(z) / a."""
    expected = tau_gradient(start().z)
    a = schedule.alpha_bar[501].double()
    for prior_gradient, factor in (("unet", 1.0), ("text-half", 1.0), ("tweedie", 1 / a)):
        actual = applied(gaussians(), schedule, replace(ONCE, prior_gradient=prior_gradient), start())
        torch.testing.assert_close(actual, factor * expected, rtol=1e-8, atol=1e-12)


def test_guidance_scale_enters_full_but_not_conditional(gaussians, schedule):
    def gradient(prior_gradient, w):
        settings = replace(ONCE, guidance_scale=w, prior_gradient=prior_gradient)
        return applied(gaussians(MU, 0.2), schedule, settings, start())

    torch.testing.assert_close(gradient("text-half", 2.0), gradient("text-half", 7.0), rtol=1e-8, atol=1e-12)
    assert (gradient("unet", 2.0) - gradient("unet", 7.0)).norm() > 0.1 * gradient("unet", 2.0).norm()


@pytest.mark.parametrize(
    ("prior_gradient", "backward"),
    [
        ("unet", {"uncond": 4, "text": 4}),
        ("text-half", {"uncond": 0, "text": 4}),
        ("tweedie", {"uncond": 0, "text": 0}),
    ],
)
def test_which_halves_of_the_network_are_differentiated(gaussians, schedule, prior_gradient, backward):
    network = gaussians(MU, 0.2)
    list(sample(network, schedule, start(), replace(ONCE, iterations=2, prior_gradient=prior_gradient), MOVING))
    assert network.backward == backward  # 2 steps of 2 iterations
    through = prior_gradient != "tweedie"
    assert network.differentiated == [through, through, False] * 2  # the DDIM step's call never is


@pytest.mark.parametrize(
    ("changes", "boxes"),
    [({"iterations": 2, "c_g": 0.0}, MOVING), ({"iterations": 2}, None), ({"iterations": 0}, MOVING)],
    ids=["c_g = 0", "no boxes", "M = 0"],
)
def test_no_gradient_without_a_prior(gaussians, schedule, changes, boxes, monkeypatch):
    monkeypatch.setattr(torch.autograd, "grad", lambda *_: pytest.fail("a gradient was taken"))
    network = gaussians()
    list(sample(network, schedule, start(), replace(ONCE, **changes), boxes))
    assert network.differentiated and not any(network.differentiated)


def test_without_boxes_it_is_intrinsic_denoising(gaussians, schedule):
    def end(number, boxes):
        settings = replace(ONCE, c_g=strength(number, *SHAPE))
        return list(sample(gaussians(MU), schedule, start(), settings, boxes))[-1].z

    assert torch.equal(end(100.0, None), end(0.0, MOVING))
    assert not torch.equal(end(100.0, None), end(100.0, MOVING))


def test_normalized_gradient_has_unit_length_and_the_same_direction(gaussians, schedule):
    plain = applied(gaussians(MU), schedule, ONCE, start(0, 1))
    unit = applied(gaussians(MU), schedule, replace(ONCE, unit_gradient=True), start(0, 1))
    expected = plain / plain.flatten(1).norm(dim=1).reshape(2, 1, 1, 1, 1)
    torch.testing.assert_close(unit, expected, rtol=1e-8, atol=1e-12)


def test_a_subject_that_is_never_there_has_no_gradient(gaussians, schedule):
    absent = torch.full((1, 3, 4), torch.nan)
    actual = list(sample(gaussians(MU), schedule, start(), ONCE, absent))[-1].z
    assert torch.equal(actual, list(sample(gaussians(MU), schedule, start(), replace(ONCE, c_g=0.0)))[-1].z)


@pytest.mark.parametrize(("scale", "low", "high"), [(sampler.TAU_SCALE, 0.999, 1.0001), (1.0, -1, 0.9)])
def test_gradient_through_a_float16_network(schedule, monkeypatch, scale, low, high):
    """Next to t = 0 a gradient of 1e-6 reaches a float16 network, and 1 / 64 of it the layer before the last: below
    6e-8, which float16 rounds to 0 or 1 unit. Scaled, the direction is float32's; unscaled, it is lost.

    What comes through the network is "unet" less "tweedie".
    """
    monkeypatch.setattr(sampler, "TAU_SCALE", scale)
    kernel = torch.randn(4, 4, 1, 3, 3, generator=torch.Generator().manual_seed(2))
    state = replace(initial_state([0], (4, 8, 32, 32)), step=1)  # t = 1
    boxes = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(1, 8, 4)

    def through_network(dtype):
        latents = []

        def denoise(z, t, frozen):
            latents.append(z.detach())
            eps = torch.nn.functional.conv3d(z.to(dtype), kernel.to(dtype), padding=(0, 1, 1)) / 64
            return eps, eps

        for prior_gradient in ("unet", "tweedie"):
            list(sample(denoise, schedule, state, replace(ONCE, c_g=1e9, prior_gradient=prior_gradient), boxes))
        return (latents[1] - latents[3]).flatten()

    half, single = through_network(torch.float16), through_network(torch.float32)
    assert low < torch.cosine_similarity(half, single, dim=0) < high


def test_the_prior_raises_tau(gaussians, schedule):
    def tau(number):
        settings = replace(ONCE, steps=10, iterations=2, c_g=strength(number, *SHAPE))
        return temporal_consistency(list(sample(gaussians(), schedule, start(0, 1, 2), settings, MOVING))[-1].z, MOVING)

    assert (tau(20.0) > tau(0.0) + 0.2).all()


def test_inference_mode_is_refused_where_a_gradient_is_needed(gaussians, schedule):
    with torch.inference_mode():
        with pytest.raises(ValueError, match=r"use torch\.no_grad"):
            next(sample(gaussians(), schedule, start(), ONCE, MOVING))
        assert next(sample(gaussians(), schedule, start(), ONCE)).step == 1
