"""The autoencoder between pixels and latents, frame by frame. Parameter names are the checkpoint's."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from model.config import VAEConfig
from model.layers import Downsample, ResnetBlock, Upsample

EPS = 1e-6  # of every GroupNorm in the VAE


class FrameAttention(nn.Module):
    """Single-head self-attention over all cells of a frame, in the middle of encoder and decoder."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, channels, EPS)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape; the softmax runs in at least float32."""
        tokens = rearrange(self.group_norm(x), "n c h w -> n 1 (h w) c")
        q, k, v = self.to_q(tokens), self.to_k(tokens), self.to_v(tokens)
        wide = torch.promote_types(x.dtype, torch.float32)
        a = F.scaled_dot_product_attention(q.to(wide), k.to(wide), v.to(wide)).to(x.dtype)
        return x + rearrange(self.to_out[0](a), "n 1 (h w) c -> n c h w", h=x.shape[2])


class MidBlock(nn.Module):
    """ResNet block, attention, ResNet block, at the coarsest grid."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList([ResnetBlock(channels, channels, groups, EPS) for _ in range(2)])
        self.attentions = nn.ModuleList([FrameAttention(channels, groups)])

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class Level(nn.Module):
    """ResNet blocks at one size of the grid, then the layer that leads to the next size; the last level has none."""

    downsamplers: nn.ModuleList  # of one, in the encoder
    upsamplers: nn.ModuleList  # of one, in the decoder

    def __init__(self, in_channels: int, out_channels: int, layers: int, groups: int) -> None:
        super().__init__()
        widths = [in_channels] + [out_channels] * layers
        self.resnets = nn.ModuleList([ResnetBlock(a, b, groups, EPS) for a, b in pairwise(widths)])

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / 2, W / 2) in the encoder, (N, C', 2 H, 2 W) in the decoder."""
        for resnet in self.resnets:
            x = resnet(x)
        if hasattr(self, "downsamplers"):
            return self.downsamplers[0](x)
        return self.upsamplers[0](x) if hasattr(self, "upsamplers") else x


class Encoder(nn.Module):
    """Pixels to the moments of the latent's posterior."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths = config.block_out_channels
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList()
        for level, (a, b) in enumerate(pairwise((widths[0], *widths))):
            block = Level(a, b, config.layers_per_block, config.norm_num_groups)
            if level < len(widths) - 1:
                block.downsamplers = nn.ModuleList([Downsample(b, pad=(0, 1, 0, 1))])
            self.down_blocks.append(block)
        self.mid_block = MidBlock(widths[-1], config.norm_num_groups)
        self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, widths[-1], EPS)
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 8H, 8W) -> (N, 2 C, H, W)."""
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x))))


class Decoder(nn.Module):
    """Latents to pixels."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths = config.block_out_channels[::-1]
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.mid_block = MidBlock(widths[0], config.norm_num_groups)
        self.up_blocks = nn.ModuleList()
        for level, (a, b) in enumerate(pairwise((widths[0], *widths))):
            block = Level(a, b, config.layers_per_block + 1, config.norm_num_groups)
            if level < len(widths) - 1:
                block.upsamplers = nn.ModuleList([Upsample(b)])
            self.up_blocks.append(block)
        self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, widths[-1], EPS)
        self.conv_out = nn.Conv2d(widths[-1], config.out_channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 3, 8H, 8W)."""
        x = self.mid_block(self.conv_in(z))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class AutoencoderKL(nn.Module):
    """Video in, latents out and back; frames are independent, and only `frames_per_chunk` are worked on at a time."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = nn.Conv2d(2 * config.latent_channels, 2 * config.latent_channels, 1)
        self.post_quant_conv = nn.Conv2d(config.latent_channels, config.latent_channels, 1)

    def posterior(self, pixels: Tensor, frames_per_chunk: int = 4) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(latent | pixels), unscaled: (B, 3, F, 8H, 8W) in [-1, 1] -> 2x (B, C, F, H, W)."""
        _check_video("pixels", pixels, self.config.in_channels)
        d = self.config.downscale
        if pixels.shape[3] % d or pixels.shape[4] % d:
            raise ValueError(
                f"pixels are {pixels.shape[3]}x{pixels.shape[4]}; height and width must be multiples of {d}"
            )
        mean, logvar = self._by_frames(lambda x: self.quant_conv(self.encoder(x)), pixels, frames_per_chunk).chunk(
            2, dim=1
        )
        return mean, logvar.clamp(-30, 20)

    def encode(self, pixels: Tensor, frames_per_chunk: int = 4) -> Tensor:
        """Posterior mean times the scaling factor: (B, 3, F, 8H, 8W) in [-1, 1] -> latents (B, C, F, H, W)."""
        return self.posterior(pixels, frames_per_chunk)[0] * self.config.scaling_factor

    def decode(self, latents: Tensor, frames_per_chunk: int = 4) -> Tensor:
        """Latents (B, C, F, H, W), as the U-Net makes them -> pixels (B, 3, F, 8H, 8W), in [-1, 1] up to overshoot."""
        _check_video("latents", latents, self.config.latent_channels)
        return self._by_frames(
            lambda z: self.decoder(self.post_quant_conv(z)), latents / self.config.scaling_factor, frames_per_chunk
        )

    def _by_frames(self, network, video: Tensor, frames_per_chunk: int) -> Tensor:
        if frames_per_chunk < 1:
            raise ValueError(f"frames_per_chunk is {frames_per_chunk}; it must be at least 1")
        frames = rearrange(video, "b c f h w -> (b f) c h w").to(self.quant_conv.weight.dtype)
        chunks = frames.contiguous(memory_format=torch.channels_last).split(frames_per_chunk)
        return rearrange(torch.cat([network(c) for c in chunks]), "(b f) c h w -> b c f h w", f=video.shape[2])


def _check_video(name: str, video: Tensor, channels: int) -> None:
    if video.ndim != 5 or video.shape[1] != channels:
        raise ValueError(f"{name} have shape {tuple(video.shape)}; expected (B, {channels}, F, H, W)")
