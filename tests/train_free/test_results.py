"""What a run leaves behind: pictures, records, comparisons."""

import html
import json
import math
import re
import shlex
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from adaptation.trajectory import Trajectory
from app import running
from app.arguments import EXAMPLE
from evaluation.figures.activations import FIGURE_2
from evaluation.figures.video import write_pngs
from sampling.generate import generate
from sampling.sampler import initial_state
from sampling.settings import PRESETS, SamplingSettings
from tests.helpers import second_block


def test_without_an_argument_the_example_runs_in_full(run, loaded):
    (folder,), (facts,) = run()
    assert folder.parent == Path("outputs")
    assert "a-red-ball-moving-over-the-ocean" in folder.name
    assert sorted(path.name for path in Path("outputs").iterdir()) == [folder.name]
    names = "boxes.mp4 boxes.png frames frames.png report.html run.json trajectory.json video.mp4"
    assert sorted(path.name for path in folder.iterdir()) == names.split()
    assert loaded.calls[0][0] == "tiny"
    assert (facts["prompt"], facts["subjects"], facts["method"]) == (
        *EXAMPLE["prompts"],
        ["red ball"],
        "full",
    )
    assert facts["boxes"][0][0] == list(EXAMPLE["box_from"])
    assert facts["boxes"][0][-1] == list(EXAMPLE["box_to"])
    assert all(record["rms_prior"][0] > 0 for record in facts["records"])


def test_pictures_show_the_frames(run, ball, video):
    (folder,), _ = run(*ball, "--fps", "12")
    frames = np.stack([np.asarray(Image.open(folder / "frames" / f"{i:04d}.png")) for i in range(4)])
    assert len(list((folder / "frames").iterdir())) == 4
    assert frames.shape == (4, 16, 24, 3)
    for name in ("video.mp4", "boxes.mp4"):
        read, fps = video(folder / name)
        assert read.shape == (4, 256, 384, 3)  # 16 pixels in blocks of 16 x 16
        assert fps == 12
    # The middle of every pixel's block; sharp edges between random colours leave some error of compression.
    middles = video(folder / "video.mp4")[0][:, 8::16, 8::16].astype(int)
    assert np.abs(middles - frames).mean() < 4
    sheet, marked = (np.asarray(Image.open(folder / name)) for name in ("frames.png", "boxes.png"))
    assert sheet.shape == marked.shape == (256, 4 * 384 + 3 * 4, 3)
    assert marked[0, 0].tolist() == [0, 255, 255]  # the box begins in the corner
    assert sheet[0, 0].tolist() == frames[0, 0, 0].tolist()
    assert np.array_equal(sheet[130:], marked[130:])  # and ends half way down


def test_without_boxes_there_is_nothing_to_draw(run):
    (folder,), (facts,) = run("--prompt", "blue sky", "--seed", "3")
    assert not list(folder.glob("boxes*")) + list(folder.glob("trajectory*"))
    assert (facts["method"], facts["boxes"], facts["subjects"], facts["seed"]) == ("plain", None, None, 3)
    assert facts["settings"]["iterations"] == 0


def test_run_json_is_enough_to_repeat_a_run(run, loaded, tmp_path, ball):
    (folder,), (facts,) = run(*ball, "--box-to", "0.5,0.5,1,1", "--seed", "9", "--negative-prompt", "sand")
    boxes = torch.tensor([[[math.nan] * 4 if box is None else box for box in track] for track in facts["boxes"]])
    result = generate(
        loaded.pipeline,
        facts["prompt"],
        Trajectory(boxes, facts["subjects"], facts["prompt"]),
        SamplingSettings(**facts["settings"]),
        facts["seed"],
        negative_prompt=facts["negative_prompt"],
        frames=facts["frames"],
        height=facts["height"],
        width=facts["width"],
    )
    write_pngs(tmp_path / "again", result.frames)
    for path in (tmp_path / "again").iterdir():
        assert path.read_bytes() == (folder / "frames" / path.name).read_bytes()
    assert json.loads(json.dumps(result.records)) == facts["records"]


