"""FID, KID and JEDi against numbers worked out by hand, and their forms against each other."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.metrics.distribution import (
    factor,
    fid,
    frechet,
    jedi,
    kid,
    mmd_shares,
    mmd_unbiased,
    polynomial_kernel,
    warn_of_few,
)

CORNERS = torch.tensor([[0.0, 0], [2, 0], [0, 2], [2, 2]])
AXES, DIAGONAL = torch.eye(2), torch.tensor([[1.0, 1], [0, 0]])


def draw(n, D, seed=0, shift=0.0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n, D)) + shift)


def fid_covariances(x, y):
    """FID from covariances (D, D): the trace of the root by the eigenvalues of S_1 S_2, which are those of a product of
    two positive matrices."""
    X, Y = x.double(), y.double()
    S_1, S_2 = torch.cov(X.T), torch.cov(Y.T)
    roots = torch.linalg.eigvals(S_1 @ S_2).real.clamp(min=0).sqrt().sum()
    return float((X.mean(0) - Y.mean(0)).square().sum() + S_1.trace() + S_2.trace() - 2 * roots)


def jedi_features(x, y):
    """JEDi as it is defined, from features (n, D) and (m, D)."""
    X, Y = x.double(), y.double()
    within = sum(polynomial_kernel(Z, Z, degree=2, coef=0).mean() for Z in (X, Y))
    return float(100 * (within - 2 * polynomial_kernel(X, Y, degree=2, coef=0).mean()))


# ---- FID ------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(2, 12), st.integers(1, 5))
def test_a_factor_times_itself_is_the_covariance(seed, n, D):
    X = draw(n, D, seed, shift=2)
    A = factor(X)
    assert A.shape == (D, min(n, D))
    torch.testing.assert_close(A @ A.T, torch.cov(X.T).reshape(D, D), rtol=0, atol=1e-12)


def test_fid_of_gaussians_by_hand():
    # 3^2 + 4^2 + (1 + 4) + (9 + 16) - 2 (1 x 3 + 2 x 4) = 25 + 30 - 22 = 33
    zero, mean = torch.zeros(2, dtype=torch.float64), torch.tensor([3.0, 4], dtype=torch.float64)
    A, B = (torch.diag(torch.tensor(spread, dtype=torch.float64)) for spread in ([1.0, 2], [3.0, 4]))
    assert frechet(mean, A, zero, B) == pytest.approx(33, abs=1e-12)
    # S_1 S_2 = [[6, 1], [3, 2]]: trace 8, determinant 9; its root has trace sqrt(8 + 2 x 3) = sqrt(14): 4 + 4 - 2 x it
    S_1, S_2 = torch.tensor([[2.0, 1], [1, 2]]).double(), torch.diag(torch.tensor([3.0, 1])).double()
    A, B = torch.linalg.cholesky(S_1), torch.linalg.cholesky(S_2)
    assert frechet(zero, A, zero, B) == pytest.approx(8 - 2 * 14**0.5, abs=1e-12)


def test_fid_of_samples_by_hand():
    """Means (1, 1) and (2, 2): 2. Variances 4/3 and 16/3 on both axes: 2 (sqrt(16/3) - sqrt(4/3))^2. Together 14/3."""
    assert fid(CORNERS, 2 * CORNERS) == pytest.approx(14 / 3, abs=1e-12)
    assert fid_covariances(CORNERS, 2 * CORNERS) == pytest.approx(14 / 3, abs=1e-12)


@pytest.mark.parametrize(("n", "m", "D"), [(50, 60, 8), (9, 9, 9), (5, 30, 12)])
def test_both_forms_of_fid_agree_and_a_set_has_none_from_itself(n, m, D):
    X, Y = draw(n, D), draw(m, D, seed=1, shift=0.3) * 1.5
    value = fid(X, Y)
    assert value > 1
    assert fid_covariances(X, Y) == pytest.approx(value, abs=1e-6)
    assert fid(Y, X) == pytest.approx(value, abs=1e-9)
    assert abs(fid(X, X)) < 1e-9


def test_fid_is_exact_where_covariances_have_no_full_rank():
    """6 and 4 vectors in 30 dimensions. On disjoint axes S_1 S_2 = 0, so only means and traces are left."""
    X, Y = draw(6, 30), draw(4, 30, seed=1)
    assert abs(fid(X, X)) < 1e-9
    X[:, 15:], Y[:, :15] = 0, 0
    alone = (X.mean(0) - Y.mean(0)).square().sum() + X.var(0).sum() + Y.var(0).sum()
    assert fid(X, Y) == pytest.approx(float(alone), abs=1e-9)
    # vectors that are all the same have no spread: |(1, 1) - (0, 0)|^2
    assert fid(torch.ones(5, 2), torch.zeros(5, 2)) == pytest.approx(2, abs=1e-12)


@pytest.mark.parametrize("n", [7, 60])
def test_a_mean_of_a_million_standard_deviations_costs_no_digits(n):
    """Sums of squares of 1e6 would leave 4 of a variance's 16 digits; FID does not see where both sets lie."""
    X, Y = draw(n, 8), 1.5 * draw(60, 8, seed=1)
    assert fid(X + 1e6, Y + 1e6) == pytest.approx(fid(X, Y), rel=1e-8)


