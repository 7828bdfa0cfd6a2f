"""The walkthrough in its three forms: the notebook runs, and shows what the page in docs/walkthrough/ says."""

import json
import re
from pathlib import Path

import pytest

from evaluation.walkthrough.notebook import NOTEBOOK, make_notebook, statements

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs/walkthrough/walkthrough.md"
NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]\d+)?(?![\w])")


def test_the_file_is_what_the_source_makes():
    """After a change of the walkthrough: python -m evaluation.walkthrough.notebook"""
    assert json.loads(NOTEBOOK.read_text(encoding="utf-8")) == make_notebook()


def test_statements_of_a_function():
    def three(x):
        """Not this."""
        y = x + 1
        print(y)
        return y

    assert statements(three) == ["y = x + 1", "print(y)", "y"]


def test_the_notebook_runs_and_the_page_is_up_to_date(tmp_path):
    """One run for both. After a change: python -m evaluation.walkthrough --out docs/walkthrough

    Pictures are not compared, and numbers up to what another machine rounds otherwise.
    """
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    shown = [output["data"] for output in outputs if output["output_type"] == "display_data"]
    text = "\n\n".join(data["text/markdown"] for data in shown if "text/markdown" in data)
    page = PAGE.read_text(encoding="utf-8")
    pictures = re.findall(r"^!\[.*\]\((.*)\)$", page, re.MULTILINE)
    assert sum("image/png" in data for data in shown) == len(pictures) == 7
    assert all((PAGE.parent / picture).is_file() for picture in pictures)

    told = re.sub(r"^!\[.*\n\n", "", page, flags=re.MULTILINE).strip()
    assert NUMBER.sub("#", text) == NUMBER.sub("#", told)
    ours, theirs = ([float(number) for number in NUMBER.findall(words)] for words in (text, told))
    assert ours == pytest.approx(theirs, rel=0.02, abs=2e-5)
