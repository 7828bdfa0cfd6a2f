"""From settings and a trajectory to TrailBlazer's control, on networks of a few lines."""

from types import SimpleNamespace

import pytest
import torch

from adaptation.attention_masks import AttentionControl
from adaptation.trailblazer import TrailBlazerControl
from adaptation.trajectory import Trajectory
from sampling.generate import generate, make_plan
from sampling.settings import SamplingSettings, preset

PROMPT = "a red ball over grass"
BALL = Trajectory.from_keyframes({0: [0, 0, 0.5, 0.5], 2: [0.5, 0.5, 1, 1]}, 3, "red ball", PROMPT)
SETTINGS = preset("trailblazer", SamplingSettings(steps=8))


class UNet(torch.nn.Module):
    """Half of z for both halves; remembers its controls."""

    config = SimpleNamespace(in_channels=4)

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(0.5), requires_grad=False)
        self.controls = []

    def forward(self, z, t, text, control=None):
        self.controls.append(control)
        return self.scale * z.repeat(2, 1, 1, 1, 1)


class VAE:
    config = SimpleNamespace(downscale=8)

    def decode(self, latents, frames_per_chunk):
        return latents[:, :3].tanh()


class Words:
    """12 tokens: start, words, padding."""

    def encode(self, prompts):
        return torch.zeros(len(prompts), 12, 16)

    def subject_tokens(self, prompt, subject):
        words = ["<start>", *prompt.split(), *["<pad>"] * 12][:12]
        return torch.tensor([word in subject.split() for word in words])

    tokens_alike = subject_tokens


@pytest.fixture
def pipeline(schedule):
    defaults = SimpleNamespace(frames=3, height=32, width=48, prompt="grass", settings={})
    return SimpleNamespace(unet=UNet(), vae=VAE(), text_encoder=Words(), schedule=schedule, defaults=defaults)


def test_the_first_five_steps_are_edited(pipeline):
    generate(pipeline, None, BALL, SETTINGS)
    kinds = [type(control) for control in pipeline.unet.controls]
    assert kinds == [TrailBlazerControl] * 5 + [type(None)] * 3


def test_boxes_and_strengths_are_handed_on(pipeline):
    settings = preset("trailblazer")
    control = make_plan(pipeline, None, BALL, settings).control
    assert torch.equal(control.boxes, BALL.boxes)
    assert (control.strengthen, control.weaken) == (settings.strengthen, settings.weaken) == (0.125, 0.001)


@pytest.mark.parametrize(
    ("prompt", "trailing", "edited"),
    [
        (PROMPT, 15, "001100111111"),  # <start> a red ball over grass, then all there is
        (PROMPT, 2, "001100110000"),
        (PROMPT, 0, "001100000000"),
        (PROMPT + " ; sharp , 8k", 2, "001100110000"),  # of the suffix
    ],
)
def test_the_subjects_words_and_what_follows_the_prompt(pipeline, prompt, trailing, edited):
    settings = SamplingSettings(steer="edit", trailing=trailing)
    control = make_plan(pipeline, prompt, BALL, settings).control
    assert control.tokens.int().tolist() == [[int(digit) for digit in edited]]


def test_several_subjects_are_edited_in_one_run(pipeline):
    boxes = torch.tensor([[[0.0, 0, 0.5, 1]] * 3, [[0.5, 0, 1, 1]] * 3])
    two = Trajectory(boxes, ["red ball", "blue box"], "red ball and blue box")
    control = make_plan(pipeline, None, two, preset("trailblazer")).control
    assert torch.equal(control.boxes, boxes)
    assert control.tokens[:, :6].int().tolist() == [[0, 1, 1, 0, 0, 0], [0, 0, 0, 0, 1, 1]]
    assert control.tokens[:, 6:].all()


def test_the_other_methods_have_masks(pipeline):
    assert isinstance(make_plan(pipeline, None, BALL, preset("peekaboo")).control, AttentionControl)


def test_a_subject_without_tokens_is_refused(pipeline):
    settings = SamplingSettings(steer="edit", trailing=0)
    with pytest.raises(ValueError, match="subject 0 has no token in the prompt"):
        make_plan(pipeline, "grass", BALL, settings)
