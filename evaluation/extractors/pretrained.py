"""Networks of transformers that measure videos: found in a folder or on the hub, and loaded whole or not at all."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from weights.download import cached_snapshot, download, list_files
from weights.files import CheckpointError, one_line, read_json, shards
from weights.hub import HUB_NAME
from weights.load import fingerprint

CONFIG_FILE = "config.json"
# What transformers looks for, in its order: safetensors before pickles, one file before the index of several.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


@dataclass(frozen=True)
class Checkpoint:
    """Where a network's files are, and how results name them.

    revision: the commit on the hub; of a folder, SHA-256 over its config and weights, since a path says nothing.
    """

    folder: Path
    name: str
    revision: str

    def describe(self, extractor: object, resize: str) -> dict[str, str]:
        """An extractor's description of itself, see `evaluation.extractors.protocols.Extractor`."""
        return {
            "class": type(extractor).__name__,
            "checkpoint": self.name,
            "revision": self.revision,
            "resize": resize,
            "dtype": "float32",
        }


def find(name: str | Path) -> Checkpoint:
    """A folder, or a hub name `owner/name[@revision]`, fetched once. A cached one needs no network."""
    path = Path(os.path.expanduser(name))
    if path.is_dir():
        files = [CONFIG_FILE, *weight_files(path)]
        if len(files) == 1 or not (path / CONFIG_FILE).is_file():
            raise CheckpointError(
                f"{path} is not a model's folder: it needs {CONFIG_FILE} and {WEIGHT_FILES[0]}; download it again"
            )
        return Checkpoint(path, path.resolve().name, f"sha256:{fingerprint(path, files)[:16]}")
    hub = HUB_NAME.fullmatch(name) if isinstance(name, str) else None
    if hub is None:
        raise CheckpointError(f"there is no folder {path}; give a model's folder or a hub name such as owner/name")
    folder = fetch(hub["repo"], hub["revision"])
    return Checkpoint(folder, hub["repo"], folder.name)  # a snapshot's folder has the commit for a name


def fetch(repo: str, revision: str | None) -> Path:
    """The snapshot of a hub repository with one model in it, only with the files that are read here."""
    cached = cached_snapshot(repo, revision)
    if cached is not None and (cached / CONFIG_FILE).is_file() and weight_files(cached):
        return cached
    listing = list_files(repo, revision)
    names = listing.files
    weights = [name for name in WEIGHT_FILES if name in names][:1]
    if CONFIG_FILE not in names or not weights:
        raise CheckpointError(
            f"{repo} on the hub has no {CONFIG_FILE} with {WEIGHT_FILES[0]} or {WEIGHT_FILES[2]}; take another"
        )
    settings = [name for name in names if "/" not in name and name.endswith((".json", ".txt"))]
    folder = download(listing, settings)
    if weights[0] in settings:  # an index: only now it is known which files it names
        weights = [path.name for path in shards(folder / weights[0])]
    return download(listing, settings + weights)


def weight_files(folder: Path) -> list[str]:
    """Names of the weight files that transformers would read from a folder; empty where one is missing."""
    found = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if found is None:
        return []
    files = shards(found) if found.suffix == ".json" else [found]
    return [path.name for path in files] if all(path.is_file() for path in files) else []


def load_model(
    kind: str, checkpoint: Checkpoint, device: str | torch.device, unused: tuple[str, ...] = ()
) -> nn.Module:
    """A network of this class of transformers: float32, eval mode, no gradients of its own.

    A weight that the files lack would be left random by transformers, with no more than a log line; here it is an
    error unless its name begins with one of `unused`.
    """
    cls = transformers_class(kind)
    folder, wanted = checkpoint.folder, cls.config_class.model_type
    if (found := read_json(folder / CONFIG_FILE).get("model_type")) != wanted:
        raise CheckpointError(
            f"{folder / CONFIG_FILE} has model_type {found!r}, {kind} needs {wanted!r}; take such a model"
        )
    try:
        model, report = cls.from_pretrained(str(folder), local_files_only=True, output_loading_info=True)
    except Exception as error:  # transformers and what lies below it have no common kind of error
        raise CheckpointError(f"{folder} cannot be read as {kind} ({one_line(error)}); download it again") from error
    missing = sorted(name for name in report["missing_keys"] if not name.startswith(unused))
    if missing:
        raise CheckpointError(
            f"{folder} lacks {len(missing)} of the weights of {kind}, the first is {missing[0]}; "
            "take a checkpoint of this class"
        )
    try:
        return model.to(device, torch.float32).eval().requires_grad_(False)
    except (RuntimeError, AssertionError) as error:
        raise CheckpointError(f"device {str(device)!r} cannot be used here ({one_line(error)}); try 'cpu'") from error


def load_image_processor(kind: str, checkpoint: Checkpoint) -> Any:
    """transformers' preprocessing of images by Pillow: newer versions have it beside one by torchvision, whose resized
    pixels differ, and choose by what is installed."""
    import transformers

    cls = getattr(transformers, f"{kind}Pil", None) or getattr(transformers, kind)
    try:
        return cls.from_pretrained(str(checkpoint.folder), local_files_only=True)
    except Exception as error:
        raise CheckpointError(
            f"{checkpoint.folder} has no preprocessor_config.json that {kind} can read ({one_line(error)}); "
            "download it again"
        ) from error


def transformers_class(kind: str) -> Any:
    """A class of transformers by its name; older versions lack the newer models."""
    import transformers

    cls = getattr(transformers, kind, None)
    if cls is None:
        raise ImportError(f"transformers {transformers.__version__} has no {kind}; pip install -U transformers")
    return cls


def describe_resize(processor: Any) -> str:
    """How an image processor changes a frame's size: "shortest edge 224 by Pillow's bicubic, centre crop 224x224"."""
    settings = processor.to_dict()
    size, crop = settings["size"], settings.get("crop_size")
    if "shortest_edge" in size:
        words = f"shortest edge {size['shortest_edge']}"
    else:
        words = f"squashed to {size['height']}x{size['width']}"
    words += f" by Pillow's {Image.Resampling(settings['resample']).name.lower()}"
    return f"{words}, centre crop {crop['height']}x{crop['width']}" if settings.get("do_center_crop") else words
