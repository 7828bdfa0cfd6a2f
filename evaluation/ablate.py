"""What each part contributes, in the layout of the paper's Table 1: `python -m evaluation.ablate --model tiny`.

Every method makes the same videos: random box tracks, held-out prompts, the same noise; subjects are found by colour.
A file under OUT/runs for each video holds what made it and what was measured. It is not made again while its settings
stay the same, so an interrupted run goes on where it stopped (after a change of the code, delete that folder).
`--sweep c_g=5,20 frozen_steps=4,8` tries each combination over one method. Needs scipy.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import sys
from dataclasses import asdict, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from adaptation.trajectory_file import write_bytes
from evaluation.methods import METHODS, method_settings
from evaluation.metrics import is_covered, volume_iou
from evaluation.table import render_footer, render_table
from evaluation.tracks import SPLITS, Track, make_track
from sampling.generate import Pipeline, generate
from sampling.sampler import NonFiniteLatents
from sampling.settings import COUNTS, FLAGS, NUMBERS, SUBSETS, SamplingSettings
from weights.load import load_pipeline

NOT_FOUND = (np.nan,) * 4
Sweep = tuple[str, list[Any]]  # a field of SamplingSettings and its values


def main(argv: list[str] | None = None) -> None:
    """Make what is not made yet of this call's videos; then, unless it is a shard, print and write the table."""
    argv = sys.argv[1:] if argv is None else argv
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    try:
        find_subject(np.zeros((1, 8, 8, 3), np.uint8), "red ball")  # before hours are spent
        pipeline = load_pipeline(arguments.model, arguments.device)
        rows = make_rows(pipeline, arguments.methods, arguments.sweep)
        numbers = range(arguments.seed_offset, arguments.seed_offset + arguments.tracks)
        splits = [split for split in SPLITS if split in arguments.split]
        tracks = [make_track(split, n, pipeline.defaults.frames) for n in numbers for split in splits]
        runs, (shard, shards) = arguments.out / "runs", arguments.shard
        runs.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError, ImportError) as error:
        parser.error(str(error))

    videos = list(product(tracks[shard - 1 :: shards], rows.values()))
    for track, settings in tqdm(videos, unit="video", disable=None):
        measure(runs, pipeline, track, settings)
    if shards > 1:
        print(f"shard {shard} of {shards} is done; when all are, the same command without --shard makes the table")
        return

    records = {
        label: {split: [measure(runs, pipeline, t, settings) for t in tracks if t.split == split] for split in splits}
        for label, settings in rows.items()
    }
    command = shlex.join(["python", "-m", "evaluation.ablate", *argv])
    footer = render_footer(records, rows, command, pipeline.fingerprint)
    text = f"{render_table(records)}\n{footer}"
    print(text)
    write_bytes(arguments.out / table_name(arguments), text.encode())


# ---- One video -----------------------------------------------------------------------------------------------------


def measure(runs: Path, pipeline: Pipeline, track: Track, settings: SamplingSettings) -> dict[str, Any]:
    """What was measured on one video: read from its file where that was made in the same way, else made now."""
    made_by = describe(pipeline, track, settings)
    digest = hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()[:12]
    path = runs / f"{track.split}-{track.number:04d}-{digest}.json"
    record = _read(path)
    if record is None or record.get("made_by") != made_by:
        record = {"made_by": made_by, **make_and_judge(pipeline, track, settings)}
        write_bytes(path, (json.dumps(record, indent=1, allow_nan=False) + "\n").encode())
    return record


def describe(pipeline: Pipeline, track: Track, settings: SamplingSettings) -> dict[str, Any]:
    """All that decides about a video, as JSON gives it back."""
    made_by = {
        "model": pipeline.fingerprint,
        "size": [getattr(pipeline.defaults, name) for name in ("frames", "height", "width")],
        "prompt": track.trajectory.prompt,
        "subject": track.trajectory.subjects[0],
        "boxes": track.trajectory.boxes[0].tolist(),
        "seed": track.number,
        "settings": asdict(settings),
    }
    return json.loads(json.dumps(made_by))


def make_and_judge(pipeline: Pipeline, track: Track, settings: SamplingSettings) -> dict[str, Any]:
    """Generate one video and hold it against its track. Latents that do not stay finite show no subject."""
    boxes = track.trajectory.boxes[0].numpy()
    try:
        result = generate(pipeline, None, track.trajectory, settings, track.number)
    except NonFiniteLatents as error:
        found, last, failure = np.full_like(boxes, np.nan), {"tau": [None], "latent_std": [None]}, str(error)
    else:
        found, last, failure = find_subject(result.frames, track.trajectory.subjects[0]), result.records[-1], None
    return {
        "iou": volume_iou(boxes, found),
        "covered": is_covered(found),
        "tau": last["tau"][0],  # of the last step's clean estimate
        "latent_std": last["latent_std"][0],  # of the final latents
        "found": [None if np.isnan(box).any() else box.tolist() for box in found],
        "failure": failure,
    }


