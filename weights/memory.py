"""Whether a run fits into a GPU, told before it begins.

All of a U-Net's activations grow in proportion to the number of latent cells, so that the most memory a run holds at
once is a fixed number of tensors of the finest level, beside the weights. The numbers are those of Zeroscope's
architecture at full size in float16, counted by tests/benchmarks/memory.py. They leave out what single operations
need for themselves, the allocator's gaps and the CUDA context: a run that exceeds the estimate cannot fit, one
slightly below it may still not.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from sampling.generate import Plan
from sampling.settings import SamplingSettings

HALVES = 2  # of the guidance batch
# Tensors of the U-Net's finest level, (2 F, C, h, w), alive at once. None: no gradient enters the network; "whole": one
# through both halves; "half": one through one half at a time. Second: whether layers are checkpointed.
UNET_TENSORS = {
    ("whole", False): 658.1,
    ("whole", True): 107.6,
    ("half", False): 344.8,
    ("half", True): 54.8,
    ("none", False): 30.5,
}
SEQUENTIAL_TENSORS = 17.3  # in place of the last, one half after the other
VAE_TENSORS = 6.1  # of the decoder's finest level, (frames_per_chunk, C, 8 h, 8 w), while it decodes


def weight_bytes(network: nn.Module) -> int:
    return sum(p.nbytes for p in network.parameters())


def estimate_bytes(
    pipeline: Any,
    settings: SamplingSettings,
    shape: tuple[int, int, int, int],
    *,
    steered: bool,
    sequential_guidance: bool = False,
    offload: bool = False,
    frames_per_chunk: int = 4,
) -> int:
    """The most that a run holds at once, weights included: while it samples or while it decodes.

    pipeline: its weights and configs count. shape: the latents', (C, F, h, w). steered: whether there are boxes.
    Checkpointing is the U-Net's own switch, the other arguments are those of `generate`.
    """
    _, F, h, w = shape
    unet, vae, text = pipeline.unet, pipeline.vae, pipeline.text_encoder.model
    finest = HALVES * F * h * w * unet.config.block_out_channels[0] * next(unet.parameters()).itemsize
    halves = differentiated_halves(settings, steered, sequential_guidance)
    tensors = SEQUENTIAL_TENSORS if sequential_guidance else UNET_TENSORS["none", False]
    if halves != "none":
        tensors = max(tensors, UNET_TENSORS[halves, bool(unet.checkpoint_activations)])

    idle = weight_bytes(vae) + weight_bytes(text)
    pixels = min(frames_per_chunk, F) * h * w * vae.config.downscale**2
    decoded = pixels * vae.config.block_out_channels[0] * next(vae.parameters()).itemsize
    sampling = tensors * finest + (0 if offload else idle)
    return weight_bytes(unet) + math.ceil(max(sampling, idle + VAE_TENSORS * decoded))


def differentiated_halves(settings: SamplingSettings, steered: bool, sequential_guidance: bool) -> str:
    """How much of the guidance batch the prior's gradient keeps at once: none, half or whole."""
    refined = settings.iterations > 0 and settings.refine_steps != 0
    if not (steered and refined and settings.c_g > 0) or settings.prior_gradient == "tweedie":
        return "none"
    return "half" if sequential_guidance or settings.prior_gradient == "text-half" else "whole"


def check_memory(pipeline: Any, plan: Plan, capacity: int | None = None, **how: Any) -> None:
    """Raise ValueError, with what would fit, where the plan's estimate exceeds `capacity` bytes.

    capacity: None asks the U-Net's GPU what is free, or already this program's; on a CPU nothing is checked.
    how: `sequential_guidance`, `offload` and `frames_per_chunk`, as `generate` gets them
    """
    if capacity is None:
        device = next(pipeline.unet.parameters()).device
        if device.type != "cuda":
            return
        capacity = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)

    def fits(shape: tuple[int, int, int, int]) -> bool:
        return needed(shape) <= capacity

    def needed(shape: tuple[int, int, int, int]) -> int:
        return estimate_bytes(pipeline, plan.settings, shape, steered=plan.boxes is not None, **how)

    if fits(plan.shape):
        return
    C, F, h, w = plan.shape
    cell = pipeline.vae.config.downscale
    frames = next((f for f in range(F - 1, 0, -1) if fits((C, f, h, w))), None)
    sizes = ((h * tenths // 10, w * tenths // 10) for tenths in range(9, 0, -1))
    smaller = next(((a, b) for a, b in sizes if a and b and fits((C, F, a, b))), None)
    ways = [f"--frames {frames}"] if frames else []
    ways += [f"--height {smaller[0] * cell} --width {smaller[1] * cell}"] if smaller else []
    advice = f"{' or '.join(ways)} would fit" if ways else "no number of frames would fit"
    raise ValueError(
        f"{F} frames of {w * cell}x{h * cell} need at least {needed(plan.shape) / 1e9:.1f} GB, but the device has "
        f"{capacity / 1e9:.1f} GB; {advice}, or try --checkpoint-activations, --sequential-guidance and --offload"
    )
