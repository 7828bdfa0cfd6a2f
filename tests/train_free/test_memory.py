"""Memory by itself: the savings that a run begins with, and those with which it goes on where memory runs out.

There is no GPU here: its capacity is invented, and the allocator's failure is raised in the network's n-th call. The
estimates are those of Zeroscope's architecture, over networks whose weights take nothing.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import train_free
from adaptation.trajectory import Trajectory
from model.config import UNetConfig, VAEConfig
from sampling.generate import Plan, make_plan
from weights import memory
from weights.memory import Footprint, Savings, estimate_bytes
from weights.savings import choices_in_turn, flags

GONE = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
NETWORKS = Footprint(UNetConfig(), VAEConfig(), 2, 0, 0, 0)
SIX = ["--steps", "6", "--eta", "0.5"]  # with boxes 3 calls of the network a step


@pytest.fixture
def capacity(monkeypatch, loaded):
    """capacity(bytes): what is free on the GPU, and networks as large as Zeroscope's; None = no GPU."""

    def set_capacity(free: int | None, networks: Footprint = NETWORKS) -> None:
        monkeypatch.setattr(memory, "free_bytes", lambda pipeline: free)
        monkeypatch.setattr(Footprint, "of", classmethod(lambda cls, pipeline: networks))

    return set_capacity


def need(loaded) -> int:
    """Bytes of the full method over 4 frames of 24 x 16 pixels."""
    plan = plan_of(loaded)
    return estimate_bytes(NETWORKS, plan.settings, plan.shape, Savings(), steered=True)


def plan_of(loaded) -> Plan:
    """Of that run."""
    path = Trajectory.from_keyframes({0: (0, 0, 0.5, 0.5)}, 4, "red ball")
    return make_plan(loaded.pipeline, "a red ball", path)


def told(capsys) -> list[str]:
    """The lines on stderr that speak of memory."""
    return [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if "memory" in line]


def frames(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path)) for path in sorted((folder / "frames").iterdir())]).astype(int)


# ---- Before the run ------------------------------------------------------------------------------------------------


def test_where_all_fits_nothing_is_switched(loaded, capacity, capsys, ball):
    capacity(need(loaded))
    assert train_free.main([*ball, "--out", "made"]) == 0
    (line,) = told(capsys)
    assert line.startswith("memory: nothing has to be saved; about 0.0 of 0.0 GB")
    assert loaded.pipeline.unet.checkpoint_activations is False


def test_the_least_slow_that_fits_is_switched_and_named_with_what_it_costs(loaded, capacity, capsys, ball):
    chosen = memory.choose_savings(NETWORKS, [plan_of(loaded)], need(loaded) - 1)
    capacity(need(loaded) - 1)
    assert train_free.main([*ball, "--out", "made"]) == 0
    (line,) = told(capsys)
    assert chosen.time > 1
    assert line.startswith(f"memory: {flags(chosen.savings)}, {chosen.time:.2f} times as long as without; about ")
    facts = json.loads(Path("made/run.json").read_text())
    assert {name: facts[name] for name in ("checkpoint_activations", "sequential_guidance", "offload")} == {
        name: getattr(chosen.savings, name) for name in ("checkpoint_activations", "sequential_guidance", "offload")
    }


@pytest.mark.parametrize("options", [["--memory", "none"], ["--offload"], ["--frames-per-chunk", "1"]])
def test_by_hand_is_by_hand(loaded, capacity, refused, ball, options):
    """What was named counts alone, though more would fit."""
    capacity(need(loaded) - 1)
    assert "need at least" in refused(*ball, *options)


def test_where_nothing_fits_the_run_is_refused(loaded, capacity, refused, ball):
    capacity(10)
    assert refused(*ball).startswith("error: 4 frames of 24x16 need at least 0.0 GB, but the device has 0.0 GB")


def test_without_a_gpu_nothing_is_chosen_or_said(loaded, capacity, run, capsys, ball):
    capacity(None)
    _, (facts,) = run(*ball)
    assert (facts["offload"], facts["sequential_guidance"], facts["frames_per_chunk"]) == (False, False, 4)
    run(*ball, "--memory", "auto", "--seed", "1")
    assert told(capsys) == []


# ---- While it runs -------------------------------------------------------------------------------------------------


def test_where_memory_runs_out_the_run_goes_on_by_itself_from_its_last_step(
    stopped, run, loaded, capacity, capsys, ball
):
    """The eighth call is of the third step; the second video begins with what the first one needed."""
    (whole,), _ = run(*ball, *SIX, "--memory", "none")
    capacity(need(loaded))
    code, printed, left = stopped(GONE, 8, *ball, *SIX, "--seed", "0", "1", "--out", "both")
    assert (code, left) == (0, [])
    lines = [line for line in printed.err.replace("\r", "\n").splitlines() if "memory" in line]
    assert len(lines) == 2 and lines[1].startswith("memory ran out; going on with --")
    assert lines[1].endswith("times as long as without; the bits may differ")
    first, second = map(Path, printed.out.splitlines())
    facts, after = (json.loads((folder / "run.json").read_text()) for folder in (first, second))
    (note,) = facts["resumed"]
    assert note["step"] == 2 and note["differences"]
    assert after["resumed"] == []
    names = ("checkpoint_activations", "sequential_guidance", "offload", "frames_per_chunk")
    assert [after[name] for name in names] == [facts[name] for name in names]
    assert np.abs(frames(first) - frames(whole)).max() <= 1


def test_each_combination_is_tried_once(loaded, capacity, capsys, ball):
    capacity(need(loaded))
    tries = []

    def run_out():
        tries.append(loaded.pipeline.unet.checkpoint_activations)
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    loaded.pipeline.unet.before = run_out
    assert train_free.main([*ball, "--out", "half"]) == 2
    choices = choices_in_turn(NETWORKS, [plan_of(loaded)], need(loaded))
    assert tries == [choice.savings.checkpoint_activations for choice in choices]
    assert len({choice.savings for choice in choices}) == len(choices) > 2
    lines = capsys.readouterr().err.replace("\r", "\n").splitlines()
    assert sum(line.startswith("memory ran out; going on with") for line in lines) == len(choices) - 1
    assert lines[-1].startswith("error: memory ran out; ") and "--resume half.unfinished" in lines[-1]


def test_by_hand_a_run_ends_where_memory_runs_out(stopped, loaded, capacity, ball):
    capacity(10 * need(loaded))
    code, printed, left = stopped(GONE, 8, *ball, *SIX, "--memory", "none")
    assert code == 2 and len(left) == 1
    assert printed.err.splitlines()[-1].startswith("error: memory ran out; ")


def test_what_is_added_to_an_unfinished_run_counts_over_how_it_chose(stopped, run, loaded, capacity, ball):
    capacity(None)
    _, _, (left,) = stopped(KeyboardInterrupt(), 8, *ball, *SIX, "--memory", "auto")
    _, (facts,) = run("--resume", str(left), "--sequential-guidance")
    assert (facts["sequential_guidance"], facts["offload"]) == (True, False)
    _, _, (left,) = stopped(KeyboardInterrupt(), 8, *ball, *SIX, "--sequential-guidance")
    _, (facts,) = run("--resume", str(left), "--memory", "auto")
    assert facts["sequential_guidance"] is False