def find_subject(frames: np.ndarray, subject: str) -> np.ndarray:
    """Boxes (F, 4) of the largest blob in the colour of a "colour shape", NaN where there is none."""
    try:
        from weights.train_tiny.detect import detect
    except ImportError:
        raise ImportError('finding subjects needs scipy; install it with: pip install -e ".[evaluate]"') from None
    return np.array([detection.box or NOT_FOUND for detection in detect(frames, subject.split()[0])])


def _read(path: Path) -> dict[str, Any] | None:
    """A file's record; None where there is none, or none that can be read."""
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None


# ---- Which videos --------------------------------------------------------------------------------------------------


def make_rows(pipeline: Pipeline, methods: list[str] | None, sweep: list[Sweep] | None) -> dict[str, SamplingSettings]:
    """Settings by label: of the methods, or of each combination of a sweep's values over its one method."""
    if not sweep:
        return method_settings(pipeline, methods or METHODS)
    if len(methods or ["full"]) != 1:
        raise ValueError(f"a sweep is over one method, not over {', '.join(methods)}")
    (base,) = method_settings(pipeline, methods or ["full"]).values()
    names, values = zip(*sweep, strict=True)
    if len(set(names)) < len(names):
        raise ValueError(f"a sweep names each setting once, not {', '.join(names)}")
    changes = [dict(zip(names, combination, strict=True)) for combination in product(*values)]
    return {", ".join(f"{k}={_show(v)}" for k, v in change.items()): replace(base, **change) for change in changes}


def table_name(arguments: argparse.Namespace) -> str:
    """MODEL-methods.md, or MODEL-sweep-FIELDS.md with the swept method in front of the fields unless it is full."""
    words = ["methods"]
    if arguments.sweep:
        words = ["sweep", *(m for m in arguments.methods or [] if m != "full"), *(name for name, _ in arguments.sweep)]
    return "-".join([Path(arguments.model).name, *words]) + ".md"


def _show(value: Any) -> str:
    if isinstance(value, tuple):
        return "+".join(value)
    return "all" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _sweep(text: str) -> Sweep:
    """name=v1,v2: names in one value are joined by +, all = refine before all steps."""
    name, _, values = text.partition("=")
    if name not in [f.name for f in fields(SamplingSettings)]:
        raise argparse.ArgumentTypeError(f"must be a setting and its values, name=v1,v2, got {text!r}")
    try:
        parsed = [_value(name, value) for value in values.split(",")]
        for value in parsed:
            SamplingSettings(**{name: value})
    except (ValueError, KeyError):
        raise argparse.ArgumentTypeError(f"has a value that {name} cannot take: {text!r}") from None
    return name, parsed


def _value(name: str, text: str) -> Any:
    if name in FLAGS:
        return {"true": True, "false": False}[text]
    if name in SUBSETS:
        return tuple(text.split("+"))
    if name in COUNTS:
        return None if text == "all" else int(text)
    return float(text) if name in NUMBERS else text


def _shard(text: str) -> tuple[int, int]:
    shard, shards = map(int, text.split("/"))
    if not 1 <= shard <= shards:
        raise argparse.ArgumentTypeError(f"must be i/n with i from 1 to n, got {text}")
    return shard, shards


def _count(text: str) -> int:
    if (count := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return count


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        "evaluation.ablate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", default="tiny", help="a checkpoint of the tiny world")
    add("--tracks", default=32, type=_count, metavar="N", help="box tracks in each split (32)")
    add("--methods", nargs="+", metavar="NAME", help=f"rows (all): {', '.join(METHODS)}")
    add("--sweep", nargs="+", type=_sweep, metavar="NAME=V1,V2", help="settings to vary, over full unless --methods")
    add("--seed-offset", default=0, type=int, metavar="N", help="number of the first track, to measure on others")
    add("--split", nargs="+", choices=SPLITS, default=SPLITS)
    add("--shard", default=(1, 1), type=_shard, metavar="I/N", help="every N-th track only, for several processes")
    add("--out", default=Path("evaluation/results"), type=Path, metavar="DIR")
    add("--device", default="cpu")
    add("--threads", type=_count, metavar="N", help="of this process")
    return parser


if __name__ == "__main__":
    main()
