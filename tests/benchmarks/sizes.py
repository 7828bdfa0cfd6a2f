"""The networks that are measured, and what they are given: one moving box that covers a fifth of each frame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from adaptation.attention_masks import AttentionControl
from adaptation.trajectory import Trajectory
from model.config import UNetConfig, VAEConfig
from model.unet import UNet3D
from model.vae import AutoencoderKL
from weights.files import read_json

ROOT = Path(__file__).parents[2]
TINY = ROOT / "weights" / "tiny"
BOXES = {"first": (0.05, 0.2, 0.45, 0.7), "last": (0.55, 0.3, 0.95, 0.8)}


@dataclass(frozen=True)
class Size:
    """Networks and latents of one size. The weights are random: they do not change what is computed."""

    unet: UNetConfig
    vae: VAEConfig
    frames: int
    height: int  # of the latents
    width: int
    words: int = 77


SIZES = {
    "tiny": Size(
        UNetConfig.from_dict(read_json(TINY / "unet" / "config.json")),
        VAEConfig.from_dict(read_json(TINY / "vae" / "config.json")),
        frames=8,
        height=12,
        width=16,
        words=32,
    ),
    "quarter": Size(
        UNetConfig(
            block_out_channels=(80, 160, 320, 320), norm_num_groups=16, attention_head_dim=16, cross_attention_dim=256
        ),
        VAEConfig(block_out_channels=(32, 64, 128, 128)),
        frames=8,
        height=20,
        width=36,
    ),
    "full": Size(UNetConfig(), VAEConfig(), frames=24, height=40, width=72),
}


def random_weights(
    build: type[nn.Module], config: UNetConfig | VAEConfig, device: str, dtype: torch.dtype
) -> nn.Module:
    """A network in eval mode whose every tensor is random, those that training starts at zero too."""
    torch.manual_seed(0)
    with torch.device(device):
        network = build(config).to(dtype).eval().requires_grad_(False)
    for p in network.parameters():
        if not p.any():
            nn.init.normal_(p, std=0.02)
    return network


def make_unet(size: Size, device: str, dtype: torch.dtype) -> UNet3D:
    return random_weights(UNet3D, size.unet, device, dtype)


def make_vae(size: Size, device: str, dtype: torch.dtype) -> AutoencoderKL:
    return random_weights(AutoencoderKL, size.vae, device, dtype)


def make_latents(size: Size, device: str) -> Tensor:
    """z (1, C, F, h, w) in float32, as the sampler hands it over."""
    torch.manual_seed(1)
    return torch.randn(1, size.unet.in_channels, size.frames, size.height, size.width).to(device)


def make_text(size: Size, device: str, dtype: torch.dtype) -> Tensor:
    """The guidance halves' words, (2, L, D)."""
    torch.manual_seed(2)
    return torch.randn(2, size.words, size.unet.cross_attention_dim).to(device, dtype)


def make_boxes(size: Size) -> Trajectory:
    keyframes = {0: BOXES["first"], size.frames - 1: BOXES["last"]}
    return Trajectory.from_keyframes(keyframes, size.frames, subject="subject", prompt="a subject")


def make_control(size: Size, device: str, normalize: bool) -> AttentionControl:
    """The masks of method `mask`, or of `mask-norm`."""
    words = torch.zeros(1, size.words, dtype=torch.bool)
    words[0, [2, 3]] = True
    return AttentionControl(make_boxes(size).rasterize(size.height, size.width).to(device), words, normalize=normalize)
