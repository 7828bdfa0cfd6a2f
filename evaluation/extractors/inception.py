"""Features for FID and KID: Inception v3 as TensorFlow released it in 2015, through torch-fidelity."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from evaluation.extractors.protocols import batches
from weights.files import CheckpointError, one_line

READ_SIDE = 299  # pixels that the network reads
INCEPTION_WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"  # torch-fidelity's file; it fetches it once
RESIZES = {
    "tf": f"squashed to {READ_SIDE}x{READ_SIDE} by TensorFlow 1's bilinear, without antialiasing",
    "clean": f"squashed to {READ_SIDE}x{READ_SIDE} by Pillow's bicubic, rounded to uint8",
}


@dataclass(frozen=True, eq=False)
class InceptionFeatures:
    """The 2048 averaged features of each frame. FID and KID of the two resizes differ; never mix them.

    network: uint8 (B, 3, H, W) -> a tuple with the features (B, 2048)
    resize: one of `RESIZES`
    """

    network: Callable[[Tensor], tuple[Tensor, ...]]
    resize: str = "tf"
    device: str | torch.device = "cpu"
    batch_size: int = 32

    def __post_init__(self) -> None:
        if self.resize not in RESIZES:
            raise ValueError(f"resize must be one of {', '.join(RESIZES)}, got {self.resize!r}")

    @classmethod
    def load(cls, device: str | torch.device = "cpu", resize: str = "tf", batch_size: int = 32) -> InceptionFeatures:
        """With torch-fidelity's own weights, from torch's hub cache or from the network."""
        fidelity = import_fidelity()
        try:
            network = fidelity.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
        except Exception as error:  # the network and torch below it have no common kind of error
            raise CheckpointError(
                f"torch-fidelity cannot load Inception's weights ({one_line(error)}); "
                f"check the network, or put {INCEPTION_WEIGHTS} into {torch.hub.get_dir()}/checkpoints"
            ) from error
        return cls(network.to(device).eval(), resize, device, batch_size)

    def embed(self, frames: np.ndarray) -> Tensor:
        """See `FrameFeatures`: (F, 2048)."""
        features = []
        for batch in batches(frames, self.batch_size):
            if self.resize == "clean":
                batch = np.stack([resize_clean(frame) for frame in batch])
            images = torch.from_numpy(rearrange(batch, "b h w c -> b c h w").copy()).to(self.device)
            with torch.no_grad():
                features.append(self.network(images)[0].float().cpu())
        return torch.cat(features)

    def describe(self) -> dict[str, str]:
        """What numbers depend on, for the header of stored features."""
        return {
            "class": type(self).__name__,
            "checkpoint": "Inception v3 of 2015-12-05 through torch-fidelity",
            "revision": INCEPTION_WEIGHTS,
            "resize": RESIZES[self.resize],
            "dtype": "float32",
        }


def resize_clean(frame: np.ndarray) -> np.ndarray:
    """clean-fid's resize: antialiased bicubic, each channel in float, so that nothing is rounded in between. uint8
    (H, W, 3) -> uint8 (READ_SIDE, READ_SIDE, 3); only the end is rounded, since torch-fidelity takes nothing finer."""
    channels = rearrange(frame.astype(np.float32), "h w c -> c h w")
    resized = [
        np.asarray(Image.fromarray(c).resize((READ_SIDE, READ_SIDE), Image.Resampling.BICUBIC)) for c in channels
    ]
    return np.rint(np.stack(resized, axis=-1)).clip(0, 255).astype(np.uint8)


def import_fidelity() -> ModuleType:
    """torch-fidelity, or one sentence on how to get it."""
    try:
        return importlib.import_module("torch_fidelity")
    except (ImportError, RuntimeError) as error:  # a torchvision that was built for another torch is the latter
        raise ImportError(
            f"FID and KID need torch-fidelity, and torchvision as it fits torch ({one_line(error)}); "
            'install both with: pip install -e ".[fidelity]"'
        ) from None
