"""Classifier-free guidance, the score, and the ablation's gradient length, by hand."""

import torch

from sampling.guidance import classifier_free, score, unit_norm
from tests.helpers import f64


def test_guidance_by_hand():
    # 1 + 9 (2 - 1) = 10; 0.5 + 9 (0 - 0.5) = -4
    torch.testing.assert_close(classifier_free(f64(1, 0.5), f64(2, 0), 9.0), f64(10, -4), rtol=1e-14, atol=0)


def test_guidance_scale_zero_and_one_are_the_two_halves():
    uncond, text = f64(1, 0.5), f64(2, 0)
    assert torch.equal(classifier_free(uncond, text, 0.0), uncond)
    assert torch.equal(classifier_free(uncond, text, 1.0), text)


def test_score_by_hand():
    # alpha_bar = 0.64: -3 / sqrt(0.36) = -5
    torch.testing.assert_close(score(f64(3, -0.6), 0.64), f64(-5, 1), rtol=1e-14, atol=0)


def test_score_is_the_gradient_of_the_log_density():
    """z0 = 2 known, z ~ N(sqrt(0.64) 2, 0.36): its log-density differentiated by autograd, eps = (z - 1.6) / 0.6."""
    z = f64(1.0, -0.3, 4.0).requires_grad_()
    log_density = torch.distributions.Normal(f64(1.6), f64(0.6)).log_prob(z).sum()
    (gradient,) = torch.autograd.grad(log_density, z)
    torch.testing.assert_close(score((z.detach() - 1.6) / 0.6, 0.64), gradient, rtol=1e-13, atol=0)


def test_unit_norm_by_hand():
    # Two videos: (3, 4) has length 5, and zero has no direction.
    gradient = f64(3, 4, 0, 0).reshape(2, 1, 1, 1, 2)
    expected = f64(0.6, 0.8, 0, 0).reshape(2, 1, 1, 1, 2)
    torch.testing.assert_close(unit_norm(gradient), expected, rtol=1e-14, atol=0)


def test_a_gradient_that_only_float64_can_hold_has_a_direction():
    gradient = 1e-60 * f64(3, 4).reshape(1, 1, 1, 1, 2)
    torch.testing.assert_close(unit_norm(gradient), f64(0.6, 0.8).reshape(1, 1, 1, 1, 2), rtol=1e-14, atol=0)


def test_unit_norm_hides_no_nan():
    assert unit_norm(torch.full((1, 1, 1, 1, 2), torch.nan)).isnan().all()
