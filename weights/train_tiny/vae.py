"""Train the tiny autoencoder on single frames. Resumes by itself.

With one core a process: `torchrun --nproc-per-node 2 -m weights.train_tiny.vae --out runs/tiny`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from model.config import VAEConfig
from model.layers import Downsample, ResnetBlock, Upsample
from model.vae import AutoencoderKL, FrameAttention
from weights.load import load_pipeline
from weights.train_tiny.common import (
    Average,
    average_gradients,
    cosine_rate,
    join_processes,
    load_snapshot,
    save_snapshot,
)
from weights.train_tiny.world import HEIGHT, WIDTH, render, sample_scene

CONFIG = {
    "_class_name": "AutoencoderKL",
    "act_fn": "silu",
    "block_out_channels": [16, 24, 48, 64],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "out_channels": 3,
    "sample_size": 128,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
SCALING = 0.18215  # Stable Diffusion's and Zeroscope's; see `export`
KL_WEIGHT = 1e-6  # per latent number, against the mean squared error per pixel value; more drowns the colours in noise

CROP, CROPPED = 64, 0.88  # pixels; share of the steps that see crops, several times cheaper than the whole frames after


def frame_batch(seed: int, step: int, size: int, crop: int | None = None) -> Tensor:
    """`size` random frames (N, 3, 1, H, W) in [-1, 1], a function of seed and step; or squares near the subject."""
    rng = np.random.default_rng([seed, step])
    frames = []
    for scene in (sample_scene(rng, frames=1) for _ in range(size)):
        frame = render(scene)[0]
        if crop:
            x, y = scene.centers[0] + rng.uniform(-48, 48, 2) - crop / 2
            x, y = int(np.clip(x, 0, WIDTH - crop)), int(np.clip(y, 0, HEIGHT - crop))
            frame = frame[y : y + crop, x : x + crop]
        frames.append(frame)
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)[:, :, None].float() / 127.5 - 1


@torch.no_grad()
def start_as_identity(vae: AutoencoderKL) -> None:
    """Begin with block averages going down and copies coming up, each ResNet block an identity.

    From torch's own initialisation it takes many more steps until colours are told apart.
    """
    for layer in vae.modules():
        if isinstance(layer, ResnetBlock):
            for parameter in layer.conv2.parameters():
                nn.init.zeros_(parameter)
            if hasattr(layer, "conv_shortcut"):
                nn.init.dirac_(layer.conv_shortcut.weight)
        elif isinstance(layer, Upsample):
            nn.init.dirac_(layer.conv.weight)
        elif isinstance(layer, Downsample):
            nn.init.dirac_(layer.conv.weight)
            layer.conv.weight[:, :, :2, :2] = layer.conv.weight[:, :, 1:2, 1:2] / 4
            layer.conv.weight[:, :, 1, 1] = layer.conv.weight[:, :, 0, 0]
        elif isinstance(layer, FrameAttention):
            nn.init.zeros_(layer.to_out.get_parameter("0.weight"))
    bias = vae.quant_conv.get_parameter("bias")
    nn.init.constant_(bias[vae.config.latent_channels :], -4.0)  # little noise at first


def loss_of(vae: AutoencoderKL, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Training loss and the squared error alone; the latent is drawn from the posterior."""
    mean, logvar = vae.posterior(pixels, frames_per_chunk=len(pixels))
    latent = mean + (0.5 * logvar).exp() * torch.randn_like(mean)
    rebuilt = vae.decode(latent * vae.config.scaling_factor, frames_per_chunk=len(pixels))
    error = (rebuilt - pixels).square().mean()
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    return error + 0.2 * (rebuilt - pixels).abs().mean() + KL_WEIGHT * kl, error


@torch.no_grad()
def measure(vae: AutoencoderKL, seed: int = 10**6, frames: int = 256) -> dict[str, float]:
    """PSNR in dB over held-out frames (from 8-bit-range errors) and the standard deviation of unscaled latents."""
    pixels = frame_batch(seed, 0, frames)
    mean, _ = vae.posterior(pixels, 16)
    error = (vae.decode(mean * vae.config.scaling_factor, 16).clamp(-1, 1) - pixels).square().mean(dim=(1, 2, 3, 4)) / 4
    return {
        "psnr": float((-10 * error.log10()).mean()),
        "latent_std": float(mean.std()),
        "latent_mean": float(mean.mean()),
    }


