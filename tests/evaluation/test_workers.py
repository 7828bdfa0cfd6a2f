"""However the work is shared, the files and the numbers are the same."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

command = importlib.import_module("evaluation.__main__")

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.filterwarnings("default:FID from:UserWarning")  # so few videos have fewer frames than features


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """Nothing of a launcher that runs the tests, and an empty working folder."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def evaluate(step, out, *arguments):
    assert command.main([step, "--out", out, *arguments]) == 0


def made(out):
    """All files of videos and measurements, and what results.json tells but for the command."""
    files = {path.name: path.read_bytes() for path in Path(out).glob("*/*")}
    return files, {k: v for k, v in json.loads(Path(out, "results.json").read_text()).items() if k != "command"}


def test_two_and_three_workers_make_what_one_makes(loaded):
    small, reference = ("--tracks", "2", "--methods", "plain", "mask"), ("--reference", "world:2")
    evaluate("run", "1", *small, *reference)
    for workers in (2, 3):
        out, videos = str(workers), 0
        for i in range(workers, 0, -1):  # in any order
            evaluate("generate", out, *small, "--shard", f"{i}/{workers}")
            share = len(list(Path(out, "files").glob("*.mkv"))) - videos
            assert share % 2 == 0  # both rows of an item
            assert 0 < share < 8
            videos += share
        for i in range(1, workers + 1):
            evaluate("extract", out, *reference, "--shard", f"{i}/{workers}")
        loaded.unet.calls = 0
        evaluate("reduce", out, *reference)
        assert made(out) == made("1")
        assert loaded.unet.calls == 0


def test_the_first_worker_helps_out_and_goes_on_to_the_tables(loaded, monkeypatch, capsys):
    small = ("--tracks", "2", "--methods", "plain")
    evaluate("run", "alone", *small)
    capsys.readouterr()
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "1")  # the third one never starts
    evaluate("run", "out", *small)
    assert capsys.readouterr().out == "worker 2 of 3 is done; the first one goes on to the tables\n"
    assert not Path("out/results.json").exists()
    monkeypatch.setenv("RANK", "0")
    order = []
    make = command.make_video
    monkeypatch.setattr(command, "make_video", lambda *a, **how: order.append(a[2].id) or make(*a, **how))
    evaluate("run", "out", *small)
    static, moving = (["jain-" + split + f"-000{n}" for n in (0, 1)] for split in ("static", "moving"))
    assert order == [static[0], moving[1], moving[1], moving[0], static[1], static[0]]  # its own, then from the end
    assert made("out") == made("alone")
    assert "mIoU" in capsys.readouterr().out


def test_two_real_processes_of_torchrun_make_what_one_makes():
    """The tiny checkpoint, whatever its weights, on two frames of 32 x 32 pixels and in two steps."""
    checkpoint = Path("checkpoint")
    for path in (ROOT / "weights" / "tiny").rglob("*"):
        if path.is_file():
            (checkpoint / path.relative_to(ROOT / "weights" / "tiny")).parent.mkdir(parents=True, exist_ok=True)
            (checkpoint / path.relative_to(ROOT / "weights" / "tiny")).symlink_to(path)
    (checkpoint / "train_free.json").unlink()
    recommended = {"prompt": "a red ball", "frames": 2, "height": 32, "width": 32, "settings": {"steps": 2}}
    (checkpoint / "train_free.json").write_text(json.dumps(recommended))
    small = ["--model", "checkpoint", "--tracks", "1", "--methods", "plain", "mask", "--reference", "world:2"]

    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "evaluation"]
    done = subprocess.run(
        [sys.executable, *launcher, "run", *small, "--out", "torchrun"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "worker 2 of 2 is done" in done.stdout
    assert Path("torchrun/tables.md").read_text() in done.stdout
    evaluate("run", "alone", *small)
    assert made("torchrun") == made("alone")
    assert len(list(Path("alone/files").glob("*.mkv"))) == 4
