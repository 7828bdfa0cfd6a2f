"""What saves a GPU's memory, in the commands that make videos: it reaches them, and what cannot fit is refused."""

import importlib
from pathlib import Path

import pytest
import torch

from evaluation import ablate, asked
from evaluation.tables import making
from evaluation.tables.store import Store
from model.config import UNetConfig, VAEConfig
from sampling.generate import generate
from weights.memory import Footprint

command = importlib.import_module("evaluation.__main__")

OPTIONS = ["--checkpoint-activations", "--sequential-guidance", "--offload", "--frames-per-chunk", "1"]
HOW = {"sequential_guidance": True, "offload": True, "frames_per_chunk": 1}
DEFAULT = {"sequential_guidance": False, "offload": False, "frames_per_chunk": 4}
SMALL = ["--tracks", "1", "--split", "static", "--methods", "plain", "--out", "out"]


@pytest.fixture(params=["generate", "run", "ablate"])
def make(request, pipeline, monkeypatch, tmp_path):
    """One of the commands, on the small pipeline, in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    pipeline.defaults.prompt = "a red ball moving over the grass"  # it knows the tiny world
    for module in (asked, ablate):
        monkeypatch.setattr(module, "load_pipeline", lambda *_: pipeline)
    if request.param == "ablate":
        return lambda *options: ablate.main([*SMALL, "--real", "8", *options])
    return lambda *options: command.main([request.param, *SMALL, *options])


@pytest.mark.parametrize(("options", "how"), [([], DEFAULT), (OPTIONS, HOW)])
def test_options_reach_the_estimate_and_every_video(make, pipeline, monkeypatch, options, how):
    checked, made = [], []

    def spy(*arguments, **told):
        made.append({name: told[name] for name in HOW})
        return generate(*arguments, **(told | {"sequential_guidance": False, "offload": False}))

    monkeypatch.setattr(making, "check_memory", lambda network, plan, **told: checked.append(told))
    monkeypatch.setattr(making, "generate", spy)
    assert make(*options) == 0
    assert (checked, made) == ([how], [how])
    assert pipeline.unet.checkpoint_activations is bool(options)


def test_what_cannot_fit_is_refused_before_the_first_video(make, pipeline, monkeypatch, capsys):
    def refuse(*_, **__):
        raise ValueError("24 frames of 576x320 need at least 90.0 GB")

    monkeypatch.setattr(making, "check_memory", refuse)
    assert make() == 2
    sentence = "error: row plain cannot be made: 24 frames of 576x320 need at least 90.0 GB"
    assert capsys.readouterr().err.splitlines() == [sentence]
    assert pipeline.unet.calls == 0


def test_memory_that_runs_out_is_one_sentence(make, pipeline, monkeypatch, capsys):
    def run_out(*_, **__):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    with monkeypatch.context() as patch:
        patch.setattr(making, "generate", run_out)
        assert make() == 2
    sentence = capsys.readouterr().err.splitlines()[-1]
    assert sentence.startswith("error: memory ran out; --checkpoint-activations ")
    assert make() == 0  # the same command goes on


def test_auto_leaves_no_choice_to_others(make, capsys):
    assert make("--memory", "auto", "--offload") == 2
    sentence = "error: --memory auto chooses what saves memory itself; leave it or --offload out"
    assert capsys.readouterr().err.splitlines() == [sentence]


def test_where_memory_runs_out_a_video_goes_on_from_its_last_step(make, pipeline, monkeypatch, capsys):
    """The network's second call fails, in the second step; the first one is not made again."""
    forward, calls = type(pipeline.unet).forward, []

    def run_out(self, *arguments, **options):
        calls.append(None)
        if len(calls) == 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return forward(self, *arguments, **options)

    begun = []

    def spy(*arguments, state, **told):
        begun.append(0 if state is None else state.step)
        return generate(*arguments, state=state, **(told | {"sequential_guidance": False, "offload": False}))

    monkeypatch.setattr(making, "generate", spy)
    monkeypatch.setattr(type(pipeline.unet), "forward", run_out)
    networks = Footprint(UNetConfig(), VAEConfig(), 2, 0, 0, 0)
    monkeypatch.setattr(Footprint, "of", classmethod(lambda cls, pipeline: networks))
    assert make("--memory", "auto") == 0
    assert begun == [0, 1]
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("memory")]
    assert line.startswith("memory ran out; going on with --")


def test_a_row_is_the_same_with_and_without(make, monkeypatch):
    def plainly(*arguments, **told):
        return generate(*arguments, **(told | {"sequential_guidance": False, "offload": False}))

    monkeypatch.setattr(making, "generate", plainly)
    assert make(*OPTIONS) == 0
    (noted,) = Path().rglob("rows.json")
    store = Store(noted.parent)
    rows, files = store.rows(), sorted(path.name for path in (store.root / "files").iterdir())
    assert make() == 0
    assert (store.rows(), sorted(path.name for path in (store.root / "files").iterdir())) == (rows, files)
