"""What a run's bits depend on: memory options, threads, versions; what is said when they change, and what does not."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import train_free
from app import job, running
from ending import MEMORY_RAN_OUT
from model.unet import UNet3D
from sampling.settings import PRESETS
from tests.helpers import second_block
from weights import circumstances, memory

SIX = ["--steps", "6", "--eta", "0.5"]
TINY = ["--frames", "2", "--height", "32", "--width", "32", "--steps", "2"]
BOX = ["--box-from", "0,0,0.5,0.5", "--box-to", "0.5,0.5,1,1", "--subject", "red ball", "--prompt", "a red ball"]


@pytest.fixture
def threads():
    """Puts torch's number of threads back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def frames(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path)) for path in sorted((folder / "frames").iterdir())]).astype(int)


def contents(folder: Path) -> dict[str, bytes]:
    """What a run wrote, but for the files that tell times."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name not in ("run.json", "report.html"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


# ---- Memory --------------------------------------------------------------------------------------------------------


def test_where_memory_ran_out_a_run_goes_on_with_less(stopped, run, capsys, ball):
    (whole,), _ = run(*ball, *SIX)
    gone = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
    code, printed, (left,) = stopped(gone, 8, *ball, *SIX, "--out", "half")
    assert code == 2
    last = printed.err.splitlines()[-1]
    resume = "to go on: python train_free.py --resume half.unfinished, with any of these but another size"
    assert last == f"error: {MEMORY_RAN_OUT}; {resume}"
    less = ["--sequential-guidance", "--frames-per-chunk", "1"]
    assert train_free.main(["--resume", str(left), *less]) == 0
    printed = capsys.readouterr()
    assert printed.out == "half\n"
    changes = ["sequential_guidance False -> True", "frames_per_chunk 4 -> 1"]
    (warning,) = [line for line in printed.err.replace("\r", "\n").splitlines() if line.startswith("warning")]
    otherwise = "the run goes on otherwise than it began, so its bits may differ"
    assert warning == f"warning: {otherwise}: {'; '.join(changes)}"
    facts = json.loads(Path("half/run.json").read_text())
    assert facts["resumed"] == [{"step": 2, "same_bits": False, "differences": changes}]
    assert (facts["sequential_guidance"], facts["offload"], facts["frames_per_chunk"]) == (True, False, 1)
    assert facts["arguments"] == [*ball, *SIX, "--out", "half", *less]
    assert np.abs(frames(Path("half")) - frames(whole)).max() <= 1  # the halves' arithmetic is the same up to rounding


def test_the_options_named_save_as_much_as_is_said():
    tensors = memory.UNET_TENSORS
    assert tensors["whole", True] / tensors["whole", False] == pytest.approx(1 / 8, rel=0.1)
    for apart, together in (("half", "whole"), ("none", "none")):
        sequential = memory.SEQUENTIAL_TENSORS if apart == "none" else tensors[apart, False]
        assert 1 / 2 <= sequential / tensors[together, False] <= 3 / 5
    eighth, half, quarter = (MEMORY_RAN_OUT.index(word) for word in ("an eighth", "half of", "a quarter"))
    flags = ("--checkpoint-activations", "--sequential-guidance", "--frames-per-chunk 1", "--offload")
    places = [MEMORY_RAN_OUT.index(flag) for flag in flags]
    assert sorted([eighth, half, quarter, *places]) == [
        places[0],
        eighth,
        places[1],
        half,
        places[2],
        quarter,
        places[3],
    ]


@pytest.mark.filterwarnings("ignore:offload moves nothing")
def test_options_reach_every_network_that_is_run(loaded, run, monkeypatch, ball):
    """Activations are recorded of both guidance halves together, whatever the option says."""
    pytest.importorskip("matplotlib")
    layer = torch.nn.Identity()
    loaded.pipeline.unet.up_blocks = second_block(layer)
    seen = []
    loaded.pipeline.unet.register_forward_pre_hook(lambda _, inputs: seen.append(layer(inputs[0])))
    used = {}

    def watch(name):
        original = getattr(running, name)

        def watched(*arguments, sequential_guidance, offload, frames_per_chunk, **options):
            used[name] = (sequential_guidance, offload, frames_per_chunk)
            how = {"sequential_guidance": sequential_guidance, "offload": offload, "frames_per_chunk": frames_per_chunk}
            return original(*arguments, **how, **options)

        monkeypatch.setattr(running, name, watched)

    for name in ("generate", "run_methods", "record_activations"):
        watch(name)
    monkeypatch.setattr(running, "record_matching", lambda *_, **__: {})  # of a real network's attention
    figures = ["--compare", "--record-activations"]
    run(*ball, *figures, "--sequential-guidance", "--offload", "--frames-per-chunk", "2")
    given = (True, True, 2)
    assert used == {"generate": given, "run_methods": given, "record_activations": (False, True, 2)}
    run(*ball, *figures)
    assert set(used.values()) == {(False, False, 4)}


def test_every_run_is_held_against_the_memory_before_the_first(loaded, run, monkeypatch, ball):
    asked = []

    def check(pipeline, plan, **how):
        asked.append((plan.prompt, plan.settings, tuple(how.values())))
        assert pipeline is loaded.pipeline and list(how) == ["sequential_guidance", "offload", "frames_per_chunk"]

    monkeypatch.setattr(job, "check_memory", check)
    loaded.pipeline.unet.before = lambda: asked.append("a run began")
    _, facts = run(*ball, "--prompt", "one red ball", "--sequential-guidance", "--method", "mask")
    (first, second), after = asked[:2], asked[2]
    assert [first[0], second[0], after] == ["a red ball", "one red ball", "a run began"]
    assert first[2] == second[2] == (True, False, 4)
    assert first[1].mask_normalization is facts[0]["settings"]["mask_normalization"] is False
    asked.clear()
    run(*ball, "--compare", "--seed", "1", "2", "--frames-per-chunk", "1")
    checks = asked[: asked.index("a run began")]
    assert {how for _, _, how in checks} == {(False, False, 1)}
    assert len({settings for _, settings, _ in checks}) == len(PRESETS)


def test_activations_are_held_against_it_with_both_halves_together(loaded, monkeypatch, refused, ball):
    pytest.importorskip("matplotlib")
    asked = []

    def check(pipeline, plan, **how):
        asked.append((plan.settings.mask_normalization, plan.settings.iterations, how["sequential_guidance"]))
        if len(asked) == 5:
            raise ValueError("too large")

    monkeypatch.setattr(job, "check_memory", check)
    assert refused(*ball, "--record-activations", "--sequential-guidance") == "error: too large"
    assert asked == [(True, 2, True), (False, 0, False), (False, 0, False), (True, 0, False), (True, 0, False)]


def test_what_cannot_fit_is_refused_before_the_first_run(tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(job, "check_memory", partial(memory.check_memory, capacity=10**6))
    monkeypatch.setattr(UNet3D, "forward", lambda *_: pytest.fail("a run began"))
    sentence = refused(*BOX, *TINY)
    assert sentence.startswith("error: 2 frames of 32x32 need at least 0.")
    assert sentence.endswith("or try --checkpoint-activations, --sequential-guidance and --offload")


# ---- Threads and versions ------------------------------------------------------------------------------------------


def test_a_run_goes_on_with_the_threads_it_began_with(stopped, run, capsys, ball, threads):
    torch.set_num_threads(1)
    (whole,), _ = run(*ball, *SIX)
    _, _, (left,) = stopped(KeyboardInterrupt(), 8, *ball, *SIX)
    torch.set_num_threads(2)
    (folder,), (facts,) = run("--resume", str(left))
    assert (facts["threads"], torch.get_num_threads()) == (1, 1)
    assert facts["resumed"] == [{"step": 2, "same_bits": True, "differences": []}]
    assert np.array_equal(frames(folder), frames(whole))


def test_other_circumstances_are_told_once_and_recorded(stopped, capsys, monkeypatch, ball, threads):
    """Another torch, and threads whose number cannot be set; two runs remain."""
    torch.set_num_threads(1)
    _, _, (left,) = stopped(KeyboardInterrupt(), 8, *ball, *SIX, "--seed", "0", "1", "--out", "all")
    torch.set_num_threads(2)
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    older = circumstances.versions()
    monkeypatch.setattr(circumstances, "versions", lambda: older | {"torch": "9.9", "av": None})
    assert train_free.main(["--resume", str(left)]) == 0
    printed = capsys.readouterr()
    differences = ["threads 1 -> 2", f"torch {older['torch']} -> 9.9", f"av {older['av']} -> None"]
    warnings = [line for line in printed.err.replace("\r", "\n").splitlines() if line.startswith("warning")]
    assert len(warnings) == 1 and warnings[0].endswith(": " + "; ".join(differences))
    first, second = (json.loads(Path(folder, "run.json").read_text()) for folder in printed.out.splitlines())
    assert first["resumed"] == [{"step": 2, "same_bits": False, "differences": differences}]
    assert second["resumed"] == []
    assert (second["threads"], second["versions"]["torch"]) == (2, "9.9")


# ---- The real network ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 2])
def test_the_same_seed_gives_the_same_bits(tmp_path, monkeypatch, capsys, threads, number):
    """Frozen and free steps, masks normalized, the prior's gradient, noise from the refinement and from DDIM."""
    torch.set_num_threads(number)
    monkeypatch.chdir(tmp_path)
    common = [*BOX, *TINY, "--frozen-steps", "1", "--eta", "0.5", "--show-masks"]
    for out, seed in (("once", "7"), ("twice", "7"), ("other", "8")):
        assert train_free.main([*common, "--seed", seed, "--out", out]) == 0
    once, twice, other = (contents(Path(name)) for name in ("once", "twice", "other"))
    facts = [json.loads(Path(name, "run.json").read_text()) for name in ("once", "twice")]
    assert [name for name in once if twice[name] != once[name]] == []
    assert "masks.png" in once
    assert facts[0]["records"] == facts[1]["records"]
    assert facts[0]["threads"] == facts[1]["threads"] == number
    assert other["frames/0000.png"] != once["frames/0000.png"]


def test_a_resumed_run_gets_its_figures(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    common = [*BOX, *TINY, "--frozen-steps", "1", "--compare", "--record-activations", "--show-masks"]
    assert train_free.main([*common, "--out", "whole"]) == 0
    forward, calls = UNet3D.forward, []

    def interrupted(*arguments, **options):
        calls.append(None)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return forward(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(UNet3D, "forward", interrupted)
        assert train_free.main([*common, "--out", "parts"]) == 130
    assert train_free.main(["--resume", "parts.unfinished"]) == 0
    whole, parts = contents(Path("whole")), contents(Path("parts"))
    assert [name for name in whole if parts.get(name) != whole[name]] == []
    figures = {"compare.png", "compare.mp4", "compare.json", "activations.png", "activations.json", "masks.png"}
    figures.add("distributions.png")
    assert figures <= set(whole)
    assert [note["step"] for note in json.loads(Path("parts/run.json").read_text())["resumed"]] == [1]
