"""Names of folders, and what ends in one sentence."""

import errno
import json
import math
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import train_free
from app import folder as outputs
from app import job
from weights import load

# ---- Folders -------------------------------------------------------------------------------------------------------


def test_nothing_is_overwritten(run, monkeypatch):
    monkeypatch.setattr(job, "folder_name", lambda prompt, seed: "same")
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


# ---- Refusals ------------------------------------------------------------------------------------------------------


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
        ("--prompt sky --c-g 3 --where decoder", "--where, --c-g need --boxes or --box-from"),
        ("--prompt sky --compare", "--compare needs --boxes or --box-from"),
        ("--prompt sky --record-activations", "--record-activations needs --boxes or --box-from"),
        (
            "--steer edit --mask-normalization --box-from 0,0,1,1 --subject a",
            "--mask-normalization is of masked attention",
        ),
        (
            "--method trailblazer --mask-normalization --box-from 0,0,1,1 --subject a",
            "--mask-normalization is of masked attention",
        ),
        ("--prompt sky --subject sky", "--subject needs --boxes or --box-from"),
        ("--prompt sky --box-to 0,0,1,1", "--box-to needs --box-from"),
        ("--prompt sky --resample", "--resample needs --boxes FILE"),
        ("--prompt sky --box-from 0,0,1,1", "--box-from needs one --subject"),
        ("--box-from 0,0,1,1 --subject a --subject b", "--box-from needs one --subject"),
        ("--box-from 0,0,1,1 --subject a --boxes a.json", "--boxes and --box-from exclude each other"),
        ("--box-from 0,zero,1,1 --subject sky", "--box-from: must be four finite numbers x1,y1,x2,y2, got 0,zero,1,1"),
        ("--box-from 0,0,1 --subject sky", "--box-from: must be four finite numbers x1,y1,x2,y2, got 0,0,1"),
        ("--box-from nan,nan,nan,nan --subject sky", "--box-from: must be four finite numbers"),
        ("--box-from 0.5,0,0.5,1 --subject sky", "the box (0.5, 0.0, 0.5, 1.0) is empty"),
        ("--box-from 0,0,1.5,1 --subject sky", "reaches outside the frame"),
        ("--boxes missing.json", "missing.json: the trajectory file cannot be read"),
        ("--boxes broken.json", "broken.json: the file is not JSON"),
        ("--boxes five.json --frames 4", "five.json: subject 'red ball' has boxes for 5 frames, but the video has 4"),
        ("--out taken", "--out taken exists already"),
        ("--out taken/file/x", "taken/file is not a folder that can be written to"),
        ("--out taken/file --seed 0 1", "taken/file is not a folder that can be written to"),
        ("--out " + "x" * 240, "--out has a name of 240 letters, too long for a disk; name a shorter one"),
        ("--out new/" + "x" * 240, "--out has a name of 240 letters"),
        ("--prompt \ud800", "an argument holds half a character, a lone surrogate, in '\\ud800'; write it in UTF-8"),
        ("--prompt sky --negative-prompt \udcff", "an argument holds half a character"),
        ("--prompt sky --out \udcff", "an argument holds half a character"),
        ("--prompt " + "x" * 50_001, "an argument has 50001 characters, more than the 50000 that are allowed"),
        ("--prompt=--", "--prompt needs a value, not '--'"),
        ("--colour\nred", "unrecognized arguments: --colour red"),
        ("--height \n5", "--height: must be from 8 to 8192, a multiple of 8, got 5"),
        ("--out half", "half.unfinished holds an unfinished run; go on with --resume half.unfinished, or delete it"),
        ("--resume missing.unfinished", "missing.unfinished is no unfinished run; --resume needs a folder"),
        ("--resume half.unfinished", "half.unfinished is no unfinished run; --resume needs a folder"),
        ("--resume taken", "taken is no unfinished run; --resume needs a folder NAME.unfinished"),
        ("--resume taken/file", "taken/file is no unfinished run"),
        (
            "--resume half.unfinished --seed 0",
            "--memory, --checkpoint-activations, --sequential-guidance, --offload, --frames-per-chunk, but not --seed",
        ),
        ("--resume", "--resume: expected one argument"),
        ("--memory some", "--memory: invalid choice: 'some'"),
        ("--memory auto --offload", "--memory auto chooses --checkpoint-activations, --sequential-guidance, --offload"),
    ],
)
def test_a_slip_is_refused_before_the_model_is_loaded(loaded, arguments, sentence, refused):
    Path("taken").mkdir()
    Path("taken/file").write_text("")
    Path("half.unfinished").mkdir()
    Path("broken.json").write_text("{")
    five = {"prompt": "a red ball", "subject": "red ball", "boxes": [[0, 0, 1, 1]] * 5}
    Path("five.json").write_text(json.dumps(five))
    assert sentence in refused(*arguments.split(" "))
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
def test_what_the_checkpoint_decides_is_refused_before_the_first_run(loaded, arguments, sentence, refused):
    five = {"prompt": "a red ball", "subject": "red ball", "boxes": [[0, 0, 1, 1]] * 5}
    Path("five.json").write_text(json.dumps(five))
    loaded.pipeline.unet.before = lambda: pytest.fail("a run began")
    assert sentence in refused(*arguments.split(" "))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--device nowhere", "device 'nowhere' cannot be used here"),
        ("--device meta", "device 'meta' holds no numbers, so that nothing can be computed on it; try 'cpu'"),
        ("--model missing/folder/x", "missing/folder/x"),
    ],
)
def test_what_the_loader_refuses_is_one_sentence(tmp_path, monkeypatch, arguments, sentence, refused):
    monkeypatch.chdir(tmp_path)
    assert sentence in refused(*arguments.split(" "))