def main() -> None:
    """Train from the last snapshot to `--steps`, then export the averaged weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the snapshot and, at the end, vae/")
    parser.add_argument("--warm-start", metavar="MODEL", help="a checkpoint whose autoencoder to begin with, as tiny")
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--batch", type=int, default=8, help="frames a step and process")
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rank = join_processes()
    torch.manual_seed(args.seed)
    vae = AutoencoderKL(VAEConfig.from_dict(CONFIG | {"scaling_factor": 1.0}))
    if args.warm_start:
        vae.load_state_dict(load_pipeline(args.warm_start).vae.state_dict())
    else:
        start_as_identity(vae)
    vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's own types lack this form
    average = Average(vae, 0.99)
    optimizer = torch.optim.Adam(vae.parameters(), lr=args.rate, betas=(0.9, 0.99))
    first, snapshot = 0, load_snapshot(args.out / "vae.pt")
    if snapshot:
        first = snapshot["step"]
        vae.load_state_dict(snapshot["model"])
        average.module.load_state_dict(snapshot["average"])
        optimizer.load_state_dict(snapshot["optimizer"])
    start, shown = time.time(), 0.0
    for step in range(first, args.steps):
        torch.manual_seed((args.seed * 10**6 + step) * 64 + rank)  # the posterior's noise
        optimizer.param_groups[0]["lr"] = cosine_rate(step, args.steps, args.rate)
        loss, error = loss_of(
            vae, frame_batch(args.seed * 64 + rank, step, args.batch, CROP if step < CROPPED * args.steps else None)
        )
        optimizer.zero_grad()
        loss.backward()
        average_gradients(vae)
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        average.update(vae, step)
        shown = 0.95 * shown + 0.05 * error.item() if step > first else error.item()
        if rank == 0 and (step + 1) % 50 == 0:
            print(
                f"step {step + 1}  mse {shown:.5f}  {(time.time() - start) / (step + 1 - first):.2f} s/step", flush=True
            )
        if rank == 0 and ((step + 1) % 200 == 0 or step + 1 == args.steps):
            state = {"step": step + 1, "model": vae.state_dict(), "average": average.module.state_dict()}
            save_snapshot(args.out / "vae.pt", state | {"optimizer": optimizer.state_dict()})
    if rank == 0:
        export(average.module, args.out)


@torch.no_grad()
def standardize(vae: AutoencoderKL, std: float, seed: int = 2 * 10**6, frames: int = 512) -> None:
    """Give each latent channel mean 0 and the same spread, in place; what the autoencoder rebuilds stays the same.

    Both convolutions beside the latent are 1x1, so a shift and a scale can move from one into the other.
    """
    mean, _ = vae.posterior(frame_batch(seed, 0, frames), 16)
    shift, scale = mean.mean(dim=(0, 2, 3, 4)), mean.std(dim=(0, 2, 3, 4)) / std  # (C,): new = (old - shift) / scale
    channels = len(scale)
    # Rows: the means, then the log-variances.
    weight, bias = (vae.quant_conv.get_parameter(name) for name in ("weight", "bias"))
    weight[:channels] /= scale[:, None, None, None]
    bias[:channels] = (bias[:channels] - shift) / scale
    bias[channels:] -= 2 * scale.log()
    weight, bias = (vae.post_quant_conv.get_parameter(name) for name in ("weight", "bias"))
    bias[:] += weight[:, :, 0, 0] @ shift
    weight[:] *= scale[None, :, None, None]


def export(vae: AutoencoderKL, out: Path) -> None:
    """Write vae/ in the checkpoint's form, each latent channel scaled to unit variance by the usual scaling factor."""
    standardize(vae, std=1 / SCALING)
    folder = out / "vae"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | {"scaling_factor": SCALING}, indent=2) + "\n")
    state = {name: p.half().contiguous() for name, p in vae.state_dict().items()}
    save_file(state, folder / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    print(json.dumps(measure(vae)))


if __name__ == "__main__":
    main()
