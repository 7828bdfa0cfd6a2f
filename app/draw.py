"""A page on which to draw a trajectory: boxes dragged at keyframes, saved in the form of `trajectory_file.py`."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adaptation.trajectory import Trajectory
from adaptation.trajectory_file import MAX_FRAMES, MAX_SUBJECTS
from app.arguments import Request
from app.job import read_trajectory
from app.page import drop_flags, fill, read_parts, script_json
from evaluation.figures.video import COLORS
from sampling.settings import PRESETS
from storage import check_name, write_bytes
from weights.load import Defaults, recommended_defaults

# Flags of train_free.py whose place the drawing takes, or that ask for the page itself.
DRAWN = (
    "--draw",
    "--static",
    "--port",
    "--no-browser",
    "--prompt",
    "--subject",
    "--boxes",
    "--box-from",
    "--box-to",
    "--resample",
    "--out",
)
FIELDS = ("--method", "--seed", "--steps")  # the page has a field for each
SOURCES = {  # what the page may load, beside what it holds: nothing, or what its own server has
    False: "img-src data:",
    True: "img-src data:; media-src blob:; connect-src 'self'",
}


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
    choice: Mapping[str, str] | None = None,
    served: bool = False,
    draft: Mapping[str, Any] | None = None,
) -> str:
    """The page as HTML, for videos of `frames` frames of width x height pixels.

    prompt, subjects: to begin with; where they are empty, the trajectory's
    trajectory: boxes to begin with. Over another number of frames it is shown as it is, and the page's command asks
        for --resample
    arguments: of the command that asks for the page; the page's own command keeps those that a file does not replace
    cell: pixels along a latent cell's side, the autoencoder's downscale
    choice: method, seed and steps to begin with, as texts
    served: whether a server makes what is drawn; else the page's button is the command to copy
    draft: what the served page held when it was last seen; it counts over what else there is to begin with
    """
    _check(frames, width, height, cell, subjects, trajectory)
    data = {
        "frames": frames,
        "columns": width // cell,
        "rows": height // cell,
        "fps": fps,
        "colors": ["#{:02x}{:02x}{:02x}".format(*color) for color in COLORS],
        "command": shlex.join(["python", "train_free.py", *drop_flags(arguments, *DRAWN, *FIELDS)]),
        "drawing": _drawing(frames, prompt, subjects, trajectory),
        "choice": {"method": "full", "seed": "0", "steps": ""} | dict(choice or {}),
        "served": served,
    }
    data |= {name: draft[name] for name in ("drawing", "choice") if draft and name in draft}
    parts = {
        "style": read_parts("style.css", "draw.css"),
        "size": f"{frames} frames of {width} × {height} pixels, {width // cell} × {height // cell} latent cells",
        "sources": SOURCES[served],
        "methods": "".join(f"<option>{method}</option>" for method in PRESETS),
        "data": script_json(data),
        "script": read_parts("paths.js", "stage.js", "panels.js", "runs.js", "draw.js"),
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
    write_draw_page(path, **page_options(request, recommended_defaults(request.model)))
    return path


def page_options(request: Request, defaults: Defaults) -> dict[str, Any]:
    """What `draw_page` is given for a command line."""
    size = {name: getattr(request, name) or getattr(defaults, name) for name in ("frames", "width", "height")}
    named = {"method": request.method, "steps": request.settings.get("steps")}
    return {
        **size,
        "prompt": (request.prompts or ("",))[0],
        "subjects": request.subjects,
        "trajectory": read_trajectory(request, size["frames"]),
        "arguments": request.words,
        "fps": request.fps or defaults.fps,
        "choice": {"seed": str(request.seeds[0])} | {name: str(value) for name, value in named.items() if value},
    }


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
