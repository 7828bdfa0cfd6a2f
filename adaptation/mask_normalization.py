"""Mask Normalization (Section 2.2): give masked attention outputs the distribution of the unmasked ones.

Exact Feature Distribution Matching keeps the ranks of A_m and takes the values of A_u, so the empirical CDF of the
result is that of A_u, exactly and not only in its first moments.
"""

import torch
from torch import Tensor

# What "one distribution" spans in an attention output (..., tokens, channels).
AXES = {"joint": (-2, -1), "channel": (-2,)}
GRADIENTS = ("exact", "straight-through")


def axis_dims(axis: str) -> tuple[int, ...]:
    """Dimensions of an attention output (..., N, C) over which values are ranked together.

    `"joint"`: all tokens and channels of a frame are one distribution, as Section 2.2 words it.
    `"channel"`: each channel of a frame is a distribution over its tokens, the habit of EFDM.
    """
    if axis not in AXES:
        raise ValueError(f"the axis of mask normalization is one of {', '.join(AXES)}, not {axis!r}")
    return AXES[axis]


def match_distribution(
    masked: Tensor, unmasked: Tensor, dim: int | tuple[int, ...] = -2, gradient: str = "exact"
) -> Tensor:
    """The k-th smallest of `masked` becomes the k-th smallest of `unmasked`, along `dim` (Section 2.2, Figure 3).

    masked, unmasked: attention outputs A_m and A_u of one shape and dtype, (B F, N, C) in the network.
    dim: a dimension, or several that are ranked as one; equal values rank by position.
    gradient: `"exact"`, the true derivative: `unmasked` receives the gradient where its values went, `masked` none,
        since ranks are piecewise constant. `"straight-through"`, EFDM's training rule: `masked` receives it too.
    Returns a permutation of `unmasked` along `dim`; if both inputs are the same, that very input bit for bit.
    """
    if masked.shape != unmasked.shape or masked.dtype != unmasked.dtype:
        raise ValueError(
            f"masked and unmasked outputs must agree in shape and dtype, not {tuple(masked.shape)} {masked.dtype} "
            f"and {tuple(unmasked.shape)} {unmasked.dtype}"
        )
    if gradient not in GRADIENTS:
        raise ValueError(f"the gradient of mask normalization is one of {', '.join(GRADIENTS)}, not {gradient!r}")
    dims = _resolve_dims(dim, masked.ndim)
    last = tuple(range(-len(dims), 0))
    a_m = masked.movedim(dims, last).flatten(-len(dims))  # (..., n), n values of one distribution
    a_u = unmasked.movedim(dims, last)
    shape, a_u = a_u.shape, a_u.flatten(-len(dims))

    order = a_m.detach().argsort(dim=-1, stable=True)  # order[k] = place of the k-th smallest of A_m
    values = a_u.sort(dim=-1, stable=True).values  # values[k] = the k-th smallest of A_u
    matched = torch.empty_like(values).scatter(-1, order, values).unflatten(-1, shape[-len(dims) :]).movedim(last, dims)

    if gradient == "straight-through":
        return matched - (masked.detach() - masked)  # subtracting +0 keeps every bit, the sign of -0 too
    return matched


def _resolve_dims(dim: int | tuple[int, ...], ndim: int) -> tuple[int, ...]:
    """Dimensions counted from 0 in memory order, so that "by position" means the same for (-2, -1) and (-1, -2)."""
    dims = (dim,) if isinstance(dim, int) else tuple(dim)
    if not dims or any(not -ndim <= d < ndim for d in dims) or len({d % ndim for d in dims}) < len(dims):
        raise ValueError(f"dim must name different dimensions of a tensor with {ndim}, not {dim!r}")
    return tuple(sorted(d % ndim for d in dims))
