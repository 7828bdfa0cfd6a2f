"""Pictures of an evaluation's videos: the same items by every method, and what went worst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.benchmarks.items import Item
from evaluation.figures.compare import COLUMNS, GAP, draw_labels, spread, stack
from evaluation.figures.video import contact_sheet, draw_boxes, enlarge, write_png
from evaluation.tables.store import Row, Store

STRIP_SIDE = 128  # pixels along the short side of a frame, at least


def write_montage(store: Store, results: Mapping[str, Any], path: Path, count: int) -> None:
    """For some items, from all over the list, a row for each method: labelled, boxes drawn."""
    items = store.items()
    pictures = [
        (f"{label}\n{items[i].id}", strip(store, items[i], Row.from_dict(result["row"])))
        for i in spread(len(items), count)
        for label, result in results.items()
    ]
    write_png(path, below_each_other(pictures))


def write_failures(store: Store, results: Mapping[str, Any], path: Path, count: int) -> None:
    """For each method the tracks with the lowest IoU, worst first, labelled with it."""
    items, pictures = {item.id: item for item in store.items()}, []
    for label, result in results.items():
        tracks = [track for split in result["tracks"].values() for track in split]
        for track in sorted(tracks, key=lambda track: (track["iou"], track["id"]))[:count]:
            if track["id"] not in items:
                raise ValueError(f"{store.root} has no item {track['id']}; run `python -m evaluation reduce` again")
            text = f"{label}\n{track['id']}\n{track['subject']}: IoU {100 * track['iou']:.0f} %"
            pictures.append((text, strip(store, items[track["id"]], Row.from_dict(result["row"]))))
    write_png(path, below_each_other(pictures))


def strip(store: Store, item: Item, row: Row) -> np.ndarray:
    """Some frames side by side with the boxes that they should follow, (H, W, 3); grey where there is no video."""
    record = store.read_record(item, row)
    if record is None or record["video"] is None:
        frames = np.full((item.frames, row.height, row.width, 3), 128, np.uint8)
    else:
        frames = store.read_frames(item, row)
    shown = spread(item.frames, COLUMNS)
    marked = draw_boxes(enlarge(frames, STRIP_SIDE), item.trajectory.boxes.numpy())
    return contact_sheet(marked[shown], columns=len(shown), gap=GAP)


def below_each_other(pictures: Sequence[tuple[str, np.ndarray]]) -> np.ndarray:
    """Strips (H, W, 3) of one size, each behind its text."""
    texts, strips = zip(*pictures, strict=True)
    (picture,) = stack(draw_labels(texts, len(strips[0])), [strip[None] for strip in strips])
    return picture
