"""A page on which to draw a trajectory: boxes dragged at keyframes, saved in the form of `trajectory_file.py`."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adaptation.trajectory import Trajectory
from adaptation.trajectory_file import MAX_FRAMES, MAX_SUBJECTS
from app.arguments import Request
from app.job import read_trajectory
from app.page import drop_flags, fill, read_parts, script_json
from evaluation.figures.video import COLORS
from storage import check_name, write_bytes
from weights.load import recommended_defaults

# Flags of train_free.py whose place the saved file takes, or that ask for the page itself.
REPLACED = (
    "--draw",
    "--no-browser",
    "--prompt",
    "--subject",
    "--boxes",
    "--box-from",
    "--box-to",
    "--resample",
    "--out",
)


def draw_page(
    frames: int,
    width: int,
    height: int,
    prompt: str = "",
    subjects: Sequence[str] = (),
    trajectory: Trajectory | None = None,
    *,
    arguments: Sequence[str] = (),
    cell: int = 8,
    fps: float = 8,
) -> str:
    """The page as HTML, for videos of `frames` frames of width x height pixels.

    prompt, subjects: to begin with; where they are empty, the trajectory's
    trajectory: boxes to begin with. Over another number of frames it is shown as it is, and the page's command asks
        for --resample
    arguments: of the command that asks for the page; the page's own command keeps those that a file does not replace
    cell: pixels along a latent cell's side, the autoencoder's downscale
    """
    _check(frames, width, height, cell, subjects, trajectory)
    data = {
        "frames": frames,
        "columns": width // cell,
        "rows": height // cell,
        "fps": fps,
        "colors": ["#{:02x}{:02x}{:02x}".format(*color) for color in COLORS],
        "command": shlex.join(["python", "train_free.py", *drop_flags(arguments, *REPLACED)]),
        "drawing": _drawing(frames, prompt, subjects, trajectory),
    }
    parts = {
        "style": read_parts("style.css", "draw.css"),
        "size": f"{frames} frames of {width} × {height} pixels, {width // cell} × {height // cell} latent cells",
        "data": script_json(data),
        "script": read_parts("paths.js", "stage.js", "panels.js", "draw.js"),
    }
    return fill(read_parts("draw.html"), parts)


def write_draw_page(path: Path, *args: Any, **options: Any) -> None:
    """`draw_page` as a file, which appears whole or not at all, nor does its folder."""
    page = draw_page(*args, **options).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, page)


def write_page(request: Request) -> Path:
    """The page that train_free.py is asked for, of the checkpoint's frames and size; returns where it lies."""
    path = request.out or Path("outputs") / "draw.html"
    check_name(path)
    defaults = recommended_defaults(request.model)
    size = {name: getattr(request, name) or getattr(defaults, name) for name in ("frames", "width", "height")}
    write_draw_page(
        path,
        **size,
        prompt=(request.prompts or ("",))[0],
        subjects=request.subjects,
        trajectory=read_trajectory(request, size["frames"]),
        arguments=request.words,
        fps=request.fps or defaults.fps,
    )
    return path


def _drawing(frames: int, prompt: str, subjects: Sequence[str], trajectory: Trajectory | None) -> dict[str, Any]:
    """What the page begins with, in its own form: see `pages/paths.js`."""
    tracks: list[dict[str, Any]]
    if trajectory is None:
        tracks = [{"words": words, "keyframes": {}} for words in subjects or [""]]
        return {"frames": frames, "prompt": prompt, "subjects": tracks}
    tracks = [
        {"words": words, "keyframes": dict(enumerate(boxes))}
        for words, boxes in zip(subjects or trajectory.subjects, trajectory.as_lists(), strict=True)
    ]
    return {"frames": trajectory.boxes.shape[1], "prompt": prompt or trajectory.prompt, "subjects": tracks}


def _check(
    frames: int, width: int, height: int, cell: int, subjects: Sequence[str], trajectory: Trajectory | None
) -> None:
    if not 1 <= frames <= MAX_FRAMES:
        raise ValueError(f"a trajectory is drawn over 1 to {MAX_FRAMES} frames, not {frames}")
    for name, size in (("width", width), ("height", height)):
        if size < cell or size % cell:
            raise ValueError(f"{name} must be a multiple of {cell} pixels, a latent cell's side, not {size}")
    if isinstance(subjects, str) or len(subjects) > MAX_SUBJECTS:
        raise ValueError(f"subjects is a list of at most {MAX_SUBJECTS} phrases of the prompt, not {subjects!r}")
    if trajectory is not None and subjects and len(subjects) != len(trajectory.subjects):
        raise ValueError(
            f"the trajectory has {len(trajectory.subjects)} subjects, but {len(subjects)} were named; name each of them"
        )
