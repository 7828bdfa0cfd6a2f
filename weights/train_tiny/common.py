"""What both trainings share: snapshots to resume from, learning rate, averaged weights, several processes."""

from __future__ import annotations

import copy
import math
import os
from pathlib import Path
from typing import Generic, TypeVar

import torch
import torch.distributed as dist
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def save_snapshot(path: Path, state: dict) -> None:
    """Write under a temporary name, then rename: an interrupted write leaves the previous snapshot whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)


def load_snapshot(path: Path) -> dict | None:
    """The last snapshot, or None where there is none yet."""
    return torch.load(path, map_location="cpu", weights_only=True) if path.exists() else None


def cosine_rate(step: int, steps: int, peak: float, warmup: int = 100) -> float:
    """Linear warm-up, then half a cosine down to zero."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return peak * 0.5 * (1 + math.cos(math.pi * progress))


class Average(Generic[Network]):
    """Exponential moving average of a module's parameters, with a short memory at first."""

    def __init__(self, module: Network, decay: float) -> None:
        self.module = copy.deepcopy(module).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move the average towards the module after training step `step`."""
        keep = min(self.decay, (1 + step) / (10 + step))
        for average, value in zip(self.module.state_dict().values(), module.state_dict().values(), strict=True):
            if average.is_floating_point():
                average.lerp_(value, 1 - keep)
            else:
                average.copy_(value)


def join_processes() -> int:
    """This process's rank: joins the others under torchrun, 0 alone."""
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
    return dist.get_rank() if dist.is_initialized() else 0


def average_gradients(model: nn.Module) -> None:
    """The mean over processes, in one message."""
    if not dist.is_initialized():
        return
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in gradients])
    dist.all_reduce(flat)
    for g, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        g.copy_(mean.view_as(g) / dist.get_world_size())
