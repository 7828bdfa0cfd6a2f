"""The command line from arguments to files, on a pipeline of a few lines in place of a checkpoint."""

import errno
import json
import math
import subprocess
import sys
import warnings
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from PIL import Image

import train_free
from adaptation.trajectory import Trajectory
from evaluation import outputs
from evaluation.video import write_pngs
from sampling.generate import generate
from sampling.sampler import initial_state
from sampling.schedule import NoiseSchedule
from sampling.settings import PRESETS, SamplingSettings
from weights import load

ROOT = Path(train_free.__file__).parent
BALL = ["--prompt", "a red ball", "--subject", "red ball", "--box-from", "0,0,0.5,0.5"]


class UNet(torch.nn.Module):
    """eps of a unit Gaussian, moved by the mean of the text; `before` is called first."""

    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(in_channels=4)
        self.scale = torch.nn.Parameter(torch.tensor(0.9), requires_grad=False)
        self.checkpoint_activations = False
        self.before = lambda: None

    def forward(self, z, t, text, control=None):
        self.before()
        return self.scale * (z.repeat(2, 1, 1, 1, 1) + text.mean((1, 2))[:, None, None, None, None])


class VAE(torch.nn.Module):
    config = SimpleNamespace(downscale=8)

    def decode(self, latents, frames_per_chunk):
        return torch.nn.functional.interpolate((latents[:, :3] / 8).tanh(), scale_factor=(1, 8, 8))


class Words:
    def encode(self, prompts):
        if any(len(prompt.split()) > 7 for prompt in prompts):
            warnings.warn("the prompt is too long, cut before 'meadow'", stacklevel=2)
        return torch.tensor([[[len(prompt) / 20]] * 8 for prompt in prompts])

    def subject_tokens(self, prompt, subject):
        if subject not in prompt:
            raise ValueError(f"subject {subject!r} is not in the prompt {prompt!r}")
        words = prompt.split()
        return torch.tensor([1 <= i <= len(words) and words[i - 1] in subject.split() for i in range(8)])


@pytest.fixture
def loaded(monkeypatch, tmp_path):
    """Puts the pipeline in load_pipeline's place, in an empty working folder; holds it and how it was loaded."""
    pipeline = SimpleNamespace(
        unet=UNet(),
        vae=VAE(),
        text_encoder=Words(),
        schedule=NoiseSchedule(1000, 0.00085, 0.012, "scaled_linear", steps_offset=1, set_alpha_to_one=False),
        defaults=SimpleNamespace(
            frames=4, height=16, width=24, fps=8, prompt="grass", settings={"steps": 2, "c_g": 5.0, "gamma": 0.1}
        ),
        name="small",
        fingerprint="0123",
    )
    calls = []
    monkeypatch.setattr(load, "load_pipeline", lambda *arguments: calls.append(arguments) or pipeline)
    monkeypatch.chdir(tmp_path)
    return SimpleNamespace(pipeline=pipeline, calls=calls)


@pytest.fixture
def run(loaded, capsys):
    """run(*arguments) -> the folders that were printed, and the contents of their run.json."""

    def run(*arguments):
        code = train_free.main(list(arguments))
        printed = capsys.readouterr()
        assert code == 0, printed.err
        folders = [Path(line) for line in printed.out.splitlines()]
        return folders, [json.loads((folder / "run.json").read_text()) for folder in folders]

    return run


def files() -> set[str]:
    """All that lies in the working folder, hidden files too."""
    return {str(path) for path in Path().rglob("*")}


def video(path: Path) -> tuple[np.ndarray, float]:
    with av.open(str(path)) as container:
        rate = float(container.streams.video[0].average_rate)
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]), rate


# ---- Results -------------------------------------------------------------------------------------------------------


