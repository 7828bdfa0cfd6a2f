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

    place, source = ascending(a_m), ascending(a_u)  # where A_m and A_u have their k-th smallest value
    source = torch.empty_like(source).scatter_(-1, place, source)  # now by place in A_m, all that a gradient needs
    matched = a_u.gather(-1, source).unflatten(-1, shape[-len(dims) :]).movedim(last, dims)

    if gradient == "straight-through":
        return matched - (masked.detach() - masked)  # subtracting +0 keeps every bit, the sign of -0 too
    return matched


def ascending(x: Tensor) -> Tensor:
    """x.argsort(dim=-1, stable=True): x (..., n) -> the place of the k-th smallest for k = 0 .. n - 1.

    On a CPU torch's sort follows indices about; NumPy sorts plain integers several times as fast. So a float32 becomes
    the upper half of an integer that grows with it, and its place, which also breaks ties, the lower half.
    """
    x = x.detach()
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return x.argsort(dim=-1, stable=True)
    bits = (x + 0.0).view(torch.int32)  # -0.0 becomes 0.0, its equal
    bits ^= (bits >> 31) & 0x7FFFFFFF  # the bits of negative numbers grow as the number falls: turn them round
    keys = bits.long().bitwise_left_shift_(32).add_(torch.arange(x.shape[-1]))
    keys.numpy().sort(axis=-1)
    return keys.bitwise_and_(0xFFFFFFFF)


def _resolve_dims(dim: int | tuple[int, ...], ndim: int) -> tuple[int, ...]:
    """Dimensions counted from 0 in memory order, so that "by position" means the same for (-2, -1) and (-1, -2)."""
    dims = (dim,) if isinstance(dim, int) else tuple(dim)
    if not dims or any(not -ndim <= d < ndim for d in dims) or len({d % ndim for d in dims}) < len(dims):
        raise ValueError(f"dim must name different dimensions of a tensor with {ndim}, not {dim!r}")
    return tuple(sorted(d % ndim for d in dims))