def test_a_folder_without_permission_is_refused(loaded, monkeypatch, refused):
    monkeypatch.setattr(outputs.os, "access", lambda path, mode: False)  # root is allowed everything
    assert ". is not a folder that can be written to; name another with --out" in refused("--prompt", "sky")
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
        (
            torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
            "error: memory ran out; --checkpoint",
        ),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "error: memory ran out; --checkpoint"),
        (MemoryError(), "error: memory ran out; --checkpoint"),
    ],
)
def test_what_goes_wrong_outside_the_program_is_one_sentence(loaded, monkeypatch, error, sentence, refused):
    monkeypatch.setattr(load, "load_pipeline", failing(error))
    assert refused("--prompt", "sky").startswith(sentence)


def test_latents_that_are_not_finite_end_the_run_in_one_sentence(loaded, capsys, files):
    loaded.pipeline.unet.scale.fill_(math.nan)
    assert train_free.main(["--prompt", "sky"]) == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith("error: latents are not finite after step 1 of 2 (t = 501): run the network in float32; ")
    assert files() == {"outputs"}


def test_a_disk_without_room_is_refused_before_the_first_run(loaded, monkeypatch, refused):
    """Two videos of 4 x 16 x 24 pixels: 2 * 3 * 2 * 1536 = 18432 bytes."""
    loaded.pipeline.unet.before = lambda: pytest.fail("a run began")
    monkeypatch.setattr(outputs.shutil, "disk_usage", lambda path: SimpleNamespace(free=18431))
    assert "has 0.0 MiB left, but the run may need 0.0 MiB; make room" in refused("--prompt", "sky", "--seed", "0", "1")
    loaded.pipeline.unet.before = lambda: None
    monkeypatch.setattr(outputs.shutil, "disk_usage", lambda path: SimpleNamespace(free=18432))
    assert train_free.main(["--prompt", "sky", "--seed", "0", "1"]) == 0


def test_a_page_of_a_broken_file_is_not_drawn_and_its_folder_not_made(loaded, refused):
    Path("boxes.json").write_text("{")
    for how in (["--draw", "--static"], ["--draw"]):
        assert refused(*how, "--boxes", "boxes.json").startswith("error: boxes.json: the file is not JSON")
        assert refused(*how, "--frames", "8", "--width", "100").startswith("error: ")
        assert "too long for a disk" in refused(*how, "--out", f"new/{'x' * 250}")
    assert refused("--draw", "--frames", "10001").startswith("error: ")
    assert "--static needs --draw" in refused("--static")
    assert "--port is of the page that --draw serves" in refused("--draw", "--static", "--port", "8000")


def test_a_port_that_is_taken_is_refused_before_weights_are_loaded(loaded, refused):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        sentence = refused("--draw", "--port", port)
    assert f"port {port} of 127.0.0.1 cannot be served" in sentence and "name another with --port" in sentence
    assert loaded.calls == []


def test_a_size_that_no_disk_holds_is_refused_before_its_masks_are_drawn(loaded, monkeypatch, ball, refused):
    """10000 x 8192 x 8192 pixels: 10 GiB for the mask of a subject, and 4 TB for the pictures."""
    monkeypatch.setattr(job, "make_plan", lambda *_, **__: pytest.fail("masks were drawn"))
    monkeypatch.setattr(outputs.shutil, "disk_usage", lambda path: SimpleNamespace(free=2**40))
    size = ["--frames", "10000", "--height", "8192", "--width", "8192"]
    assert "make room or name another --out" in refused(*ball, *size)


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