def test_without_an_argument_the_example_runs_in_full(run, loaded):
    (folder,), (facts,) = run()
    assert folder.parent == Path("outputs")
    assert "a-red-ball-moving-over-the-grass" in folder.name
    assert sorted(path.name for path in Path("outputs").iterdir()) == [folder.name]
    names = ["boxes.mp4", "boxes.png", "frames", "frames.png", "run.json", "video.mp4"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert loaded.calls[0][0] == "tiny"
    assert (facts["prompt"], facts["subjects"], facts["method"]) == (
        *train_free.EXAMPLE["prompt"],
        ["red ball"],
        "full",
    )
    assert facts["boxes"][0][0] == list(train_free.EXAMPLE["box_from"])
    assert facts["boxes"][0][-1] == list(train_free.EXAMPLE["box_to"])
    assert all(record["rms_prior"][0] > 0 for record in facts["records"])


def test_pictures_show_the_frames(run):
    (folder,), _ = run(*BALL, "--fps", "12")
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
    assert not list(folder.glob("boxes*"))
    assert (facts["method"], facts["boxes"], facts["subjects"], facts["seed"]) == ("plain", None, None, 3)
    assert facts["settings"]["iterations"] == 0


def test_run_json_is_enough_to_repeat_a_run(run, loaded, tmp_path):
    (folder,), (facts,) = run(*BALL, "--box-to", "0.5,0.5,1,1", "--seed", "9", "--negative-prompt", "sand")
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


def test_run_json_tells_what_made_it(run):
    arguments = [*BALL, "--frames-per-chunk", "2", "--checkpoint-activations"]
    _, (facts,) = run(*arguments)
    assert facts["arguments"] == arguments
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


def test_all_methods_can_be_compared_from_one_noise(run, loaded):
    calls = []
    loaded.pipeline.unet.before = lambda: calls.append(None)
    (folder,), (facts,) = run(*BALL, "--compare", "--seed", "4", "--negative-prompt", "sand")
    rows = json.loads((folder / "compare.json").read_text())
    assert list(rows) == list(PRESETS)
    assert rows["full"] == {"settings": facts["settings"], "records": facts["records"]}
    assert len({json.dumps(row["settings"]) for row in rows.values()}) == len(PRESETS)
    # Two steps for each of the seven methods, and two refinements before each in mask-norm+id, full and paper.
    assert len(calls) == 7 * 2 + 3 * 2 * 2
    assert len(video(folder / "compare.mp4")[0]) == 4
    assert (folder / "compare.png").exists()


def test_activations_can_be_recorded(run, loaded):
    pytest.importorskip("matplotlib")
    layer = torch.nn.Identity()
    loaded.pipeline.unet.up_blocks = [None, SimpleNamespace(attentions=[layer])]
    seen = []
    loaded.pipeline.unet.register_forward_pre_hook(lambda _, inputs: seen.append(layer(inputs[0])))
    (folder,), _ = run(*BALL, "--record-activations", "--steps", "3", "--seed", "5")
    variance = json.loads((folder / "activations.json").read_text())["variance"]
    assert {name: len(values) for name, values in variance.items()} == {"plain": 3, "mask": 3, "mask-norm": 3}
    noise = initial_state([5], (4, 4, 2, 3)).z  # what the first step of every method sees
    assert all(v[0] == pytest.approx(noise.double().var(correction=0).item()) for v in variance.values())
    assert (folder / "activations.png").exists()


def test_an_absent_subject_is_null(run):
    Path("ball.json").write_text(
        json.dumps({"prompt": "a red ball", "subject": "red ball", "boxes": [[0.1, 0.2, 0.3, 0.7], None] * 2})
    )
    _, (facts,) = run("--boxes", "ball.json")
    assert facts["boxes"] == [[[0.1, 0.2, 0.3, 0.7], None] * 2]


# ---- Arguments -----------------------------------------------------------------------------------------------------


def test_every_setting_has_a_flag():
    assert set(train_free.SETTINGS) == {field.name for field in fields(SamplingSettings)}


@pytest.mark.parametrize(
    ("flags", "name", "value"),
    [
        ("--steps 3", "steps", 3),
        ("--guidance-scale 2.5", "guidance_scale", 2.5),
        ("--eta 0.5", "eta", 0.5),
        ("--frozen-steps 0", "frozen_steps", 0),
        ("--where up mid", "where", ["up", "mid"]),
        ("--attention cross", "attention", ["cross"]),
        ("--grid cover", "grid", "cover"),
        ("--start-token background", "start_token", "background"),
        ("--no-normalize", "normalize", False),
        ("--normalize-in self", "normalize_in", ["self"]),
        ("--axis channel", "axis", "channel"),
        ("--gradient straight-through", "gradient", "straight-through"),
        ("--iterations 1", "iterations", 1),
        ("--c-g 7", "c_g", 7.0),
        ("--gamma 0.2", "gamma", 0.2),
        ("--refine-steps 1", "refine_steps", 1),
        ("--prior-gradient detached", "prior_gradient", "detached"),
        ("--normalize-gradient", "normalize_gradient", True),
    ],
)
def test_a_flag_changes_its_setting_alone(run, flags, name, value):
    _, (plain,) = run(*BALL)
    _, (changed,) = run(*BALL, *flags.split())
    assert plain["settings"][name] != value
    assert changed["settings"] == {**plain["settings"], name: value}


def test_the_method_is_laid_over_the_checkpoint_and_flags_over_both(run):
    _, (full,) = run(*BALL)
    assert (full["settings"]["c_g"], full["settings"]["gamma"], full["settings"]["iterations"]) == (5.0, 0.1, 2)
    _, (paper,) = run(*BALL, "--method", "paper", "--gamma", "0.3")
    assert (paper["settings"]["c_g"], paper["settings"]["gamma"]) == (10_000.0, 0.3)
    _, (mask,) = run(*BALL, "--method", "mask")
    assert (mask["method"], mask["settings"]["normalize"], mask["settings"]["iterations"]) == ("mask", False, 0)


def test_size_and_length_are_the_users(run):
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


def test_a_box_without_an_end_stays(run):
    _, (facts,) = run(*BALL)
    assert facts["boxes"] == [[[0, 0, 0.5, 0.5]] * 4]
    _, (one,) = run(*BALL, "--box-to", "0.5,0.5,1,1", "--frames", "1")
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


# ---- Folders -------------------------------------------------------------------------------------------------------


def test_nothing_is_overwritten(run, monkeypatch):
    monkeypatch.setattr(outputs, "folder_name", lambda prompt, seed: "same")
    names = []
    for seed in ("0", "1", "2"):
        (folder,), _ = run("--prompt", "sky", "--seed", seed)
        names.append(folder.name)
    assert names == ["same", "same-2", "same-3"]
    assert [json.loads(Path("outputs", name, "run.json").read_text())["seed"] for name in names] == [0, 1, 2]


def test_out_names_the_folder_itself(run):
    (folder,), _ = run("--prompt", "sky", "--out", "deep/er/sky")
    assert folder == Path("deep/er/sky")
    assert (folder / "video.mp4").exists()


def test_a_name_taken_while_running_is_left_alone(run, loaded):
    loaded.pipeline.unet.before = lambda: Path("mine").mkdir(exist_ok=True)
    (folder,), _ = run("--prompt", "sky", "--out", "mine")
    assert folder == Path("mine-2")
    assert list(Path("mine").iterdir()) == []


@pytest.mark.parametrize(
    ("prompt", "slug"),
    [("A red ball, moving!", "a-red-ball-moving"), ("?!", "video"), ("..//x", "x"), ("ab " * 40, ("ab-" * 13) + "a")],
)
def test_a_prompt_makes_a_safe_name(prompt, slug):
    assert outputs.folder_name(prompt, 3).split("-", 2)[2] == f"{slug}-seed3"


# ---- Interruptions -------------------------------------------------------------------------------------------------


def test_control_c_keeps_finished_runs_alone(loaded, capsys):
    calls = []

    def interrupt_the_second_run():
        calls.append(None)
        if len(calls) == 4:  # two steps a run
            raise KeyboardInterrupt

    loaded.pipeline.unet.before = interrupt_the_second_run
    assert train_free.main(["--prompt", "sky", "--seed", "0", "1", "2"]) == 130
    printed = capsys.readouterr()
    (finished,) = Path("outputs").iterdir()
    assert printed.out == f"{finished}\n"
    assert json.loads((finished / "run.json").read_text())["seed"] == 0
    assert printed.err.splitlines()[-1].startswith("interrupted: ")
    assert "Traceback" not in printed.err


def test_control_c_while_writing_leaves_nothing(loaded, capsys, monkeypatch):
    def interrupt(path, *_):
        assert path.parent.name.startswith(".")  # nothing has its final name yet
        raise KeyboardInterrupt

    monkeypatch.setattr(outputs, "write_mp4", interrupt)
    assert train_free.main(["--prompt", "sky"]) == 130
    assert files() == {"outputs"}
    assert capsys.readouterr().out == ""


# ---- What is refused -----------------------------------------------------------------------------------------------


def refused(capsys, *arguments) -> str:
    """The one sentence on stderr with which the arguments are refused, nothing having been written."""
    before = files()
    assert train_free.main(list(arguments)) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert files() == before
    (line,) = printed.err.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--height 60", "--height: must be from 8 to 8192, a multiple of 8, got 60"),
        ("--width 0", "--width: must be from 8"),
        ("--frames 0", "--frames: must be from 1 to 10000, got 0"),
        ("--frames 2.5", "--frames: invalid int value: '2.5'"),
        ("--fps nan", "--fps: must be from 0.1 to 1000, got nan"),
        ("--seed -1", "--seed: must be from 0 to 18446744073709551615, got -1"),
        ("--seed", "--seed: expected at least one argument"),
        ("--frames-per-chunk 0", "--frames-per-chunk: must be from 1"),
        ("--steps 0", "steps must be an integer from 1"),
        ("--guidance-scale inf", "guidance_scale must be a number from 0 to 1000, got inf"),
        ("--gamma nan", "gamma must be a number from 0 to 1, got nan"),
        ("--c-g x", "--c-g: invalid float value: 'x'"),
        ("--where everywhere", "--where: invalid choice: 'everywhere'"),
        ("--method best", "--method: invalid choice: 'best'"),
        ("--dtype int8", "--dtype: invalid choice: 'int8'"),
        ("--colour red", "unrecognized arguments: --colour red"),
        ("--step 3", "unrecognized arguments: --step 3"),
        ("--prompt=", "--prompt must have at least one word"),
        ("--prompt sky --method mask", "--method needs --boxes or --box-from"),
        ("--prompt sky --c-g 3 --where up", "--where, --c-g needs --boxes or --box-from"),
        ("--prompt sky --compare", "--compare needs --boxes or --box-from"),
        ("--prompt sky --record-activations", "--record-activations needs --boxes or --box-from"),
        ("--prompt sky --subject sky", "--subject needs --boxes or --box-from"),
        ("--prompt sky --box-to 0,0,1,1", "--box-to needs --box-from"),
        ("--prompt sky --resample", "--resample needs --boxes FILE"),
        ("--prompt sky --box-from 0,0,1,1", "--box-from needs one --subject"),
        ("--box-from 0,0,1,1 --subject a --subject b", "--box-from needs one --subject"),
        ("--box-from 0,0,1,1 --subject a --boxes a.json", "--boxes and --box-from exclude each other"),
        ("--box-from 0,0,1 --subject sky", "--box-from: must be four finite numbers x1,y1,x2,y2, got 0,0,1"),
        ("--box-from nan,nan,nan,nan --subject sky", "--box-from: must be four finite numbers"),
        ("--box-from 0,zero,1,1 --subject sky", "--box-from: invalid"),
        ("--box-from 0.5,0,0.5,1 --subject sky", "the box (0.5, 0.0, 0.5, 1.0) is empty"),
        ("--box-from 0,0,1.5,1 --subject sky", "reaches outside the frame"),
        ("--boxes missing.json", "missing.json: the trajectory file cannot be read"),
        ("--boxes broken.json", "broken.json: the file is not JSON"),
        ("--boxes five.json --frames 4", "five.json: subject 'red ball' has boxes for 5 frames, but the video has 4"),
        ("--out taken", "--out taken exists already"),
        ("--out taken/file/x", "taken/file is not a folder that can be written to"),
        ("--out taken/file --seed 0 1", "taken/file is not a folder that can be written to"),
    ],
)
def test_a_slip_is_refused_before_the_model_is_loaded(loaded, capsys, arguments, sentence):
    Path("taken").mkdir()
    Path("taken/file").write_text("")
    Path("broken.json").write_text("{")
    five = {"prompt": "a red ball", "subject": "red ball", "boxes": [[0, 0, 1, 1]] * 5}
    Path("five.json").write_text(json.dumps(five))
    assert sentence in refused(capsys, *arguments.split(" "))
    assert loaded.calls == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--boxes five.json", "five.json: subject 'red ball' has boxes for 5 frames, but the video has 4"),
        ("--boxes five.json --resample --prompt sky", "subject 'red ball' is not in the prompt 'sky'"),
        ("--box-from 0,0,1,1 --subject sky", "subject 'sky' is not in the prompt 'grass'"),
        ("--prompt ball --prompt sky --box-from 0,0,1,1 --subject ball", "subject 'ball' is not in the prompt 'sky'"),
        ("--prompt sky --steps 600", "600 steps cannot be spaced evenly"),
    ],
)
def test_what_the_checkpoint_decides_is_refused_before_the_first_run(loaded, capsys, arguments, sentence):
    five = {"prompt": "a red ball", "subject": "red ball", "boxes": [[0, 0, 1, 1]] * 5}
    Path("five.json").write_text(json.dumps(five))
    loaded.pipeline.unet.before = lambda: pytest.fail("a run began")
    assert sentence in refused(capsys, *arguments.split(" "))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--device nowhere", "device 'nowhere' cannot be used here"),
        ("--model missing/folder/x", "missing/folder/x"),
    ],
)
def test_what_the_loader_refuses_is_one_sentence(tmp_path, monkeypatch, capsys, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    assert sentence in refused(capsys, *arguments.split(" "))


def test_a_folder_without_permission_is_refused(loaded, capsys, monkeypatch):
    monkeypatch.setattr(outputs.os, "access", lambda path, mode: False)  # root is allowed everything
    assert ". is not a folder that can be written to; name another with --out" in refused(capsys, "--prompt", "sky")
    assert loaded.calls == []


def failing(error):
    def fail(*_):
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ValueError("weights/x/unet: 3 tensors are missing"), "error: weights/x/unet: 3 tensors are missing"),
        (OSError(errno.EACCES, "Permission denied", "x.safetensors"), "error: x.safetensors: Permission denied"),
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "error: memory ran out; make"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "error: memory ran out; make"),
        (MemoryError(), "error: memory ran out; make"),
    ],
)
def test_what_goes_wrong_outside_the_program_is_one_sentence(loaded, capsys, monkeypatch, error, sentence):
    monkeypatch.setattr(load, "load_pipeline", failing(error))
    assert refused(capsys, "--prompt", "sky").startswith(sentence)


