"""A run's folder: video, pictures and run.json. It appears whole or not at all, and never replaces another.

Until then the run lies beside it, in <name>.unfinished; see `unfinished.py`.
"""

import errno
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adaptation.trajectory import Trajectory
from app.report import write_report
from evaluation.figures.video import contact_sheet, draw_boxes, enlarge, write_mp4, write_png, write_pngs
from sampling.generate import Result
from storage import check_folder, check_name
from weights.circumstances import circumstances

SUFFIX = ".unfinished"


def folder_name(prompt: str, seed: int) -> str:
    """<time>-<slug> for a run that begins now."""
    slug = re.sub(r"\W+", "-", prompt.lower()).strip("-")[:40].strip("-") or "video"
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{slug}-seed{seed}"


def unfinished_folder(target: Path) -> Path:
    """Where the run lies that is to become `target`."""
    return target.with_name(target.name + SUFFIX)


def check_output(out: Path | None, several: bool) -> None:
    """Refuse a place that cannot be written to before time is spent; `out` None is outputs/."""
    folder = Path("outputs") if out is None else out
    check_name(folder)
    if out is not None and not several and os.path.lexists(out):
        raise ValueError(f"--out {out} exists already; name a new folder")
    if out is not None and not several and os.path.lexists(unfinished := unfinished_folder(out)):
        raise ValueError(f"{unfinished} holds an unfinished run; go on with --resume {unfinished}, or delete it")
    check_folder(folder)


def check_space(out: Path | None, pixels: int) -> None:
    """Refuse a disk without room for videos of so many pixels before time is spent; `out` None is outputs/."""
    folder = Path("outputs") if out is None else out
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free, needed = shutil.disk_usage(existing).free, 2 * 3 * pixels  # as PNGs, and all the rest in no more
    if free < needed:
        have, need = (f"{size / 2**20:,.1f} MiB" for size in (free, needed))
        raise ValueError(f"{existing} has {have} left, but the run may need {need}; make room or name another --out")


def write_run(
    target: Path,
    result: Result,
    trajectory: Trajectory | None,
    fps: float,
    facts: dict[str, Any],
    figures: Iterable[Callable[[Path], None]] = (),
) -> Path:
    """Write all files into a folder that then takes the name `target`, or target-2, target-3, ...

    Until then it lies in the unfinished run's folder, which goes when all is done, and stays when anything fails.
    facts: what run.json holds, but for the time that writing takes
    figures: each writes files of its own into the folder
    Its trajectory.json holds the boxes as they were used, in the form that --boxes takes.
    Returns the name that the folder got.
    """
    unfinished = unfinished_folder(target)
    folder = unfinished / "result"
    shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed while it wrote
    try:
        folder.mkdir(parents=True)
        began = time.perf_counter()
        write_pictures(folder, result.frames, trajectory, fps)
        if trajectory is not None:
            replace(trajectory, prompt=result.prompt).save(folder / "trajectory.json")
        for write in figures:
            write(folder)
        seconds = {**facts["seconds"], "writing": time.perf_counter() - began}
        text = json.dumps({**facts, "seconds": seconds}, indent=2, allow_nan=False)
        (folder / "run.json").write_text(text + "\n", encoding="utf-8")
        write_report(folder, target)
        final = _rename(folder, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if final != target:  # which the report's command names
        write_report(final)
    shutil.rmtree(unfinished, ignore_errors=True)
    return final


def write_pictures(folder: Path, frames: np.ndarray, trajectory: Trajectory | None, fps: float) -> None:
    """The video as mp4, as PNGs and as one picture; mp4 and picture again with boxes drawn where there are any."""
    large = enlarge(frames)
    write_pngs(folder / "frames", frames)
    write_mp4(folder / "video.mp4", large, fps)
    write_png(folder / "frames.png", contact_sheet(large))
    if trajectory is not None:
        marked = draw_boxes(large, trajectory.boxes.numpy())
        write_mp4(folder / "boxes.mp4", marked, fps)
        write_png(folder / "boxes.png", contact_sheet(marked))


def describe(pipeline: Any, result: Result, trajectory: Trajectory | None, seconds: dict[str, float]) -> dict[str, Any]:
    """What made a result, on what, and what was measured while it was made; ready for JSON.

    seconds: by phase, those that passed before `generate` began.
    """
    frames, height, width, _ = result.frames.shape
    return {
        **circumstances(pipeline),
        "prompt": result.prompt,
        "seed": result.seed,
        "frames": frames,
        "height": height,
        "width": width,
        "settings": asdict(result.settings),
        "subjects": None if trajectory is None else trajectory.subjects,
        "boxes": None if trajectory is None else trajectory.as_lists(),
        "checkpoint_activations": pipeline.unet.checkpoint_activations,
        "seconds": seconds | result.seconds,
        "peak_bytes": peak_bytes(next(pipeline.unet.parameters()).device),
        "records": result.records,
    }


def peak_bytes(device: torch.device) -> dict[str, int | None]:
    """The most memory that the process, and torch on its GPU, have held so far; None where there is no telling."""
    try:
        from resource import RUSAGE_SELF, getrusage  # not on Windows
    except ImportError:
        process = None
    else:
        unit = 1 if platform.system() == "Darwin" else 1024
        process = getrusage(RUSAGE_SELF).ru_maxrss * unit
    return {"process": process, "gpu": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None}


def new_names(target: Path) -> Iterator[Path]:
    """The name itself, then with -2, -3, ... behind it, without end; none that is taken."""
    for number in count(1):
        name = target if number == 1 else target.with_name(f"{target.name}-{number}")
        if not os.path.lexists(name):
            yield name


def _rename(unfinished: Path, target: Path) -> Path:
    names = new_names(target)
    while True:
        try:
            return unfinished.rename(next(names))
        except OSError as error:  # someone else took the name just now
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise
