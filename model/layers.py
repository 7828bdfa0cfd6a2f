"""Convolutional parts that the U-Net and the VAE share. Parameter names are the checkpoint's.

Activations are kept in channels-last memory: then a frame's tokens `(h w) c`, a video's frame columns `f (h w)` and the
image `h w` are views of the same numbers, and changing between space and time copies nothing.

In float16 a GroupNorm's sum of squares may be beyond the largest number; torch adds it in float32 all the same.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


def timestep_embedding(t: Tensor, dim: int) -> Tensor:
    """Sinusoidal embedding, `[cos, sin]` order, frequencies 10000^(-i / (dim/2)). `(B,) -> (B, dim)` float32."""
    half = dim // 2
    frequencies = torch.exp(-math.log(10000) / half * torch.arange(half, dtype=torch.float32, device=t.device))
    angles = t[:, None].float() * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimestepMLP(nn.Module):
    """Two linear layers that turn the sinusoidal embedding into the vector every ResNet block receives."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(in_dim, out_dim)
        self.linear_2 = nn.Linear(out_dim, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_dim) -> (B, out_dim)."""
        return self.linear_2(F.silu(self.linear_1(x)))


class ResnetBlock(nn.Module):
    """GroupNorm, SiLU, 3x3 convolution, twice, around a shortcut; per frame. `time_dim` adds the timestep between."""

    def __init__(
        self, in_channels: int, out_channels: int, groups: int, eps: float, time_dim: int | None = None
    ) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(_groups(groups, in_channels), in_channels, eps)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        if time_dim is not None:
            self.time_emb_proj = nn.Linear(time_dim, out_channels)
        self.norm2 = nn.GroupNorm(groups, out_channels, eps)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        if in_channels != out_channels:
            self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, time: Tensor | None = None, frames: int = 1) -> Tensor:
        """x (g B F, C, H, W), g = 1 or G guidance halves; time (B, D), one vector a video -> (g B F, C', H, W)."""
        h = self.conv1(F.silu(self.norm1(x)))
        if time is not None:
            shift = rearrange(self.time_emb_proj(F.silu(time)), "b c -> b 1 c 1 1")  # for each half and each frame
            h = rearrange(h, "(g b f) c h w -> g b f c h w", b=len(time), f=frames) + shift
            h = rearrange(h, "g b f c h w -> (g b f) c h w")
        h = self.conv2(F.silu(self.norm2(h)))
        shortcut = self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x
        return shortcut + h


class FrameConv(nn.Conv3d):
    """Convolution of kernel (3, 1, 1): each pixel mixes with itself one frame before and after.

    Run as a 2-D convolution over (frame, pixel), since the general Conv3d is a slow path on CPUs.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, (3, 1, 1), padding=(1, 0, 0))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, F, P) -> (B, C', F, P), P pixels of a frame."""
        return F.conv2d(x, self.weight.squeeze(-1), self.bias, padding=(1, 0))


class TemporalConvLayer(nn.Module):
    """Four convolutions over frames around a shortcut. The GroupNorms see all frames of a video jointly."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        first, second, third, last = (FrameConv(channels, channels) for _ in range(4))
        self.conv1 = nn.Sequential(nn.GroupNorm(groups, channels), nn.SiLU(), first)
        self.conv2 = nn.Sequential(nn.GroupNorm(groups, channels), nn.SiLU(), nn.Dropout(0.1), second)
        self.conv3 = nn.Sequential(nn.GroupNorm(groups, channels), nn.SiLU(), nn.Dropout(0.1), third)
        self.conv4 = nn.Sequential(nn.GroupNorm(groups, channels), nn.SiLU(), nn.Dropout(0.1), last)
        for parameter in last.parameters():
            nn.init.zeros_(parameter)  # training starts from the identity

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """(B F, C, H, W) -> the same shape."""
        h = rearrange(x, "(b f) c h w -> b c f (h w)", f=frames)
        h = self.conv4(self.conv3(self.conv2(self.conv1(h))))
        return x + rearrange(h, "b c f (h w) -> (b f) c h w", h=x.shape[2])


class Downsample(nn.Module):
    """3x3 convolution of stride 2. The U-Net pads by one on each side, the VAE, by `pad`, only right and below."""

    def __init__(self, channels: int, pad: tuple[int, int, int, int] | None = None) -> None:
        super().__init__()
        self.pad = pad  # left, right, top, bottom
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1 if pad is None else 0)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, ceil(H / 2), ceil(W / 2)) in the U-Net; floor in the VAE."""
        return self.conv(x if self.pad is None else F.pad(x, self.pad))


class Upsample(nn.Module):
    """Nearest-neighbour enlargement, to twice the size or to a given one, then a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """(N, C, H, W) -> (N, C, 2H, 2W), or (N, C, *size)."""
        size = size or (2 * x.shape[2], 2 * x.shape[3])
        return self.conv(F.interpolate(x, size=size, mode="nearest"))


def _groups(groups: int, channels: int) -> int:
    if channels % groups:
        raise ValueError(f"norm_num_groups {groups} does not divide the {channels} channels of a layer")
    return groups
