"""The two measurements that read text: OWL-ViT finds a subject by its words, CLIP says how well they show a prompt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import cosine_similarity

from evaluation.extractors.pretrained import Checkpoint, describe_resize, find, load_image_processor, load_model
from evaluation.extractors.protocols import MIN_SCORE, MOST, Box, batches
from weights.files import blame
from weights.text import read_tokenizer

OWL = "google/owlvit-large-patch14"
CLIP = "openai/clip-vit-base-patch16"


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
