"""Whether a run fits into a GPU, told before it begins, and what would make it fit at the least cost of time.

All of a U-Net's activations grow in proportion to the number of latent cells, so that the most memory a run holds at
once is a fixed number of tensors of the finest level, beside the weights. The numbers were counted for Zeroscope's
architecture at full size in float16, by tests/benchmarks/memory.py, whose counts at a quarter of the widths and at
other frames and sizes are within 2 % of them. Of a network of another depth they are not known, and only its weights
count. They leave out what single operations need for themselves, the allocator's gaps and the CUDA context: a run whose
estimate exceeds the memory cannot fit, one slightly below it may still not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from itertools import product
from typing import Any

import torch
from torch import nn

from model.config import UNetConfig, VAEConfig
from sampling.generate import Plan
from sampling.settings import SamplingSettings

HALVES = 2  # of the guidance batch
# Tensors of the U-Net's finest level, (2 F, C, h, w), alive at once. None: no gradient enters the network; "whole": one
# through both halves; "half": one through one half at a time. Second: whether the layers' parts are checkpointed.
UNET_TENSORS = {
    ("whole", False): 685.3,
    ("whole", True): 84.8,
    ("half", False): 358.7,
    ("half", True): 43.3,
    ("none", False): 25.5,
}
SEQUENTIAL_TENSORS = 14.1  # in place of the last, one half after the other
VAE_TENSORS = 6.1  # of the decoder's finest level, (frames_per_chunk, C, 8 h, 8 w), while it decodes

# Time, in forward passes of the guidance batch. From ratios measured at a quarter of Zeroscope's widths: a refinement
# with eps held constant takes 0.41, one through the text half 0.72, a checkpointed one 1.33 of one through both halves.
WITH_GRADIENT = {"whole": 1 / 0.41, "half": 0.72 / 0.41}
RECOMPUTED = {"whole": 0.33 / 0.41, "half": 0.165 / 0.41}  # on top, checkpointed: a forward pass of what is kept
APART = 0.04  # the guidance halves one after the other: what they share is computed twice, by counted operations
FIRST_HALF_AGAIN = 0.5  # and with a gradient through both, the forward pass of one is


@dataclass(frozen=True)
class Savings:
    """What trades time for memory: the U-Net's own switch, and three of `generate`."""

    checkpoint_activations: bool = False
    sequential_guidance: bool = False
    offload: bool = False
    frames_per_chunk: int = 4

    @property
    def switched(self) -> int:
        """How many of them are not as they are by default."""
        return sum(value != default for value, default in zip(astuple(self), astuple(Savings()), strict=True))


@dataclass(frozen=True)
class Footprint:
    """A pipeline's networks, as far as memory goes."""

    unet: UNetConfig
    vae: VAEConfig
    itemsize: int  # bytes of a number
    unet_bytes: int  # of weights
    vae_bytes: int
    text_bytes: int

    @classmethod
    def of(cls, pipeline: Any) -> Footprint:
        """Of a loaded pipeline."""
        unet, vae, text = pipeline.unet, pipeline.vae, pipeline.text_encoder.model
        itemsize = next(unet.parameters()).itemsize
        return cls(unet.config, vae.config, itemsize, weight_bytes(unet), weight_bytes(vae), weight_bytes(text))

    @property
    def known(self) -> bool:
        """Whether the counted numbers hold: they are of Zeroscope's depth and proportions, at any width."""
        alike = _proportions(self.unet) == _proportions(UNetConfig())
        return alike and _vae_proportions(self.vae) == _vae_proportions(VAEConfig())


@dataclass(frozen=True)
class Choice:
    """A combination of savings, the bytes it is estimated to need, and its time as a multiple of that without any."""

    savings: Savings
    bytes: int
    time: float


def weight_bytes(network: nn.Module) -> int:
    return sum(p.nbytes for p in network.parameters())


def _proportions(config: UNetConfig) -> tuple[Any, ...]:
    widths = [c / config.block_out_channels[0] for c in (*config.block_out_channels, config.attention_head_dim)]
    return config.down_block_types, config.up_block_types, config.layers_per_block, widths


def _vae_proportions(config: VAEConfig) -> tuple[Any, ...]:
    return config.layers_per_block, [c / config.block_out_channels[0] for c in config.block_out_channels]


