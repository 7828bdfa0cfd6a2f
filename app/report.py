"""report.html: a run on one page, from the files in its folder.

python -m app.report DIR    writes it for a run that has none
"""

import argparse
import json
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from app.chart import Curve, can_be_drawn, line_chart
from app.page import data_uri, drop_flags, fill, read_parts, script_json
from ending import exit_code
from evaluation.figures.video import COLORS
from sampling.settings import SamplingSettings
from storage import write_bytes

# The pieces into which CLIP's tokenizer parts a text before all else: letters, single digits, other signs.
PIECES = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|(?:[^\s\w]|_)+", re.IGNORECASE)
VIDEOS = {"video.mp4": "As made", "boxes.mp4": "With its boxes"}
PICTURES = {"compare.png": "All methods from the same noise", "masks.png": "Masks and tokens"}
TERMS = {"prior": "rms_prior", "score": "rms_score", "noise": "rms_noise"}
NUMBERS_SHOWN = ("t", "tau", *TERMS.values(), "latent_std")


def write_report(folder: str | Path, final: Path | None = None) -> Path:
    """report.html in a run's folder, from run.json, the videos, and what else is there; it appears whole or not.

    final: where the folder is going to be, if not where it is
    """
    path = Path(folder) / "report.html"
    write_bytes(path, make_report(Path(folder), final).encode())
    return path


def make_report(folder: Path, final: Path | None = None) -> str:
    """The page as HTML; arguments as in `write_report`."""
    run = read_run(folder)
    size = f"{run['frames']} frames of {run['width']} × {run['height']} pixels"
    parts = {
        "title": escape(run["prompt"]),
        "style": read_parts("style.css", "report.css"),
        "prompt": mark_words(run["prompt"], run["subjects"] or []),
        "summary": escape(f"{run['method']} on {run['model']['name']}, seed {run['seed']}, {size}"),
        "videos": "\n".join(_video(folder / name, text) for name, text in VIDEOS.items() if (folder / name).is_file()),
        "last": str(run["frames"] - 1),
        "command": escape(repeating_command(run, final or folder)),
        "note": "Grey: the steps in which masks act." if run["subjects"] else "",
        "charts": "\n".join(make_charts(run, _read_json(folder / "activations.json"))),
        "numbers": _numbers(run["records"]),
        "pictures": "\n".join(
            _picture(folder / name, text) for name, text in PICTURES.items() if (folder / name).is_file()
        ),
        "settings": table(run["settings"].items()),
        "times": _times(run["seconds"]),
        "facts": table(_facts(run)),
        "data": script_json({"fps": run["fps"], "frames": run["frames"]}),
        "script": read_parts("report.js"),
    }
    return fill(read_parts("report.html"), parts)


def read_run(folder: Path) -> dict[str, Any]:
    """run.json, where it is what this program writes."""
    run = _read_json(folder / "run.json")
    if run is None:
        raise ValueError(f"{folder} has no run.json; give the folder that a run wrote")
    needed = ("prompt", "subjects", "method", "model", "seed", "frames", "fps", "settings", "seconds", "records")
    missing = [name for name in needed if name not in run]
    if missing:
        raise ValueError(f"{folder / 'run.json'} has no {missing[0]}; it was not written by this version")
    try:
        SamplingSettings.from_dict(run["settings"])
    except ValueError as error:
        raise ValueError(f"{folder / 'run.json'} was written by another version of this program: {error}") from None
    if not (folder / "video.mp4").is_file():
        raise ValueError(f"{folder} has no video.mp4; give the folder that a run wrote")
    return run


def mark_words(prompt: str, subjects: Sequence[str]) -> str:
    """The prompt as HTML, every place where a subject's words stand marked in the subject's colour."""
    pieces = [(piece.group().lower(), piece.start(), piece.end()) for piece in PIECES.finditer(prompt)]
    marks = []
    for k, subject in enumerate(subjects):
        wanted = [piece.lower() for piece in PIECES.findall(subject)]
        for i in range(len(pieces) - len(wanted) + 1):
            place = pieces[i : i + len(wanted)]
            if place and [words for words, _, _ in place] == wanted:
                marks.append((place[0][1], place[-1][2], k))
    html, done = "", 0
    for start, end, k in sorted(marks):
        if start >= done:  # subjects share no words; the same one may stand in itself, as in "a a a"
            color = "#{:02x}{:02x}{:02x}".format(*COLORS[k % len(COLORS)])
            words = escape(prompt[start:end])
            html += f'{escape(prompt[done:start])}<mark style="--color: {color}">{words}</mark>'
            done = end
    return html + escape(prompt[done:])


def repeating_command(run: Mapping[str, Any], folder: Path) -> str:
    """The command line that makes this video again, and it alone, in a new folder.

    In place of a trajectory file, which may have changed since, it names the run's own.
    """
    arguments = drop_flags(run["arguments"], "--out")
    if arguments != drop_flags(arguments, "--boxes"):
        own = ["--boxes", str(folder / "trajectory.json")]
        arguments = [*drop_flags(arguments, "--boxes", "--resample", "--subject", "--prompt"), *own]
    if arguments != drop_flags(arguments, "--seed"):
        arguments = [*drop_flags(arguments, "--seed"), "--seed", str(run["seed"])]
    if sum(argument.partition("=")[0] == "--prompt" for argument in arguments) > 1:
        arguments = [*drop_flags(arguments, "--prompt"), f"--prompt={run['prompt']}"]
    return shlex.join(["python", "train_free.py", *arguments])


