"""A little of `run.py`, and that it would find what it looks for."""

import json
import shlex
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import run
from attempt import ACCEPTED, FAULT, REFUSED, Case, attempt

import ending
import train_free
from app import folder as outputs
from model.text import TextEncoder

COUNTS = {
    "trajectory files": 60,
    "prompts": 30,
    "flags": 60,
    "checkpoint folders": 15,
    "unfinished runs": 40,
}


@pytest.fixture(scope="module", autouse=True)
def imported():
    """An import that is cut short by the time limit would spoil all that follows."""
    assert attempt(Case([]), limit=600).verdict == ACCEPTED


@pytest.fixture(autouse=True)
def output(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "OUTPUT", tmp_path / "fuzz")


@pytest.mark.parametrize("kind", run.KINDS)
def test_every_input_is_accepted_or_refused_in_a_sentence(kind):
    tally = run.fuzz(kind, seed=1, numbers=range(COUNTS[kind]), limit=60)
    assert tally.faults == []
    assert tally.outcomes[ACCEPTED] + tally.outcomes[REFUSED] == COUNTS[kind]
    assert tally.outcomes[ACCEPTED] > 0 and len(tally.sentences) > 2  # neither all good nor all bad in one way


def test_an_accepted_input_can_be_sampled_to_the_end():
    tally = run.Tally("flags", accepted=[number for number in range(5) if is_accepted(number)])
    deep = run.go_deep([tally], seed=1, count=1, limit=60)
    assert (deep.outcomes[ACCEPTED] + deep.outcomes[REFUSED], deep.faults) == (1, [])


def is_accepted(number: int) -> bool:
    return attempt(run.draw("flags", 1, number)).verdict == ACCEPTED


# ---- The harness itself ----------------------------------------------------------------------------------------------


def crash(_):
    raise KeyError("a bug")


def hang(_):
    time.sleep(60)


def write(_):
    Path("left-over").write_text("")
    raise ValueError("refused")


def write_beside(_):
    Path("../left-over").mkdir()
    raise ValueError("refused")


def say_two_things(_):
    print("something went wrong", file=sys.stderr)
    raise ValueError("refused")


def talk(_):
    print("this is no place for news")
    raise ValueError("refused")


def exit_otherwise(_):
    sys.exit(3)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (crash, "KeyError: 'a bug'"),
        (hang, "not done after 0.5 seconds"),
        (write, "but wrote work/left-over"),
        (write_beside, "but wrote left-over"),
        (say_two_things, "more than a sentence"),
        (talk, "printed 'this is no place for news"),
        (exit_otherwise, "SystemExit: 3"),
    ],
)
def test_a_planted_fault_is_found(monkeypatch, fault, told):
    monkeypatch.setattr(train_free, "make", fault)
    outcome = attempt(Case([]), limit=0.5)
    assert outcome.verdict == FAULT and told in outcome.told


def test_what_the_command_says_is_judged_too(monkeypatch):
    monkeypatch.setattr(ending, "explain", lambda error: "two\nlines" if "--frames" in str(error) else "\x1b[31m")
    assert "no sentence, but 'error: two" in attempt(Case(["--frames", "0"])).told
    assert "control characters" in attempt(Case(["--fps", "0"])).told
    monkeypatch.setattr(ending, "explain", lambda error: "x" * 5000)
    assert "a sentence of 5007 characters" in attempt(Case(["--fps", "0"])).told


def test_all_before_sampling_is_tried_for_every_video(monkeypatch):
    """The prompt is encoded just before the first noise: a fault there in the second of two videos is seen."""
    encode = TextEncoder.encode
    monkeypatch.setattr(TextEncoder, "encode", lambda self, texts: crash(0) if "sea" in texts else encode(self, texts))
    assert attempt(Case(["--prompt", "sky"])).verdict == ACCEPTED
    assert "KeyError: 'a bug'" in attempt(Case(["--prompt", "sky", "--prompt", "sea"])).told


def test_a_folder_that_is_not_finished_is_found(monkeypatch):
    case = Case(["--prompt", "sky"]).shortened()
    assert attempt(case, 60, all_the_way=True).verdict == ACCEPTED
    monkeypatch.setattr(outputs, "write_mp4", lambda *_: None)
    assert "has no video.mp4" in attempt(case, 60, all_the_way=True).told


def test_a_faulty_input_is_kept_so_that_it_can_be_repeated(monkeypatch):
    monkeypatch.setattr(train_free, "make", crash)
    (fault,) = run.fuzz("trajectory files", seed=3, numbers=[7]).faults
    case, folder = run.draw("trajectory files", 3, 7), run.OUTPUT / "trajectory-files-3-7"
    assert run.draw("trajectory files", 3, 7) == case != run.draw("trajectory files", 4, 7)
    assert (folder / "path.json").read_bytes() == case.files["path.json"]
    assert json.loads((folder / "fault.json").read_text())["arguments"] == case.arguments
    words = shlex.split(fault["repeat"])
    assert words[2:] == ["--kind", "trajectory files", "--seed", "3", "--first", "7", "--count", "1"]


def test_the_table_adds_up():
    tally = run.Tally("prompts")
    for number, verdict in enumerate([ACCEPTED, REFUSED, REFUSED, FAULT]):
        tally.add(number, run.Outcome(verdict, "error: 'x' is 3", 0.5 + number))
    table = run.table([tally, run.total([tally, tally], "all")]).splitlines()
    assert table[2] == "| prompts | 4 | 1 | 2 | 1 | 3.5 s |"
    assert table[3] == "| all | 8 | 2 | 4 | 2 | 3.5 s |"
    assert (tally.sentences, tally.accepted) == ({"error: _ is _": 2}, [0])