def test_fid_warns_of_fewer_features_than_dimensions():
    with pytest.warns(UserWarning, match="FID from 5 features of 6 dimensions is biased far upwards"):
        warn_of_few(5, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_few(6, 6)


# ---- KID ------------------------------------------------------------------------------------------------------------


def test_kid_by_hand():
    # D = 1, X = {0, 1}, Y = {1, 2}: k(0, 1) = 1, k(1, 2) = 27, across 1, 1, 8, 27: 1 + 27 - 2 x 37 / 4
    assert mmd_unbiased(torch.tensor([[0.0], [1]]), torch.tensor([[1.0], [2]])) == pytest.approx(9.5, abs=1e-12)
    # D = 2: orthogonal in both sets: 1 + 1; across (1/2 + 1)^3 = 27/8, 1, 27/8, 1: mean 2.1875
    assert mmd_unbiased(AXES, DIAGONAL) == pytest.approx(-2.375, abs=1e-12)
    # One set twice: 2 - 2 (27/8 + 27/8 + 1 + 1) / 4; below 0 is right
    assert mmd_unbiased(AXES, AXES) == pytest.approx(-2.375, abs=1e-12)


def test_one_subset_that_is_both_sets_has_no_spread():
    X, Y = draw(7, 3), draw(7, 3, seed=1)
    result = kid(X, Y, subsets=5, subset_size=7)
    assert (result.mean, result.subsets, result.subset_size) == (mmd_unbiased(X, Y), 1, 7)
    assert result.std is None  # a spread of 0 would look like a number without doubt
    assert kid(X, draw(8, 3, seed=1), subsets=5, subset_size=7).std > 0  # the second set has several


def test_subsets_are_drawn_without_replacement_from_the_seed():
    X, Y = draw(30, 3), draw(40, 3, seed=1, shift=0.5)
    first = kid(X, Y, subsets=20, subset_size=10, seed=1)
    assert kid(X, Y, subsets=20, subset_size=10, seed=1) == first != kid(X, Y, subsets=20, subset_size=10, seed=2)
    assert first.std > 0
    # 9 zeros and a 1: a subset of 9 without replacement holds the 1 once or not at all, so that among its pairs k is
    # 1 everywhere; against zeros the mean is 1 too, and the distance exactly 0.
    once = torch.zeros(10, 1)
    once[3] = 1
    assert kid(once, torch.zeros(10, 1), subsets=50, subset_size=9).std == 0


def test_kid_is_the_mean_and_the_spread_over_its_subsets():
    """Of 3 vectors, subsets of 2 leave one out: with many draws the mean is near that of the 9 combinations."""
    X, Y = draw(3, 2), draw(3, 2, seed=1, shift=1)
    pairs = [[0, 1], [0, 2], [1, 2]]
    values = torch.tensor([mmd_unbiased(X[a], Y[b]) for a in pairs for b in pairs])
    result = kid(X, Y, subsets=500, subset_size=2)
    spread = float(values.std(correction=0))
    assert result.mean == pytest.approx(float(values.mean()), abs=4 * spread / 500**0.5)
    assert result.std == pytest.approx(spread, rel=0.15)


def test_a_subset_larger_than_a_set_is_cut_with_a_warning():
    with pytest.warns(UserWarning, match="KID over subsets of 5, not 1000"):
        result = kid(draw(5, 2), draw(8, 2, seed=1), subsets=3)
    assert (result.subsets, result.subset_size) == (3, 5)


def test_shares_of_an_mmd_by_hand():
    """In one dimension k(x, y) = (x y + 1)^3. Of x = 0, 1, 1 the pairs have 1, 1, 8, so with y = 0, 0 the distance is
    10/3 + 1 - 2 = 7/3. Without the 0 it is 8 - 1 = 7, without a 1 it is 0: shares 7 - 2 x 7, and 7 - 0 twice."""
    x, y = torch.tensor([[0.0], [1], [1]]), torch.zeros(2, 1)
    assert mmd_unbiased(x, y) == pytest.approx(7 / 3)
    assert mmd_shares(x, y).tolist() == pytest.approx([-7, 7, 7])
    with pytest.raises(ValueError, match="shares of a distance need at least 3 features, not 2"):
        mmd_shares(x[:2], y)


@pytest.mark.parametrize(("n", "m"), [(3, 2), (9, 30)])
def test_shares_are_what_leaving_a_row_out_changes(n, m):
    x, y = draw(n, 5), draw(m, 5, seed=1, shift=0.5)
    whole = mmd_unbiased(x, y)
    without = [mmd_unbiased(torch.cat([x[:i], x[i + 1 :]]), y) for i in range(n)]
    shares = mmd_shares(x, y)
    assert shares.tolist() == pytest.approx([n * whole - (n - 1) * one for one in without])
    assert float(shares.mean()) == pytest.approx(whole)


def test_the_standard_error_of_shares_is_that_of_sets_drawn_anew():
    """Of a distance, and of the difference of two whose rows go together, as those of two methods on one track do."""
    y = draw(200, 8, seed=1)
    distances, differences, errors, paired = [], [], [], []
    for seed in range(300):
        x = draw(32, 8, seed=2 + seed, shift=0.5)
        other = x + 0.3 * draw(32, 8, seed=1000 + seed, shift=0.5)
        shares, change = mmd_shares(x, y), mmd_shares(other, y) - mmd_shares(x, y)
        distances.append(shares.mean())
        differences.append(change.mean())
        errors.append(shares.std() / 32**0.5)
        paired.append(change.std() / 32**0.5)
    for values, own in ((distances, errors), (differences, paired)):
        assert float(torch.stack(own).mean() / torch.stack(values).std()) == pytest.approx(1.05, abs=0.15)


# ---- JEDi -----------------------------------------------------------------------------------------------------------

ROWS = torch.arange(1.0, 10).reshape(3, 3)
OTHERS = torch.tensor([[7.0, 6, 5], [4, 3, 2], [1, 1, 8], [0, 2, 5]])


@pytest.mark.parametrize(
    ("X", "Y", "value"),
    [
        # within the axes (1/4 + 0 + 0 + 1/4) / 4 = 1/8, the diagonal (1 + 0 + 0 + 0) / 4 = 1/4, across 1/4 x 2/4 = 1/8
        (AXES, DIAGONAL, 12.5),  # 100 (1/8 + 1/4 - 2 x 1/8)
        (torch.tensor([[2.0, 0]]), torch.tensor([[0.0, 2]]), 800),  # 100 ((4/2)^2 + (4/2)^2 - 0)
        (torch.tensor([[1.0, 0]]), torch.tensor([[-1.0, 0]]), 0),  # the sign is not seen
        (ROWS, OTHERS, 27072.2222),  # the official package's example, 270.7222 before the factor 100
    ],
)
def test_jedi_by_hand_in_both_forms(X, Y, value):
    assert jedi_features(X, Y) == pytest.approx(value, abs=1e-4)
    assert jedi(X, Y) == pytest.approx(value, abs=1e-4)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 9), st.integers(1, 5))
