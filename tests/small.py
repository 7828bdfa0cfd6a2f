"""A pipeline of a few lines in place of a checkpoint: 4 frames of 4 x 6 cells, 32 x 48 pixels, 2 steps.

Its U-Net has one layer where the real one has its second decoder block's transformer. The layer leaves z as it is
without a mask, halves it inside the boxes under a mask, and takes 0.9 of it there under a normalized one.
"""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from adaptation.trajectory import Trajectory
from sampling.schedule import NoiseSchedule


class Layer(nn.Module):
    def forward(self, z, control):
        if control is None:
            return 1.0 * z
        inside = control.regions.any(0).to(z)
        return z * (1 - inside * (0.1 if control.normalize else 0.5))


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(in_channels=4)
        self.scale = nn.Parameter(torch.tensor(0.9), requires_grad=False)
        self.up_blocks = nn.ModuleList([nn.Module(), nn.Module()])
        self.up_blocks[1].attentions = nn.ModuleList([Layer()])
        self.calls = 0

    def forward(self, z, t, text, control=None):
        self.calls += 1
        x = self.up_blocks[1].attentions[0](z, control)
        return self.scale * x.repeat(2, 1, 1, 1, 1) + text.mean((1, 2))[:, None, None, None, None]


class VAE(nn.Module):
    config = SimpleNamespace(downscale=8)

    def encode(self, pixels):
        return nn.functional.avg_pool3d(pixels, (1, 8, 8))

    def decode(self, latents, frames_per_chunk):
        return nn.functional.interpolate(latents[:, :3].tanh(), scale_factor=(1, 8, 8))


class Words:
    def encode(self, prompts):
        return torch.tensor([[[len(prompt) / 500]] * 16 for prompt in prompts])

    def subject_tokens(self, prompt, subject):
        words = ["<start>", *prompt.replace(",", " ,").split()]
        return torch.tensor([i < len(words) and words[i] in subject.split() for i in range(16)])

    tokens_alike = subject_tokens


@pytest.fixture
def pipeline():
    return SimpleNamespace(
        unet=UNet(),
        vae=VAE(),
        text_encoder=Words(),
        schedule=NoiseSchedule(1000, 0.00085, 0.012, "scaled_linear", steps_offset=1, set_alpha_to_one=False),
        defaults=SimpleNamespace(
            frames=4,
            height=32,
            width=48,
            fps=8,
            prompt="grass",
            settings={"steps": 2, "guidance_scale": 2.0, "c_g": 4600.0, "gamma": 0.1},
        ),
        name="small",
        fingerprint="0123456789abcdef",
    )


@pytest.fixture
def ball():
    """A red ball that goes from the upper left quarter to the lower right one."""
    keyframes = {0: [0, 0, 0.5, 0.5], 3: [0.5, 0.5, 1, 1]}
    return Trajectory.from_keyframes(keyframes, 4, "red ball", "a red ball over the grass")
