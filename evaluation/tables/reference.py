"""The set of videos that FID, KID and JEDi compare with: a folder of the user's, or the tiny world itself.

Each gives one clip of as many frames as the rows' videos have: JEDi reads a video as a whole, and clips of another
length are other videos to it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from evaluation.figures.video import read_video
from evaluation.tables.making import FEATURES, Descriptions, Suite, measure_reference, read_reference
from evaluation.tables.store import Store
from sampling.generate import to_uint8
from storage import sha256
from weights.load import Pipeline
from weights.train_tiny.world import render, sample_scene

VIDEO_KINDS = (".mp4", ".mkv", ".webm", ".avi", ".mov")
WORLD_SEED = 2 * 10**6  # scenes that no benchmark's prompts come from


@dataclass(frozen=True)
class Reference:
    """A set as it was asked for, the names of its videos, the clip of one, uint8 (F, H, W, 3), and a sentence."""

    what: str
    names: Sequence[str]
    clip: Callable[[str], np.ndarray]
    description: str

    @classmethod
    def of(cls, what: str, frames: int, stride: int = 1) -> Reference:
        """what: "world:N" = N scenes of the tiny world, else a folder, whose sub-folders are searched too.

        frames, stride: of each video every `stride`-th frame is taken, the first one first, until there are `frames`
        """
        if world := re.fullmatch(r"world:([1-9]\d*)", what):
            if stride > 1:
                raise ValueError(f"--reference-stride has no effect on {what}, whose scenes are drawn to length")
            names = [f"world-{n:04d}" for n in range(int(world[1]))]
            return cls(what, names, lambda name: draw(name, frames), f"{len(names)} scenes of the tiny world, as drawn")
        folder = Path(what)
        files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in VIDEO_KINDS)
        names = [file.as_posix() for file in files if not any(part.startswith(".") for part in file.parts)]
        if not names:
            raise ValueError(
                f"--reference {what} is neither a folder with videos ({', '.join(VIDEO_KINDS)}) nor world:N"
            )
        taken = f"the first {frames} frames" if stride == 1 else f"{frames} frames, every {stride}-th,"
        description = f"{len(names)} videos of {folder.resolve().name}, {taken} of each"
        return cls(what, names, lambda name: cut(folder / name, frames, stride), description)

    @classmethod
    def further(cls, first: int, count: int, frames: int, pipeline: Pipeline | None = None) -> Reference:
        """Scenes that "world:FIRST" does not hold, as drawn, or as the pipeline's autoencoder rebuilds them."""
        names = [f"world-{n:04d}" for n in range(first, first + count)]
        if pipeline is None:
            return cls(f"world from {first}", names, lambda name: draw(name, frames), "as drawn")
        what = f"world from {first} rebuilt by {pipeline.fingerprint}"
        return cls(what, names, lambda name: rebuild(pipeline, draw(name, frames)), "through the autoencoder")

    def measure(self, store: Store, suite: Suite, name: str) -> dict[str, Tensor]:
        """Features of one video by role, measured now unless they are there already."""
        path = record_path(store, self.what, name)
        path.parent.mkdir(exist_ok=True)
        return measure_reference(path, suite, name, self.clip(name))

    def note(self, store: Store) -> None:
        """Write down which videos there are, for `read_features`."""
        store.note("references", self.what, {"description": self.description, "names": list(self.names)})


def read_features(store: Store, extractors: Descriptions, what: str) -> tuple[str, dict[str, list[Tensor]]]:
    """What was measured of a set before, from the store alone: its description, and by role the features of each video,
    (F, D) under "frames", (1, D) under "videos"."""
    noted = store.noted("references")
    if what not in noted:
        known = f"; measured are {', '.join(noted)}" if noted else ""
        raise ValueError(
            f"--reference {what} is not measured yet{known}; run `python -m evaluation extract` with it first"
        )
    if not any(role in FEATURES for role in extractors):
        raise ValueError(f"--reference {what} is measured by no extractor of this --suite; run `extract` with both")
    measured = [read_reference(record_path(store, what, name), extractors, name) for name in noted[what]["names"]]
    return noted[what]["description"], {role: [features[role] for features in measured] for role in measured[0]}


def record_path(store: Store, what: str, name: str) -> Path:
    """Where the record of one video of a set lies."""
    return store.root / "reference" / f"{sha256(f'{what} {name}'.encode())[:16]}.json"


def cut(path: Path, frames: int, stride: int) -> np.ndarray:
    """The clip of a video file; a ValueError where the video is too short for it."""
    clip = read_video(path, frames, stride)
    if len(clip) < frames:
        every = "" if stride == 1 else f" with --reference-stride {stride}"
        raise ValueError(f"{path} gives {len(clip)} frames{every}, and the rows' videos have {frames}; leave it out")
    return clip


def draw(name: str, frames: int) -> np.ndarray:
    """The scene with this name; like the benchmarks' prompts, of combinations that training never saw."""
    rng = np.random.default_rng([WORLD_SEED, int(name.removeprefix("world-"))])
    return render(sample_scene(rng, frames, held=True))


@torch.no_grad()
def encode(pipeline: Pipeline, frames: np.ndarray) -> Tensor:
    """A video (F, H, W, 3) as the autoencoder's latents (1, C, F, H/8, W/8), float32."""
    pixels = rearrange(torch.from_numpy(frames).float() / 127.5 - 1, "f h w c -> 1 c f h w")
    return pipeline.vae.encode(pixels.to(next(pipeline.unet.parameters()))).float()


@torch.no_grad()
def rebuild(pipeline: Pipeline, frames: np.ndarray) -> np.ndarray:
    """The same video from its latents, uint8 (F, H, W, 3)."""
    return to_uint8(pipeline.vae.decode(encode(pipeline, frames), frames_per_chunk=4))
