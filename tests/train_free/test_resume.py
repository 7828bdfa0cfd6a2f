"""A run stopped by Ctrl-C, a full disk or a fault keeps its steps, says how to go on, and goes on to the same bits."""

import errno
import json
import shlex
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

import train_free
from app import folder as outputs
from app import unfinished
from app.unfinished import load_state, open_unfinished

FULL = OSError(errno.ENOSPC, "No space left on device")
SIX = ["--steps", "6", "--eta", "0.5"]  # with boxes 3 calls of the network a step: two refinements and the step's own


def frames(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((folder / "frames").iterdir())]


def command_in(line: str) -> list[str]:
    """The arguments of the command with which a message says that the run goes on."""
    program, script, *arguments = shlex.split(line.partition("to go on: ")[2])
    assert (program, script) == ("python", "train_free.py")
    return arguments


@pytest.fixture
def half(stopped, ball):
    """The folder of a run of six steps that was stopped after two."""
    code, _, (folder,) = stopped(KeyboardInterrupt(), 8, *ball, *SIX, "--out", "half")
    assert (code, folder) == (130, Path("half.unfinished"))
    return folder


# ---- Ctrl-C --------------------------------------------------------------------------------------------------------


def test_control_c_keeps_finished_runs_and_the_steps_done(stopped):
    """Without boxes two calls of the network make a run; the fourth would be the second run's last."""
    code, printed, (left,) = stopped(KeyboardInterrupt(), 4, "--prompt", "sky", "--seed", "0", "1", "2", "--out", "a b")
    assert code == 130
    (finished,) = set(Path("a b").iterdir()) - {left}
    assert printed.out == f"{finished}\n"
    assert json.loads((finished / "run.json").read_text())["seed"] == 0
    last = printed.err.splitlines()[-1]
    assert last == f"interrupted: finished runs are kept; to go on: python train_free.py --resume '{left}'"
    assert "Traceback" not in printed.err
    with closing(open_unfinished(left)) as run:
        assert (run.begun["seed"], load_state(run).step) == (1, 1)


def test_the_runs_that_remain_are_made_as_if_nothing_had_happened(stopped, run, capsys):
    """Two prompts and two seeds; stopped in the second run, and again in the fourth."""
    arguments = ["--prompt", "sky", "--prompt", "sand", "--seed", "4", "5", "--eta", "0.5", "--fps", "5"]
    whole, _ = run(*arguments, "--out", "whole")
    _, printed, _ = stopped(KeyboardInterrupt(), 4, *arguments, "--out", "parts")
    folders = printed.out.splitlines()
    _, printed, _ = stopped(KeyboardInterrupt(), 5, *command_in(printed.err.splitlines()[-1]))  # 1 + 2 + 2
    folders += printed.out.splitlines()
    rest, _ = run(*command_in(printed.err.splitlines()[-1]))
    folders = [*map(Path, folders), *rest]
    assert [frames(folder) for folder in folders] == [frames(folder) for folder in whole]
    assert set(Path("parts").iterdir()) == set(folders)
    told = [json.loads((folder / "run.json").read_text()) for folder in folders]
    assert [(f["prompt"], f["seed"], f["fps"]) for f in told] == [(p, s, 5.0) for p in ("sky", "sand") for s in (4, 5)]
    assert [[note["step"] for note in f["resumed"]] for f in told] == [[], [1], [], [1]]


def test_control_c_while_writing_keeps_every_step(loaded, run, capsys, monkeypatch, files, ball):
    (whole,), _ = run(*ball, *SIX, "--out", "whole")

    def interrupt(path, *_):
        assert path.parent == Path("half.unfinished/result")  # nothing has its final name yet
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(outputs, "write_mp4", interrupt)
        assert train_free.main([*ball, *SIX, "--out", "half"]) == 130
    printed = capsys.readouterr()
    assert printed.out == ""
    kept = {"half.unfinished", *(f"half.unfinished/{name}" for name in ("begun.json", "lock", "state.safetensors"))}
    assert {path for path in files() if path.startswith("half")} == kept
    loaded.pipeline.unet.before = lambda: pytest.fail("a step was made again")
    (folder,), (facts,) = run(*command_in(printed.err.splitlines()[-1]))
    assert folder == Path("half")
    assert frames(folder) == frames(whole)
    assert facts["resumed"] == [{"step": 6, "same_bits": True, "differences": []}]
    assert not Path("half.unfinished").exists()


