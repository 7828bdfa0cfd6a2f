"""`python -m evaluation` as tests call it, and what it leaves in a folder."""

import importlib
import json
from pathlib import Path

command = importlib.import_module("evaluation.__main__")

SMALL = ["--tracks", "2", "--methods", "plain", "mask"]
EVERYTHING = ["run", *SMALL, "--reference", "world:3", "--out", "all"]


def evaluate(*arguments):
    """The command, which is to succeed."""
    assert command.main(list(arguments)) == 0


def numbers(out="all"):
    """What results.json tells but for the command that made it."""
    return {k: v for k, v in json.loads(Path(out, "results.json").read_text()).items() if k != "command"}


def files(out="all"):
    """{name: bytes} of all videos, records and measurements."""
    return {path.name: path.read_bytes() for path in Path(out, "files").iterdir()}
