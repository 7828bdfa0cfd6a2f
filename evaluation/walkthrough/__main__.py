"""The method, section by section of the paper, on one step of one video: `python -m evaluation.walkthrough`.

Prints what each equation is given and what it makes of it, and writes that with pictures as OUT/walkthrough.md. The
sections are the functions of `sections.py`, which call the repository's equations as the sampler does; in the end the
step that they took apart is held against the sampler's own. `--out docs/walkthrough` brings the page in the documents
up to date, `python -m evaluation.walkthrough.notebook` the notebook. Needs matplotlib.
"""

from __future__ import annotations

import waiting  # noqa: F401  (first, for torch reads its choice once)

import argparse
import sys
from functools import partial
from pathlib import Path

from adaptation.trajectory import Trajectory
from ending import exit_code
from evaluation.figures.activations import load_figure
from evaluation.walkthrough.book import Book, begin
from evaluation.walkthrough.sections import walk_through
from storage import check_folder
from weights.load import load_pipeline


def main(argv: list[str] | None = None) -> int:
    """Write the walkthrough; see `ending.exit_code`. A slip on the command line is 2 as well."""
    arguments = build_parser().parse_args(argv)
    return exit_code(partial(write, arguments), kept="the walkthrough is not whole")


def write(arguments: argparse.Namespace) -> None:
    """The walkthrough as a folder; prints what it tells."""
    check_folder(arguments.out)
    load_figure()  # refuses where matplotlib is missing
    trajectory = None if arguments.boxes is None else Trajectory.load(arguments.boxes)
    walk = begin(load_pipeline(arguments.model), trajectory, arguments.seed)
    arguments.out.mkdir(parents=True, exist_ok=True)
    print(walk_through(walk, Book(arguments.out)))


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        "python -m evaluation.walkthrough", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--out", default=Path("outputs/walkthrough"), type=Path, metavar="DIR", help="(%(default)s)")
    add("--model", default="tiny", help="tiny, or another checkpoint, see train_free.py (tiny)")
    add(
        "--boxes",
        type=Path,
        metavar="FILE",
        help="a trajectory file, brought to the model's frames (a red ball)",
    )
    add("--seed", default=0, type=int, metavar="N", help="of the noise (0)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
