"""How a U-Net answers Algorithm 1: both guidance halves in one call, or one after the other."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from adaptation.control import Control
from adaptation.trailblazer import TrailBlazerControl
from sampling.sampler import Denoise


def make_denoise(
    unet: Callable[..., Tensor],
    text: Tensor,
    control: Control | None,
    *,
    prior_gradient: str = "unet",
    sequential: bool = False,
) -> Denoise:
    """denoise(z, t, frozen) -> (eps_uncond, eps_text), the same numbers either way up to rounding.

    text: (2 B, L, D), the guidance halves [uncond, text]; control: acts where `frozen`
    prior_gradient: "text-half" runs the halves apart where a gradient is wanted, and keeps nothing of the first
    sequential: always runs them apart. The activations kept for a gradient are those of one half, for the first
        half's are computed again when the second's have been used up: a forward pass of one half more.
    """
    uncond, conditional = text.chunk(2)

    def denoise(z: Tensor, t: int, frozen: bool) -> tuple[Tensor, Tensor]:
        used = control if frozen else None
        differentiated = torch.is_grad_enabled()
        if not sequential and not (differentiated and prior_gradient == "text-half"):
            eps_uncond, eps_text = unet(z, t, text, used).chunk(2)
            return eps_uncond, eps_text
        # TrailBlazer's edit is of the text half alone; masks act in both.
        masks = None if isinstance(used, TrailBlazerControl) else used
        if differentiated and prior_gradient == "unet":
            # autograd goes back through the later half first, so that both halves' activations are never there at once
            eps_uncond = checkpoint(unet, z, t, uncond, masks, use_reentrant=False)
        else:
            with torch.no_grad():
                eps_uncond = unet(z, t, uncond, masks)
        return eps_uncond, unet(z, t, conditional, used)

    return denoise


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
