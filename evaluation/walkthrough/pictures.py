"""Pictures of the walkthrough, each from tensors alone: PNG bytes where matplotlib draws, else uint8 (H, W, 3)."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from einops import rearrange, repeat
from torch import Tensor

from adaptation.temporal_prior import common_grid, crop
from evaluation.figures.activations import load_figure
from evaluation.figures.compare import COLUMNS, GAP, draw_labels, spread, stack
from evaluation.figures.video import COLORS, Color, contact_sheet, draw_boxes, enlarge

CELL = 24  # pixels of a latent cell
OUTSIDE: Color = (70, 76, 84)
LINE: Color = (28, 31, 36)


def regions(M_v: Tensor, boxes: Tensor) -> np.ndarray:
    """Regions (K, F, h, w) as cells, the boxes (K, F, 4) in white."""
    cells = np.full((*M_v.shape[1:], 3), OUTSIDE, np.uint8)
    for k, inside in enumerate(M_v.numpy()):
        cells[inside] = np.array(COLORS[k % len(COLORS)]) * 2 // 3
    frames = repeat(cells, "f h w c -> f (h y) (w x) c", y=CELL, x=CELL).copy()
    frames[:, ::CELL] = frames[:, :, ::CELL] = LINE
    return contact_sheet(draw_boxes(frames, boxes.numpy(), [(255, 255, 255)]), gap=8)


def rows(videos: Mapping[str, np.ndarray], boxes: Tensor) -> np.ndarray:
    """Some frames of each video side by side, behind its name, boxes drawn."""
    shown = spread(boxes.shape[1], COLUMNS)
    marked = [draw_boxes(enlarge(frames, 160), boxes.numpy())[shown] for frames in videos.values()]
    sheets = [contact_sheet(frames, columns=len(shown), gap=GAP)[None] for frames in marked]
    return stack(draw_labels(list(videos), sheets[0].shape[1]), sheets)[0]


def prior(frames: np.ndarray, boxes: Tensor, rho: Sequence[float], magnitude: Tensor) -> bytes:
    """A column for each of the first frames: decoded z0_hat (F, H, W, 3), its crop, |grad tau| (F, h, w).

    boxes: (K, F, 4); the crops, and rho between them, are of the first subject, which may be absent in places.
    """
    shown, (H, W) = min(len(frames), COLUMNS), frames.shape[1:3]
    figure = load_figure()(figsize=(1.5 * shown + 0.6, 4.4), layout="constrained")
    axes = figure.subplots(3, shown, squeeze=False)
    marked = draw_boxes(enlarge(frames), boxes.numpy())
    present = ~boxes[0].isnan().any(-1)
    pixels = rearrange(torch.from_numpy(frames[present.numpy()]).double(), "f h w c -> c f h w")
    grid = common_grid(boxes[0][present], H, W) if present.any() else (1, 1)
    crops = dict(zip(present.nonzero().flatten().tolist(), _cut(pixels, boxes[0][present], grid), strict=True))
    pairs = iter(rho)
    for f, (above, middle, below) in enumerate(axes.T[:shown]):
        above.imshow(marked[f])
        above.set_title(f"frame {f}", fontsize=9)
        if f in crops:
            middle.imshow(crops[f])
            if f + 1 in crops:
                middle.set_xlabel(f"rho {next(pairs):.2f} ⟶", fontsize=9, loc="right")
        image = below.imshow(magnitude[f].numpy(), cmap="magma", vmin=0, vmax=magnitude.max().item())
        for ax in (above, middle, below):
            _bare(ax)
    for ax, text in zip(axes[:, 0], ("z0_hat", "crops", "|grad tau|"), strict=True):
        ax.set_ylabel(text)
    figure.colorbar(image, ax=axes[2, :].tolist(), format="%.0e", shrink=0.9)
    return _png(figure)


def terms(panels: Mapping[str, Tensor]) -> bytes:
    """One cell grid (h, w) for each name, side by side, each from its own minus to plus maximum."""
    figure = load_figure()(figsize=(2.6 * len(panels), 2.6), layout="constrained")
    for ax, (name, x) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        most = x.abs().max().item()
        image = ax.imshow(x.numpy(), cmap="RdBu_r", vmin=-most, vmax=most)
        ax.set_title(name, fontsize=10)
        _bare(ax)
        figure.colorbar(image, ax=ax, orientation="horizontal", shrink=0.9, ticks=[-most, 0, most], format="%.2g")
    return _png(figure)


def _cut(pixels: Tensor, boxes: Tensor, grid: tuple[int, int]) -> np.ndarray:
    """The boxes (P, 4) cut out of pixels (3, P, H, W): uint8 (P, h, w, 3)."""
    return rearrange(crop(pixels, boxes, grid), "c f h w -> f h w c").round().byte().numpy()


def _bare(ax: Any) -> None:
    ax.set(xticks=[], yticks=[])
    for side in ax.spines.values():
        side.set_visible(False)


def _png(figure: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()
