"""From flags, trajectory files and the checkpoint's recommendations to settings."""

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import train_free
from app.arguments import SETTINGS
from sampling.settings import SamplingSettings

ROOT = Path(train_free.__file__).parent


def test_every_setting_has_a_flag():
    assert set(SETTINGS) == {field.name for field in fields(SamplingSettings)}


@pytest.mark.parametrize(
    ("flags", "name", "value"),
    [
        ("--steps 3", "steps", 3),
        ("--guidance-scale 2.5", "guidance_scale", 2.5),
        ("--eta 0.5", "eta", 0.5),
        ("--frozen-steps 0", "frozen_steps", 0),
        ("--where decoder mid", "where", ["decoder", "mid"]),
        ("--attention cross", "attention", ["cross"]),
        ("--grid cover", "grid", "cover"),
        ("--subject-words ids", "subject_words", "ids"),
        ("--start-token background", "start_token", "background"),
        ("--no-mask-normalization", "mask_normalization", False),
        ("--normalize-in self", "normalize_in", ["self"]),
        ("--axis joint", "axis", "joint"),
        ("--matching-gradient exact", "matching_gradient", "exact"),
        ("--iterations 1", "iterations", 1),
        ("--c-g 7", "c_g", 7.0),
        ("--gamma 0.2", "gamma", 0.2),
        ("--refine-steps 1", "refine_steps", 1),
        ("--prior-gradient tweedie", "prior_gradient", "tweedie"),
        ("--unit-gradient", "unit_gradient", True),
        ("--steer edit", "steer", "edit"),
        ("--strengthen 0.3", "strengthen", 0.3),
        ("--weaken 0.1", "weaken", 0.1),
        ("--trailing 2", "trailing", 2),
    ],
)
def test_a_flag_changes_its_setting_alone(run, flags, name, value, ball):
    _, (plain,) = run(*ball)
    _, (changed,) = run(*ball, *flags.split())
    assert plain["settings"][name] != value
    assert changed["settings"] == {**plain["settings"], name: value}


def test_the_method_is_laid_over_the_checkpoint_and_flags_over_both(run, ball):
    _, (full,) = run(*ball)
    assert (full["settings"]["c_g"], full["settings"]["gamma"], full["settings"]["iterations"]) == (4600.0, 0.1, 2)
    _, (paper,) = run(*ball, "--method", "paper", "--gamma", "0.3")
    assert (paper["settings"]["c_g"], paper["settings"]["gamma"]) == (10_000.0, 0.3)
    _, (mask,) = run(*ball, "--method", "mask")
    assert (mask["method"], mask["settings"]["mask_normalization"], mask["settings"]["iterations"]) == (
        "mask",
        False,
        0,
    )


def test_size_and_length_are_the_users(run, video):
    (folder,), (facts,) = run("--prompt", "sky", "--frames", "3", "--height", "32", "--width", "8", "--fps", "2.5")
    assert np.asarray(Image.open(folder / "frames" / "0002.png")).shape == (32, 8, 3)
    assert (facts["frames"], facts["height"], facts["width"], facts["fps"]) == (3, 32, 8, 2.5)
    assert video(folder / "video.mp4")[1] == 2.5


def test_one_video_for_every_prompt_and_seed(run):
    folders, facts = run("--prompt", "sky", "--prompt", "sand", "--seed", "0", "1", "--out", "all")
    made = [("sky", 0), ("sky", 1), ("sand", 0), ("sand", 1)]
    assert [(f["prompt"], f["seed"]) for f in facts] == made
    assert {folder.parent for folder in folders} == {Path("all")}
    assert all(f"{prompt}-seed{seed}" in folder.name for folder, (prompt, seed) in zip(folders, made, strict=True))
    assert len({(folder / "frames" / "0000.png").read_bytes() for folder in folders}) == 4


