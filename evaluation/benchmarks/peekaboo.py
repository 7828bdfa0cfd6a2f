"""The four benchmark files that Peekaboo released (Jain et al., 2024), read from the user's copy as a list of items.

Its README says that a box is x1 y1 x2 y2. No file holds its boxes so: in `davis` a woman who dances upright would be
0.95 of the frame wide and 0.25 high, and a scooter on a road would drive upwards; in `imc` boxes that are called
vertical would be wide, and "left to right" would run downwards; in `lasot` more than half of the boxes would be inside
out; in `ssv2` cups, glasses and jars would lie on their sides. `LAYOUTS` has what they hold.
"""

import json
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from adaptation.trajectory import Trajectory
from evaluation.benchmarks.items import Item, find_words, item_seed

AXIS_ORDERS = ("true", "as-released")
GAPS = ("interpolate", "drop")


@dataclass(frozen=True)
class Layout:
    """How a file holds boxes."""

    order: tuple[int, int, int, int]  # the places of x1, y1, x2, y2
    pixel: tuple[float, float] = (0.0, 0.0)  # what x2, y2 lack where the file's ends are inclusive


LAYOUTS = {
    "davis": Layout((1, 0, 3, 2), (1 / 320, 1 / 576)),  # y1 x1 y2 x2 on masks of 576 rows and 320 columns
    "imc": Layout((1, 0, 3, 2), (1 / 224, 1 / 224)),
    "lasot": Layout((0, 2, 1, 3)),  # x1 x2 y1 y2, ends exclusive
    "ssv2": Layout((1, 0, 3, 2), (1 / 224, 1 / 224)),
}
AS_RELEASED = Layout((0, 1, 2, 3))


@dataclass(frozen=True)
class Report:
    """What became of a file's records; ids are the items'."""

    source: str
    axis_order: str
    records: int
    dropped: Mapping[str, str] = field(default_factory=dict)  # id -> why
    filled: Mapping[str, int] = field(default_factory=dict)  # id -> frames without a box, which got one
    clipped: Mapping[str, int] = field(default_factory=dict)  # id -> boxes that reached outside the frame

    def __str__(self) -> str:
        lines = [
            f"{self.source} (axis order {self.axis_order}): {self.records - len(self.dropped)} of {self.records} "
            f"records; {sum(self.filled.values())} boxes filled in {len(self.filled)} records; "
            f"{sum(self.clipped.values())} cut to the frame in {len(self.clipped)}"
        ]
        return "\n".join(lines + [f"dropped {id}: {why}" for id, why in self.dropped.items()])


def load_peekaboo(
    path: str | Path,
    frames: int,
    seed: int = 0,
    *,
    dataset: str | None = None,
    axis_order: str = "true",
    gaps: str = "interpolate",
) -> tuple[list[Item], Report]:
    """Items with `frames` boxes each, and what was dropped or mended on the way.

    dataset: davis, imc, lasot or ssv2; None = what the file's name begins with, as in davis_inputs.json
    axis_order: "as-released" repeats the peers' reading: x1 y1 x2 y2, ends as they stand
    gaps: frames without a box (placeholder, empty, outside the frame) get one on the line between their neighbours, or
        the nearest one at either end; "drop" leaves out records that have any
    """
    dataset = Path(path).name.split("_")[0] if dataset is None else dataset
    for name, value, known in (
        ("dataset", dataset, LAYOUTS),
        ("axis_order", axis_order, AXIS_ORDERS),
        ("gaps", gaps, GAPS),
    ):
        if value not in known:
            raise ValueError(f"{path}: {name} must be one of {', '.join(known)}, not {value!r}")
    layout = AS_RELEASED if axis_order == "as-released" else LAYOUTS[dataset]
    source = f"peekaboo-{dataset}"
    records = _read(path)
    items, dropped, filled, clipped = {}, {}, {}, {}
    for number, record in enumerate(records):
        try:
            id, prompt, subject, split = _words(record, dataset)
            if id in items or id in dropped:
                raise ValueError(f"the id {id!r} stands in an earlier record already")
            boxes, outside = true_boxes(_stored_boxes(record), layout)
            keyframes = {frame: box for frame, box in enumerate(boxes) if not np.isnan(box).any()}
            missing = len(boxes) - len(keyframes)
            if subject is None:
                dropped[id] = f"its subject {record['subject']!r} is not in its caption"
                continue
            if why := _why_dropped(len(keyframes), missing, gaps):
                dropped[id] = why
                continue
            trajectory = Trajectory.from_keyframes(keyframes, len(boxes), subject, prompt).resample(frames)
            items[id] = Item.from_trajectory(id, split, source, item_seed(seed, id), trajectory)
        except ValueError as error:
            raise ValueError(f"{path}, record {number}: {error}") from None
        if missing:
            filled[id] = missing
        if outside:
            clipped[id] = outside
    return list(items.values()), Report(source, axis_order, len(records), dropped, filled, clipped)


def _why_dropped(there: int, missing: int, gaps: str) -> str | None:
    if there < 2:
        return f"it has a box in {there} of {there + missing} frames, and 2 are the least"
    if gaps == "drop" and missing:
        return f"it has no box in {missing} of {there + missing} frames"
    return None


def true_boxes(stored: np.ndarray, layout: Layout) -> tuple[np.ndarray, int]:
    """Boxes (S, 4) x1 y1 x2 y2 with exclusive ends inside the frame, NaN where there is none; how many were cut.

    A box without area is none, before its ends are made exclusive too: (0.5, 0.5, 0.5, 0.5) stands for "not found".
    """
    boxes = stored[:, layout.order]
    empty = _is_empty(boxes)
    boxes[:, 2:] += layout.pixel
    inside = boxes.clip(0, 1)
    empty |= _is_empty(inside)
    cut = (inside != boxes).any(axis=1) & ~empty
    inside[empty] = np.nan
    return inside, int(cut.sum())


def _is_empty(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 1])


def _read(path: str | Path) -> list[Any]:
    try:
        records = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise ValueError(f"{path}: the file cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: the file is not JSON: {error}") from None
    if not isinstance(records, list) or not records:
        raise ValueError(f"{path}: the file is a list of records, not {reprlib.repr(records)}")
    return records


def _words(record: Any, dataset: str) -> tuple[str, str, str | None, str]:
    """Id, prompt, the subject as the prompt writes it (None = it does not), and split."""
    try:
        id, prompt, subject = f"{dataset}-{record['id']}", record["caption"].strip(), record["subject"].strip()
        still = dataset == "imc" and record["metadata"]["motion"] == "Stationary"
    except (KeyError, TypeError, AttributeError):
        motion = " and in its metadata a motion" if dataset == "imc" else ""
        raise ValueError(
            f"a record has an id, a caption, a subject, bboxes{motion}, unlike {reprlib.repr(record)}"
        ) from None
    named = find_words(prompt, subject) if subject else None
    return id, prompt, named, "static" if still else "moving"


def _stored_boxes(record: Any) -> np.ndarray:
    """(S, 4) float64, as they stand in the file."""
    stored = record.get("bboxes")
    try:
        boxes = np.array(stored, dtype=np.float64)
    except (TypeError, ValueError):
        boxes = np.zeros(0)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not np.isfinite(boxes).all():
        raise ValueError(f"'bboxes' has four finite numbers for each frame, unlike {reprlib.repr(stored)}")
    return boxes
