"""What a run looks like so far: z0_hat, decoded small, at a bounded share of the run's time."""

import base64
import io
import math
import time
from itertools import cycle
from typing import Any

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from sampling.sampler import State

SHARE = 0.07  # of the time since the run began, at most, but for the very first picture
FRAMES_SHOWN = 4  # frames of a video


class Preview:
    """Pictures of a few frames of z0_hat, in turn, as many after each step as the share allows.

    The latent is averaged over 2 x 2 cells before it is decoded: a quarter of the pixels for a quarter of the time.
    """

    def __init__(self, vae: Any, frames: int) -> None:
        self.vae = vae
        shown = min(FRAMES_SHOWN, frames)
        self.frames = [round(i * (frames - 1) / max(shown - 1, 1)) for i in range(shown)]
        self.turn = cycle(self.frames)
        self.began = time.perf_counter()
        self.spent = 0.0  # seconds
        self.cost = 0.0  # seconds of the quickest picture so far

    def look(self, state: State) -> dict[int, str]:
        """Pictures of this state by frame, as data: addresses; none where the decoder is not beside the latents."""
        z0_hat, pictures = state.z0_hat, dict[int, str]()
        if z0_hat is None or any(p.device != z0_hat.device for p in self.vae.parameters()):
            return pictures  # --offload keeps the decoder away until it is needed
        while len(pictures) < len(self.frames):
            began = time.perf_counter()
            if self.spent + self.cost > SHARE * (began - self.began):
                break
            frame = next(self.turn)
            pictures[frame] = picture(self.vae, z0_hat[:, :, frame : frame + 1])
            seconds = time.perf_counter() - began
            self.spent += seconds
            self.cost = min(self.cost or seconds, seconds)
        return pictures


@torch.no_grad()
def picture(vae: Any, z: Tensor) -> str:
    """A latent frame (1, C, 1, h, w) -> a PNG of half its height and width, as a data: address."""
    h, w = z.shape[-2:]
    small = torch.nn.functional.interpolate(z[:, :, 0], size=(math.ceil(h / 2), math.ceil(w / 2)), mode="area")
    pixels = vae.decode(small[:, :, None], 1).float().nan_to_num().clamp(-1, 1)
    levels = rearrange(((pixels + 1) * 127.5).round().byte(), "1 c 1 h w -> h w c")
    file = io.BytesIO()
    Image.fromarray(levels.cpu().numpy()).save(file, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
