"""The third step of an evaluation: from what was found in the videos to the numbers of each row."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evaluation.benchmarks.items import Item, find_words
from evaluation.extractors.owl_clip import clip_sim
from evaluation.extractors.vjepa import read_all_features, read_features_of
from evaluation.metrics.distribution import fid, jedi, kid, mmd_shares, warn_of_few
from evaluation.metrics.intervals import Interval, distance_interval, mean_interval, share_interval
from evaluation.metrics.tracking import Array, judge_track, needed
from evaluation.tables.making import FEATURES, Descriptions, read_measured
from evaluation.tables.store import Row, Store

NAMING = ("id", "subject")  # what is not a number in the figures of a track
MEAN_FIGURES = (  # means over the tracks that have one
    "frame_iou", "frame_iou_misses", "centroid_distance", "ap50", "ap50_misses", "clip_sim", "tau", "latent_std",
    "named", "distance",
)  # fmt: skip
PAIRED = ("miou_all", "tau", "named", "distance")  # between rows, track by track


@dataclass(frozen=True)
class Rules:
    """What the paper leaves open; each result says which it was made by."""

    threshold: float = 0.1  # of a detection's score
    coverage: str = "half"  # or "count:N", see `tracking.needed`
    iou: str = "volume"  # or "frame": mean over the frames in which the subject is found, see `frame_miou`
    clamp_clip: bool = True  # negative CLIP scores count as 0
    kid_subset: int = 1000

    def __post_init__(self) -> None:
        needed(self.coverage, 1)  # refuses what is no rule
        if self.iou not in ("volume", "frame"):
            raise ValueError(f"an IoU is of the 'volume' of a video or a mean over 'frame's, not {self.iou!r}")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"the threshold of a detection's score is from 0 to 1, not {self.threshold}")
        if self.kid_subset < 2:
            raise ValueError(f"KID needs subsets of at least 2 features, not {self.kid_subset}")


def reduce_row(
    store: Store,
    extractors: Descriptions,
    items: Sequence[Item],
    row: Row,
    rules: Rules,
    reference: Mapping[str, Sequence[Tensor]] | None = None,
    jedi_features: Path | None = None,
    allow_missing: bool = False,
    real: Sequence[Tensor] | None = None,
) -> dict[str, Any]:
    """Every number of one row, ready for JSON, from measurements that were made before.

    extractors: by role, what the extractors say of themselves that measured
    reference: by role, the features of each video of the reference set, see `reference.read_features`
    jedi_features: folder with the user's own V-JEPA features, see `own_jedi`
    allow_missing: a video that is not there counts as not covered, and is listed; else it is an error
    real: features of each real video, for each split's own distance from them, see `shares`
    """
    tracks: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)  # by split
    of_split: defaultdict[str, dict[str, Tensor]] = defaultdict(dict)  # by split and item, a video's features
    features, missing, failed = defaultdict(list), [], []
    for item in items:
        record = store.read_record(item, row)
        if record is None and allow_missing:
            missing.append(item.id)
        elif record is not None and record["failure"] is not None:
            failed.append(item.id)
        found = {} if item.id in missing else read_measured(store, extractors, item, row)
        tracks[item.split] += judge_item(item, row, found, record or {}, rules)
        for role in FEATURES:
            if role in found:
                features[role].append(found[role])
        if "videos" in found:
            of_split[item.split][item.id] = found["videos"]
    if real is not None:
        for split, judged in tracks.items():
            shared = shares(of_split[split], real)
            tracks[split] = [track | {"distance": shared.get(track["id"])} for track in judged]
    measured = [store.record_path(item, row).stem for item in items if item.id not in {*missing, *failed}]
    return {
        "row": asdict(row),
        "rules": asdict(rules),
        "extractors": {role: dict(description) for role, description in extractors.items()},
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
    named = is_named(item, found["names"]) if "names" in found else None
    figures = []
    for k, subject in enumerate(item.subjects):
        wanted = item.trajectory.boxes[k].numpy()
        boxes = best_boxes_over(found["boxes"][k], rules.threshold) if found else np.full_like(wanted, np.nan)
        judged = judge_track(wanted, boxes, row.height, row.width, rules.coverage)
        if rules.iou == "frame":
            judged["iou"] = judged["frame_iou"] or 0.0
        about_video = {"clip_sim": text, "tau": record.get("tau"), "latent_std": record.get("latent_std")}
        about_video["named"] = named
        figures.append({"id": item.id, "subject": subject} | judged | about_video)
    return figures


def is_named(item: Item, words: Mapping[str, str]) -> bool | None:
    """Whether a video is called what its prompt says; None of two subjects, for each kind has but one word."""
    if len(item.subjects) > 1:
        return None
    subject = f"{words['color']} {words['shape']}"
    return item.subjects[0].lower() == subject and find_words(item.prompt, words["background"]) is not None


def best_boxes_over(found: Iterable[Sequence[Sequence[float]]], threshold: float) -> np.ndarray:
    """The best box of each frame, (F, 4), NaN where none has a score of at least `threshold`."""
    boxes = [next((box[:4] for box in frame if box[4] >= threshold), (np.nan,) * 4) for frame in found]
    return np.array(boxes, dtype=np.float64).reshape(-1, 4)


def summarize(tracks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """{figure: its mean or share, and the ends of its 95 % interval}, None where there is none; and the counts."""
    videos, columns = [track["id"] for track in tracks], figure_columns(tracks)
    covered = columns.pop("coverage")
    counts = {"tracks": len(tracks), "covered": int(covered.sum())}
    means = {name: mean_interval(column, videos) for name, column in columns.items()}
    return counts | {"coverage": share_interval(covered, videos)} | means


def figure_columns(tracks: Sequence[Mapping[str, Any]]) -> dict[str, Array]:
    """{figure: its value for each track}, (T,), NaN where the track does not count."""
    column = {
        name: np.array([track[name] for track in tracks], dtype=float) for name in tracks[0] if name not in NAMING
    }
    covered = column["covered"]
    return {
        "coverage": covered,
        "miou_covered": np.where(covered == 1, column["iou"], np.nan),
        "miou_all": column["iou"] * covered,
    } | {name: column[name] for name in MEAN_FIGURES if name in column}


def differences(results: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, dict[str, Interval | None]]]:
    """What each row adds to the row above it: {"row minus row above": {split: {figure: mean difference and ends}}}.

    results: of rows over the same items, see `reduce_row`. A difference is one of the same track, in which the noise
    of both rows is the same; tracks without the figure in one of the rows are left out.
    """
    return {
        f"{label} minus {above}": {
            split: _mean_differences(first["tracks"][split], tracks) for split, tracks in second["tracks"].items()
        }
        for (above, first), (label, second) in pairwise(results.items())
    }


def _mean_differences(
    above: Sequence[Mapping[str, Any]], tracks: Sequence[Mapping[str, Any]]
) -> dict[str, Interval | None]:
    old, new = figure_columns(above), figure_columns(tracks)
    videos = [track["id"] for track in tracks]
    return {name: mean_interval(new[name] - old[name], videos) for name in PAIRED if name in new and name in old}


# ---- How far a split lies from real videos ---------------------------------------------------------------------------


def shares(videos: Mapping[str, Tensor], real: Sequence[Tensor]) -> dict[str, float]:
    """{name: its share of 1000 times MMD^2 between these videos and real ones}; without names where fewer than 3 are.

    The shares' mean is the distance, and their t interval is the jackknife's over videos (`distribution.mmd_shares`).
    It is KID's, which is unbiased: a split has about as many videos as there are dimensions, and FID and JEDi would
    mostly tell of that. A bootstrap would bring the bias back, for a video that is drawn twice is its own neighbour.

    videos, real: features (1, D) of each, which are standardized by the mean and spread of the real ones
    """
    if len(videos) < 3:
        return {}
    X, R = torch.cat(list(videos.values())), torch.cat(list(real))
    mean, std = R.mean(0), R.std(0)  # (D,)
    std = torch.where(std > 0, std, 1.0)
    found = 1000 * mmd_shares((X - mean) / std, (R - mean) / std)  # else features with long tails alone would count
    return dict(zip(videos, found.tolist(), strict=True))


# ---- Table 2 ---------------------------------------------------------------------------------------------------------


def distances(
    features: Mapping[str, Sequence[Tensor]], reference: Mapping[str, Sequence[Tensor]], rules: Rules
) -> dict[str, Any]:
    """FID and KID of all frames, and the kernel of JEDi on the videos, between a row and the reference set.

    features, reference: by role, the features (F, D) of each video
    """
    result: dict[str, Any] = {}
    if features.get("frames") and reference.get("frames"):
        ours, theirs = torch.cat(list(features["frames"])), torch.cat(list(reference["frames"]))
        counts = _counts(ours, theirs)
        warn_of_few(min(len(ours), len(theirs)), counts["dimensions"])
        result["fid"] = distance_interval(fid, features["frames"], reference["frames"])
        result["kid"] = asdict(kid(ours, theirs, subset_size=min(rules.kid_subset, len(ours), len(theirs))))
        result["frames"] = counts
    if features.get("videos") and reference.get("videos"):
        result["video_distance"] = distance_interval(jedi, features["videos"], reference["videos"])
        result["videos"] = _counts(torch.cat(list(features["videos"])), torch.cat(list(reference["videos"])))
    return result


def own_jedi(folder: Path | None, names: Sequence[str]) -> dict[str, Any]:
    """JEDi proper, from the user's own V-JEPA features; every video of the row must have some.

    folder: a file for each video, named as the video is, so that features of an older one are not taken for it; and
        `reference`, a folder with those of the reference set under any names
    names: of the row's videos, without suffix
    """
    if folder is None:
        return {}
    ours, theirs = read_features_of(folder, names), read_all_features(folder / "reference")
    interval = distance_interval(jedi, ours.split(1), theirs.split(1))
    return {"jedi": interval, "jedi_videos": _counts(ours, theirs)}


def _counts(ours: Tensor, theirs: Tensor) -> dict[str, int]:
    return {"ours": len(ours), "reference": len(theirs), "dimensions": ours.shape[1]}