@pytest.mark.parametrize(
    ("stop", "code", "told"),
    [
        (KeyboardInterrupt(), 130, "interrupted: no run was under way; finished ones are kept"),
        (FULL, 2, "error: No space left on device"),
    ],
)
def test_what_stops_a_run_at_once_leaves_nothing(loaded, capsys, monkeypatch, files, stop, code, told):
    def refuse(*_):
        raise stop

    monkeypatch.setattr(unfinished, "write_sealed", refuse)
    assert train_free.main(["--prompt", "sky"]) == code
    assert capsys.readouterr().err.splitlines() == [told]
    assert files() == {"outputs"}


# ---- Full disks and faults -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("owner", "name", "call", "step"),
    [
        (unfinished, "write_bytes", 3, 2),  # the third step's state
        (outputs, "write_png", 1, 6),
        (outputs, "write_mp4", 2, 6),
        (outputs, "write_report", 1, 6),
    ],
)
def test_a_full_disk_keeps_the_steps_done(run, capsys, monkeypatch, files, ball, owner, name, call, step):
    (whole,), _ = run(*ball, *SIX, "--out", "whole")
    original, calls = getattr(owner, name), []

    def fill_up(*arguments):
        calls.append(None)
        if len(calls) == call:
            raise FULL
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fill_up)
        assert train_free.main([*ball, *SIX, "--out", "half"]) == 2
    printed = capsys.readouterr()
    (sentence,) = [line for line in printed.err.splitlines() if line.startswith("error")]
    assert sentence == "error: No space left on device; to go on: python train_free.py --resume half.unfinished"
    assert "Traceback" not in printed.err and printed.out == ""
    assert not Path("half").exists() and not Path("half.unfinished/result").exists()
    (folder,), (facts,) = run("--resume", "half.unfinished")
    assert frames(folder) == frames(whole)
    assert facts["resumed"][0]["step"] == step
    assert {path.name for path in folder.iterdir()} == {path.name for path in whole.iterdir()}


def test_a_fault_of_the_program_says_how_to_go_on_too(loaded, capsys):
    def fault():
        raise KeyError("bug")

    loaded.pipeline.unet.before = fault
    with pytest.raises(KeyError, match="bug"):
        train_free.main(["--prompt", "sky", "--out", "half"])
    assert capsys.readouterr().err.splitlines()[-1] == "to go on: python train_free.py --resume half.unfinished"


