"""How a U-Net answers Algorithm 1: both guidance halves in one call, or one after the other."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from adaptation.control import Control
from adaptation.trailblazer import TrailBlazerControl


@dataclass(frozen=True, eq=False)
class GuidanceHalves:
    """denoise(z, t, frozen) of a U-Net, (eps_uncond, eps_text): in one call or in two, equal up to rounding."""

    unet: Callable[..., Tensor]
    text: Tensor
    control: Control | None
    sequential: bool

    @torch.no_grad()
    def __call__(self, z: Tensor, t: int, frozen: bool) -> tuple[Tensor, Tensor]:
        """Without a gradient."""
        return (self._uncond(z, t, frozen), self._text(z, t, frozen)) if self.sequential else self._both(z, t, frozen)

    @torch.enable_grad()
    def differentiable(self, z: Tensor, t: int, frozen: bool, through: str) -> tuple[Tensor, Tensor]:
        """As functions of z: both through "unet"; through "text-half" eps_text alone, and nothing else is kept."""
        if through == "text-half":
            with torch.no_grad():
                eps_uncond = self._uncond(z, t, frozen)
        elif self.sequential:
            # autograd goes back through the later half first, so that both halves' activations are never there at once
            eps_uncond = checkpoint(self._uncond, z, t, frozen, use_reentrant=False)
        else:
            return self._both(z, t, frozen)
        return eps_uncond, self._text(z, t, frozen)

    def _both(self, z: Tensor, t: int, frozen: bool) -> tuple[Tensor, Tensor]:
        eps_uncond, eps_text = self.unet(z, t, self.text, self.control if frozen else None).chunk(2)
        return eps_uncond, eps_text

    def _uncond(self, z: Tensor, t: int, frozen: bool) -> Tensor:
        edited = isinstance(self.control, TrailBlazerControl)  # of the text half alone; masks act in both
        return self.unet(z, t, self.text.chunk(2)[0], self.control if frozen and not edited else None)

    def _text(self, z: Tensor, t: int, frozen: bool) -> Tensor:
        return self.unet(z, t, self.text.chunk(2)[1], self.control if frozen else None)


def make_denoise(
    unet: Callable[..., Tensor], text: Tensor, control: Control | None, *, sequential: bool = False
) -> GuidanceHalves:
    """What `sample` needs of a U-Net.

    text: (2 B, L, D), the guidance halves [uncond, text]; control: acts where `frozen`
    sequential: run the halves one after the other. The activations kept for a gradient are those of one half, for the
        first half's are computed again when the second's have been used up: a forward pass of one half more.
    """
    return GuidanceHalves(unet, text, control, sequential)


@contextmanager
def off_device(parts: Sequence[Any], device: torch.device) -> Iterator[None]:
    """Keep `parts`, which have a method `to`, in the CPU's memory, and bring them back to their device at the end."""
    if device.type == "cpu":
        warnings.warn("offload moves nothing: the networks are on the CPU already", stacklevel=5)  # generate's caller
        yield
        return
    try:
        for part in parts:
            part.to("cpu")
        yield
    finally:
        for part in parts:
            part.to(device)
