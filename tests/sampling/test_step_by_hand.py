"""Algorithm 1 worked out on paper: every number below follows from the comments, none from the code.

alpha_bar is 0.36 at t = 1, 0.64 at t = 0 and 1 at the end, with the roots 0.6, 0.8 and 1, and those of 1 - alpha_bar
are 0.8, 0.6 and 0. The network says eps_uncond = z / 2 at t = 1 and z / 3 at t = 0, eps_text = eps_uncond + 1; with
guidance 3 that is eps = z / 2 + 3 and z / 3 + 3. Then Tweedie's estimate is z less a number, 4 and 2.25:
    (z - 0.8 (z / 2 + 3)) / 0.6 = z - 4,    (z - 0.6 (z / 3 + 3)) / 0.8 = z - 2.25.
gamma = 0.2 makes eta_l 0.2 * 0.64 = 0.128 and 0.2 * 0.36 = 0.072, and eta_k sqrt(0.2 * 1.8) = 0.6 times 0.8 and 0.6.
"""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from sampling.sampler import State, sample
from sampling.settings import SamplingSettings
from tests.helpers import f64

SCHEDULE = SimpleNamespace(
    alpha_bar=f64(0.64, 0.36), timesteps=lambda steps: [1, 0], previous=lambda t, steps: f64(1.0, 0.64)[t]
)
# 23 pairs of frames of 4 x 40 x 72 values at Zeroscope's size, one pair of 2 x 4 below: there Eq. 2 has 50
C_G = 50 * 23 * 11_520 / 8
SETTINGS = SamplingSettings(
    steps=2, guidance_scale=3.0, frozen_steps=0, iterations=2, gamma=0.2, c_g=C_G, prior_gradient="unet"
)


@dataclass(frozen=True)
class Listed:
    """In the place of random streams: what is drawn in iteration m of a step's refinement."""

    noise: dict[tuple[int, int], Tensor]
    seeds: tuple[int, ...] = (0,)

    def draw(self, stream, shape, step=0, iteration=0):
        assert stream == "refinement" and tuple(shape) == self.noise[step, iteration].shape[1:]
        return self.noise[step, iteration]


def network(z, t, frozen):
    eps = z / (2 if t == 1 else 3)
    return eps, eps + 1


def test_a_refined_step():
    """Two frames of 2 x 4 cells; the box is the lower row, whose 4 cells are written in a = 1 1 -1 -1, b = 1 -1 1 -1.

    For x = p a + q b and y = q a + p b, both of squared length 4 (p^2 + q^2), tau = rho = 2 p q / (p^2 + q^2) and
    d rho / d x = (y - rho x) / (4 (p^2 + q^2)); y's is the same with x and y, a and b exchanged. Tweedie is z less a
    number, so this is G_g. With G_p = -(z / 2 + 3) / 0.8 an iteration is
        z <- z + 0.128 (50 G_g + G_p) + 0.48 noise = 0.92 z - 0.48 + 6.4 G_g + 0.48 noise.
    Lower row of the first frame, in the order a, b, 1 (the second frame's has a and b exchanged):
        z                                                  2       0      0      rho = 0, G_g = (0, 2) / 16
        0.92 z - 0.48 + 6.4 G_g                            1.84    0.8   -0.48
        + 0.48 (1.375, 0.9375, 1)                          2.5     1.25   0      rho = 0.8, G_g = (-0.75, 1.5) / 31.25
        0.92 z - 0.48 + 6.4 G_g                            2.1464  1.4572 -0.48
        + 0.48 (5.945, -0.9525, 2)                         5       1      0.48   rho = 10 / 26
    Upper row, which no box holds: 2, then 0.92 * 2 - 0.48 + 0.48 = 1.84, then 0.92 * 1.84 - 0.48 + 0.96 = 2.1728.
    DDIM: 0.8 (z - 4) + 0.6 (z / 2 + 3) = 1.1 z - 1.4.
    """
    a, b, one = f64(1, 1, -1, -1), f64(1, -1, 1, -1), f64(1, 1, 1, 1)

    def video(p: float, q: float, number: float, upper: float) -> Tensor:
        """(1, 1, F = 2, H = 2, W = 4)."""
        lower = p * a + q * b + number, q * a + p * b + number
        return torch.stack([torch.stack([upper * one, row]) for row in lower])[None, None]

    streams = Listed({(0, 0): video(1.375, 0.9375, 1, 1), (0, 1): video(5.945, -0.9525, 2, 2)})
    boxes = torch.tensor([0.0, 0.5, 1.0, 1.0]).expand(1, 2, 4)
    after = next(sample(network, SCHEDULE, State(0, video(2, 0, 0, 2), streams), SETTINGS, boxes))

    refined = video(5, 1, 0.48, 2.1728)
    torch.testing.assert_close(after.z, 1.1 * refined - 1.4, rtol=0, atol=1e-12)
    assert after.records[0]["tau"] == pytest.approx([10 / 26], abs=1e-12)  # of z_t^M: 0 before, 0.8 after one iteration


def test_two_steps_of_intrinsic_denoising():
    """One number z = 1 in all cells, noise 1, 2, 3, 4 in the order of drawing, c_g = 0.

    t = 1: z <- 0.92 z - 0.48 + 0.48 noise, twice: 0.92, 1.3264. DDIM, 1.1 z - 1.4: 0.05904.
    t = 0: z <- z - 0.072 (z / 3 + 3) / 0.6 + 0.36 noise = 0.96 z - 0.36 + 0.36 noise, twice: 0.7766784, 1.825611264.
    DDIM to alpha_bar = 1 is Tweedie's estimate, z - 2.25.
    """
    shape = (1, 1, 1, 2, 3)
    order = [(0, 0), (0, 1), (1, 0), (1, 1)]
    streams = Listed({address: torch.full(shape, n + 1.0).double() for n, address in enumerate(order)})
    settings = replace(SETTINGS, c_g=0.0)
    first, second = sample(network, SCHEDULE, State(0, torch.ones(shape).double(), streams), settings)
    torch.testing.assert_close(first.z, torch.full_like(first.z, 0.05904), rtol=0, atol=1e-12)
    torch.testing.assert_close(second.z, torch.full_like(first.z, 1.825611264 - 2.25), rtol=0, atol=1e-12)