def test_what_is_refused_before_the_first_step_leaves_nothing(loaded, capsys, monkeypatch, files):
    def refuse(prompts):
        raise ValueError("no such letters")

    monkeypatch.setattr(loaded.pipeline.text_encoder, "encode", refuse)
    assert train_free.main(["--prompt", "sky"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "error: no such letters"
    assert files() == {"outputs"}


def test_what_would_end_so_again_is_not_kept(loaded, capsys, monkeypatch):
    loaded.pipeline.vae.decode = lambda latents, frames_per_chunk: latents[:, :3] * float("nan")
    assert train_free.main(["--prompt", "sky", "--out", "half"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "error: the decoded pixels are not finite: run the autoencoder in float32"
    assert list(Path().iterdir()) == []


# ---- What cannot be resumed ----------------------------------------------------------------------------------------


def damaged(whole: bytes, every: int) -> Iterator[bytes]:
    """With one byte changed, or cut there, at every n-th place."""
    for i in range(0, len(whole), every):
        yield whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :]
        yield whole[:i]


def test_a_state_with_any_byte_changed_or_missing_is_refused(half, refused):
    run, path = open_unfinished(half), half / "state.safetensors"
    whole = path.read_bytes()
    assert load_state(run).step == 2
    for content in (whole.replace(b'"F32"', b'"I32"'), *damaged(whole, every=3)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"state\.safetensors is broken"):
            load_state(run)
    run.close()
    advice = "delete it to begin this video again, with all else as it was"
    assert refused("--resume", str(half)) == f"error: half.unfinished/state.safetensors is broken; {advice}"


def test_a_video_whose_state_was_deleted_begins_again(half, run, ball):
    (whole,), _ = run(*ball, *SIX, "--out", "whole")
    (half / "state.safetensors").unlink()
    (folder,), (facts,) = run("--resume", str(half))
    assert frames(folder) == frames(whole)
    assert facts["resumed"] == [{"step": 0, "same_bits": True, "differences": []}]


def test_a_begun_json_with_any_byte_changed_or_missing_is_refused(half, refused):
    path = half / "begun.json"
    for content in damaged(path.read_bytes().rstrip(), every=7):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is no unfinished run; --resume needs a folder"):
            open_unfinished(half)
    assert "half.unfinished is no unfinished run" in refused("--resume", str(half))


def test_a_run_of_another_version_is_refused(half, refused):
    begun = json.loads((half / "begun.json").read_text())
    version = "is of another version of this program: settings has the unknown key "
    for change, sentence in (
        ({"settings": {**begun["settings"], "old": 1}}, f"{version}'old'; known are steps"),
        ({"settings": {**begun["settings"], "normalize": True}}, f"{version}'normalize', which is now"),
        ({"settings": {**begun["settings"], "where": ["up"]}}, "'up' is now 'decoder'"),
        ({"arguments": ["--no-normalize"]}, "another version of this program: unrecognized arguments: --no-normalize"),
        ({"threads": None}, "its begun.json has no threads"),
    ):
        content = {k: v for k, v in {**begun, **change}.items() if v is not None and k != "checksum"}
        unfinished.write_sealed(half / "begun.json", content)
        assert sentence in refused("--resume", str(half))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"threads": "many"}, "another version of this program: threads is of another form there"),
        ({"arguments": [3]}, "arguments is of another form there"),
        ({"run": -1}, "run is of another form there"),
        ({"resumed": [3]}, "resumed is of another form there"),
        ({"model": {}}, "model is of another form there"),
        ({"trajectory": {"prompt": "", "subjects": ["red ball"], "boxes": [["x"]]}}, "boxes of another version"),
        ({"run": 1}, "half.unfinished is said to be video 2 of the 1 that its arguments ask for"),
    ],
)
def test_a_record_of_another_form_is_refused_and_left_as_it_is(half, refused, change, sentence):
    begun = json.loads((half / "begun.json").read_text())
    del begun["checksum"]
    unfinished.write_sealed(half / "begun.json", {**begun, **change})
    content = (half / "begun.json").read_bytes()
    assert sentence in refused("--resume", str(half))
    assert (half / "begun.json").read_bytes() == content


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda state: replace(state, step=99), "state.safetensors is broken"),
        (lambda state: replace(state, step="2"), "state.safetensors is broken"),
        (lambda state: replace(state, records=()), "state.safetensors is broken"),
        (lambda state: replace(state, records=("ab", "cd")), "state.safetensors is broken"),
        (lambda state: replace(state, records=tuple({**r, "tau": "1"} for r in state.records)), "is broken"),
        (lambda state: replace(state, z=state.z.double()), "state.safetensors is broken"),
        (lambda state: replace(state, z=state.z[:, :, :1]), "holds latents of another size than the run's; delete it"),
    ],
)
def test_a_state_of_another_run_is_refused_and_nothing_noted(half, refused, change, sentence):
    run, content = open_unfinished(half), (half / "begun.json").read_bytes()
    unfinished.save_state(run, change(load_state(run)))
    run.close()
    assert sentence in refused("--resume", str(half))
    assert (half / "begun.json").read_bytes() == content


def test_other_weights_are_refused(half, loaded, refused, run):
    loaded.pipeline.fingerprint = "4567"
    assert "half.unfinished was begun with other weights, 0123..., than small has now, 4567..." in refused(
        "--resume", str(half)
    )
    loaded.pipeline.fingerprint = "0123"
    run("--resume", str(half))


def test_a_run_that_is_being_made_is_left_alone(loaded, run, capsys):
    """The second process is this one again: a lock belongs to who opened the file, not to the process."""
    codes = []

    def disturb():
        loaded.pipeline.unet.before = lambda: None
        codes.append(train_free.main(["--resume", "mine.unfinished"]))

    loaded.pipeline.unet.before = disturb
    (folder,), (facts,) = run("--prompt", "sky", "--out", "mine")
    assert codes == [2]
    assert (folder, facts["resumed"]) == (Path("mine"), [])


def test_a_finished_run_is_not_resumed_twice(half, run, refused):
    run("--resume", str(half))
    assert "half.unfinished is no unfinished run" in refused("--resume", str(half))