def test_both_forms_of_jedi_agree(seed, n, m, D):
    X, Y = draw(n, D, seed), draw(m, D, seed + 1, shift=0.2)
    assert jedi(X, Y) == pytest.approx(jedi_features(X, Y), abs=1e-10, rel=1e-10)


def test_the_kernel_by_hand():
    """x.y = 1 x 3 + 2 x 4 = 11 and 1 x 0 + 2 x 2 = 4 over D = 2: (5.5 + 1)^3 and (2 + 1)^3."""
    K = polynomial_kernel(torch.tensor([[1.0, 2]]), torch.tensor([[3.0, 4], [0, 2]]), degree=3, coef=1)
    assert K.tolist() == [[6.5**3, 27]]


# ---- What is refused ------------------------------------------------------------------------------------------------


def test_what_is_no_set_of_features_is_refused():
    X, bad = torch.ones(4, 2), torch.ones(4, 2)
    bad[2, 1] = torch.nan
    for measure in (kid, mmd_unbiased, fid, jedi):
        with pytest.raises(ValueError, match=r"features are \(n, D\) with n, D >= 1.* not \(4,\)"):
            measure(X, torch.ones(4))
        with pytest.raises(ValueError, match="those in row 2 are not"):
            measure(X, bad)
        with pytest.raises(ValueError, match="one has 2 dimensions and the other 3"):
            measure(X, torch.ones(4, 3))
    for measure in (kid, mmd_unbiased, fid):
        with pytest.raises(ValueError, match="at least 2 features is needed, this one has 1"):
            measure(torch.ones(1, 1), torch.ones(4, 1))
    for subsets, size in ((0, 2), (1, 1)):
        with pytest.raises(ValueError, match=f"at least 1 subset of at least 2 features, not {subsets} of {size}"):
            kid(X, X, subsets, size)
