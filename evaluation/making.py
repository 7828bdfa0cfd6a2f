"""The first two steps of an evaluation: make the videos, and measure what they show."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from adaptation.trajectory_file import write_bytes
from evaluation.benchmark import Item
from evaluation.extractors import (
    ClipScorer,
    Detector,
    Extractor,
    FrameFeatures,
    OwlDetector,
    TextImageScorer,
    VideoFeatures,
    key,
)
from evaluation.inception import InceptionFeatures
from evaluation.stand_ins import ColourDetector, ColourScorer, ConvFrameFeatures, ConvVideoFeatures
from evaluation.store import Row, Store, read_sealed, write_sealed
from evaluation.vjepa import VJepa2Features
from sampling.generate import Pipeline, generate, make_plan
from sampling.sampler import NonFiniteLatents

FEATURES = ("frames", "videos")  # roles whose measurements are features, for distances between sets


# ---- Videos ----------------------------------------------------------------------------------------------------------


def check_plans(pipeline: Pipeline, items: Iterable[Item], rows: Iterable[Row]) -> None:
    """Refuse, before the first video is made, an item that cannot be: say, whose subject its prompt's tokens lack."""
    for item, row in product(items, rows):
        size = {"frames": row.frames, "height": row.height, "width": row.width}
        try:
            make_plan(pipeline, None, item.trajectory, row.settings, **size)
        except ValueError as error:
            raise ValueError(f"item {item.id} cannot be made: {error}") from None


def make_video(store: Store, pipeline: Pipeline, item: Item, row: Row) -> dict[str, Any]:
    """The video's record, made now unless it is there already. Latents that do not stay finite leave no video."""
    if (record := store.read_record(item, row)) is not None:
        return record
    size = {"frames": row.frames, "height": row.height, "width": row.width}
    try:
        result = generate(
            pipeline, None, item.trajectory, row.settings, item.seed, negative_prompt=row.negative_prompt, **size
        )
    except NonFiniteLatents as error:
        frames, figures = None, {"failure": str(error), "tau": None, "latent_std": None}
    else:
        frames, last = result.frames, result.records[-1]  # tau of the last clean estimate, spread of the final latents
        figures = {"failure": None, "tau": last["tau"][0], "latent_std": last["latent_std"][0]}
    # Another worker may have been faster, and its video may have been measured already.
    return store.read_record(item, row) or store.write_record(item, row, frames, figures)


# ---- Measurements ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Suite:
    """The extractors of one evaluation, by what they are for; None leaves those columns out."""

    boxes: Detector
    text: TextImageScorer | None = None
    frames: FrameFeatures | None = None
    videos: VideoFeatures | None = None

    @property
    def all(self) -> dict[str, Extractor]:
        found = {role: getattr(self, role) for role in ("boxes", "text", *FEATURES)}
        return {role: extractor for role, extractor in found.items() if extractor is not None}

    def describe(self) -> dict[str, dict[str, str]]:
        return {role: extractor.describe() for role, extractor in self.all.items()}

    def extract(self, role: str, frames: np.ndarray, prompt: str = "", subjects: Sequence[str] = ()) -> Any:
        """What one extractor finds in a video.

        "boxes": for each subject, for each frame, a list of boxes with scores; "text": a score a frame;
        "frames": features (F, D); "videos": features (1, D)
        """
        extractor: Any = self.all[role]
        if role == "boxes":
            return [extractor.detect(frames, subject) for subject in subjects]
        if role == "text":
            return extractor.score(frames, prompt).tolist()
        features = extractor.embed(frames)
        return features if role == "frames" else features[None]


def stand_ins(distances: bool = True) -> Suite:
    """What measures videos of the tiny world; every one of them says that it is a stand-in.

    distances: with features for Table 2
    """
    suite = Suite(ColourDetector(), ColourScorer())
    return Suite(suite.boxes, suite.text, ConvFrameFeatures(), ConvVideoFeatures()) if distances else suite


def published(device: str, names: Mapping[str, str]) -> Suite:
    """The networks that published numbers are made with. names: {"owl", "clip", "inception", "vjepa2"} -> which one;
    "inception" is the resize, "tf" or "clean". What is not named but for "owl" is left out."""
    return Suite(
        OwlDetector.load(names["owl"], device),
        ClipScorer.load(names["clip"], device) if "clip" in names else None,
        InceptionFeatures.load(device, names["inception"]) if "inception" in names else None,
        VJepa2Features.load(names["vjepa2"], device) if "vjepa2" in names else None,
    )


def check_suite(suite: Suite, item: Item) -> None:
    """Refuse extractors that cannot measure such an item, before its video is made: they try a black one."""
    black = np.zeros((item.frames, 64, 64, 3), np.uint8)
    for role in suite.all:
        suite.extract(role, black, item.prompt, item.subjects)


def measure_video(store: Store, suite: Suite, item: Item, row: Row) -> dict[str, Any]:
    """{role: what `Suite.extract` gives}, measured now unless it is there already. Empty where there is no video."""
    record = store.read_record(item, row)
    if record is None:
        raise ValueError(
            f"the video of {item.id} is not there or not whole; run `python -m evaluation generate` again, "
            "or leave it out with --allow-missing"
        )
    if record["video"] is None:
        return {}
    frames, found, path = None, {}, store.record_path(item, row)
    for role in suite.all:
        file = _path(suite, role, path.parent, path.stem)
        if (measured := _read(file, record["video"])) is None:
            frames = store.read_frames(item, row) if frames is None else frames
            measured = suite.extract(role, frames, item.prompt, item.subjects)
            _write(file, record["video"], measured)
        found[role] = measured
    return found


def measure_reference(folder: Path, suite: Suite, name: str, frames: np.ndarray) -> dict[str, Tensor]:
    """The features of one video of the set that FID, KID and JEDi compare with, kept in `folder`."""
    video, found = _sha256(frames.tobytes()), {}
    folder.mkdir(parents=True, exist_ok=True)
    for role in [role for role in FEATURES if role in suite.all]:
        file = _path(suite, role, folder, name)
        if (measured := _read(file, video)) is None:
            measured = suite.extract(role, frames)
            _write(file, video, measured)
        found[role] = measured
    return found


# ---- Files of measurements -------------------------------------------------------------------------------------------


def _path(suite: Suite, role: str, folder: Path, name: str) -> Path:
    return folder / f"{name}.{key(suite.all[role])}.{'safetensors' if role in FEATURES else 'json'}"


def _read(path: Path, video: str) -> Any:
    """What was found in the video with this hash; None where that is not there, or is not whole."""
    if path.suffix == ".json":
        content = read_sealed(path)
        return content["found"] if content is not None and content["video"] == video else None
    try:
        with safe_open(path, "pt") as file:
            features, told = file.get_tensor("features"), file.metadata()
        return features if told == {"seal": _seal(video, features)} else None
    except (OSError, ValueError, SafetensorError):
        return None


def _write(path: Path, video: str, found: Any) -> None:
    if path.suffix == ".json":
        write_sealed(path, {"video": video, "found": found})
    else:
        features = found.contiguous()
        write_bytes(path, save({"features": features}, {"seal": _seal(video, features)}))


def _seal(video: str, features: Tensor) -> str:
    """A checksum of features and of the video that they belong to; one, since safetensors shuffles its metadata."""
    return _sha256(video.encode() + features.numpy().tobytes())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
