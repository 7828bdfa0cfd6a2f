"""Pearson's correlation of Eq. 1, by hand and with its gradient."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from adaptation.temporal_prior import pearson
from tests.helpers import f64, normal


def test_pearson_by_hand():
    # Deviations -1.5 -0.5 0.5 1.5 and -1.5 0.5 -0.5 1.5: products 2.25 - 0.25 - 0.25 + 2.25 = 4, squares 5 and 5.
    rho = pearson(f64(1, 2, 3, 4), f64(1, 3, 2, 4))
    assert float(rho) == pytest.approx(0.8, abs=1e-15)


def test_equal_is_one_and_negated_is_minus_one():
    a = normal(3, 50)
    torch.testing.assert_close(pearson(a, a), torch.ones(3).double(), rtol=0, atol=1e-14)
    torch.testing.assert_close(pearson(a, -a), -torch.ones(3).double(), rtol=0, atol=1e-14)


@given(st.integers(0, 10**6), st.floats(1e-3, 1e3), st.floats(-1e3, 1e3), st.sampled_from([-1, 1]))
def test_pearson_ignores_scale_and_shift(seed, scale, shift, sign):
    a, b = normal(12, seed=seed), normal(12, seed=seed + 1)
    assume(abs(shift) < 1e4 * scale)
    changed = pearson(sign * scale * a + shift, b)
    assert float(changed) == pytest.approx(sign * float(pearson(a, b)), abs=1e-9)


@given(st.integers(0, 10**6), st.integers(2, 30))
def test_pearson_agrees_with_torch_and_stays_in_range(seed, n):
    a, b = normal(n, seed=seed), normal(n, seed=seed + 1)
    rho = float(pearson(a, b))
    assert rho == pytest.approx(float(torch.corrcoef(torch.stack([a, b]))[0, 1]), abs=1e-10)
    assert abs(rho) <= 1 + 1e-12


def test_gradient_by_its_formula():
    # d rho / d a = (b' - rho a') / |a - mean a|, with a' and b' centred and of unit length.
    a, b = normal(9).requires_grad_(), normal(9, seed=1)
    rho = pearson(a, b)
    (gradient,) = torch.autograd.grad(rho, a)
    centred = (a - a.mean()).detach()
    a_unit, b_unit = centred / centred.norm(), (b - b.mean()) / (b - b.mean()).norm()
    torch.testing.assert_close(gradient, (b_unit - rho.detach() * a_unit) / centred.norm(), rtol=0, atol=1e-14)


def test_pearson_gradcheck():
    inputs = [normal(2, 6, seed=seed).requires_grad_() for seed in (0, 1)]
    assert torch.autograd.gradcheck(pearson, inputs)
    assert torch.autograd.gradgradcheck(pearson, inputs)


def test_a_small_pattern_upon_a_large_mean_is_no_rounding():
    # A part in 10^9 is 5 million eps of float64: it counts, where 16 eps would not.
    a = 1 + 1e-9 * f64(1, -1, 2, -2)
    assert float(pearson(a, 5 - 2 * a)) == pytest.approx(-1, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("constant", [0.0, 0.1, -7.3, 1e6])
def test_a_constant_correlates_with_nothing(dtype, constant):
    flat = torch.full((48,), constant, dtype=dtype, requires_grad=True)
    varied = normal(48).to(dtype).requires_grad_()
    for a, b in [(flat, varied), (varied, flat), (flat, flat)]:
        rho = pearson(a, b)
        gradients = torch.autograd.grad(rho, [a, b] if a is not b else [a])
        assert rho.item() == 0
        assert all(torch.equal(g, torch.zeros_like(g)) for g in gradients)


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="one length, not 4 and 1"):
        pearson(normal(4), normal(1, seed=1))
