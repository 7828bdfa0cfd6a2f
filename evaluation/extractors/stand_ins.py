"""Stand-ins for the tiny checkpoint, whose world no published network has seen: the same measurements by simple means.

They need no download, and their numbers compare rows of one table; they say nothing about published values, and
`describe` says so. Subjects are found by colour, which needs scipy; features are those of a small network that was
trained on the world itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from evaluation.extractors.protocols import Box, batches
from evaluation.figures.video import check_frames
from storage import sha256
from weights.train_tiny.judge import ANSWERS, FILE, SEEN, Judge, shrink
from weights.train_tiny.world import BACKGROUNDS, COLORS

if TYPE_CHECKING:
    from weights.train_tiny.detect import Detection


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


# ---- The world's judge ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Judged:
    """What the network makes of a video that names the world's shapes, colours, backgrounds and motions."""

    means: ClassVar[str]

    @cached_property
    def judge(self) -> Judge:
        """In float64, since rounding must not tell machines or numbers of threads apart."""
        return Judge.load().double()

    def describe(self) -> dict[str, str]:
        """See `Extractor`."""
        means = f"{self.means} of the world's judge, SHA-256 {sha256(FILE.read_bytes())[:12]}"
        return _describe(self, means, f"averaged to {SEEN[1]}x{SEEN[0]}", "float64")


class JudgedVideo(_Judged):
    """Stand-in for V-JEPA: what the judge's answers about a video are made of."""

    means = "features"

    def embed(self, frames: np.ndarray) -> Tensor:
        """See `VideoFeatures`."""
        return self.judge.features(shrink(check_frames(frames)).double()[None])[0].float()


class JudgedFrames(_Judged):
    """Stand-in for Inception: the same of each frame alone, as a still video."""

    means = "features of single frames"

    def embed(self, frames: np.ndarray) -> Tensor:
        """See `FrameFeatures`. One frame at a time, so that a frame's feature does not depend on its company."""
        return torch.cat([self.judge.features(shrink(frame).double()[None]) for frame in batches(frames, 1)]).float()


class JudgedNames(_Judged):
    """What the judge calls a video: its answers themselves."""

    means = "answers"

    def name(self, frames: np.ndarray) -> dict[str, str]:
        """See `Namer`."""
        logits = self.judge(shrink(check_frames(frames)).double()[None])
        return {kind: words[int(logits[kind].argmax())] for kind, words in ANSWERS.items()}


def _describe(extractor: object, means: str, resize: str, dtype: str) -> dict[str, str]:
    return {
        "class": type(extractor).__name__,
        "checkpoint": f"stand-in: {means}",
        "revision": "1",  # counts changes of its rule
        "resize": resize,
        "dtype": dtype,
    }
