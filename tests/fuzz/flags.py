"""Flags of train_free.py with good values and bad ones, in any combination."""

import argparse
import random

from attempt import Case
from values import any_text, spoil_bytes, words

from app.arguments import build_parser
from sampling.settings import COUNTS, NUMBERS

BAD = ["", " ", "nan", "-nan", "inf", "-inf", "-1", "-0.5", "0", "1e400", "1e-400", "9" * 5000, "0x10", "1_0", "٣", "²"]
BAD += [
    "2**64",
    str(2**64),
    "1.5",
    "true",
    "None",
    "x",
    "\n5",
    "5\n",
    "a\nb",
    "%s",
    "--",
    "-",
    "\udcff",
    "é",
    ".",
    "..",
]
BOXES = ["0,0,1,1", "0.1,0.2,0.6,0.7", "0,0,0.001,0.001", "0.9,0.9,1,1"]
BAD_BOXES = ["0,0,0,0", "0,0,1", "0,0,1,1,1", "nan,0,1,1", "0,0,inf,1", "-0.1,0,1,1", "1,1,0,0", "0,0,1,1\n", "a,b,c,d"]
DEVICES = [
    "cpu",
    "cpu",
    "cpu:0",
    "cpu:1",
    "cuda:99",
    "mps",
    "meta",
    "xla",
    "xpu",
    "lazy",
    "vulkan",
    "hpu",
    "mkldnn",
    "ipu",
]
OUT = [
    "new",
    "a/b/c",
    "folder",
    "folder/new",
    "path.json",
    "path.json/x",
    "./new/",
    "../new",
    "x" * 300,
    "a/" + "x" * 250,
]
OUT += ["new\n", "\udcff", "é" * 120, "~", "", "/dev/null/x", "x/" * 3000 + "x"]
GOOD = {
    "--model": ["tiny", "tiny", "tiny", "missing/folder/x", "..", "", "a/b", "~nobody", "path.json"],
    "--prompt": ["a red ball", "a red ball over the sea", "red ball, red ball"],
    "--negative-prompt": ["", "blurry"],
    "--seed": ["0", "1", str(2**64 - 1)],
    "--frames": ["1", "2", "8", "9", "100"],
    "--height": ["8", "16", "96", "104", "1024"],
    "--width": ["8", "16", "128", "136", "1024"],
    "--fps": ["0.1", "8", "23.976", "1000"],
    "--boxes": ["path.json", "path.json", "missing.json", "folder", "/dev/null", ""],
    "--subject": ["red ball", "ball", "red", "a red ball"],
    "--device": DEVICES,
    "--out": OUT,
    "--frames-per-chunk": ["1", "4", "10000"],
    "--port": ["1024", "8000", "65535"],
    "--resume": ["new", "folder", "missing.unfinished", "", "path.json"],
    **{f"--box-{end}": BOXES for end in ("from", "to")},
    **{"--" + name.replace("_", "-"): ["1", "2", str(low), str(high)] for name, (low, high) in COUNTS.items()},
    **{"--" + name.replace("_", "-"): ["0.5", str(low), str(high)] for name, (low, high) in NUMBERS.items()},
}
HUGE = [["--frames", "10000"], ["--height", "8192"], ["--width", "8192"]]
PATH = b'{"prompt": "a red ball", "subject": "red ball", "keyframes": {"0": [0, 0, 0.5, 0.5], "7": [0.5, 0.5, 1, 1]}}'
BALL = ["--prompt", "a red ball", "--subject", "red ball", "--box-from", "0.1,0.2,0.6,0.7"]


def make(rng: random.Random) -> Case:
    arguments = list(rng.choice([[], BALL, BALL, ["--boxes", "path.json", "--resample"], ["--prompt", "blue sky"]]))
    actions = [action for action in build_parser()._actions if action.dest not in ("help", "resume")]
    for action in rng.sample(actions, rng.choice([0, 1, 1, 2, 2, 3, 4, 6])):
        arguments += given(rng, action)
    if rng.random() < 0.02:
        arguments += ["--resume", rng.choice(GOOD["--resume"])]
    if rng.random() < 0.03:
        arguments += [word for size in rng.sample(HUGE, rng.randint(1, 3)) for word in size]
    if "--draw" in arguments and rng.random() < 0.5:
        arguments += ["--no-browser"]
    if rng.random() < 0.03:
        arguments.insert(rng.randrange(len(arguments) + 1), rng.choice(BAD))
    if rng.random() < 0.03 and arguments:
        del arguments[rng.randrange(len(arguments))]
    if "--draw" in arguments and "--static" not in arguments:
        arguments += ["--static"]  # a page that is served has no end
    return Case(arguments, {"path.json": PATH if rng.random() < 0.95 else spoil_bytes(rng, PATH), "folder": None})


def given(rng: random.Random, action: argparse.Action) -> list[str]:
    """A flag as it may be typed, with a bad value one time in six."""
    flag = rng.choice(action.option_strings)
    if action.nargs == 0:
        return [flag] if rng.random() < 0.97 else [f"{flag}=1"]
    values = [value(rng, action, flag) for _ in range(rng.choice([0, 1, 2, 3]) if action.nargs == "+" else 1)]
    return [f"{flag}={values[0]}"] if len(values) == 1 and rng.random() < 0.5 else [flag, *values]


def value(rng: random.Random, action: argparse.Action, flag: str) -> str:
    if rng.random() < 1 / 6:
        return rng.choice([*BAD, *BAD_BOXES] if "box" in flag else [*BAD, any_text(rng)]).replace("\0", "")
    if action.choices is not None:
        return rng.choice(list(action.choices))
    return rng.choice(GOOD.get(flag) or [words(rng)])
