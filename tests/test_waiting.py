"""How torch's threads wait: chosen by what else runs, before torch is loaded, unless the user has chosen; no bit of a
run depends on it. What it does to a run's time stands in docs/speed.md.
"""

import waiting

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import file_names

ROOT = Path(__file__).parents[1]
COMMANDS = {
    "train_free": ["--steps", "1"],
    "evaluation": ["run"],
    "evaluation.ablate": [],
    "evaluation.variance": [],
    "evaluation.walkthrough": [],
    "weights.train_tiny.measure": [],
}
QUIET, BUSY = {"GOMP_SPINCOUNT": waiting.TURNS}, {"OMP_WAIT_POLICY": "passive"}


# ---- The choice ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("others", "threads", "chosen"),
    [(0, "4", QUIET), (1, "4", BUSY), (1, "3", QUIET), (3, "1", QUIET), (4, "1", BUSY), (9, "4,2", BUSY)],
)
def test_threads_sleep_where_there_are_more_tasks_than_cores(monkeypatch, others, threads, chosen):
    monkeypatch.setattr(waiting, "count_others", lambda: others)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    environment = {"OMP_NUM_THREADS": threads}
    waiting.settle(environment)
    assert environment == {"OMP_NUM_THREADS": threads} | chosen


@pytest.mark.parametrize("name", waiting.CHOSEN_BY_USER)
def test_what_the_user_says_stands(monkeypatch, name):
    monkeypatch.setattr(waiting, "count_others", lambda: 1000)
    environment = {name: "7"}
    waiting.settle(environment)
    assert environment == {name: "7"}


@pytest.mark.parametrize("said", [{}, {"OMP_NUM_THREADS": ""}, {"OMP_NUM_THREADS": "many"}])
def test_else_there_is_a_thread_for_each_core_that_may_be_used(said):
    assert waiting.count_threads(said) == len(os.sched_getaffinity(0))


def test_only_what_keeps_running_counts(monkeypatch):
    looks = iter([9, 3, 8])
    monkeypatch.setattr(waiting, "_running", lambda seconds: next(looks))
    assert waiting.count_others(looks=3) == 2  # three tasks, one of which looks


def test_a_busy_program_is_seen_and_a_system_that_does_not_say_is_quiet(monkeypatch):
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE
    ) as busy:
        busy.stdout.readline()
        assert waiting.count_others() >= 1
        busy.kill()
    monkeypatch.setattr(waiting, "Path", lambda name: Path("/nowhere"))
    assert waiting.count_others() == 0


# ---- The commands ----------------------------------------------------------------------------------------------------

AT_TORCH = """
import os, runpy, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            told = {key: os.environ[key] for key in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT") if key in os.environ}
            print(told, flush=True)
            os._exit(0)

sys.meta_path.insert(0, Finder())
name, *sys.argv[1:] = sys.argv[1:]
runpy.run_module(name, run_name="__main__", alter_sys=True)
"""


def environment_at_torch(command: str, **said: str) -> str:
    """What a command's process says about waiting when it comes to load torch; it ends there."""
    kept = {key: value for key, value in os.environ.items() if key not in waiting.CHOSEN_BY_USER}
    run = [sys.executable, "-c", AT_TORCH, command, *COMMANDS[command]]
    done = subprocess.run(run, env=kept | said, cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_chosen_when_torch_is_loaded(command):
    assert environment_at_torch(command) in (str(QUIET), str(BUSY))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_leaves_the_users_choice_alone(command):
    assert environment_at_torch(command, OMP_WAIT_POLICY="active") == "{'OMP_WAIT_POLICY': 'active'}"


def test_the_bits_are_the_same_either_way(tmp_path):
    """In two threads each, of which one waits for the other."""
    runs = []
    for number, chosen in enumerate((QUIET, BUSY)):
        out = tmp_path / str(number)
        words = ["train_free.py", "--steps", "1", "--frames", "2", "--out", str(out)]
        kept = {key: value for key, value in os.environ.items() if key not in waiting.CHOSEN_BY_USER}
        environment = kept | chosen | {"OMP_NUM_THREADS": "2"}
        subprocess.run([sys.executable, *words], env=environment, cwd=ROOT, check=True, capture_output=True)
        facts = json.loads((out / "run.json").read_text())
        assert facts["threads"] == 2
        pictures = [(out / name).read_bytes() for name in file_names(out) if name.endswith(".png")]
        runs.append((facts["records"], pictures))
    assert len(runs[0][1]) >= 2
    assert runs[0] == runs[1]
