"""The first two steps of an evaluation: make the videos, and measure what they show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from evaluation.benchmarks.items import Item
from evaluation.extractors.inception import InceptionFeatures
from evaluation.extractors.owl_clip import ClipScorer, OwlDetector
from evaluation.extractors.protocols import (
    Detector,
    Extractor,
    FrameFeatures,
    Namer,
    TextImageScorer,
    VideoFeatures,
    key,
)
from evaluation.extractors.stand_ins import ColourDetector, ColourScorer, JudgedFrames, JudgedVideo
from evaluation.extractors.vjepa import VJepa2Features
from evaluation.tables.store import Row, Store
from sampling.generate import Plan, generate, make_plan
from sampling.sampler import NonFinite
from storage import read_sealed, sha256, write_bytes, write_sealed
from weights.load import Pipeline
from weights.memory import Savings, check_memory
from weights.savings import Economy, plan_economy
from weights.train_tiny.world import COLORS, SHAPES

FEATURES = ("frames", "videos")  # roles whose measurements are features, for distances between sets
SUITES = ("stand-ins", "published")

Descriptions = Mapping[str, Mapping[str, str]]  # by role, what its extractor says of itself


# ---- Videos ----------------------------------------------------------------------------------------------------------


def known_words(pipeline: Pipeline) -> str:
    """Which world's words the checkpoint knows: "tiny" if its own example prompt speaks of a subject of the tiny world,
    else "real"."""
    words = (pipeline.defaults.prompt or "").lower()
    return "tiny" if any(f"{color} {shape}" in words for color in COLORS for shape in SHAPES) else "real"


def check_words(pipeline: Pipeline, items: Iterable[Item]) -> None:
    """Refuse items about what a checkpoint of the tiny world has never seen."""
    if known_words(pipeline) == "real":
        return
    for item in items:
        for subject in item.subjects:
            if subject.lower() not in {f"{color} {shape}" for color in COLORS for shape in SHAPES}:
                raise ValueError(
                    f"item {item.id}: {pipeline.name} knows the tiny world alone, such as a red ball, and no "
                    f"{subject}; take other words, or another --model"
                )


def check_plans(pipeline: Pipeline, items: Iterable[Item], rows: Mapping[str, Row]) -> dict[str, Plan]:
    """Refuse, before the first video is made, what cannot be: an item whose subject, say, its prompt's tokens lack.

    Returns a plan of each row, which stands for all of it, since its videos have one size; without items there is none.
    """
    plans = {}
    for label, row in rows.items():
        size = {"frames": row.frames, "height": row.height, "width": row.width}
        for item in items:
            try:
                plans[label] = make_plan(pipeline, None, item.trajectory, row.settings, **size)
            except ValueError as error:
                raise ValueError(f"item {item.id} cannot be made: {error}") from None
    return plans


def fit_rows(pipeline: Pipeline, plans: Mapping[str, Plan], named: Savings, mode: str | None) -> Economy:
    """What saves memory, as in `plan_economy`, and in effect; a row that does not fit even so is refused."""
    if not plans:
        return Economy(named)
    economy = plan_economy(pipeline, list(plans.values()), named, mode)
    economy.take_effect(pipeline)
    for label, plan in plans.items():
        try:
            check_memory(pipeline, plan, **economy.how)
        except ValueError as error:
            raise ValueError(f"row {label} cannot be made: {error}") from None
    return economy


def make_video(store: Store, pipeline: Pipeline, item: Item, row: Row, **how: Any) -> dict[str, Any]:
    """The video's record, made now unless it is there already. Latents that do not stay finite leave no video.

    how: options of `generate`; what saves memory is no part of the row, since the video is the same up to rounding
    """
    if (record := store.read_record(item, row)) is not None:
        return record
    try:
        result = generate(
            pipeline,
            None,
            item.trajectory,
            row.settings,
            item.seed,
            negative_prompt=row.negative_prompt,
            frames=row.frames,
            height=row.height,
            width=row.width,
            **how,
        )
    except NonFinite as error:
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
    names: Namer | None = None

    @property
    def all(self) -> dict[str, Extractor]:
        """Those that are there, by role: "boxes", "text", "names", "frames", "videos"."""
        found = {role: getattr(self, role) for role in ("boxes", "text", "names", *FEATURES)}
        return {role: extractor for role, extractor in found.items() if extractor is not None}

    def describe(self) -> dict[str, dict[str, str]]:
        """What each says of itself, by role."""
        return {role: extractor.describe() for role, extractor in self.all.items()}

    def extract(self, role: str, frames: np.ndarray, prompt: str = "", subjects: Sequence[str] = ()) -> Any:
        """What one extractor finds in a video.

        "boxes": for each subject, for each frame, a list of boxes with scores; "text": a score a frame;
        "names": its words by kind; "frames": features (F, D); "videos": features (1, D)
        """
        extractor: Any = self.all[role]
        if role == "boxes":
            return [extractor.detect(frames, subject) for subject in subjects]
        if role == "text":
            return extractor.score(frames, prompt).tolist()
        if role == "names":
            return extractor.name(frames)
        features = extractor.embed(frames)
        return features if role == "frames" else features[None]


def stand_ins(distances: bool = True) -> Suite:
    """What measures videos of the tiny world; every one of them says that it is a stand-in.

    distances: with features for Table 2
    """
    suite = Suite(ColourDetector(), ColourScorer())
    return Suite(suite.boxes, suite.text, JudgedFrames(), JudgedVideo()) if distances else suite


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
    extractors = suite.describe()
    video, found = _read_video(store, extractors, item, row)
    if video is None:
        return found
    path, frames = store.record_path(item, row), None
    for role in _lacking(found):
        frames = store.read_frames(item, row) if frames is None else frames
        found[role] = suite.extract(role, frames, item.prompt, item.subjects)
        _write(_path(extractors[role], role, path), video, found[role])
    return found


def read_measured(store: Store, extractors: Descriptions, item: Item, row: Row) -> dict[str, Any]:
    """What `measure_video` has found before; a ValueError where some of it is not there, or is not whole."""
    _, found = _read_video(store, extractors, item, row)
    _expect_all(found, f"the video of {item.id}")
    return found


def measure_reference(path: Path, suite: Suite, name: str, frames: np.ndarray) -> dict[str, Tensor]:
    """The features of one video of the set that FID, KID and JEDi compare with.

    path: of its record, which says what the features beside it belong to
    """
    extractors = {role: description for role, description in suite.describe().items() if role in FEATURES}
    video = sha256(frames.tobytes())
    write_sealed(path, {"name": name, "video": video})
    found = _read_all(extractors, path, video)
    for role in _lacking(found):
        found[role] = suite.extract(role, frames)
        _write(_path(extractors[role], role, path), video, found[role])
    return found


def read_reference(path: Path, extractors: Descriptions, name: str) -> dict[str, Tensor]:
    """What `measure_reference` has found before, without the video itself; a ValueError where some of it is not there,
    or is not whole."""
    extractors = {role: description for role, description in extractors.items() if role in FEATURES}
    record = read_sealed(path)
    found: dict[str, Any] = dict.fromkeys(extractors)
    if record is not None:
        found = _read_all(extractors, path, record["video"])
    _expect_all(found, f"the reference's {name}")
    return found


def _read_video(store: Store, extractors: Descriptions, item: Item, row: Row) -> tuple[str | None, dict[str, Any]]:
    """The hash of a video that is there and whole, and what is known of it by role; (None, {}) if it was not finite."""
    record = store.read_record(item, row)
    if record is None:
        raise ValueError(
            f"the video of {item.id} is not there or not whole; run `python -m evaluation generate` again, "
            "or leave it out with --allow-missing"
        )
    video = record["video"]
    return video, {} if video is None else _read_all(extractors, store.record_path(item, row), video)


def _lacking(found: Mapping[str, Any]) -> list[str]:
    """The roles that were not measured yet."""
    return [role for role, measured in found.items() if measured is None]


def _expect_all(found: Mapping[str, Any], what: str) -> None:
    """Raise ValueError unless every role was measured; what: a video, for the sentence."""
    if lacking := _lacking(found):
        raise ValueError(
            f"{what} is not measured yet ({', '.join(lacking)}); run `python -m evaluation extract` first, "
            "with the same --suite and --reference"
        )


# ---- Files of measurements -------------------------------------------------------------------------------------------


def _path(description: Mapping[str, str], role: str, record: Path) -> Path:
    """Beside the record of the video, by the extractor's key."""
    return record.with_name(f"{record.stem}.{key(description)}.{'safetensors' if role in FEATURES else 'json'}")


def _read_all(extractors: Descriptions, record: Path, video: str) -> dict[str, Any]:
    """{role: what was found in the video with this hash}, None where that is not there, or is not whole."""
    return {role: _read(_path(description, role, record), video) for role, description in extractors.items()}


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
    return sha256(video.encode() + features.numpy().tobytes())
