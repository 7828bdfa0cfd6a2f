"""The 3-D U-Net of ModelScope and Zeroscope: 2-D blocks a frame, each followed by its temporal twin.

A forward pass reads as a table: conv_in, transformer_in, encoder, mid, decoder, conv_out. Parameter names are exactly
the checkpoint's, so loading renames nothing: there the encoder is down_blocks and the decoder up_blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from adaptation.control import Control
from adaptation.trailblazer import TrailBlazerControl
from model.config import DOWN_TYPES, UP_TYPES, UNetConfig
from model.layers import Downsample, ResnetBlock, TemporalConvLayer, TimestepMLP, Upsample, timestep_embedding
from model.transformers import SpatialTransformer, TemporalTransformer

HEADS_IN = 8  # of transformer_in, whatever its width
Run = Callable[..., Tensor]  # run(part, *args): calls it, so that its activations are kept or made again


class Block3D(nn.Module):
    """Layers of [ResNet, temporal convolution, spatial transformer, temporal transformer]; one level of the U-Net.

    widths: (in, out) channels of each ResNet block. `attend`: how many layers have the two transformers.
    """

    downsamplers: nn.ModuleList  # of one, where a level of the encoder has it
    upsamplers: nn.ModuleList

    def __init__(self, config: UNetConfig, where: str, widths: list[tuple[int, int]], attend: int) -> None:
        super().__init__()
        self.where, self.attends = where, attend > 0
        groups, time_dim = config.norm_num_groups, 4 * config.block_out_channels[0]
        out, head_dim = widths[-1][1], config.attention_head_dim
        self.resnets = nn.ModuleList([ResnetBlock(a, b, groups, config.norm_eps, time_dim) for a, b in widths])
        self.temp_convs = nn.ModuleList([TemporalConvLayer(b, groups) for _, b in widths])
        if attend:
            sizes = (out, out // head_dim, head_dim, groups)
            text_dim = config.cross_attention_dim
            self.attentions = nn.ModuleList([SpatialTransformer(*sizes, text_dim) for _ in range(attend)])
            self.temp_attentions = nn.ModuleList([TemporalTransformer(*sizes) for _ in range(attend)])

    def forward(
        self,
        i: int,
        x: Tensor,
        time: Tensor,
        text: Tensor,
        frames: int,
        copies: int,
        control: Control | None,
        run: Run,
        finish: Run,
    ) -> Tensor:
        """Layer i, x (g B F, C, h, w) -> (G B F, C', h, w) where the block attends, else (g B F, C', h, w).

        time (B, 4 C0), text (G B, L, D). g = 1 until x first meets the text, where `copies` = G parts the guidance
        halves; from then on g = G and `copies` = 1. run: calls each of the layer's parts, and finish the last of them.
        """
        x = run(self.convolve, i, x, time, frames)
        if self.attends:
            x = run(self.attentions[i], x, text, copies, self.where, control)
            x = finish(self.temp_attentions[i], x, frames, self.where, control)
        return x

    def convolve(self, i: int, x: Tensor, time: Tensor, frames: int) -> Tensor:
        """ResNet block and temporal convolution of layer i: (g B F, C, h, w) -> (g B F, C', h, w)."""
        return self.temp_convs[i](self.resnets[i](x, time, frames), frames)


class UNet3D(nn.Module):
    """eps(z_t, t, y): the noise in a latent video, as the frozen text-to-video model predicts it.

    `checkpoint_activations = True` recomputes each part of a layer in the backward pass, one at a time, in
    place of keeping its activations.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        self.checkpoint_activations = False
        widths, groups = config.block_out_channels, config.norm_num_groups
        layers = config.layers_per_block

        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.time_embedding = TimestepMLP(widths[0], 4 * widths[0])
        self.transformer_in = TemporalTransformer(widths[0], HEADS_IN, config.attention_head_dim, groups)

        self.down_blocks = nn.ModuleList()
        skips, current = [widths[0]], widths[0]  # channels of what the up blocks will read, last in first out
        for level, (kind, width) in enumerate(zip(config.down_block_types, widths, strict=True)):
            pairs = [(current if i == 0 else width, width) for i in range(layers)]
            block = Block3D(config, "encoder", pairs, layers if DOWN_TYPES[kind] else 0)
            skips += [width] * layers
            if level < len(widths) - 1:
                block.downsamplers = nn.ModuleList([Downsample(width)])
                skips.append(width)
            self.down_blocks.append(block)
            current = width

        self.mid_block = Block3D(config, "mid", [(current, current)] * 2, 1)

        self.up_blocks = nn.ModuleList()
        for level, (kind, width) in enumerate(zip(config.up_block_types, widths[::-1], strict=True)):
            pairs = [((current if i == 0 else width) + skips.pop(), width) for i in range(layers + 1)]
            block = Block3D(config, "decoder", pairs, layers + 1 if UP_TYPES[kind] else 0)
            if level < len(widths) - 1:
                block.upsamplers = nn.ModuleList([Upsample(width)])
            self.up_blocks.append(block)
            current = width

        self.conv_norm_out = nn.GroupNorm(groups, widths[0], config.norm_eps)
        self.conv_out = nn.Conv2d(widths[0], config.out_channels, 3, padding=1)

    def forward(self, z: Tensor, t: Tensor | int, text: Tensor, control: Control | None = None) -> Tensor:
        """z (B, C, F, H, W), t an int or (B,), text (G B, L, D) -> eps (G B, C, F, H, W), in the weights' dtype.

        G = 2: the guidance halves [uncond, text] of the same z, which share all work before the text enters; the
        result equals two calls up to rounding. `control` masks the attention of both halves alike, or edits that of the
        text half (G = 1: of all) as TrailBlazer does. It never reaches transformer_in, which is no part of a block.
        """
        self._check(z, text)
        G, frames, dtype = len(text) // len(z), z.shape[2], self.conv_in.weight.dtype
        copies = G  # of x, to be made where it next meets the text: one x stands for all G halves until they part
        if isinstance(control, TrailBlazerControl):
            control = replace(control, videos=len(z))
        x = rearrange(z.to(dtype), "b c f h w -> (b f) c h w").contiguous(memory_format=torch.channels_last)
        text = text.to(dtype)  # (G B, L, D)
        t = t.to(z.device).expand(len(z)) if isinstance(t, Tensor) else torch.full((len(z),), t, device=z.device)
        time = self.time_embedding(timestep_embedding(t, self.config.block_out_channels[0]).to(dtype))  # (B, 4 C0)

        x = self.conv_in(x)  # (B F, C0, H, W)
        x = self._run(self.transformer_in, x, frames)  # never masked: no control is handed to it
        skips = [x]
        for block in cast(Iterable[Block3D], self.down_blocks):
            for i in range(self.config.layers_per_block):
                x = block(i, x, time, text, frames, copies, control, self._run, self._run)  # (g B F, C, h, w)
                copies = 1 if block.attends else copies
                skips.append(x)
            if hasattr(block, "downsamplers"):
                x = block.downsamplers[0](x)  # (g B F, C, h / 2, w / 2), odd sizes rounded up
                skips.append(x)

        x = self.mid_block(0, x, time, text, frames, copies, control, self._run, self._run)  # (G B F, C, h, w)
        x = self._run(self.mid_block.convolve, 1, x, time, frames)

        for block in cast(Iterable[Block3D], self.up_blocks):
            for i in range(self.config.layers_per_block + 1):
                skip = skips.pop()
                if len(skip) < len(x):  # made before the halves parted
                    skip = skip.repeat(G, 1, 1, 1)  # (G B F, C, h, w)
                finish = self._run if skips else _call  # the backward pass needs the very last part at once
                x = block(i, torch.cat([x, skip], dim=1), time, text, frames, 1, control, self._run, finish)
            if hasattr(block, "upsamplers"):
                x = block.upsamplers[0](x, size=skips[-1].shape[2:])  # (G B F, C, 2 h, 2 w), or odd as the skip

        eps = self.conv_out(F.silu(self.conv_norm_out(x)))
        return rearrange(eps, "(b f) c h w -> b c f h w", f=frames)

    def _run(self, part: Callable[..., Tensor], *args: Any) -> Tensor:
        """Call a part of the network, keeping its activations for the backward pass or recomputing them there."""
        if self.checkpoint_activations and torch.is_grad_enabled():
            return checkpoint(part, *args, use_reentrant=False)
        return part(*args)

    def _check(self, z: Tensor, text: Tensor) -> None:
        if z.ndim != 5 or z.shape[1] != self.config.in_channels:
            raise ValueError(f"z has shape {tuple(z.shape)}; expected (B, {self.config.in_channels}, F, H, W)")
        if text.ndim != 3 or text.shape[2] != self.config.cross_attention_dim:
            raise ValueError(f"text has shape {tuple(text.shape)}; expected (B, L, {self.config.cross_attention_dim})")
        if text.shape[0] not in (z.shape[0], 2 * z.shape[0]):
            raise ValueError(f"text has {text.shape[0]} entries for {z.shape[0]} videos; expected one or two a video")


def _call(part: Callable[..., Tensor], *args: Any) -> Tensor:
    return part(*args)
