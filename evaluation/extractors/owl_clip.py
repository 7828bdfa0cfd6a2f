"""What is measured of frames, behind small protocols, and the two measurements that read text: OWL-ViT and CLIP.

Frames are uint8 (F, H, W, 3) of one video. Features and scores come back as float32 tensors on the CPU whatever device
they were made on. Others that fit the protocols: `inception.py`, `vjepa.py`, and the tiny world's `stand_ins.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import cosine_similarity

from evaluation.extractors.pretrained import Checkpoint, describe_resize, find, load_image_processor, load_model
from evaluation.figures.video import check_frames
from model.text import read_tokenizer
from weights.files import blame

Box = tuple[float, float, float, float, float]  # x1 y1 x2 y2 relative to the frame, and a score from 0 to 1

MIN_SCORE, MOST = 0.01, 5  # what is kept of a frame's boxes; thresholds are applied when results are read
OWL = "google/owlvit-large-patch14"
CLIP = "openai/clip-vit-base-patch16"


# ---- Protocols -----------------------------------------------------------------------------------------------------


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


def key(extractor: Extractor) -> str:
    """A name for caches that changes with whatever changes the numbers, such as OwlDetector-0123456789ab."""
    description = json.dumps(extractor.describe(), sort_keys=True)
    return f"{type(extractor).__name__}-{hashlib.sha256(description.encode()).hexdigest()[:12]}"


def batches(frames: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """The frames in order, `size` at a time, fewer at the end."""
    if size < 1:
        raise ValueError(f"a batch has at least 1 frame, got {size}")
    frames = check_frames(frames)
    return (frames[i : i + size] for i in range(0, len(frames), size))


# ---- Equations -----------------------------------------------------------------------------------------------------


def clip_scores(images: Tensor, text: Tensor) -> Tensor:
    """100 times the cosine between each frame's embedding and the prompt's: (F, D), (D,) -> (F,), from -100 to 100."""
    return 100 * cosine_similarity(images, text, dim=-1)


def clip_sim(scores: Tensor, clamped: bool = True) -> float:
    """CLIP-SIM of one video: the mean over frames of its scores (F,), negative ones as 0 unless clamped is off."""
    scores = scores.double()
    return (scores.clamp(min=0) if clamped else scores).mean().item()


def best_boxes(scores: Tensor, boxes: Tensor) -> list[list[Box]]:
    """The MOST boxes of score MIN_SCORE or more of each frame, the best first, clipped to the frame.

    scores (B, P), boxes (B, P, 4) as centre x y, width, height, relative to the frame; the network sorts neither.
    """
    center, size = boxes.double().split(2, dim=-1)
    corners = torch.cat([center - size / 2, center + size / 2], dim=-1).clamp(0, 1)
    ranked, order = scores.double().sort(dim=-1, descending=True, stable=True)
    return [
        [
            (*corners[b, p].tolist(), s)
            for s, p in zip(ranked[b, :MOST].tolist(), order[b, :MOST], strict=True)
            if s >= MIN_SCORE
        ]
        for b in range(len(scores))
    ]


# ---- Networks ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class TextImageModel:
    """A network that takes a text and frames, and what prepares both for it."""

    network: Any
    tokenizer: Any
    processor: Any
    checkpoint: Checkpoint
    batch_size: int

    @classmethod
    def load(cls, kind: str, processor: str, name: str, device: str | torch.device, batch_size: int) -> TextImageModel:
        """From the hub or a folder. kind, processor: names of classes in transformers."""
        checkpoint = find(name)
        network = load_model(kind, checkpoint, device)
        with blame(checkpoint.folder):
            tokenizer = read_tokenizer(checkpoint.folder)
        return cls(network, tokenizer, load_image_processor(processor, checkpoint), checkpoint, batch_size)

    def tokens(self, text: str) -> Tensor:
        """Token ids (1, L), cut to what the network can read: 16 in OWL-ViT, 77 in CLIP. No padding: the text
        encoders are causal and read the text's embedding at its end."""
        if not text.strip():
            raise ValueError("the text to look for in the frames is empty; give at least one word")
        length = min(self.tokenizer.model_max_length, self.network.config.text_config.max_position_embeddings)
        return self.tokenizer(text, truncation=True, max_length=length, return_tensors="pt").input_ids

    def outputs(self, text: str, frames: np.ndarray, **preparation: bool) -> Iterator[Any]:
        """What the network's own forward gives for each batch of frames, the text repeated for each frame."""
        ids, device = self.tokens(text), self.network.device
        for batch in batches(frames, self.batch_size):
            images = [Image.fromarray(frame) for frame in batch]
            pixels = self.processor(images=images, return_tensors="pt", **preparation).pixel_values
            with torch.no_grad():
                output = self.network(input_ids=ids.expand(len(batch), -1).to(device), pixel_values=pixels.to(device))
            yield output  # outside, so that the caller's gradients stay as they were


@dataclass(frozen=True, eq=False)
class OwlDetector:
    """OWL-ViT asked for the subject in its own words, without a template, as Peekaboo does."""

    model: TextImageModel

    @classmethod
    def load(cls, name: str = OWL, device: str | torch.device = "cpu", batch_size: int = 8) -> OwlDetector:
        """From the hub or a folder; a CheckpointError where there is no OWL-ViT."""
        return cls(TextImageModel.load("OwlViTForObjectDetection", "OwlViTImageProcessor", name, device, batch_size))

    def detect(self, frames: np.ndarray, subject: str) -> list[list[Box]]:
        """See `Detector`. The network sees the frame squashed to a square, so boxes relative to that square are
        relative to the frame; a crop would shift them."""
        found = []
        for output in self.model.outputs(subject, frames, do_center_crop=False):
            found += best_boxes(output.logits[..., 0].sigmoid().cpu(), output.pred_boxes.cpu())
        return found

    def describe(self) -> dict[str, str]:
        """See `Extractor`; also which boxes are kept."""
        resize = describe_resize(self.model.processor).split(", centre crop")[0]
        return self.model.checkpoint.describe(self, resize) | {"keeps": f"{MOST} boxes of score {MIN_SCORE} or more"}


@dataclass(frozen=True, eq=False)
class ClipScorer:
    """CLIP's cosine between the whole prompt and each frame."""

    model: TextImageModel

    @classmethod
    def load(cls, name: str = CLIP, device: str | torch.device = "cpu", batch_size: int = 8) -> ClipScorer:
        """From the hub or a folder; a CheckpointError where there is no CLIP."""
        return cls(TextImageModel.load("CLIPModel", "CLIPImageProcessor", name, device, batch_size))

    def score(self, frames: np.ndarray, prompt: str) -> Tensor:
        """See `TextImageScorer`."""
        outputs = self.model.outputs(prompt, frames)
        return torch.cat([clip_scores(o.image_embeds, o.text_embeds).float().cpu() for o in outputs])

    def describe(self) -> dict[str, str]:
        """See `Extractor`."""
        return self.model.checkpoint.describe(self, describe_resize(self.model.processor))
