"""The temporal prior tau (Section 2.3, Eq. 1): how alike the subject's pixels are from one frame to the next."""

import torch
from einops import einsum, rearrange
from torch import Tensor


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation rho over the last dimension, (..., n) and (..., n) -> (...).

    A vector without spread has no correlation: 0, with a gradient of zeros.
    """
    if a.shape[-1] != b.shape[-1]:
        raise ValueError(f"a correlation needs two vectors of one length, not {a.shape[-1]} and {b.shape[-1]} values")
    return (_standardize(a) * _standardize(b)).sum(-1)


def _standardize(x: Tensor) -> Tensor:
    """x without its mean, scaled to unit length (..., n); zeros where x is constant up to rounding."""
    centred = x - x.mean(-1, keepdim=True)
    square = centred.square().sum(-1, keepdim=True)
    # Interpolating and centring a constant leaves a few eps of itself behind, which must not pass for a pattern.
    rounding = (16 * torch.finfo(x.dtype).eps) ** 2 * x.detach().square().sum(-1, keepdim=True)
    varies = square > rounding
    return torch.where(varies, centred * torch.where(varies, square, 1.0).rsqrt(), 0.0)


def crop(frames: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """c(.) of Eq. 1: each frame's box brought to a common grid, (..., F, H, W) -> (..., F, h, w).

    boxes: (F, 4), x1 y1 x2 y2 relative to the frame, none absent; size: (h, w). Linear interpolation at the centres of
    h x w equal parts of the box: two small matrix products, the same bits every time and in any dtype. Slicing, if the
    box lies on cell borders and h x w is its size in cells.
    """
    F, H, W = frames.shape[-3:]
    if boxes.shape != (F, 4):
        raise ValueError(f"a crop of {F} frames needs boxes of shape ({F}, 4), not {tuple(boxes.shape)}")
    if boxes.isnan().any():
        raise ValueError("a crop needs a box in every frame, but a box is absent (NaN)")
    if min(size) < 1:
        raise ValueError(f"the common grid of a crop needs at least one cell per axis, not {tuple(size)}")
    x1, y1, x2, y2 = boxes.double().unbind(-1)  # float32 has few digits left within a cell of a wide frame
    rows = _interpolation(y1, y2, size[0], H).to(frames)  # (F, h, H)
    columns = _interpolation(x1, x2, size[1], W).to(frames)  # (F, w, W)
    return einsum(rows, frames, columns, "f h y, ... f y x, f w x -> ... f h w")


def _interpolation(low: Tensor, high: Tensor, parts: int, cells: int) -> Tensor:
    """Weights (F, parts, cells) that read a row of cells at the centres of equal parts of [low, high], both (F,)."""
    part = (torch.arange(parts).to(low) + 0.5) / parts
    position = low[:, None] + part * (high - low)[:, None]  # (F, parts), relative to the frame
    index = (position * cells - 0.5).clamp(0, cells - 1)  # the centre of cell i lies at (i + 1/2) / cells
    return (1 - (index[..., None] - torch.arange(cells).to(low)).abs()).clamp(min=0)


def common_grid(boxes: Tensor, H: int, W: int) -> tuple[int, int]:
    """(h, w): per axis the largest of the boxes' (F, 4) sizes, rounded to cells of an H x W frame and at least 1."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    h, w = ((y2 - y1) * H).round().max(), ((x2 - x1) * W).round().max()
    return max(1, int(h)), max(1, int(w))


def temporal_consistency(z0: Tensor, boxes: Tensor) -> Tensor:
    """Eq. 1: tau(b, z) = mean over i of rho(c(u^i), c(u^{i+1})), then mean over subjects.

    z0: clean latents (B, C, F, H, W), float32 or float64; boxes: (K, F, 4), NaN = absent. Returns tau (B,) in [-1, 1].
    A crop's channels and pixels are one vector. A pair of frames counts where the subject is present in both, a subject
    where it has such a pair; if there is none at all (as with F = 1), tau is 0 with a gradient of zeros.
    """
    F = z0.shape[2] if z0.ndim == 5 else None
    if F is None or boxes.ndim != 3 or boxes.shape[1:] != (F, 4):
        raise ValueError(
            f"tau needs latents (B, C, F, H, W) and boxes (K, F, 4) of as many frames, not {tuple(z0.shape)} "
            f"and {tuple(boxes.shape)}"
        )
    correlations = [rho.mean(1) for box in boxes if (rho := consecutive_correlations(z0, box)).shape[1]]
    if not correlations:
        return z0.flatten(1)[:, :0].sum(1)  # an empty sum: 0, and still a function of z0
    return torch.stack(correlations).mean(0)


def consecutive_correlations(z0: Tensor, boxes: Tensor) -> Tensor:
    """rho of one subject for every two consecutive frames with a box in both, (B, C, F, H, W), (F, 4) -> (B, pairs)."""
    present = (~boxes.isnan().any(-1)).nonzero().squeeze(-1)  # indices of the P frames with a box
    if len(present) < 2:
        return z0.new_zeros(z0.shape[0], 0)
    consecutive = present.diff() == 1
    boxes = boxes[present]
    u = crop(z0[:, :, present.to(z0.device)], boxes, common_grid(boxes, *z0.shape[-2:]))
    u = rearrange(u, "b c p h w -> b p (c h w)")
    return pearson(u[:, :-1], u[:, 1:])[:, consecutive.to(z0.device)]
