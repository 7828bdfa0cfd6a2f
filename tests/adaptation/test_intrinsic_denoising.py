"""Eq. 2 by hand, and its step sizes: the published schedule's numbers and the variance they keep."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adaptation.intrinsic_denoising import intrinsic_step, step_sizes
from tests.helpers import normal

LATENT = (1, 4, 3, 2, 2)


# Zeroscope's schedule at gamma = 0.05, e.g. t = 981: eta_l = 0.05 x 0.994224, eta_k = sqrt(0.05 x 1.95 x 0.994224).
@pytest.mark.parametrize(
    "alpha_bar, eta_l, eta_k",
    [(0.005776, 0.04971, 0.31135), (0.006124, 0.04969, 0.31129), (0.3093, 0.03453, 0.2595), (0.99830, 8.5e-5, 0.0129)],
)
def test_step_sizes_on_zeroscopes_schedule(alpha_bar, eta_l, eta_k):
    assert step_sizes(0.05, alpha_bar) == pytest.approx((eta_l, eta_k), rel=2e-3)
    as_tensors = step_sizes(0.05, torch.tensor(alpha_bar, dtype=torch.float64))
    assert [float(eta) for eta in as_tensors] == pytest.approx(step_sizes(0.05, alpha_bar), rel=1e-15)


def test_step_sizes_by_hand():
    # gamma 0.5, alpha_bar 0.25: eta_l = 0.5 x 0.75 = 0.375, eta_k = sqrt(0.5 x 1.5 x 0.75) = sqrt(0.5625) = 0.75.
    assert step_sizes(0.5, 0.25) == (0.375, 0.75)
    assert step_sizes(0.0, 0.25) == (0.0, 0.0)
    assert step_sizes(1.0, 0.0) == (1.0, 1.0)


def test_step_sizes_of_several_noise_levels():
    eta_l, eta_k = step_sizes(0.5, torch.tensor([0.25, 1.0], dtype=torch.float64))
    assert eta_l.tolist() == [0.375, 0.0] and eta_k.tolist() == [0.75, 0.0]


@given(st.floats(0, 1), st.floats(0, 1))
def test_variance_is_kept(gamma, alpha_bar):
    # z = sqrt(alpha_bar) z0 + s n, s^2 = 1 - alpha_bar; given z0 the score is -(z - sqrt(alpha_bar) z0) / s^2 = -n / s.
    # The step makes s n - eta_l n / s + eta_k eps; n and eps are independent, so its variance is
    # (s - eta_l / s)^2 + eta_k^2 = s^2 - 2 eta_l + eta_l^2 / s^2 + eta_k^2, which must be s^2.
    eta_l, eta_k = step_sizes(gamma, alpha_bar)
    if alpha_bar < 1:
        assert -2 * eta_l + eta_l**2 / (1 - alpha_bar) + eta_k**2 == pytest.approx(0, abs=1e-12)


@given(st.floats(0, 1), st.floats(0, 1))
def test_variance_on_unit_gaussian_data(gamma, alpha_bar):
    # With z0 ~ N(0, 1) the marginal of z is N(0, 1) and its score -z. One step: z (1 - eta_l) + eta_k eps, of variance
    # (1 - eta_l)^2 + eta_k^2 = 1 - gamma^2 alpha_bar (1 - alpha_bar): below 1 by at most gamma^2 / 4, 6e-4 at 0.05.
    eta_l, eta_k = step_sizes(gamma, alpha_bar)
    expected = 1 - gamma**2 * alpha_bar * (1 - alpha_bar)
    assert (1 - eta_l) ** 2 + eta_k**2 == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("alpha_bar", [0.005776, 0.3093, 0.9])
def test_variance_is_kept_by_the_step_itself(alpha_bar):
    # Monte Carlo with 200,000 draws: the standard error of a variance near 1 is sqrt(2 / 200,000) = 0.0032.
    draws = 200_000
    z0, n = normal(draws), normal(draws, seed=1)
    z = math.sqrt(alpha_bar) * z0 + math.sqrt(1 - alpha_bar) * n
    for step in range(10):
        score = -(z - math.sqrt(alpha_bar) * z0) / (1 - alpha_bar)
        z = intrinsic_step(z, score, None, *step_sizes(0.3, alpha_bar), 0.0, normal(draws, seed=2 + step))
    assert float(z.var()) == pytest.approx(1, abs=0.01)
    assert float((z - math.sqrt(alpha_bar) * z0).var()) == pytest.approx(1 - alpha_bar, abs=0.01)


def test_step_by_hand():
    # 2 + 0.1 (10 x 0.3 - 1) + 0.5 x 4 = 2 + 0.2 + 2 = 4.2
    z, score, gradient, noise = (torch.full(LATENT, v, dtype=torch.float64) for v in (2.0, -1.0, 0.3, 4.0))
    refined = intrinsic_step(z, score, gradient, 0.1, 0.5, 10.0, noise)
    torch.testing.assert_close(refined, torch.full(LATENT, 4.2, dtype=torch.float64), rtol=0, atol=1e-14)


def test_step_sizes_may_differ_between_videos():
    z, score, noise = normal(2, 4), normal(2, 4, seed=1), normal(2, 4, seed=2)
    eta_l, eta_k = (eta[:, None] for eta in step_sizes(0.05, torch.tensor([0.2, 0.7], dtype=torch.float64)))
    both = intrinsic_step(z, score, None, eta_l, eta_k, 0.0, noise)
    second = intrinsic_step(z[1:], score[1:], None, *step_sizes(0.05, 0.7), 0.0, noise[1:])
    torch.testing.assert_close(both[1:], second, rtol=0, atol=1e-15)


def test_without_guidance_the_prior_is_not_looked_at():
    z, score, noise = normal(*LATENT), normal(*LATENT, seed=1), normal(*LATENT, seed=2)
    without = intrinsic_step(z, score, None, 0.1, 0.2, 0.0, noise)
    poisoned = intrinsic_step(z, score, torch.full(LATENT, math.nan).double(), 0.1, 0.2, 0.0, noise)
    assert torch.equal(without, poisoned)
    assert torch.equal(without, z + 0.1 * score + 0.2 * noise)


def test_a_zero_step_changes_nothing():
    z, score, gradient, noise = (normal(*LATENT, seed=seed) for seed in range(4))
    assert torch.equal(intrinsic_step(z, score, gradient, 0.0, 0.0, 5.0, noise), z)


@pytest.mark.parametrize("gamma", [-0.01, 1.01, math.nan, math.inf])
def test_gamma_outside_its_range(gamma):
    with pytest.raises(ValueError, match="gamma is the share of noise"):
        step_sizes(gamma, 0.5)


@pytest.mark.parametrize("alpha_bar", [-0.1, 1.1, math.nan, torch.tensor([0.5, 1.5])])
def test_alpha_bar_outside_its_range(alpha_bar):
    with pytest.raises(ValueError, match="alpha_bar is a product"):
        step_sizes(0.05, alpha_bar)


def test_shapes_that_would_broadcast_silently():
    z, other = normal(*LATENT), normal(*LATENT[:-1], 1, seed=1)
    for score, gradient, noise, name in [
        (other, z, z, "score"),
        (z, other, z, "prior_gradient"),
        (z, z, other, "noise"),
    ]:
        with pytest.raises(ValueError, match=f"^{name} has shape"):
            intrinsic_step(z, score, gradient, 0.1, 0.1, 1.0, noise)


def test_guidance_needs_its_gradient():
    z = normal(*LATENT)
    with pytest.raises(ValueError, match="needs the gradient of the temporal prior"):
        intrinsic_step(z, z, None, 0.1, 0.1, 1.0, z)
