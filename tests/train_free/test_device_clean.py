"""Nothing is left on the CPU that a GPU would miss, in any method, option or figure; a step waits for its record alone.

On the tiny checkpoint with a pretended device (`tests/pretended.py`), 3 frames of 4 x 4 cells.
"""

import importlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import train_free
from adaptation.attention_masks import AttentionControl
from adaptation.trajectory import Trajectory
from evaluation import asked
from sampling import generate as generating
from sampling.generate import generate, recommended
from sampling.settings import METHODS
from tests.pretended import DEVICE, MixedDevices, pretended
from weights import load

evaluation = importlib.import_module("evaluation.__main__")

ROOT = Path(__file__).parents[2]
SIZE = {"frames": 3, "height": 32, "width": 32}
NOISE = "copied to the device: aten._to_copy.default (1, 4, 3, 4, 4)"
BOXES = ["--boxes", str(ROOT / "examples" / "red_ball.json"), "--resample"]


def small(device):
    """The checkpoint, with two steps of a small video recommended."""
    pipeline = load.load_pipeline("tiny", device)
    defaults = replace(pipeline.defaults, **SIZE, settings=pipeline.defaults.settings | {"steps": 2})
    return replace(pipeline, defaults=defaults)


@pytest.fixture(scope="module")
def kept():
    """On the device; one for all tests."""
    with pretended():
        return small(DEVICE)


@pytest.fixture(scope="module")
def here():
    """The same on the CPU."""
    return small("cpu")


@pytest.fixture
def there(kept, monkeypatch, tmp_path):
    """The device, with that pipeline in `load_pipeline`'s place, in an empty working folder."""
    for module in (load, asked):
        monkeypatch.setattr(module, "load_pipeline", lambda *_: kept)
    monkeypatch.chdir(tmp_path)
    kept.unet.checkpoint_activations = False
    with pretended() as device:
        yield device


@pytest.fixture(scope="module")
def ball():
    return Trajectory.load(ROOT / "examples" / "red_ball.json", 8).resample(SIZE["frames"])


def notes_by_step(device, pipeline, ball, settings, **how):
    """What `generate` made, and what was noted in each step, and after the last one."""
    device.notes.clear()
    steps, seen = [], []

    def progress(_):
        steps.append(device.notes[sum(seen) :])
        seen.append(len(steps[-1]))

    result = generate(pipeline, None, ball, settings, progress=progress, **how)
    return result, [*steps, device.notes[sum(seen) :]]


def only_needed(notes, settings):
    """Whether noise was all that went there, and one record of numbers all that came back."""
    draws = settings.iterations + (settings.eta > 0)
    sent, (fetched,) = notes[:-1], notes[-1:]
    return sent == [NOISE] * draws and fetched.startswith("copied to the CPU: aten._to_copy.default (")


# ---- Every method, every way -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_every_method_stays_on_its_device_and_a_step_waits_for_its_record_alone(there, kept, ball, method):
    """The first step makes the masks, the second finds them."""
    settings = recommended(kept, method, {"steps": 2, "eta": 0.5})
    result, (_, second, after) = notes_by_step(there, kept, ball, settings)
    assert result.latents.device.type == DEVICE and result.latents.isfinite().all()
    assert only_needed(second, settings)
    pixels = "copied to the CPU: aten._to_copy.default (3, 32, 32, 3)"
    assert after == ["waited: aten._local_scalar_dense.default ()", pixels]


@pytest.mark.parametrize(
    ("method", "how"),
    [
        ("full[unet]", {"sequential_guidance": True}),
        ("full[unet]", {"checkpoint_activations": True}),
        ("full[text-half]", {"checkpoint_activations": True}),
        ("mask", {"offload": True, "frames_per_chunk": 1}),
    ],
)
def test_options_that_save_memory(there, kept, ball, method, how):
    settings = recommended(kept, method)
    kept.unet.checkpoint_activations = how.get("checkpoint_activations", False)
    how = {name: value for name, value in how.items() if name != "checkpoint_activations"}
    result, (_, second, _) = notes_by_step(there, kept, ball, settings, **how)
    assert result.latents.isfinite().all()
    assert only_needed(second, settings)
    assert {p.device.type for part in (kept.unet, kept.vae) for p in part.parameters()} == {DEVICE}  # all are back


