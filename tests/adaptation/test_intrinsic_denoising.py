"""Eq. 2 by hand, and its step sizes: the published schedule's numbers and the variance they keep."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adaptation.intrinsic_denoising import intrinsic_step, scale_c_g, step_sizes
from adaptation.temporal_prior import temporal_consistency
from tests.helpers import f64, normal

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


# ---- The prior's strength ------------------------------------------------------------------------------------------


def test_at_zeroscopes_size_c_g_is_the_number_in_eq_2():
    assert [scale_c_g(c_g, (4, 24, 40, 72), unit) for c_g in (10_000.0, 0.1) for unit in (False, True)] == [
        10_000.0,
        10_000.0,
        0.1,
        0.1,
    ]


def test_scaled_strength_by_hand():
    # Zeroscope: 23 pairs of 4 x 40 x 72 = 11,520 values. Tiny: 7 pairs of 4 x 12 x 16 = 768; 7 x 768 / (23 x 11,520) is
    # 5,376 / 264,960 = 0.02029, times 10,000 is 202.9. As many frames of twice the height and width: 4 times as much.
    assert scale_c_g(10_000.0, (4, 8, 12, 16)) == pytest.approx(202.8986, abs=1e-4)
    assert scale_c_g(10_000.0, (4, 24, 80, 144)) == pytest.approx(40_000, rel=1e-12)
    assert scale_c_g(10_000.0, (4, 47, 40, 72)) == pytest.approx(20_000, rel=1e-12)  # 46 pairs in place of 23
    assert scale_c_g(10_000.0, (4, 1, 40, 72)) == 0.0  # one frame has no pair
    assert scale_c_g(0.0, (4, 8, 12, 16)) == 0.0
    # A gradient of length 1 has elements of 1 / sqrt(values): 4 x 6 x 20 x 36 are a 16th of Zeroscope's, so a quarter.
    assert scale_c_g(10_000.0, (4, 6, 20, 36), unit_gradient=True) == pytest.approx(2_500, rel=1e-12)


def tau_gradient(z0, boxes):
    z0 = z0.requires_grad_()
    (gradient,) = torch.autograd.grad(temporal_consistency(z0, boxes).sum(), z0)
    return gradient


def test_length_of_the_gradient_of_a_correlation_by_hand():
    # u = 5 (1, 1, -1, -1) and v = 0.6 (1, 1, -1, -1) + 0.8 (1, -1, 1, -1): rho = 0.6, |u| = 10, |v| = 2, so that the
    # gradients have lengths sqrt(1 - 0.36) / 10 = 0.08 and 0.8 / 2 = 0.4. Per element, of sigma 5 and 1 and n_c = 4:
    # 0.8 / (5 x 4) = 0.04 and 0.8 / (1 x 4) = 0.2. Numbers added to a frame change nothing.
    u, v = 5 * f64(1, 1, -1, -1) + 3, 0.6 * f64(1, 1, -1, -1) + 0.8 * f64(1, -1, 1, -1) - 7
    gradient = tau_gradient(torch.stack([u, v]).reshape(1, 1, 2, 2, 2), f64(0, 0, 1, 1).expand(1, 2, 4))
    assert gradient.square().sum((0, 1, 3, 4)).sqrt().tolist() == pytest.approx([0.08, 0.4], rel=1e-12)
    assert gradient.square().mean((0, 1, 3, 4)).sqrt().tolist() == pytest.approx([0.04, 0.2], rel=1e-12)


@given(st.integers(0, 10**6), st.integers(2, 12), st.integers(2, 12), st.floats(0, 10))
def test_length_of_the_gradient_of_a_correlation(seed, H, W, shared):
    """|grad_u rho| = sqrt(1 - rho^2) / (sigma_u sqrt(n_c)), of two frames that have a share in common."""
    frames = normal(3, 4, H * W, seed=seed)
    u, v = frames[0] + shared * frames[2], 3 * frames[1] + shared * frames[2]
    rho = torch.corrcoef(torch.stack([u.flatten(), v.flatten()]))[0, 1]
    z0 = torch.stack([u, v], dim=1).reshape(1, 4, 2, H, W)
    length = tau_gradient(z0, f64(0, 0, 1, 1).expand(1, 2, 4)).square().sum((0, 1, 3, 4)).sqrt()
    sigma = torch.stack([u.std(correction=0), v.std(correction=0)])
    torch.testing.assert_close(length, (1 - rho**2).sqrt() / (sigma * (4 * H * W) ** 0.5), rtol=1e-9, atol=0)


sizes = st.tuples(st.integers(3, 24), *[st.sampled_from([16, 24, 40, 72])] * 2)  # F, H, W


@given(st.data(), st.integers(3, 8), st.integers(3, 8), st.floats(0, 0.5))
def test_the_scaled_prior_is_as_strong_at_every_size(data, h, w, rho):
    """Latents whose frames have a correlation of rho, and a box of h x w eighths of the frame somewhere in it.

    What is left over is a factor of at most 1.35: that the first and the last frame are in one pair, so that the rms is
    sqrt((F - 1) / F) of what is counted, 0.82 with 3 frames and 0.98 with 24 (a factor of 1.2), and chance, for the
    smallest crop has 144 values. Without the scale the two lie apart by up to 23 x 72 x 72 / (2 x 16 x 16) = 233.
    """
    strengths = []
    for seed in range(2):
        F, H, W = data.draw(sizes)
        z0 = (1 - rho) ** 0.5 * normal(1, 4, F, H, W, seed=seed) + rho**0.5 * normal(1, 4, 1, H, W, seed=seed + 2)
        x, y = data.draw(st.integers(0, 8 - w)), data.draw(st.integers(0, 8 - h))
        box = f64(x, y, x + w, y + h) / 8
        rows, columns = slice(y * H // 8, (y + h) * H // 8), slice(x * W // 8, (x + w) * W // 8)
        gradient = tau_gradient(z0, box.expand(1, F, 4))[..., rows, columns]
        strengths.append(scale_c_g(10_000.0, z0.shape[1:]) * gradient.square().mean() ** 0.5)
    assert 1 / 1.35 < strengths[0] / strengths[1] < 1.35
