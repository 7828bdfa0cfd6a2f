"""The set of videos that FID, KID and JEDi compare with: a folder of the user's, or the tiny world itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from evaluation.figures.video import read_video
from evaluation.tables.making import Suite, measure_reference, read_reference
from evaluation.tables.store import Store
from weights.train_tiny.world import render, sample_scene

VIDEO_KINDS = (".mp4", ".mkv", ".webm", ".avi", ".mov")
WORLD_SEED = 2 * 10**6  # scenes that no benchmark's prompts come from


@dataclass(frozen=True)
class Reference:
    """Names of videos, how to get the frames of one, uint8 (F, H, W, 3), and a sentence about them."""

    names: Sequence[str]
    frames: Callable[[str], np.ndarray]
    description: str

    @classmethod
    def of(cls, what: str | None, frames: int) -> Reference | None:
        """what: "world:N" = N scenes of the tiny world with `frames` frames, else a folder; None = no reference."""
        if what is None:
            return None
        if world := re.fullmatch(r"world:([1-9]\d*)", what):
            names = [f"world-{n:04d}" for n in range(int(world[1]))]
            return cls(names, lambda name: draw(name, frames), f"{len(names)} scenes of the tiny world, as drawn")
        folder = Path(what)
        files = sorted(folder.iterdir()) if folder.is_dir() else []
        names = [file.name for file in files if file.suffix.lower() in VIDEO_KINDS and not file.name.startswith(".")]
        if not names:
            raise ValueError(
                f"--reference {what} is neither a folder with videos ({', '.join(VIDEO_KINDS)}) nor world:N"
            )
        return cls(names, lambda name: read_video(folder / name), f"{len(names)} videos of {folder.resolve().name}")

    def measure(self, store: Store, suite: Suite, name: str) -> dict[str, Tensor]:
        """Features of one video by role, measured now unless they are there already."""
        return measure_reference(store.root / "reference", suite, name, self.frames(name))

    def features(self, store: Store, suite: Suite) -> dict[str, list[Tensor]]:
        """Features of each, measured before: (F, D) under "frames", (1, D) under "videos"."""
        folder = store.root / "reference"
        measured = [read_reference(folder, suite, name, self.frames(name)) for name in self.names]
        return {role: [features[role] for features in measured] for role in measured[0]}


def draw(name: str, frames: int) -> np.ndarray:
    """The scene with this name; like the benchmarks' prompts, of combinations that training never saw."""
    rng = np.random.default_rng([WORLD_SEED, int(name.removeprefix("world-"))])
    return render(sample_scene(rng, frames, held=True))
