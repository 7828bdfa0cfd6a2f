"""The walkthrough as a notebook: `python -m evaluation.walkthrough.notebook` writes examples/study.ipynb.

Each statement of `sections.walk_through` becomes a cell, so that notebook, page and print come from one source. In the
notebook texts and pictures appear below the cell that makes them.
"""

from __future__ import annotations

import ast
import inspect
import json
import sys
import textwrap
from pathlib import Path
from typing import Any

from evaluation.walkthrough import sections
from evaluation.walkthrough.book import Book
from storage import write_bytes

NOTEBOOK = Path(__file__).parents[2] / "examples/study.ipynb"

BEFORE = """\
# The method, section by section

This notebook takes one step of one video apart, with the tiny checkpoint. It is `python -m evaluation.walkthrough` as
cells: each calls one section of `evaluation/walkthrough/sections.py`, which shows what an equation is given and what it
makes of it. The same as a page lies in `docs/walkthrough/`, and `docs/study.md` explains every symbol.

Install first: `pip install -c constraints.txt -e ".[evaluate]"`, and a Jupyter of your choice.
"""
SETUP = """\
import torch

from evaluation.walkthrough.book import begin
from evaluation.walkthrough.notebook import Cells
from evaluation.walkthrough.sections import (
    boxes_and_regions,
    denoising_step,
    mask_normalization,
    masks,
    refinement,
    subject_words,
    temporal_prior,
    video,
)
from weights.load import load_pipeline

torch.set_grad_enabled(False)  # a section that needs a gradient asks for it
walk = begin(load_pipeline("tiny"), seed=0)
book = Cells("outputs/study")"""
AFTER = """\
## To try

Change one thing and run the cells again:

- another noise: `begin(load_pipeline("tiny"), seed=1)`;
- other boxes: `begin(load_pipeline("tiny"), Trajectory.load("examples/two_subjects.json"))`, with `Trajectory` from
  `adaptation.trajectory`;
- other settings: `begin(load_pipeline("tiny"), settings=SamplingSettings(steps=25, axis="joint"))`, with
  `SamplingSettings` from `sampling.settings`;
- an equation: change it in its file, restart the kernel, and see which numbers move.
"""


class Cells(Book):
    """The book of a notebook: what is written appears below the cell."""

    def __init__(self, folder: str) -> None:
        super().__init__(Path(folder))
        self.folder.mkdir(parents=True, exist_ok=True)

    def tell(self, text: str, picture: Path | None = None) -> None:
        from IPython.display import Image, Markdown, display

        if picture is not None:
            display(Image(filename=str(picture)))
        display(Markdown(text))


def make_notebook() -> dict[str, Any]:
    """The notebook in Jupyter's format 4.5, without outputs."""
    steps = statements(sections.walk_through)
    cells = [_cell("markdown", BEFORE), *(_cell("code", code) for code in (SETUP, *steps)), _cell("markdown", AFTER)]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def statements(function: Any) -> list[str]:
    """The source of each statement of a function, without its docstring; what is returned is the last one's value."""
    source = textwrap.dedent(inspect.getsource(function))
    (definition,) = ast.parse(source).body
    if not isinstance(definition, ast.FunctionDef):
        raise TypeError(f"{function} is no function written with def")
    found = [ast.get_source_segment(source, statement) or "" for statement in definition.body[1:]]
    return [statement.removeprefix("return ") for statement in found]


def _cell(kind: str, text: str) -> dict[str, Any]:
    cell = {"cell_type": kind, "metadata": {}, "source": text.rstrip("\n").splitlines(keepends=True)}
    return cell | ({"execution_count": None, "outputs": []} if kind == "code" else {})


def main() -> int:
    """Write the notebook anew."""
    write_bytes(NOTEBOOK, (json.dumps(make_notebook(), indent=1, ensure_ascii=False) + "\n").encode())
    print(NOTEBOOK)
    return 0


if __name__ == "__main__":
    sys.exit(main())