def estimate_bytes(
    networks: Footprint,
    settings: SamplingSettings,
    shape: tuple[int, int, int, int],
    savings: Savings,
    *,
    steered: bool,
) -> int:
    """The most that a run holds at once, weights included: while it samples or while it decodes. Of networks whose
    activations are not `known`, the weights alone.

    shape: the latents', (C, F, h, w). steered: whether there are boxes.
    """
    _, F, h, w = shape
    idle = networks.vae_bytes + networks.text_bytes
    waiting = 0 if savings.offload else idle
    if not networks.known:
        return networks.unet_bytes + waiting

    finest = HALVES * F * h * w * networks.unet.block_out_channels[0] * networks.itemsize
    halves = differentiated_halves(settings, steered, savings.sequential_guidance)
    tensors = SEQUENTIAL_TENSORS if savings.sequential_guidance else UNET_TENSORS["none", False]
    if halves != "none":
        tensors = max(tensors, UNET_TENSORS[halves, savings.checkpoint_activations])

    pixels = min(savings.frames_per_chunk, F) * h * w * networks.vae.downscale**2
    decoded = pixels * networks.vae.block_out_channels[0] * networks.itemsize
    return networks.unet_bytes + math.ceil(max(tensors * finest + waiting, idle + VAE_TENSORS * decoded))


def differentiated_halves(settings: SamplingSettings, steered: bool, sequential_guidance: bool) -> str:
    """How much of the guidance batch the prior's gradient keeps at once: none, half or whole."""
    refined = settings.iterations > 0 and settings.refine_steps != 0
    if not (steered and refined and settings.c_g > 0) or settings.prior_gradient == "tweedie":
        return "none"
    return "half" if sequential_guidance or settings.prior_gradient == "text-half" else "whole"


def estimate_time(settings: SamplingSettings, savings: Savings, *, steered: bool) -> float:
    """All calls of the U-Net in a run, in forward passes of the guidance batch.

    Offloading and decoding fewer frames at a time count nothing: they act once in a video.
    """
    refined = settings.steps if settings.refine_steps is None else min(settings.steps, settings.refine_steps)
    refinements = settings.iterations * refined * steered
    forward = 1 + APART * savings.sequential_guidance
    halves = differentiated_halves(settings, steered, sequential_guidance=False)
    if halves == "none":
        return (settings.steps + refinements) * forward
    gradient = WITH_GRADIENT[halves] + RECOMPUTED[halves] * savings.checkpoint_activations
    if halves == "whole" and savings.sequential_guidance:
        gradient = gradient * (1 + APART) + FIRST_HALF_AGAIN
    return settings.steps * forward + refinements * gradient


def choose_savings(networks: Footprint, plans: Sequence[Plan], capacity: float) -> Choice | None:
    """The least slow combination under which each of the plans fits into `capacity` bytes, with the fewest switches
    among equally slow ones; None where no combination does.

    After memory ran out all the same, the next to try is the choice for `capacity = choice.bytes - 1`.
    """
    return min(
        (choice for choice in _choices(networks, plans) if choice.bytes <= capacity),
        key=lambda choice: (choice.time, choice.savings.switched),
        default=None,
    )


def _choices(networks: Footprint, plans: Sequence[Plan]) -> Iterator[Choice]:
    """All combinations, for plans that follow one another."""
    steered = [plan.boxes is not None for plan in plans]
    plainly = sum(estimate_time(p.settings, Savings(), steered=s) for p, s in zip(plans, steered, strict=True))
    for switches in product((False, True), (False, True), (False, True), (4, 2, 1)):
        savings = Savings(*switches)
        needed, time = 0, 0.0
        for plan, s in zip(plans, steered, strict=True):
            needed = max(needed, estimate_bytes(networks, plan.settings, plan.shape, savings, steered=s))
            time += estimate_time(plan.settings, savings, steered=s)
        yield Choice(savings, needed, time / plainly)


def check_memory(pipeline: Any, plan: Plan, capacity: int | None = None, **how: Any) -> None:
    """Raise ValueError, with what would fit, where the plan's estimate exceeds `capacity` bytes.

    capacity: None asks the U-Net's GPU what is free, or already this program's; on a CPU nothing is checked.
    how: `sequential_guidance`, `offload` and `frames_per_chunk`, as `generate` gets them
    """
    if capacity is None:
        capacity = free_bytes(pipeline)
        if capacity is None:
            return
    networks = Footprint.of(pipeline)
    savings = Savings(bool(pipeline.unet.checkpoint_activations), **how)

    def fits(shape: tuple[int, int, int, int]) -> bool:
        return needed(shape) <= capacity

    def needed(shape: tuple[int, int, int, int]) -> int:
        return estimate_bytes(networks, plan.settings, shape, savings, steered=plan.boxes is not None)

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


def free_bytes(pipeline: Any) -> int | None:
    """What is free on the U-Net's GPU, or already this program's; None on a CPU."""
    device = next(pipeline.unet.parameters()).device
    if device.type != "cuda":
        return None
    return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
