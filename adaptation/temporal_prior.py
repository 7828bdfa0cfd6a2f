"""The temporal prior tau (Section 2.3, Eq. 1): how alike the subject's pixels are from one frame to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    h x w equal parts of the box, as two small matrix products: on a GPU the gradient of torch's `grid_sample` adds in
    any order. Slicing, if the box lies on cell borders and h x w is its size in cells.
    """
    F = frames.shape[-3]
    if boxes.shape != (F, 4):
        raise ValueError(f"a crop of {F} frames needs boxes of shape ({F}, 4), not {tuple(boxes.shape)}")
    if boxes.isnan().any():
        raise ValueError("a crop needs a box in every frame, but a box is absent (NaN)")
    if min(size) < 1:
        raise ValueError(f"the common grid of a crop needs at least one cell per axis, not {tuple(size)}")
    return _read(frames, *_weights(frames, boxes, size))


def _read(frames: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return einsum(rows, frames, columns, "f h y, ... f y x, f w x -> ... f h w")


def _weights(frames: Tensor, boxes: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """What `crop` reads the rows and the columns of each frame with, (F, h, H) and (F, w, W)."""
    H, W = frames.shape[-2:]
    x1, y1, x2, y2 = boxes.double().unbind(-1)  # float32 has few digits left within a cell of a wide frame
    return _interpolation(y1, y2, size[0], H).to(frames), _interpolation(x1, x2, size[1], W).to(frames)


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


@dataclass(frozen=True, eq=False)
class Crops:
    """c(.) of Eq. 1 for one subject, ready for latents of one form and device: the same at every step of a run."""

    frames: Tensor  # (P,) indices of the frames with a box
    rows: Tensor  # (P, h, H), the weights that read each of them, see `crop`
    columns: Tensor  # (P, w, W)
    pairs: Tensor  # indices of those of the P - 1 neighbours that are consecutive frames, at least one


def prepare_crops(boxes: Tensor, z0: Tensor) -> list[Crops]:
    """The crops of every subject that has a box in two consecutive frames.

    boxes (K, F, 4), NaN = absent, best on the CPU, for they decide about shapes; z0: any latents (B, C, F, H, W) of the
    run.
    """
    F = z0.shape[2] if z0.ndim == 5 else None
    if F is None or boxes.ndim != 3 or boxes.shape[1:] != (F, 4):
        raise ValueError(
            f"tau needs latents (B, C, F, H, W) and boxes (K, F, 4) of as many frames, not {tuple(z0.shape)} "
            f"and {tuple(boxes.shape)}"
        )
    return [crops for track in boxes if (crops := _prepare(track, z0)) is not None]


def _prepare(boxes: Tensor, z0: Tensor) -> Crops | None:
    """Of one subject, boxes (F, 4); None = no two consecutive frames have one."""
    present = (~boxes.isnan().any(-1)).nonzero().squeeze(-1)
    pairs = (present.diff() == 1).nonzero().squeeze(-1)
    if not len(pairs):
        return None
    boxes = boxes[present]
    weights = _weights(z0, boxes, common_grid(boxes, *z0.shape[-2:]))
    return Crops(present.to(z0.device), *weights, pairs.to(z0.device))


def temporal_consistency(z0: Tensor, boxes: Tensor | Sequence[Crops]) -> Tensor:
    """Eq. 1: tau(b, z) = mean over i of rho(c(u^i), c(u^{i+1})), then mean over subjects.

    z0: clean latents (B, C, F, H, W), float32 or float64; boxes: (K, F, 4), NaN = absent, or `prepare_crops` of them.
    Returns tau (B,) in [-1, 1].
    A crop's channels and pixels are one vector. A pair of frames counts where the subject is present in both, a subject
    where it has such a pair; if there is none at all (as with F = 1), tau is 0 with a gradient of zeros.
    """
    subjects = prepare_crops(boxes, z0) if isinstance(boxes, Tensor) else boxes
    if not subjects:
        return z0.flatten(1)[:, :0].sum(1)  # an empty sum: 0, and still a function of z0
    return torch.stack([consecutive_correlations(z0, crops).mean(1) for crops in subjects]).mean(0)


def consecutive_correlations(z0: Tensor, crops: Crops) -> Tensor:
    """rho of one subject for every two consecutive frames with a box in both, (B, C, F, H, W) -> (B, pairs)."""
    u = _read(z0[:, :, crops.frames], crops.rows, crops.columns)
    u = rearrange(u, "b c p h w -> b p (c h w)")
    return pearson(u[:, :-1], u[:, 1:])[:, crops.pairs]
