"""The third step of an evaluation: from what was found in the videos to the numbers of each row."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evaluation.benchmark import Item
from evaluation.distribution import Moments, fid, jedi, kid
from evaluation.extractors import clip_sim
from evaluation.making import FEATURES, Suite, measure_video
from evaluation.metrics import bootstrap, coverage, is_covered, judge_track, mean_where, miou_all, miou_covered
from evaluation.store import Row, Store
from evaluation.vjepa import FeatureFolder

WORDS = ("id", "subject")  # what is not a number in the figures of a track


@dataclass(frozen=True)
class Rules:
    """What the paper leaves open; each result says which it was made by."""

    threshold: float = 0.1  # of a detection's score
    coverage: str = "half"  # or "count:N", see `metrics.is_covered`
    iou: str = "volume"  # or "frame", TrailBlazer's: mean over the frames in which the subject is found
    clamp_clip: bool = True  # negative CLIP scores count as 0
    kid_subset: int = 1000

    def __post_init__(self) -> None:
        is_covered(np.zeros((1, 4)), self.coverage)  # refuses what is no rule
        if self.iou not in ("volume", "frame"):
            raise ValueError(f"an IoU is of the 'volume' of a video or a mean over 'frame's, not {self.iou!r}")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"the threshold of a detection's score is from 0 to 1, not {self.threshold}")
        if self.kid_subset < 2:
            raise ValueError(f"KID needs subsets of at least 2 features, not {self.kid_subset}")


def reduce_row(
    store: Store,
    suite: Suite,
    items: Sequence[Item],
    row: Row,
    rules: Rules,
    reference: Mapping[str, Tensor] | None = None,
    jedi_features: tuple[Path, Path] | None = None,
    allow_missing: bool = False,
) -> dict[str, Any]:
    """Every number of one row, ready for JSON.

    reference: features of the reference set by role, see `making.measure_reference`
    jedi_features: folders with the user's own V-JEPA features, of this row's videos and of the reference
    allow_missing: a video that is not there counts as not covered, and is listed; else it is an error
    """
    tracks, features, missing, failed = defaultdict(list), defaultdict(list), [], []
    for item in items:
        record = store.read_record(item, row)
        if record is None and allow_missing:
            missing.append(item.id)
        elif record is not None and record["failure"] is not None:
            failed.append(item.id)
        found = {} if item.id in missing else measure_video(store, suite, item, row)
        tracks[item.split] += judge_item(item, row, found, record or {}, rules)
        for role in FEATURES:
            if role in found:
                features[role].append(found[role])
    measured = [item.id for item in items if item.id not in {*missing, *failed}]
    return {
        "row": asdict(row),
        "rules": asdict(rules),
        "extractors": suite.describe(),
        "missing": missing,
        "failed": failed,
        "splits": {split: summarize(judged) for split, judged in tracks.items()},
        "distances": distances(features, reference or {}, rules) | own_jedi(jedi_features, measured),
        "tracks": dict(tracks),
    }


# ---- Table 1 ---------------------------------------------------------------------------------------------------------


def judge_item(
    item: Item, row: Row, found: Mapping[str, Any], record: Mapping[str, Any], rules: Rules
) -> list[dict[str, Any]]:
    """The figures of each subject of one video; one that has no video is not covered."""
    text = clip_sim(torch.tensor(found["text"]), rules.clamp_clip) if "text" in found else None
    figures = []
    for k, subject in enumerate(item.subjects):
        wanted = item.trajectory.boxes[k].numpy()
        boxes = best_boxes_over(found["boxes"][k], rules.threshold) if found else np.full_like(wanted, np.nan)
        judged = judge_track(wanted, boxes, row.height, row.width, rules.coverage)
        if rules.iou == "frame":
            judged["iou"] = judged["frame_iou"] or 0.0
        about_video = {"clip_sim": text, "tau": record.get("tau"), "latent_std": record.get("latent_std")}
        figures.append({"id": item.id, "subject": subject} | judged | about_video)
    return figures


def best_boxes_over(found: Iterable[Sequence[Sequence[float]]], threshold: float) -> np.ndarray:
    """The best box of each frame, (F, 4), NaN where none has a score of at least `threshold`."""
    boxes = [next((box[:4] for box in frame if box[4] >= threshold), (np.nan,) * 4) for frame in found]
    return np.array(boxes, dtype=np.float64).reshape(-1, 4)


def summarize(tracks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """{figure: value and 95 % bootstrap interval over tracks}, None where there is none; and the counts."""
    column = {name: np.array([t[name] for t in tracks], dtype=float) for name in tracks[0] if name not in WORDS}
    covered = column["covered"].astype(bool)
    statistics = {
        "coverage": (coverage, covered),
        "miou_covered": (miou_covered, column["iou"], covered),
        "miou_all": (miou_all, column["iou"], covered),
    }
    for name in (
        "frame_iou", "frame_iou_misses", "centroid_distance", "ap50", "ap50_misses", "clip_sim", "tau", "latent_std"
    ):  # fmt: skip
        statistics[name] = mean_where, np.nan_to_num(column[name]), ~np.isnan(column[name])  # of those that have one
    summary: dict[str, Any] = {"tracks": len(tracks), "covered": int(covered.sum())}
    for name, (statistic, *columns) in statistics.items():
        value = float(statistic(*columns))
        summary[name] = None if math.isnan(value) else [value, *bootstrap(statistic, *columns)]
    return summary


# ---- Table 2 ---------------------------------------------------------------------------------------------------------


def distances(features: Mapping[str, list[Tensor]], reference: Mapping[str, Tensor], rules: Rules) -> dict[str, Any]:
    """FID and KID of all frames, and the kernel of JEDi on the videos, between a row and the reference set."""
    result: dict[str, Any] = {}
    if features.get("frames") and "frames" in reference:
        ours, theirs = torch.cat(features["frames"]), reference["frames"]
        result["fid"] = fid(Moments.of(ours), Moments.of(theirs))
        result["kid"] = asdict(kid(ours, theirs, subset_size=min(rules.kid_subset, len(ours), len(theirs))))
        result["frames"] = _counts(ours, theirs)
    if features.get("videos") and "videos" in reference:
        ours, theirs = torch.cat(features["videos"]), reference["videos"]
        result["video_distance"] = jedi(Moments.of(ours), Moments.of(theirs))
        result["videos"] = _counts(ours, theirs)
    return result


def own_jedi(folders: tuple[Path, Path] | None, ids: Sequence[str]) -> dict[str, Any]:
    """JEDi proper, from the user's own V-JEPA features; every video of the row must have some."""
    if folders is None:
        return {}
    ours, theirs = (FeatureFolder(folder) for folder in folders)
    ours, theirs = ours.read(ids), theirs.read(theirs.ids())
    return {"jedi": jedi(Moments.of(ours), Moments.of(theirs)), "jedi_videos": _counts(ours, theirs)}


def _counts(ours: Tensor, theirs: Tensor) -> dict[str, int]:
    return {"ours": len(ours), "reference": len(theirs), "dimensions": ours.shape[1]}
