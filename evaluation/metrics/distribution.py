"""How far two sets of features lie apart: FID, KID and JEDi, in float64.

X (n, D) and Y (m, D) hold a feature vector in each row: of a frame for FID and KID, of a video for JEDi.
"""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

# ---- FID (Heusel et al., 2017) --------------------------------------------------------------------------------------
#
# FID = |mu_1 - mu_2|^2 + tr(S_1) + tr(S_2) - 2 tr((S_1 S_2)^(1/2))
#
# With S_1 = A A^T and S_2 = B B^T the eigenvalues of S_1 S_2 are the squared singular values of A^T B, so that the last
# trace is the sum of these. No root of a matrix is taken, and rank-deficient covariances need no care.


def fid(x: Tensor, y: Tensor) -> float:
    """FID of features (n, D) and (m, D)."""
    X, Y = _checked_pair(x, y)
    return frechet(X.mean(0), factor(X), Y.mean(0), factor(Y))


def frechet(mean_1: Tensor, A: Tensor, mean_2: Tensor, B: Tensor) -> float:
    """Frechet distance of two Gaussians with means (D,) and covariances A A^T, B B^T: A (D, r), B (D, s)."""
    means = (mean_1 - mean_2).square().sum()
    roots = torch.linalg.svdvals(A.T @ B).sum()
    return float(means + A.square().sum() + B.square().sum() - 2 * roots)


def factor(X: Tensor) -> Tensor:
    """Features (n, D) -> A (D, min(n, D)) with A A^T their unbiased covariance.

    They are centred before anything is squared: of a mean far from 0 no digits are lost.
    """
    _expect_several(len(X))
    centred = (X - X.mean(0)) / (len(X) - 1) ** 0.5
    n, D = X.shape
    return centred.T if n <= D else torch.linalg.qr(centred, mode="r").R.T


def warn_of_few(n: int, D: int) -> None:
    """Warn where FID of n features is mostly bias."""
    if n < D:
        warnings.warn(
            f"FID from {n} features of {D} dimensions is biased far upwards; compare it only between equal numbers",
            stacklevel=2,
        )


# ---- KID (Binkowski et al., 2018) -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class KID:
    """Mean over subsets, and their spread, which is no error bar of the mean. Papers print it times 100 or 1000."""

    mean: float
    std: float | None  # None = both sets fit into one subset, so that there is no spread
    subsets: int
    subset_size: int


def kid(x: Tensor, y: Tensor, subsets: int = 100, subset_size: int = 1000, seed: int = 0) -> KID:
    """MMD^2 under (x.y / D + 1)^3, unbiased and so at times below 0, over random subsets of (n, D) and (m, D)."""
    X, Y = _checked_pair(x, y)
    smaller = min(len(X), len(Y))
    if subsets < 1 or subset_size < 2:
        raise ValueError(f"KID needs at least 1 subset of at least 2 features, not {subsets} of {subset_size}")
    _expect_several(smaller)
    if subset_size > smaller:
        warnings.warn(f"KID over subsets of {smaller}, not {subset_size}: there are no more features", stacklevel=2)
    size = min(subset_size, smaller)
    generator = torch.Generator().manual_seed(seed)
    if size == len(X) == len(Y):
        return KID(mmd_unbiased(X, Y), None, 1, size)
    values = []
    for _ in range(subsets):
        some_x, some_y = _subset(X, size, generator), _subset(Y, size, generator)
        values.append(mmd_unbiased(some_x, some_y))
    found = torch.tensor(values, dtype=torch.float64)
    return KID(float(found.mean()), float(found.std(correction=0)), subsets, size)


def mmd_unbiased(x: Tensor, y: Tensor) -> float:
    """KID of two whole sets: an element is not paired with itself."""
    X, Y = _checked_pair(x, y)
    within = sum(_mean_of_pairs(polynomial_kernel(Z, Z, degree=3, coef=1)) for Z in (X, Y))
    return float(within - 2 * polynomial_kernel(X, Y, degree=3, coef=1).mean())


def mmd_shares(x: Tensor, y: Tensor) -> Tensor:
    """What each row of x (n, D), n >= 3, adds to `mmd_unbiased`: the jackknife's pseudo-values, with y held fixed,

        p_i = n theta - (n - 1) theta_i    (theta_i is the distance without row i)

    Their mean is theta itself, and the standard error of their mean is that of theta. So are those of the difference
    of two sets' shares, row by row, and the difference of their distances.
    """
    X, Y = _checked_pair(x, y)
    n = len(X)
    if n < 3:
        raise ValueError(f"shares of a distance need at least 3 features, not {n}")
    K = polynomial_kernel(X, X, degree=3, coef=1)
    own = K.sum(1) - K.diagonal()  # (n,): a row with all others
    within = own.sum() / (n - 1) - (own.sum() - 2 * own) / (n - 2)
    across = polynomial_kernel(X, Y, degree=3, coef=1).mean(1)
    return within + _mean_of_pairs(polynomial_kernel(Y, Y, degree=3, coef=1)) - 2 * across


def polynomial_kernel(X: Tensor, Y: Tensor, degree: int, coef: float) -> Tensor:
    """(x.y / D + coef)^degree for each x and y: (n, D), (m, D) -> (n, m)."""
    return (X @ Y.T / X.shape[1] + coef) ** degree


def _mean_of_pairs(K: Tensor) -> Tensor:
    """Mean of K (n, n) off its diagonal."""
    n = len(K)
    _expect_several(n)
    return (K.sum() - K.trace()) / (n * (n - 1))


def _subset(X: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Rows drawn without replacement, in their own order: all rows are X itself, whatever was drawn."""
    return X[torch.randperm(len(X), generator=generator)[:size].sort().values.to(X.device)]


# ---- JEDi (Luo et al., 2025) ----------------------------------------------------------------------------------------
#
# JEDi = 100 (mean k(X, X) + mean k(Y, Y) - 2 mean k(X, Y)) with k(x, y) = (x.y / D)^2, diagonals included.
# Since (x.y)^2 = <x x^T, y y^T>, it is 100 / D^2 |M_X - M_Y|^2 with M the mean of x x^T over a set. So it does not see
# the sign of a feature vector, and it is biased by about 1 / n: compare it between equal numbers of videos.


def jedi(x: Tensor, y: Tensor) -> float:
    """JEDi of features (n, D) and (m, D)."""
    X, Y = _checked_pair(x, y)
    D = X.shape[1]
    return float(100 * (X.T @ X / len(X) - Y.T @ Y / len(Y)).square().sum() / D**2)


# ---- What is refused ------------------------------------------------------------------------------------------------


def _checked_pair(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    X, Y = _checked(x), _checked(y)
    D, other = X.shape[1], Y.shape[1]
    if other != D:
        raise ValueError(f"both sets need features of one extractor, but one has {D} dimensions and the other {other}")
    return X, Y


def _checked(features: Tensor) -> Tensor:
    """Features (n, D) in float64."""
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(f"features are (n, D) with n, D >= 1, a row for each frame or video, not {(*features.shape,)}")
    X = features.double()
    if not X.isfinite().all():
        row = int((~X.isfinite()).any(1).nonzero()[0])
        raise ValueError(f"features must be finite, but those in row {row} are not")
    return X


def _expect_several(n: int) -> None:
    if n < 2:
        raise ValueError(f"a set of at least 2 features is needed, this one has {n}")
