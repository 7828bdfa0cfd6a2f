"""Mask Normalization (Section 2.2): give masked attention outputs the distribution of the unmasked ones.

Exact Feature Distribution Matching (EFDM) keeps the ranks of A_m and takes the values of A_u, so the empirical CDF of
the result is that of A_u, exactly and not only in its first moments.

Section 2.2 contradicts itself in its names. That the CDF of A_m is mapped to match A_u is what is done here. But it
also calls A_u the "content" and A_m the "style", and EFDM's released function keeps the ranks of its content and takes
the values of its style: called so, it would give A_u the distribution of A_m, the very shift that is to be mended.
"""

import torch
from torch import Tensor

from adaptation.choices import AXES, MASK_CHOICES
from adaptation.fast_sort import ascending, sorted_values  # torch's argsort and sort, sooner


def match_sorted(a_m: Tensor, a_u: Tensor) -> Tensor:
    """The k-th smallest of a_m becomes the k-th smallest of a_u, row by row, (..., n) and (..., n) -> (..., n)."""
    place_m = ascending(a_m)  # where a_m has its k-th smallest value
    if a_u.requires_grad:  # then it counts where in a_u a value came from
        source = torch.empty_like(place_m).scatter_(-1, place_m, ascending(a_u))
        return a_u.gather(-1, source)
    values = sorted_values(a_u)
    return torch.empty_like(values).scatter_(-1, place_m, values)


def match_distribution(masked: Tensor, unmasked: Tensor, dim: int | tuple[int, ...], gradient: str = "exact") -> Tensor:
    """Section 2.2, Figure 3: `match_sorted` along `dim`, the values of A_u in the order of A_m.

    masked, unmasked: attention outputs A_m and A_u of one shape and dtype, (B F, N, C) in the network.
    dim: a dimension, or several that are ranked as one (`axis_dims`); equal values rank by position.
    gradient: `"exact"`, the true derivative: `unmasked` receives the gradient where its values went, `masked` none,
        since ranks are piecewise constant. `"straight-through"`, EFDM's own rule: `masked` receives it too.
    Returns a permutation of `unmasked` along `dim`; if both inputs are the same, that very input bit for bit.
    """
    if masked.shape != unmasked.shape or masked.dtype != unmasked.dtype:
        raise ValueError(
            f"masked and unmasked outputs must agree in shape and dtype, not {tuple(masked.shape)} {masked.dtype} "
            f"and {tuple(unmasked.shape)} {unmasked.dtype}"
        )
    if gradient not in (known := MASK_CHOICES["gradient"]):
        raise ValueError(f"the gradient of mask normalization is one of {', '.join(known)}, not {gradient!r}")
    dims = _resolve_dims(dim, masked.ndim)
    last = tuple(range(-len(dims), 0))
    a_m, a_u = masked.movedim(dims, last), unmasked.movedim(dims, last)
    matched = match_sorted(a_m.flatten(-len(dims)), a_u.flatten(-len(dims)))  # (..., n), n values of one distribution
    matched = matched.unflatten(-1, a_u.shape[-len(dims) :]).movedim(last, dims)
    if gradient == "straight-through" and masked.requires_grad:
        return matched - (masked.detach() - masked)  # subtracting +0 keeps every bit, the sign of -0 too
    return matched


def axis_dims(axis: str) -> tuple[int, ...]:
    """Dimensions of an attention output (..., N, C) over which values are ranked together; Section 2.2 names none.

    `"channel"`: each channel of a frame is a distribution over its N tokens, as in the released function of EFDM, the
        work that the paper cites for this step.
    `"joint"`: a variant of this repository, all tokens and channels of a frame as one distribution.
    """
    if axis not in AXES:
        raise ValueError(f"the axis of mask normalization is one of {', '.join(AXES)}, not {axis!r}")
    return AXES[axis]


def _resolve_dims(dim: int | tuple[int, ...], ndim: int) -> tuple[int, ...]:
    """Dimensions counted from 0 in memory order, so that "by position" means the same for (-2, -1) and (-1, -2)."""
    dims = (dim,) if isinstance(dim, int) else tuple(dim)
    if not dims or any(not -ndim <= d < ndim for d in dims) or len({d % ndim for d in dims}) < len(dims):
        raise ValueError(f"dim must name different dimensions of a tensor with {ndim}, not {dim!r}")
    return tuple(sorted(d % ndim for d in dims))
