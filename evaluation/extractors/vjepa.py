"""Features for distances between sets of videos: V-JEPA 2's through transformers, V-JEPA's from a user's files.

JEDi (Luo et al., arXiv 2410.05203) is defined on V-JEPA v1 with its attentive probe. The same kernel on V-JEPA 2 is
another metric: it is called jedi_vjepa2 and never stands beside published values of JEDi.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import interpolate

from evaluation.extractors.pretrained import Checkpoint, find, load_model
from evaluation.figures.video import check_frames
from weights.files import FLOATS, CheckpointError, one_line, open_weights

VJEPA2 = "facebook/vjepa2-vitl-fpc16-256-ssv2"  # with an attentive probe trained on SSv2, as JEDi's is
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, R G B in [0, 1]
FEATURE_KINDS = (".npy", ".safetensors")


# ---- V-JEPA 2 ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class VJepa2Features:
    """jedi_vjepa2's feature of a video: what V-JEPA 2's attentive probe pools from all its tokens."""

    network: Any
    checkpoint: Checkpoint

    @classmethod
    def load(cls, name: str = VJEPA2, device: str | torch.device = "cpu") -> VJepa2Features:
        """From the hub or a folder; a CheckpointError where there is no V-JEPA 2."""
        checkpoint = find(name)
        unused = ("vjepa2.predictor.", "classifier.")
        return cls(load_model("VJEPA2ForVideoClassification", checkpoint, device, unused), checkpoint)

    def embed(self, frames: np.ndarray) -> Tensor:
        """See `VideoFeatures`. All frames are read, as in JEDi; their number must fill whole tubelets."""
        config, frames = self.network.config, check_frames(frames)
        if len(frames) % config.tubelet_size:
            raise ValueError(
                f"V-JEPA 2 reads {config.tubelet_size} frames at a time, which {len(frames)} frames do not fill"
            )
        with torch.no_grad():
            video = prepare(frames, config.crop_size, self.network.device)
            tokens = self.network.vjepa2(video, skip_predictor=True).last_hidden_state  # (1, N, D)
            return self.network.pooler(tokens)[0].float().cpu()

    def describe(self) -> dict[str, str]:
        """See `Extractor`."""
        side = self.network.config.crop_size
        return self.checkpoint.describe(self, f"squashed to {side}x{side} by torch's antialiased bilinear")


def prepare(frames: np.ndarray, side: int, device: str | torch.device) -> Tensor:
    """uint8 (F, H, W, 3) -> (1, F, 3, side, side), normalized. Squashed whole: the network's rotary positions hold for
    this size only, and a crop would lose the left and right of a wide video."""
    video = rearrange(torch.from_numpy(frames).to(device).float() / 255, "f h w c -> f c h w")
    video = interpolate(video, (side, side), mode="bilinear", antialias=True)
    mean, std = (rearrange(torch.tensor(values, device=device), "c -> c 1 1") for values in (MEAN, STD))
    return rearrange((video - mean) / std, "f c h w -> 1 f c h w")


# ---- V-JEPA v1 -----------------------------------------------------------------------------------------------------
#
# Features that the user has extracted with JEDi's own code, in .npy or .safetensors files.


def read_features_of(folder: Path, names: Sequence[str]) -> Tensor:
    """One vector from the file of each of these videos, NAME.npy or NAME.safetensors, float64 (V, D)."""
    if not names:
        raise ValueError("no videos are named whose features could be read; name at least one")
    paths = feature_files(folder)
    missing = [name for name in names if name not in paths]
    if missing:
        raise ValueError(
            f"{folder} has no features for {len(missing)} of {len(names)} videos, the first is {missing[0]}; "
            "extract them, a file for each video, named as the video is"
        )
    return stack_features({paths[name]: read_feature(paths[name])[None] for name in names})


def read_all_features(folder: Path) -> Tensor:
    """Those of all files, float64 (V, D): a file holds one vector (D,), or those of several videos (N, D), as train.npy
    of JEDi's own code does."""
    paths = feature_files(folder).values()
    features = {path: read_array(path) for path in paths}
    for path, feature in features.items():
        if feature.ndim not in (1, 2) or 0 in feature.shape:
            raise ValueError(
                f"{path} holds an array of shape {tuple(feature.shape)}; expected (D,), or (N, D) for several videos"
            )
    return stack_features({path: feature.reshape(-1, feature.shape[-1]) for path, feature in features.items()})


def feature_files(folder: Path) -> dict[str, Path]:
    """{name without suffix: file}, sorted; a ValueError where there are none, or two of one name."""
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}; give the one with a feature file for each video")
    found = sorted(path for path in folder.iterdir() if path.suffix in FEATURE_KINDS)
    if not found:
        raise ValueError(f"{folder} holds no feature files; expected a file for each video, NAME{FEATURE_KINDS[0]}")
    for one, other in pairwise(found):
        if one.stem == other.stem:
            raise ValueError(f"{folder} has {one.stem} both as .npy and as .safetensors; delete one of them")
    return {path.stem: path for path in found}


def stack_features(features: Mapping[Path, Tensor]) -> Tensor:
    """Features (N, D) of each file below each other; all must have one D."""
    first, *_ = features
    for path, feature in features.items():
        if feature.shape[1] != features[first].shape[1]:
            raise ValueError(
                f"{path.parent}: {path.stem} has {feature.shape[1]} features and {first.stem} has "
                f"{features[first].shape[1]}; extract all with one network"
            )
    return torch.cat(list(features.values()))


def read_feature(path: Path) -> Tensor:
    """The one vector in a file, float64 (D,)."""
    feature = read_array(path)
    if feature.ndim != 1 or not len(feature):
        raise ValueError(f"{path} holds an array of shape {tuple(feature.shape)}; expected one vector, (D,)")
    return feature


def read_array(path: Path) -> Tensor:
    """The one array in a .npy or .safetensors file, float64."""
    array = _read_npy(path) if path.suffix == ".npy" else _read_safetensors(path)
    if not array.isfinite().all():
        raise ValueError(f"{path} holds values that are not finite; extract this video again")
    return array


def _read_npy(path: Path) -> Tensor:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise CheckpointError(
            f"{path} is not a whole NumPy file of numbers ({one_line(error)}); make it again"
        ) from error
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"{path} holds {array.dtype}; features are floating point numbers")
    return torch.from_numpy(array.astype(np.float64))


def _read_safetensors(path: Path) -> Tensor:
    file = open_weights(path)
    if len(file.entries) != 1:
        raise ValueError(f"{path} holds {len(file.entries)} tensors; expected one, the feature of the video")
    ((name, entry),) = file.entries.items()
    if entry.dtype not in FLOATS:
        raise ValueError(f"{path} holds {entry.dtype}; features are floating point numbers")
    ((_, tensor),) = file.tensors([name])
    return tensor.to(torch.float64, copy=True)