def test_latents_that_are_not_finite_end_the_run_in_one_sentence(loaded, capsys):
    loaded.pipeline.unet.scale.fill_(math.nan)
    assert train_free.main(["--prompt", "sky"]) == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert last == ("error: latents are not finite after step 1 of 2 (t = 501): run the network in float32 or bfloat16")
    assert files() == set()


def test_a_full_disk_leaves_nothing_half_written(loaded, capsys, monkeypatch):
    monkeypatch.setattr(outputs, "write_png", failing(OSError(errno.ENOSPC, "No space left on device", "a.png")))
    assert train_free.main(["--prompt", "sky"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "error: a.png: No space left on device"
    assert files() == {"outputs"}


def test_a_fault_of_the_program_keeps_its_traceback(loaded):
    loaded.pipeline.unet.before = failing(KeyError("bug"))
    with pytest.raises(KeyError, match="bug"):
        train_free.main(["--prompt", "sky"])


@pytest.mark.filterwarnings("default::UserWarning")
def test_a_warning_is_one_clean_line(loaded, capsys):
    assert train_free.main(["--prompt", "a white horse on a very green meadow", "--seed", "0", "1"]) == 0
    told = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if "too long" in line]
    assert told == ["warning: the prompt is too long, cut before 'meadow'"]  # once, and no source line


def test_progress_is_shown_on_stderr(loaded, capsys):
    assert train_free.main(["--prompt", "sky", "--seed", "0", "1"]) == 0
    printed = capsys.readouterr()
    assert "video 1 of 2" in printed.err and "video 2 of 2" in printed.err
    assert printed.err.count("2/2") >= 2
    assert len(printed.out.splitlines()) == 2
