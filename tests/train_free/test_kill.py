"""A run killed with SIGKILL, wherever that may be, is resumed to the same bits as one that was left alone."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

import train_free

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that can be forked")

BALL = ["--prompt", "a red ball", "--subject", "red ball", "--box-from", "0,0,0.5,0.5", "--eta", "0.5"]
SMALL = ["--model", "small", *BALL, "--steps", "6"]  # 3 calls of the network a step: two refinements and the step
# Frozen and free steps, both halves of Eq. 2, gradients through the network.
TINY = [*BALL, "--steps", "3", "--frozen-steps", "2", "--frames", "2", "--height", "32", "--width", "32"]
STEPS = random.Random(0).sample(range(1, 6), 3)  # after which of the steps 1 to 5 the kill comes
RUNS = [
    ("whole", SMALL, []),
    ("again", SMALL, []),
    *((f"random{step}", SMALL, [("network", 3 * step + 1 + step % 3)]) for step in STEPS),
    ("often", SMALL, [("network", 8), ("network", 2), ("network", 9), ("state", 1)]),
    ("renaming", SMALL, [("rename", 4)]),  # begun.json, then a file for each step: before that of step 3
    ("writing", SMALL, [("pictures", 1), ("report", 1), ("done", 1)]),
    ("tiny", TINY, []),
    ("killed_tiny", TINY, [("tiny", 5)]),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder in which all runs lie, and after which steps they were killed."""
    folder = tmp_path_factory.mktemp("killed")
    script = Path(__file__).parent / "kill.py"
    command = [sys.executable, str(script), json.dumps(RUNS)]
    root = str(Path(train_free.__file__).parent)
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout.splitlines()[-1])


def made(folder: Path) -> tuple[dict[str, bytes], list[dict]]:
    """Every frame's bytes, and the records."""
    frames = {path.name: path.read_bytes() for path in (folder / "frames").iterdir()}
    return frames, json.loads((folder / "run.json").read_text())["records"]


@pytest.mark.parametrize("name", [name for name, arguments, kills in RUNS if arguments is SMALL and name != "whole"])
def test_frames_and_records_are_those_of_a_run_left_alone(runs, name):
    folder, _ = runs
    assert made(folder / name) == made(folder / "whole")


def test_so_are_those_of_a_real_network(runs):
    folder, kept = runs
    assert made(folder / "killed_tiny") == made(folder / "tiny")
    assert kept["killed_tiny"] == [1]


def test_the_last_finished_step_is_kept(runs):
    _, kept = runs
    for step in STEPS:
        assert kept[f"random{step}"] == [step]
    # Calls 1 to 7 make two steps; the first after them is step 3's; 8 calls make two more; then step 5's is not kept.
    assert kept["often"] == [2, 2, 4, 4]
    assert kept["renaming"] == [2]
    assert kept["writing"] == [6, 6, 6]


def test_the_record_says_where_it_was_resumed(runs):
    folder, _ = runs
    resumed = {name: json.loads((folder / name / "run.json").read_text())["resumed"] for name, _, _ in RUNS}
    assert resumed["whole"] == []
    assert resumed["often"] == [{"step": step, "same_bits": True, "differences": []} for step in (2, 2, 4, 4)]


def test_nothing_else_is_left_behind(runs):
    folder, _ = runs
    assert {path.name for path in folder.iterdir()} == {name for name, _, _ in RUNS}
    contents = {path.name for path in (folder / "whole").iterdir()}
    assert all({path.name for path in (folder / name).iterdir()} == contents for name, _, _ in RUNS)