def make_charts(run: Mapping[str, Any], activations: Mapping[str, Any] | None) -> list[str]:
    """What was recorded step by step, as SVG: tau, the terms of Eq. 2, the latents, the activations of Figure 2."""
    records, shaded = run["records"], run["settings"]["frozen_steps"] if run["subjects"] else 0
    charts = [  # title, curves, masked steps, whether on a logarithmic axis
        ("Temporal consistency tau (Eq. 1)", {"tau": column(records, "tau")}, shaded, False),
        ("RMS of the three terms of Eq. 2", {n: column(records, key) for n, key in TERMS.items()}, shaded, True),
        ("Standard deviation of the latents", {"latents": column(records, "latent_std")}, shaded, False),
    ]
    if activations is not None:
        masked = activations["frozen_steps"]
        charts.append(("Variance of the second decoder block", activations["variance"], masked, False))
        charts.append(("The same minus the unmasked run's", activations["difference"], masked, False))
    return [
        f"<figure>{line_chart(title, shown, masked, log)}</figure>"
        for title, curves, masked, log in charts
        if (shown := {name: curve for name, curve in curves.items() if can_be_drawn(curve, log)})
    ]


def column(records: Sequence[Mapping[str, Any]], name: str) -> Curve:
    """One recorded number, step by step; a record holds a list with a number for each video, here one, or None."""
    values = [record[name] for record in records]
    return [value[0] if isinstance(value, list) else value for value in values]


def table(rows: Iterable[tuple[str, Any]]) -> str:
    """Names and values."""
    body = "\n".join(f'<tr><th scope="row">{escape(name)}</th><td>{_shown(value)}</td></tr>' for name, value in rows)
    return f"<table>\n{body}\n</table>"


def _numbers(records: Sequence[Mapping[str, Any]]) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in ("step", *NUMBERS_SHOWN))
    rows = []
    for step, values in enumerate(zip(*(column(records, name) for name in NUMBERS_SHOWN), strict=True), 1):
        cells = "".join(f"<td>{_shown(value)}</td>" for value in values)
        rows.append(f'<tr><th scope="row">{step}</th>{cells}</tr>')
    body = "\n".join(rows)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def _times(seconds: Mapping[str, float]) -> str:
    total = sum(seconds.values())
    rows = [
        f'<tr><th scope="row">{escape(phase)}</th><td>{value:.1f} s</td>'
        f'<td class="bar"><i style="width: {100 * value / total:.1f}%"></i></td></tr>'
        for phase, value in seconds.items()
    ]
    rows.append(f'<tr><th scope="row">all</th><td>{total:.1f} s</td><td></td></tr>')
    body = "\n".join(rows)
    return f"<table>\n{body}\n</table>"


def _facts(run: Mapping[str, Any]) -> list[tuple[str, Any]]:
    memory = {f"peak memory, {where}": size for where, size in run.get("peak_bytes", {}).items() if size is not None}
    return [
        ("device", f"{run['device']} ({run['device_name']})"),
        ("dtype", run["dtype"]),
        ("threads", run["threads"]),
        *((name, f"{size / 2**20:,.0f} MiB") for name, size in memory.items()),
        ("frames a second", run["fps"]),
        ("resumed after step", ", ".join(str(note["step"]) for note in run.get("resumed", [])) or None),
        ("negative prompt", run.get("negative_prompt") or None),
        ("weights", run["model"]["fingerprint"]),
        *((name, version) for name, version in run["versions"].items() if version is not None),
    ]


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return escape(", ".join(value) if isinstance(value, list) else str(value))


def _video(path: Path, caption: str) -> str:
    source = data_uri(path, "video/mp4")
    return (
        f'<figure><video src="{source}" muted playsinline preload="auto" aria-label="{caption}"></video>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _picture(path: Path, title: str) -> str:
    image = f'<img src="{data_uri(path, "image/png")}" alt="{title}">'
    return f'<section class="card">\n<h2>{title}</h2>\n<figure class="picture">{image}</figure>\n</section>'


def _read_json(path: Path) -> dict[str, Any] | None:
    """An object from a file; None where there is no file."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error})") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} must hold a JSON object, not a {type(value).__name__}")
    return value


def main(argv: list[str] | None = None) -> int:
    """Write the page; see `ending.exit_code`. A slip on the command line is 2 as well."""
    parser = argparse.ArgumentParser(prog="python -m app.report", description="Write report.html for a run.")
    parser.add_argument("folder", type=Path, help="what train_free.py wrote")
    arguments = parser.parse_args(argv)
    return exit_code(lambda: print(write_report(arguments.folder)))


if __name__ == "__main__":
    sys.exit(main())
