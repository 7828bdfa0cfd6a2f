"""A small pipeline (tests/small.py), one video of it to make, and extractors that count."""

import shutil
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from evaluation import asked
from evaluation.benchmarks.items import make_item
from evaluation.tables import making
from evaluation.tables.making import Suite
from evaluation.tables.store import Row, Store
from sampling.generate import recommended
from tests.evaluation.commands import EVERYTHING, evaluate
from tests.hub import hub  # noqa: F401  (a fixture)
from tests.small import ball, pipeline  # noqa: F401  (fixtures)


@pytest.fixture
def item():
    """One video to make with `pipeline`: a box that moves."""
    return make_item("keyframes", "tiny", "moving", 0, frames=4)


@pytest.fixture
def row(pipeline):
    """How to make it."""
    return Row.of(pipeline, recommended(pipeline, "mask"), frames=4)


@pytest.fixture
def store(tmp_path, item, row):
    """Where the video of `item` is to lie, which is not made yet."""
    store = Store(tmp_path / "evaluation")
    store.save([item], {"mask": row})
    return store


@pytest.fixture
def loaded(pipeline, monkeypatch, tmp_path):
    """The small pipeline in its place, in an empty working folder, alone."""
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(asked, "load_pipeline", lambda *_: pipeline)
    pipeline.defaults.prompt = "a red ball moving over the grass"  # it knows the tiny world
    return pipeline


@pytest.fixture(scope="session")
def kept(tmp_path_factory):
    """Where the result of the whole command is kept for all tests, with what it printed."""
    return SimpleNamespace(folder=tmp_path_factory.mktemp("kept") / "all", printed=None)


@pytest.fixture
def done(loaded, kept, capsys):
    """After the whole command; holds what it printed."""
    if kept.printed is None:
        evaluate(*EVERYTHING)
        kept.printed = capsys.readouterr()
        shutil.copytree("all", kept.folder)
    else:
        shutil.copytree(kept.folder, "all")
    return kept.printed


class Counting:
    """A stand-in extractor of each kind, by formulas of the frames' mean; counts how often it was asked."""

    def __init__(self, revision="1"):
        self.revision, self.calls = revision, 0

    def describe(self):
        words = {"class": type(self).__name__, "checkpoint": "stand-in", "resize": "none", "dtype": "float32"}
        return words | {"revision": self.revision}


class Boxes(Counting):
    def detect(self, frames, subject):
        self.calls += 1
        return [[(0.0, 0.0, 0.5, 0.5, 0.9), (0.5, 0.0, 1.0, 1.0, 0.2)] for _ in frames]


class Text(Counting):
    def score(self, frames, prompt):
        self.calls += 1
        return torch.tensor([-10.0, 20.0, 30.0, 40.0][: len(frames)])


class Frames(Counting):
    def embed(self, frames):
        self.calls += 1
        return torch.from_numpy(frames.mean((1, 2))).float()  # (F, 3)


class Videos(Counting):
    def embed(self, frames):
        self.calls += 1
        return torch.from_numpy(frames.mean((0, 1, 2))).float()  # (3,)


@pytest.fixture
def suite():
    """Extractors for every role."""
    return Suite(Boxes(), Text(), Frames(), Videos())


@pytest.fixture
def interrupted(monkeypatch):
    """interrupted(module, after) is a context in which Ctrl-C comes once that many videos have been made."""

    @contextmanager
    def interrupted(module, after: int):
        made = []

        def make_video(*arguments, **how):
            if len(made) == after:
                raise KeyboardInterrupt
            made.append(making.make_video(*arguments, **how))

        with monkeypatch.context() as patch:
            patch.setattr(module, "make_video", make_video)
            yield

    return interrupted
