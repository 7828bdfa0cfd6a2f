"""What the documents say of files, functions, lines and commands is so."""

import ast
import re
import shlex

import pytest
import yaml

import evaluation.__main__ as tables
from app.arguments import parse
from evaluation import ablate
from tests.docs.lines import PLACE, ROOT, STUDY, mended

PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/walkthrough/*.md"), ROOT / "weights/tiny/README.md"]
)
names = [str(page.relative_to(ROOT)) for page in PAGES]
each_page = pytest.mark.parametrize("page", PAGES, ids=names)


FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(text: str, language: str = "") -> list[str]:
    """Code blocks of a language."""
    return [body for name, body in FENCED.findall(text) if name == language]


def anchors(text: str) -> set[str]:
    """What links may point to in a page, as GitHub names its headings."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@each_page
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file.read_text(encoding="utf-8")), target


@each_page
def test_files_and_functions_are_there(page):
    """`file.py`, and `name` behind it, and further names behind that."""
    text = page.read_text(encoding="utf-8")
    for file, more in re.findall(r"`([\w/]+\.py)(?::[\d-]+)?`((?:,? `(?![\w/]+\.py`)[A-Za-z_][\w.]*`)*)", text):
        if "/" not in file and file != "train_free.py":
            continue  # named after another file of its folder
        assert (ROOT / file).is_file(), file
        defined = {n.name for n in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))) if hasattr(n, "name")}
        for name in re.findall(r"`([\w.]+)`", more):
            assert set(name.split(".")) <= defined, f"{file} {name}"


def test_lines_of_equations():
    """After a change of the code: python tests/docs/lines.py"""
    text = STUDY.read_text(encoding="utf-8")
    assert len(PLACE.findall(text)) >= 18
    assert text == mended(text)


@pytest.mark.parametrize("page", ["README.md", "docs/study.md"])
def test_python_runs(page, monkeypatch, tmp_path):
    """The blocks of a page in their order, in one module."""
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    found = blocks((ROOT / page).read_text(encoding="utf-8"), "python")
    assert found
    for block in found:
        exec(compile(block, page, "exec"), scope)


def commands() -> list[tuple[str, list[str]]]:
    """Every command of the documents that starts one of ours: (what it starts, its arguments)."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        lines = "\n".join(blocks(text)).replace("\\\n", " ").splitlines()
        lines += re.findall(r"`([^`\n]+)`", FENCED.sub("", text))
        for line in lines:
            for part in re.split(r" && | ;", line.split("   #")[0]):
                if match := re.search(r"(?:^| )(train_free\.py|-m evaluation(?:\.ablate)?)((?: .*)?)$", part):
                    found.append((match[1].removeprefix("-m "), shlex.split(match[2])))
    return found


def test_commands_are_understood(monkeypatch):
    """Arguments alone; what they do is tested where the commands are."""
    monkeypatch.chdir(ROOT)
    parsers = {"evaluation": tables.build_parser(), "evaluation.ablate": ablate.build_parser()}
    for start, arguments in commands():
        if any(word.isupper() and word.isalpha() for word in arguments if word != "REAL_VIDEOS"):
            continue  # NAME, FILE: to be filled in
        if start == "train_free.py":
            if "--help" not in arguments and "--resume" not in arguments:
                parse(arguments)
        else:
            parsers[start].parse_args(arguments)
    assert len(commands()) > 15


def test_the_citation_is_whole():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors", "license", "preferred-citation"} <= set(citation)
    assert {"type", "title", "authors", "year"} <= set(citation["preferred-citation"])


def test_the_checkpoints_card_has_front_matter():
    _, front, _ = (ROOT / "weights/tiny/README.md").read_text(encoding="utf-8").split("---\n", 2)
    assert yaml.safe_load(front)["license"] == "mit"
