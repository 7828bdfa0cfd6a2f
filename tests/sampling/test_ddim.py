"""DDIM by hand, on its invariants, and against diffusers' DDIMScheduler."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sampling.ddim import ddim_step, predict_clean
from tests.helpers import f64, normal


def test_predict_clean_by_hand():
    # alpha_bar = 0.64: sqrt = 0.8, sqrt(1 - 0.64) = 0.6; (2 - 0.6 * 1) / 0.8 = 1.75, (-1 - 0.6 * -3) / 0.8 = 1
    torch.testing.assert_close(predict_clean(f64(2, -1), f64(1, -3), 0.64), f64(1.75, 1), rtol=1e-14, atol=0)


def test_step_by_hand():
    # From 0.36 to 0.64: z0 = (1 - 0.8 * 0.5) / 0.6 = 1, then 0.8 * 1 + 0.6 * 0.5 = 1.1
    torch.testing.assert_close(ddim_step(f64(1), f64(0.5), 0.36, 0.64), f64(1.1), rtol=1e-14, atol=0)


def test_step_with_eta_by_hand():
    # sigma = 0.5 sqrt(0.36 / 0.64) sqrt(1 - 0.36 / 0.64) = 0.5 * 0.75 * sqrt(0.4375), sigma^2 = 0.0615234375;
    # 0.8 * 1 + sqrt(0.36 - 0.0615234375) * 0.5 + sigma * 2 = 0.8 + 0.27316504... + 0.49607837...
    expected = f64(0.8 + 0.2984765625**0.5 * 0.5 + 0.0615234375**0.5 * 2)
    actual = ddim_step(f64(1), f64(0.5), 0.36, 0.64, eta=0.5, noise=f64(2))
    torch.testing.assert_close(actual, expected, rtol=1e-14, atol=0)


def test_a_step_to_no_noise_is_the_clean_estimate():
    z, eps, noise = normal(3, 1, 2, 3, 4, 5)
    for eta in (0.0, 1.0):
        actual = ddim_step(z, eps, 0.3, 1.0, eta, noise)
        torch.testing.assert_close(actual, predict_clean(z, eps, 0.3), rtol=1e-14, atol=0)


@given(st.floats(0.01, 0.9), st.floats(1.0, 1.1), st.floats(0, 1))
def test_steps_keep_the_marginal(alpha_bar, ratio, eta):
    """With the true eps and fresh noise n: z_prev = sqrt(ab') z0 + c eps + sigma n, where c^2 + sigma^2 = 1 - ab'."""
    alpha_bar_prev = min(alpha_bar * ratio, 0.999)
    one, zero = f64(1), f64(0)
    z0_part = ddim_step(one * alpha_bar**0.5, zero, alpha_bar, alpha_bar_prev, eta, zero)
    eps_part = ddim_step(one * (1 - alpha_bar) ** 0.5, one, alpha_bar, alpha_bar_prev, eta, zero)
    noise_part = ddim_step(zero, zero, alpha_bar, alpha_bar_prev, eta, one)
    assert z0_part.item() == pytest.approx(alpha_bar_prev**0.5, abs=1e-9)
    assert (eps_part**2 + noise_part**2).item() == pytest.approx(1 - alpha_bar_prev, abs=1e-9)


def test_eta_needs_noise():
    with pytest.raises(ValueError, match=r"needs noise when eta is above 0, got eta = 0\.5"):
        ddim_step(f64(1), f64(1), 0.36, 0.64, eta=0.5)


@pytest.mark.parametrize("eta", [0.0, 0.5])
@pytest.mark.parametrize("steps", [3, 10])
def test_trajectory_equals_diffusers(reference, schedule, steps, eta):
    z = reference["x_T"]
    for i, t in enumerate(schedule.timesteps(steps)):
        eps = 0.7 * z.tanh() + 0.5 * reference["E"][i]  # the fixture's stand-in for a network
        alpha_bar, alpha_bar_prev = schedule.alpha_bar[t], schedule.previous(t, steps)
        z0 = predict_clean(z, eps, alpha_bar)
        z = ddim_step(z, eps, alpha_bar, alpha_bar_prev, eta, reference["variance_noise"][i])
        for actual, name in ((z0, "pred_x0"), (z, "traj")):
            expected = reference[f"{name}.eta{eta}.steps{steps}"][i]
            assert (actual - expected).norm() <= 1e-6 * expected.norm()
