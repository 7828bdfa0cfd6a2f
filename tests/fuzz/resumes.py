"""Folders of unfinished runs, as --resume takes them: their record or state spoilt, or sealed anew after that."""

import functools
import io
import json
import random
import tempfile
from contextlib import redirect_stderr, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

from attempt import SMALL, Case, alone, inside
from safetensors.torch import load as read_tensors
from values import any_json, spoil_bytes, spoil_value

import train_free
from app import running
from app.unfinished import Unfinished, save_state
from sampling.sampler import State, Streams
from storage import write_sealed

RUNS = {
    "plain": ["--prompt", "blue sky", "--seed", "3", "4"],
    "boxes": ["--prompt", "a red ball", "--subject", "red ball", "--box-from", "0.1,0.2,0.6,0.7", "--eta", "0.5"],
}
FOLDER = "run.unfinished"


@functools.cache
def unfinished(name: str) -> dict[str, bytes]:
    """The files of a run that was interrupted after its first step."""

    def save_and_stop(*arguments: Any) -> None:
        save_state(*arguments)
        raise KeyboardInterrupt

    with tempfile.TemporaryDirectory() as root, inside(Path(root)), alone(), redirect_stderr(io.StringIO()):
        with patch.object(running, "save_state", save_and_stop):
            train_free.main([*RUNS[name], *SMALL, "--out", "run"])
        (folder,) = Path().glob("**/*.unfinished")
        return {path.name: path.read_bytes() for path in folder.iterdir()}


def make(rng: random.Random) -> Case:
    files: dict[str, bytes | None] = dict(unfinished(rng.choice(list(RUNS))))
    folder = FOLDER if rng.random() < 0.97 else rng.choice(["run", ".unfinished", "a/run.unfinished", "x\n.unfinished"])
    arguments = ["--resume", folder]
    if rng.random() < 0.2:
        arguments += rng.choice(
            [["--frames-per-chunk", "1"], ["--checkpoint-activations"], ["--seed", "1"], ["--seed"]]
        )
    draw = rng.randrange(10)
    name = rng.choice(["begun.json", "state.safetensors"])
    if draw == 0:
        files[name] = rng.choice([None, b"", b"{}", b"null", rng.randbytes(100)])
    elif draw == 1:
        del files[name]
    elif draw in (2, 3):
        files[name] = spoil_bytes(rng, files[name], rng.choice([None, 200]))
    elif draw in (4, 5, 6):
        begun = json.loads(files["begun.json"])
        del begun["checksum"]
        files["begun.json"] = sealed(begun_otherwise(rng, begun))
    elif draw in (7, 8):
        files["state.safetensors"] = state_otherwise(rng, files["state.safetensors"])
    return Case(arguments, {f"{folder}/{name}": content for name, content in files.items()})


def begun_otherwise(rng: random.Random, begun: dict[str, Any]) -> dict[str, Any]:
    """A record of another version of the program, or of another hand."""
    if rng.random() < 0.3:
        other = spoil_value(rng, begun)
        return other if isinstance(other, dict) else begun
    key = rng.choice(list(begun))
    spoilt = spoil_value(rng, begun[key]) if rng.random() < 0.5 else any_json(rng)
    return {**begun, key: spoilt}


def sealed(content: dict[str, Any]) -> bytes:
    """As `write_sealed` writes it; where JSON cannot say it, an empty object."""
    with tempfile.TemporaryDirectory() as root:
        path = Path(root) / "begun.json"
        path.write_bytes(b"{}")
        with suppress(ValueError):
            write_sealed(path, content)
        return path.read_bytes()


def state_otherwise(rng: random.Random, content: bytes) -> bytes:
    """Other latents, another step or other records than the run's, under the checksum that is right for them."""
    z, draw = read_tensors(content)["latents"], rng.randrange(3)
    step, records = 1, [{}]
    if draw == 0:
        z = rng.choice([z[:, :, :1], z.double(), z.half(), z.int(), z[0], z[..., :0]])
    elif draw == 1:
        step = rng.choice([-1, 0, 2, 3, 10**9, "1", None, 1.0, True])
    else:
        records = any_json(rng)
    with tempfile.TemporaryDirectory() as root:
        save_state(Unfinished(Path(root), {}, None), State(step, z, Streams(()), records))
        return (Path(root) / "state.safetensors").read_bytes()