def test_the_command_in_the_report_repeats_a_run_whose_file_has_changed(run):
    """Resampled from 2 boxes to 4, at thirds of the way, which no short decimal number meets."""
    path = Path("ball.json")
    path.write_text(json.dumps({"prompt": "sky", "subject": "sky", "boxes": [[0, 0.2, 0.5, 0.7], [0.5, 0, 1, 0.3]]}))
    resampled = ["--boxes", "ball.json", "--resample", "--subject", "red ball", "--prompt", "a red ball"]
    (_, folder), (_, facts) = run(*resampled, "--seed", "8", "9", "--eta", "0.5", "--out", "two runs")
    path.unlink()
    command = re.search('<code id="command">(.*?)</code>', (folder / "report.html").read_text())[1]
    program, script, *arguments = shlex.split(html.unescape(command))
    assert (program, script) == ("python", "train_free.py")
    assert arguments == ["--eta", "0.5", "--boxes", str(folder / "trajectory.json"), "--seed", "9"]
    (again,), (repeated,) = run(*arguments)
    for name in ("boxes", "subjects", "prompt", "seed", "settings", "records"):
        assert repeated[name] == facts[name]
    assert (again / "frames.png").read_bytes() == (folder / "frames.png").read_bytes()


def test_run_json_tells_what_made_it(run, ball):
    arguments = [*ball, "--frames-per-chunk", "2", "--checkpoint-activations", "--sequential-guidance"]
    _, (facts,) = run(*arguments)
    assert facts["arguments"] == arguments
    assert (facts["sequential_guidance"], facts["offload"]) == (True, False)
    assert facts["model"] == {"name": "small", "fingerprint": "0123"}
    assert (facts["frames"], facts["height"], facts["width"], facts["fps"]) == (4, 16, 24, 8)
    assert (facts["frames_per_chunk"], facts["checkpoint_activations"], facts["negative_prompt"]) == (2, True, "")
    assert (facts["device"], facts["dtype"], facts["threads"]) == ("cpu", "float32", torch.get_num_threads())
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["versions"]["python"] == sys.version.split()[0]
    assert {"transformers", "numpy", "einops", "av", "pillow", "safetensors"} <= set(facts["versions"])
    assert set(facts["seconds"]) == {"loading", "text", "sampling", "decoding", "writing"}
    assert [record["t"] for record in facts["records"]] == [501, 1]
    assert {"tau", "rms_prior", "rms_score", "rms_noise", "latent_std"} <= set(facts["records"][0])
    assert set(facts["settings"]) == {field.name for field in fields(SamplingSettings)}


def test_a_run_that_is_none_of_the_methods_is_a_row_of_its_own(run, ball):
    (folder,), (facts,) = run(*ball, "--compare", "--no-mask-normalization")
    rows = json.loads((folder / "compare.json").read_text())
    assert next(iter(rows)) == "as asked" and rows["as asked"]["settings"] == facts["settings"]
    assert rows["full"]["settings"]["mask_normalization"] is True


def test_all_methods_can_be_compared_from_one_noise(run, loaded, ball, video):
    calls = []
    loaded.pipeline.unet.before = lambda: calls.append(None)
    (folder,), (facts,) = run(*ball, "--compare", "--seed", "4", "--negative-prompt", "sand")
    rows = json.loads((folder / "compare.json").read_text())
    assert list(rows) == list(PRESETS)
    assert rows["full"] == {"settings": facts["settings"], "records": facts["records"]}
    assert len({json.dumps(row["settings"]) for row in rows.values()}) == len(PRESETS)
    # Two steps for seven of the methods, and two refinements before each in mask-norm+id and full; 50 steps for paper.
    assert len(calls) == 7 * 2 + 2 * 2 * 2 + 50 * 3
    assert len(video(folder / "compare.mp4")[0]) == 4
    assert (folder / "compare.png").exists()


def test_activations_can_be_recorded(run, loaded, monkeypatch, ball):
    pytest.importorskip("matplotlib")
    layer = torch.nn.Identity()
    loaded.pipeline.unet.up_blocks = second_block(layer)
    monkeypatch.setattr(running, "record_matching", lambda *_, **__: {})  # of a real network's attention
    seen = []
    loaded.pipeline.unet.register_forward_pre_hook(lambda _, inputs: seen.append(layer(inputs[0])))
    (folder,), _ = run(*ball, "--record-activations", "--steps", "3", "--seed", "5")
    variance = json.loads((folder / "activations.json").read_text())["variance"]
    assert {name: len(values) for name, values in variance.items()} == dict.fromkeys(FIGURE_2, 3)
    noise = initial_state([5], (4, 4, 2, 3)).z  # what the first step of every method sees
    assert all(v[0] == pytest.approx(noise.double().var(correction=0).item()) for v in variance.values())
    assert (folder / "activations.png").exists()


def test_an_absent_subject_is_null(run):
    Path("ball.json").write_text(
        json.dumps({"prompt": "a red ball", "subject": "red ball", "boxes": [[0.1, 0.2, 0.3, 0.7], None] * 2})
    )
    _, (facts,) = run("--boxes", "ball.json")
    assert facts["boxes"] == [[[0.1, 0.2, 0.3, 0.7], None] * 2]
