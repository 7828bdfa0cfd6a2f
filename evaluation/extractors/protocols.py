"""What is measured of the frames of one video, as small protocols: each network, and each stand-in, fits one of them.

Frames are uint8 (F, H, W, 3). Features and scores come back as float32 tensors on the CPU, whatever device they were
made on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np
from torch import Tensor

from evaluation.figures.video import check_frames
from storage import sha256

Box = tuple[float, float, float, float, float]  # x1 y1 x2 y2 relative to the frame, and a score from 0 to 1

MIN_SCORE, MOST = 0.01, 5  # what is kept of a frame's boxes; thresholds are applied when results are read


class Extractor(Protocol):
    """What measures, and says what its numbers depend on."""

    def describe(self) -> dict[str, str]:
        """What decides about its numbers: class, checkpoint, revision, resize, dtype. Not device nor batch size."""


class Detector(Extractor, Protocol):
    """Finds a subject by its words."""

    def detect(self, frames: np.ndarray, subject: str) -> list[list[Box]]:
        """For each frame up to MOST boxes of score MIN_SCORE or more inside the frame, the best first."""


class TextImageScorer(Extractor, Protocol):
    """Says how well frames show a prompt."""

    def score(self, frames: np.ndarray, prompt: str) -> Tensor:
        """How well each frame shows the prompt, (F,): 100 times the cosine of their embeddings."""


class FrameFeatures(Extractor, Protocol):
    """Features of single frames, for FID and KID."""

    def embed(self, frames: np.ndarray) -> Tensor:
        """A feature for each frame, (F, D)."""


class VideoFeatures(Extractor, Protocol):
    """Features of whole videos, for JEDi."""

    def embed(self, frames: np.ndarray) -> Tensor:
        """One feature of the video, (D,)."""


class Namer(Extractor, Protocol):
    """Says what a video of the tiny world shows."""

    def name(self, frames: np.ndarray) -> dict[str, str]:
        """A word of the world for each "shape", "color", "background" and "motion"."""


def key(description: Mapping[str, str]) -> str:
    """A name for files of measurements, such as OwlDetector-0123456789ab: it changes with whatever changes the numbers.

    description: what the extractor says of itself
    """
    words = json.dumps(description, sort_keys=True)
    return f"{description['class']}-{sha256(words.encode())[:12]}"


def batches(frames: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """The frames in order, `size` at a time, fewer at the end."""
    if size < 1:
        raise ValueError(f"a batch has at least 1 frame, got {size}")
    frames = check_frames(frames)
    return (frames[i : i + size] for i in range(0, len(frames), size))
