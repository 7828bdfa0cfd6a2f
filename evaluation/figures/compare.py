"""Figure 4: what each method makes of the same noise and boxes, a labelled row for each."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from adaptation.trajectory import Trajectory
from evaluation.figures.video import contact_sheet, draw_boxes, enlarge, write_mp4, write_png
from sampling.generate import Result, generate
from sampling.settings import SamplingSettings
from storage import write_bytes
from weights.load import Pipeline

COLUMNS = 8  # frames of a row in the picture
GAP = 4  # white pixels between frames, and between rows


def run_methods(
    pipeline: Pipeline,
    trajectory: Trajectory,
    methods: Mapping[str, SamplingSettings],
    seed: int = 0,
    *,
    prompt: str | None = None,
    known: Sequence[Result] = (),
    **options: Any,
) -> dict[str, Result]:
    """One video for each method, all from the same noise.

    methods: label -> settings, see `sampling.generate.method_settings`
    known: results for this seed, prompt and options, made before; none of them is made again
    options: of `sampling.generate.generate`
    """
    made = {result.settings: result for result in known}
    for settings in methods.values():
        if settings not in made:
            made[settings] = generate(pipeline, prompt, trajectory, settings, seed, **options)
    return {label: made[settings] for label, settings in methods.items()}


def draw_rows(results: Mapping[str, Result], trajectory: Trajectory) -> tuple[np.ndarray, np.ndarray]:
    """A row for each label, boxes drawn: picture (H, W, 3) with frames side by side, video (F, H', W', 3) in motion."""
    boxes = trajectory.boxes.numpy()
    videos = {label: draw_boxes(enlarge(result.frames), boxes) for label, result in results.items()}
    F, H = boxes.shape[1], next(iter(videos.values())).shape[1]
    shown = spread(F, COLUMNS)
    labels = draw_labels(list(videos), H)
    sheets = [contact_sheet(video[shown], columns=len(shown), gap=GAP)[None] for video in videos.values()]
    (picture,) = stack(labels, sheets)
    return picture, stack(labels, list(videos.values()))


def write_comparison(folder: Path, results: Mapping[str, Result], trajectory: Trajectory, fps: float) -> None:
    """compare.png, compare.mp4 and, with the settings and records of each row, compare.json."""
    picture, video = draw_rows(results, trajectory)
    write_png(folder / "compare.png", picture)
    write_mp4(folder / "compare.mp4", video, fps)
    rows = {label: {"settings": asdict(r.settings), "records": r.records} for label, r in results.items()}
    write_bytes(folder / "compare.json", (json.dumps(rows, indent=2, allow_nan=False) + "\n").encode())


def spread(total: int, most: int) -> np.ndarray:
    """Which of `total` things to show where only so many can be: evenly, from the first to the last."""
    return np.linspace(0, total - 1, min(total, most)).round().astype(int)


def draw_labels(texts: Sequence[str], height: int) -> list[np.ndarray]:
    """Black text in the middle of a white strip for each, uint8 (height, w, 3) with one w that fits the longest."""
    font = ImageFont.load_default(max(12, height // 14))
    width = 2 * GAP + max(round(font.getlength(line)) for text in texts for line in text.splitlines())
    strips = []
    for text in texts:
        strip = Image.new("RGB", (width, height), "white")
        ImageDraw.Draw(strip).text((GAP, height / 2), text, fill="black", font=font, anchor="lm")
        strips.append(np.asarray(strip))
    return strips


def stack(labels: Sequence[np.ndarray], rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows (F, H, W, 3), one below the other, each behind its label (H, w, 3) -> (F, H', w + W, 3)."""
    labelled = [
        np.concatenate([np.repeat(label[None], len(row), axis=0), row], axis=2)
        for label, row in zip(labels, rows, strict=True)
    ]
    framed = [np.pad(row, ((0, 0), (0, GAP), (0, 0), (0, 0)), constant_values=255) for row in labelled]
    return np.concatenate(framed, axis=1)[:, :-GAP]
