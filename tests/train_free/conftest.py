"""A command line on a pipeline of a few lines in place of a checkpoint."""

import json
import warnings
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch

import train_free
from sampling.schedule import NoiseSchedule
from weights import load


class UNet(torch.nn.Module):
    """eps of a unit Gaussian, moved by the mean of the text, for one guidance half or both; calls `before` first."""

    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(in_channels=4)
        self.scale = torch.nn.Parameter(torch.tensor(0.9), requires_grad=False)
        self.checkpoint_activations = False
        self.before = lambda: None

    def forward(self, z, t, text, control=None):
        self.before()
        halves = len(text) // len(z)
        return self.scale * (z.repeat(halves, 1, 1, 1, 1) + text.mean((1, 2))[:, None, None, None, None])


class VAE(torch.nn.Module):
    config = SimpleNamespace(downscale=8)

    def decode(self, latents, frames_per_chunk):
        return torch.nn.functional.interpolate((latents[:, :3] / 8).tanh(), scale_factor=(1, 8, 8))


class Words:
    model = torch.nn.Identity()  # what is kept off the GPU

    def encode(self, prompts):
        if any(len(prompt.split()) > 7 for prompt in prompts):
            warnings.warn("the prompt is too long, cut before 'meadow'", stacklevel=2)
        return torch.tensor([[[len(prompt) / 20]] * 8 for prompt in prompts])

    def subject_tokens(self, prompt, subject):
        if subject not in prompt:
            raise ValueError(f"subject {subject!r} is not in the prompt {prompt!r}")
        words = prompt.split()
        return torch.tensor([1 <= i <= len(words) and words[i - 1] in subject.split() for i in range(8)])

    tokens_alike = subject_tokens


def small_pipeline() -> SimpleNamespace:
    return SimpleNamespace(
        unet=UNet(),
        vae=VAE(),
        text_encoder=Words(),
        schedule=NoiseSchedule(1000, 0.00085, 0.012, "scaled_linear", steps_offset=1, set_alpha_to_one=False),
        defaults=SimpleNamespace(
            frames=4, height=16, width=24, fps=8, prompt="grass", settings={"steps": 2, "c_g": 4600.0, "gamma": 0.1}
        ),
        name="small",
        fingerprint="0123",
    )


@pytest.fixture
def loaded(monkeypatch, tmp_path):
    """Puts the pipeline in load_pipeline's place, in an empty working folder; holds it and how it was loaded."""
    pipeline = small_pipeline()
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


@pytest.fixture
def stopped(loaded, capsys):
    """stopped(error, call, *arguments) -> exit code, what was printed, and the folders of unfinished runs.

    The network raises the error in that call, from 1, and none later.
    """

    def stopped(error: BaseException, call: int, *arguments: str):
        calls = []

        def before():
            calls.append(None)
            if len(calls) == call:
                raise error

        loaded.pipeline.unet.before = before
        code = train_free.main(list(arguments))
        loaded.pipeline.unet.before = lambda: None
        return code, capsys.readouterr(), sorted(Path().rglob("*.unfinished"))

    return stopped


@pytest.fixture
def ball() -> list[str]:
    """The shortest command line with a box."""
    return ["--prompt", "a red ball", "--subject", "red ball", "--box-from", "0,0,0.5,0.5"]


@pytest.fixture
def files():
    """files() -> all that lies in the working folder, hidden files too."""
    return lambda: {str(path) for path in Path().rglob("*")}


@pytest.fixture
def video():
    """video(path) -> the frames of an mp4 (F, H, W, 3) and its rate."""

    def video(path: Path) -> tuple[np.ndarray, float]:
        with av.open(str(path)) as container:
            rate = float(container.streams.video[0].average_rate)
            return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]), rate

    return video


@pytest.fixture
def refused(capsys, files):
    """refused(*arguments) -> the one sentence on stderr with which they are refused, nothing having been written."""

    def refused(*arguments) -> str:
        before = files()
        assert train_free.main(list(arguments)) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert files() == before
        (line,) = printed.err.splitlines()
        assert line.startswith("error: ")
        return line

    return refused
