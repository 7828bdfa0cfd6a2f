"""Stand-ins for the tiny checkpoint, whose world no published network has seen: the same measurements by simple means.

They need no download, and their numbers compare rows of one table; they say nothing about published values, and
`describe` says so. Subjects are found by colour, which needs scipy; features come from random
convolutions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from einops import rearrange, reduce
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, conv3d

from evaluation.extractors.protocols import Box, batches
from evaluation.figures.video import check_frames
from weights.train_tiny.world import BACKGROUNDS, COLORS

if TYPE_CHECKING:
    from weights.train_tiny.detect import Detection

SEEN_SIDE = 64  # pixels that the random convolutions see
CONV_WIDTHS = (16, 32)  # channels between the frame and the features


# ---- The world's colours -------------------------------------------------------------------------------------------


def see(frames: np.ndarray, color: str) -> list[Detection]:
    """What the world's own detector finds in each frame when asked for a colour."""
    try:
        from weights.train_tiny.detect import detect
    except ImportError:
        raise ImportError('finding subjects needs scipy; install it with: pip install -e ".[evaluate]"') from None
    return detect(check_frames(frames), color)


@dataclass(frozen=True)
class ColourDetector:
    """Stand-in for OWL-ViT: the largest blob in the subject's colour, with score 1, whatever its shape."""

    def detect(self, frames: np.ndarray, subject: str) -> list[list[Box]]:
        """See `Detector`; the subject is a colour and a shape, such as "red ball"."""
        color = (subject.split() or [""])[0]
        if color not in COLORS:
            raise ValueError(f"subjects are found by a colour in front, one of {', '.join(COLORS)}; got {subject!r}")
        return [[] if found.box is None else [(*found.box, 1.0)] for found in see(frames, color)]

    def describe(self) -> dict[str, str]:
        """See `Extractor`."""
        return _describe(self, "largest blob of the subject's colour", "as it is", "float32")


@dataclass(frozen=True)
class ColourScorer:
    """Stand-in for CLIP: of the colours and backgrounds that the prompt names, the share that a frame shows, times 100.

    A colour is shown where a blob of it is found, a background where no other has more pixels.
    """

    def score(self, frames: np.ndarray, prompt: str) -> Tensor:
        """See `TextImageScorer`; from 0 to 100, no cosine."""
        words = set(re.findall(r"[a-z]+", prompt.lower()))
        colors = [color for color in COLORS if color in words]
        backgrounds = [background for background in BACKGROUNDS if background in words]
        if not colors and not backgrounds:
            known = ", ".join((*COLORS, *BACKGROUNDS))
            raise ValueError(f"the stand-in for CLIP knows only {known}; the prompt {prompt!r} names none of them")
        seen = [[d.box is not None for d in see(frames, color)] for color in colors]
        most = [d.background for d in see(frames, next(iter(COLORS)))]
        seen += [[background == b for b in most] for background in backgrounds]
        return 100 * torch.tensor(seen, dtype=torch.float32).mean(0)

    def describe(self) -> dict[str, str]:
        """See `Extractor`."""
        return _describe(self, "share of the prompt's colours and backgrounds that are seen", "as it is", "float32")


# ---- Random convolutions -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ConvFrameFeatures:
    """Stand-in for Inception: random convolutions of one frame, averaged over its pixels."""

    seed: int = 0
    dim: int = 64

    @cached_property
    def kernels(self) -> list[Tensor]:
        return random_kernels(self.seed, self.dim, time=1)

    def embed(self, frames: np.ndarray) -> Tensor:
        """See `FrameFeatures`. One frame at a time, so that a frame's feature does not depend on its company."""
        features = [convolve(shrink(frame), self.kernels) for frame in batches(frames, 1)]
        return torch.stack([reduce(feature, "c 1 h w -> c", "mean") for feature in features]).float()

    def describe(self) -> dict[str, str]:
        """See `Extractor`."""
        resize = f"averaged to {SEEN_SIDE}x{SEEN_SIDE}"
        return _describe(self, f"{self.dim} random convolutions of a frame, seed {self.seed}", resize, "float64")


@dataclass(frozen=True)
class ConvVideoFeatures:
    """Stand-in for V-JEPA: random convolutions in space and time, averaged over the video."""

    seed: int = 0
    dim: int = 64

    @cached_property
    def kernels(self) -> list[Tensor]:
        return random_kernels(self.seed, self.dim, time=3)

    def embed(self, frames: np.ndarray) -> Tensor:
        """See `VideoFeatures`."""
        return reduce(convolve(shrink(check_frames(frames)), self.kernels), "c t h w -> c", "mean").float()

    def describe(self) -> dict[str, str]:
        """See `Extractor`."""
        resize = f"averaged to {SEEN_SIDE}x{SEEN_SIDE}"
        return _describe(self, f"{self.dim} random convolutions of a video, seed {self.seed}", resize, "float64")


def random_kernels(seed: int, dim: int, time: int) -> list[Tensor]:
    """Kernels (out, in, time, 3, 3) of three layers, the last of `dim` channels; He's scale keeps the variance."""
    if dim < 1:
        raise ValueError(f"dim must be at least 1, got {dim}")
    generator = torch.Generator().manual_seed(seed)
    widths = (3, *CONV_WIDTHS, dim)
    shapes = [(out, into, time, 3, 3) for into, out in pairwise(widths)]
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64) * (2 / np.prod(shape[1:])) ** 0.5
        for shape in shapes
    ]


def shrink(frames: np.ndarray) -> Tensor:
    """uint8 (F, H, W, 3) -> float64 (3, F, SEEN_SIDE, SEEN_SIDE) from -1 to 1. Double precision, since rounding must
    not tell machines or numbers of threads apart."""
    video = rearrange(torch.from_numpy(frames).double(), "f h w c -> c f h w")
    return adaptive_avg_pool2d(video / 127.5 - 1, SEEN_SIDE)


def convolve(video: Tensor, kernels: list[Tensor]) -> Tensor:
    """(3, T, H, W) -> (C, T, h, w): each layer halves height and width and keeps what is positive."""
    for kernel in kernels:
        video = conv3d(video[None], kernel, stride=(1, 2, 2), padding=(kernel.shape[2] // 2, 1, 1))[0].relu()
    return video


def _describe(extractor: object, means: str, resize: str, dtype: str) -> dict[str, str]:
    return {
        "class": type(extractor).__name__,
        "checkpoint": f"stand-in: {means}",
        "revision": "1",  # counts changes of its rule
        "resize": resize,
        "dtype": dtype,
    }
