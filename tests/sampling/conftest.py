"""A stand-in for the network whose score is known, so that every gradient and every step has a closed form.

Two Gaussians: without text z0 ~ N(0, I), with text z0 ~ N(mu, v I). With a = alpha_bar,
    z ~ N(sqrt(a) mu, q I), q = a v + 1 - a,   eps = -sqrt(1 - a) score = sqrt(1 - a) (z - sqrt(a) mu) / q,
    z0_hat = mu + (sqrt(a) v / q) (z - sqrt(a) mu),
which for mu = 0, v = 1 is eps = sqrt(1 - a) z and z0_hat = sqrt(a) z.
"""

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from model.config import VAEConfig
from model.unet import UNet3D
from model.vae import AutoencoderKL
from sampling.schedule import NoiseSchedule
from tests.helpers import SMALL_UNET


class Gaussians:
    """denoise(z, t, frozen) -> (eps_uncond, eps_text), remembering its calls."""

    def __init__(self, schedule: NoiseSchedule, mu: Tensor | float = 0.0, v: float = 1.0):
        self.schedule, self.mu, self.v = schedule, mu, v
        self.latents: list[Tensor] = []
        self.times: list[int] = []
        self.frozen: list[bool] = []
        self.differentiated: list[bool] = []
        self.backward = {"uncond": 0, "text": 0}  # backward passes in which a gradient reached this half

    def __call__(self, z: Tensor, t: int, frozen: bool) -> tuple[Tensor, Tensor]:
        eps_uncond, eps_text = self.eps(z, t)
        self.latents.append(z.detach().clone())
        self.times.append(t)
        self.frozen.append(frozen)
        self.differentiated.append(eps_text.requires_grad)
        for half, eps in (("uncond", eps_uncond), ("text", eps_text)):
            if eps.requires_grad:
                eps.register_hook(lambda gradient, half=half: self._count(half, gradient))
        return eps_uncond, eps_text

    def eps(self, z: Tensor, t: int) -> tuple[Tensor, Tensor]:
        a = self.schedule.alpha_bar[t].to(z.dtype)
        return (1 - a).sqrt() * z, (1 - a).sqrt() * (z - a.sqrt() * self.mu) / (a * self.v + 1 - a)

    def _count(self, half: str, gradient: Tensor) -> None:
        self.backward[half] += int(gradient.abs().sum() > 0)


class Silent(Gaussians):
    """eps = 0: no score and no direction, so that only noise moves the latents."""

    def eps(self, z: Tensor, t: int) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(z), torch.zeros_like(z)


@pytest.fixture
def schedule() -> NoiseSchedule:
    """Zeroscope's."""
    return NoiseSchedule(1000, 0.00085, 0.012, "scaled_linear", steps_offset=1, set_alpha_to_one=False)


@pytest.fixture(scope="session")
def reference(fixtures):
    """What diffusers' DDIMScheduler computes."""
    return load_file(fixtures / "diffusers_ddim.safetensors")


@pytest.fixture(scope="session")
def networks():
    """A small random U-Net and VAE, to be copied."""
    torch.manual_seed(0)
    unet = UNet3D(SMALL_UNET)
    vae = AutoencoderKL(VAEConfig(block_out_channels=(8,) * 4, layers_per_block=1, norm_num_groups=4))
    return unet.eval().requires_grad_(False), vae.eval().requires_grad_(False)


@pytest.fixture
def gaussians(schedule):
    """gaussians(mu, v) makes a network."""
    return lambda mu=0.0, v=1.0: Gaussians(schedule, mu, v)


@pytest.fixture
def silent(schedule):
    """silent() makes a network that predicts no noise."""
    return lambda: Silent(schedule)