def test_a_file_gives_boxes_subject_and_prompt(run):
    path = [[0.1 * i, 0.2, 0.1 * i + 0.5, 0.7] for i in range(4)]
    Path("ball.json").write_text(json.dumps({"prompt": "a red ball", "subject": "red ball", "boxes": path}))
    _, (facts,) = run("--boxes", "ball.json")
    assert (facts["prompt"], facts["subjects"], facts["method"]) == ("a red ball", ["red ball"], "full")
    assert np.allclose(facts["boxes"], [path])
    _, (other,) = run("--boxes", "ball.json", "--prompt", "one blue box", "--subject", "blue box")
    assert (other["prompt"], other["subjects"], other["boxes"]) == ("one blue box", ["blue box"], facts["boxes"])
    _, (longer,) = run("--boxes", "ball.json", "--frames", "7", "--resample")
    assert np.allclose(longer["boxes"][0][::2], path)
    _, (same,) = run("--boxes", "ball.json", "--resample", "--seed", "1")
    assert same["boxes"] == facts["boxes"]


def test_a_box_without_an_end_stays(run, ball):
    _, (facts,) = run(*ball)
    assert facts["boxes"] == [[[0, 0, 0.5, 0.5]] * 4]
    _, (one,) = run(*ball, "--box-to", "0.5,0.5,1,1", "--frames", "1")
    assert one["boxes"] == [[[0, 0, 0.5, 0.5]]]


def test_device_and_precision_are_handed_on(run, loaded):
    run("--prompt", "sky", "--model", "some/where", "--dtype", "bfloat16", "--device", "cpu")
    run("--prompt", "sky")
    assert loaded.calls == [("some/where", "cpu", torch.bfloat16), ("tiny", "cpu", torch.float32)]


@pytest.mark.parametrize(("device", "dtype"), [("cpu", torch.float32), ("cuda", torch.float16)])
def test_a_gpu_is_used_where_there_is_one_in_float16(run, loaded, monkeypatch, device, dtype):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: device == "cuda")
    run("--prompt", "sky")
    assert loaded.calls == [("tiny", device, dtype)]


def test_nothing_heavy_is_imported_for_help_or_a_slip():
    script = (
        "import sys, train_free\n"
        "try: train_free.main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert train_free.main(['--steps', 'many']) == train_free.main(['--c-g', 'nan']) == 2\n"
        "print({'torch', 'numpy', 'av', 'PIL', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--prior-gradient" in done.stdout
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize(
    ("flags", "idle"),
    [
        ("--method mask --c-g 5 --gamma 0.1", "--c-g, --gamma without effect: method mask leaves that part out"),
        ("--method mask --axis channel", "--axis without effect: method mask leaves that part out"),
        ("--method plain --where decoder", "--where without effect"),
        ("--method full --strengthen 0.1", "--strengthen without effect"),
        ("--method trailblazer --grid cover", "--grid without effect"),
        ("--c-g 0 --prior-gradient unet", "--prior-gradient without effect"),
        ("--method full --c-g 5 --where decoder --axis joint --gamma 0.1", ""),
        ("--method mask --c-g 5 --iterations 1 --mask-normalization --axis channel", ""),
        ("--method mask --c-g 5 --compare", ""),
    ],
)
def test_what_the_method_does_not_use_is_said(loaded, capsys, ball, flags, idle):
    assert train_free.main([*ball, *flags.split()]) == 0
    warned = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert len(warned) == bool(idle) and idle in "".join(warned)


def test_a_page_to_draw_on_is_written_without_weights(loaded, capsys, ball, monkeypatch):
    opened = []
    monkeypatch.setattr(train_free.webbrowser, "open", opened.append)
    assert train_free.main(["--draw", "--static", *ball]) == 0
    wide = ["--no-browser", "--model", "zeroscope", "--out", "wide.html"]
    assert train_free.main(["--draw", "--static", *wide]) == 0
    assert capsys.readouterr().out.split() == ["outputs/draw.html", "wide.html"]
    assert opened == [Path("outputs/draw.html").resolve().as_uri()]
    assert loaded.calls == []
    tiny, wide = Path("outputs/draw.html").read_text(), Path("wide.html").read_text()
    assert "8 frames of 128 × 96 pixels" in tiny and "a red ball" in tiny
    assert "24 frames of 576 × 320 pixels" in wide