def test_a_subject_that_is_absent_now_and_then(there, kept, ball):
    """A frame without a box, and a second subject that has no two consecutive ones."""
    boxes = ball.boxes.repeat(2, 1, 1)
    boxes[0, 0] = boxes[1, 1] = torch.nan
    both = replace(ball, boxes=boxes, subjects=["red ball", "grass"])
    settings = recommended(kept, "full[unet]")
    _, (_, second, _) = notes_by_step(there, kept, both, settings)
    assert only_needed(second, settings)


@pytest.mark.parametrize("method", ["plain", "mask", "trailblazer"])
def test_what_is_computed_there_is_what_the_cpu_computes(here, there, kept, ball, method):
    """Up to rounding: torch makes up attention and norms of other parts for what is no CPU."""
    settings = recommended(kept, method)
    on_cpu, on_device = (generate(pipeline, None, ball, settings) for pipeline in (here, kept))
    torch.testing.assert_close(on_device.latents.cpu(), on_cpu.latents, rtol=0, atol=1e-4)
    assert [record["tau"] for record in on_device.records] == [
        pytest.approx(record["tau"], abs=1e-4) for record in on_cpu.records
    ]


def test_a_mask_left_on_the_cpu_would_be_found(there, kept, ball, monkeypatch):
    monkeypatch.setattr(generating, "AttentionControl", lambda boxes, *a, **k: AttentionControl(boxes.cpu(), *a, **k))
    with pytest.raises(MixedDevices, match=r"aten\.add\.Tensor of tensors on two devices"):
        generate(kept, None, ball, recommended(kept, "mask"))


# ---- Commands --------------------------------------------------------------------------------------------------------


def test_all_figures(there):
    """One step of every method."""
    figures = ["--compare", "--record-activations", "--show-masks"]
    assert train_free.main([*BOXES, "--device", DEVICE, "--steps", "1", "--offload", "--out", "all", *figures]) == 0
    drawn = {path.name for path in Path("all").iterdir()}
    assert drawn >= {"video.mp4", "compare.png", "activations.png", "distributions.png", "masks.png"}
    assert json.loads(Path("all/run.json").read_text())["device"] == DEVICE


def test_a_run_that_was_stopped_goes_on_there(there, kept):
    """To the same numbers: its latents are kept on the disk, and come back to the device."""
    run = [*BOXES, "--device", DEVICE, "--method", "full"]
    assert train_free.main([*run, "--out", "whole"]) == 0
    calls = []

    def stop(*_):
        calls.append(None)
        if len(calls) == 4:  # the first of the second step
            raise KeyboardInterrupt

    handle = kept.unet.register_forward_pre_hook(stop)
    assert train_free.main([*run, "--out", "half"]) == 130
    handle.remove()
    assert train_free.main(["--resume", "half.unfinished"]) == 0
    whole, half = (json.loads(Path(name, "run.json").read_text())["records"] for name in ("whole", "half"))
    assert half == whole and len(half) == 2


@pytest.mark.filterwarnings("ignore:FID from 6 features of 64 dimensions")
def test_steps_of_an_evaluation(there):
    where, world = ["--out", "table"], ["--reference", "world:2"]
    rows = ["--methods", "mask-norm", "full", "--tracks", "1"]
    for step in (["generate", "--device", DEVICE, *rows], ["extract", "--device", DEVICE, *world], ["reduce", *world]):
        assert evaluation.main([*step, *where]) == 0
    results = json.loads(Path("table/results.json").read_text())["results"]
    assert {*results} == {"mask-norm", "full"}
