"""Figure 2 over many tracks, with its sign: `python -m evaluation.variance --model tiny`.

Every row makes the same videos from the same noise, as the method `paper` without refinement. The variance of the
layer's output in each DDIM step is held against that of the unmasked run: the mean difference over the tracks and its
95 % interval by Student's t. Masks of one kind of attention alone show which of them moves the variance which way.
A second table has the distance without its sign, which the first can hide where tracks differ in sign.
"""

from __future__ import annotations

import waiting  # noqa: F401  (first, for torch reads its choice once)

import argparse
import shlex
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ending import exit_code
from evaluation.benchmarks.items import FORMS, make_items, name_items
from evaluation.figures.activations import BASELINE, record_activations
from evaluation.metrics.intervals import mean_interval
from evaluation.options import count
from sampling.settings import SamplingSettings, preset
from storage import write_bytes
from weights.load import load_pipeline


def main(argv: list[str] | None = None) -> int:
    """Make the table; see `ending.exit_code`."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = build_parser().parse_args(argv)
    command = shlex.join(["python", "-m", "evaluation.variance", *argv])
    torch.set_num_threads(arguments.threads)
    return exit_code(partial(tabulate, arguments, command))


def rows(steps: int) -> dict[str, SamplingSettings]:
    """Settings by label: Mask Normalization over both axes, and masks in all attention and in parts of it."""
    paper = replace(preset("paper"), steps=steps, iterations=0, c_g=0.0)
    mask = replace(paper, mask_normalization=False)
    return {
        BASELINE: preset("plain", paper),
        "mask": mask,
        "mask, self-attention alone": replace(mask, attention=("self",)),
        "mask, cross-attention alone": replace(mask, attention=("cross",)),
        "mask, start token left to the background": replace(mask, start_token="background"),
        "mask-norm, axis channel": replace(paper, axis="channel"),
        "mask-norm, axis joint": replace(paper, axis="joint"),
    }


def tabulate(arguments: argparse.Namespace, command: str) -> None:
    """Make all videos, print the table and write it."""
    pipeline = load_pipeline(arguments.model)
    items = make_items(arguments.form, "tiny", arguments.tracks, pipeline.defaults.frames)
    methods, variance = rows(arguments.steps), []
    steps = len(items) * len(methods) * arguments.steps
    with tqdm(total=steps, unit="step", disable=None) as bar:
        for item in items:
            recorded = record_activations(
                pipeline, item.trajectory, methods, item.seed, prompt=item.prompt, progress=lambda _: bar.update()
            )
            variance.append([recorded.variance[label] for label in methods])
    labels, values, tracks = list(methods), np.array(variance), [item.id for item in items]
    frozen = preset("paper").frozen_steps
    text = table(labels, values, tracks) + "\n" + distances(labels, values, tracks, frozen)
    text += (
        "\nIn the first table the first row is the variance itself, the others are differences to it. "
        f"Masks act in steps 1 to {frozen} of {arguments.steps}.\n"
        f"Made by `{command}`.\n"
        f"{name_items(items)}; weights {pipeline.fingerprint[:12]}.\n"
    )
    print(text)
    write_bytes(arguments.out / f"{Path(arguments.model).name}-variance.md", text.encode())


def table(labels: list[str], variance: np.ndarray, tracks: list[str]) -> str:
    """Markdown: a line a row, a column a step. variance: (tracks, rows, steps), the first row unmasked."""
    steps = variance.shape[-1]
    lines = ["| step | " + " | ".join(str(step + 1) for step in range(steps)) + " |", "|---" * (steps + 1) + "|"]
    for i, label in enumerate(labels):
        shown = variance[:, i] - (variance[:, 0] if i else 0)  # (tracks, steps)
        cells = [_cell(shown[:, step], tracks, signed=i > 0) for step in range(steps)]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def distances(labels: list[str], variance: np.ndarray, tracks: list[str], frozen: int) -> str:
    """Markdown: how far each row is from the unmasked run, sign left out, and how much farther than masks alone: the
    mean over the masked steps and over those after them, and by how much the difference jumps from the last masked
    step to the next. variance: as in `table`."""
    steps = variance.shape[-1]
    difference = variance - variance[:, :1]  # (tracks, rows, steps)
    spans = [(first, last) for first, last in ((0, min(frozen, steps)), (frozen, steps)) if first < last]
    columns = {f"steps {a + 1} to {b}": np.abs(difference[..., a:b]).mean(axis=-1) for a, b in spans}
    if 0 < frozen < steps:
        jump = np.abs(difference[..., frozen] - difference[..., frozen - 1])
        columns[f"jump from step {frozen} to {frozen + 1}"] = jump
    names = [text for name in columns for text in (name, "minus that of mask")]
    lines = [f"| mean distance from {labels[0]} | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    mask = labels.index("mask")
    for i, label in enumerate(labels[1:], start=1):
        cells = []
        for values in columns.values():  # (tracks, rows)
            cells += [_cell(values[:, i], tracks, signed=False)]
            cells += [_cell(values[:, i] - values[:, mask], tracks, signed=True)]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(values: np.ndarray, tracks: list[str], signed: bool) -> str:
    mean, low, high = mean_interval(values, tracks) or (float("nan"), None, None)
    sign = "+" if signed else ""
    ends = "" if low is None or high is None else f" [{low:{sign}.4f}, {high:{sign}.4f}]"
    return f"{mean:{sign}.4f}{ends}"


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        "evaluation.variance", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", default="tiny", help="a checkpoint of the tiny world")
    add("--tracks", default=8, type=count, metavar="N", help="box tracks in each split (%(default)s)")
    add("--steps", default=50, type=count, metavar="N", help="DDIM steps (%(default)s, as the method paper)")
    add("--form", choices=FORMS, default=FORMS[0], help="of the random boxes (%(default)s)")
    add("--threads", default=1, type=count, metavar="N", help="of this process (%(default)s)")
    add("--out", default=Path("runs/variance"), type=Path, metavar="DIR", help="where the table goes (%(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
