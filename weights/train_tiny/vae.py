"""Train the tiny autoencoder on single frames: `python -m weights.train_tiny.vae --out runs/tiny`, which resumes."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from model.config import VAEConfig
from model.vae import AutoencoderKL
from weights.train_tiny.common import Average, cosine_rate, load_snapshot, save_snapshot
from weights.train_tiny.world import HEIGHT, WIDTH, render, sample_scene

CONFIG = {
    "_class_name": "AutoencoderKL",
    "act_fn": "silu",
    "block_out_channels": [16, 24, 48, 64],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "out_channels": 3,
    "sample_size": 128,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the snapshot and, at the end, vae/")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    vae = AutoencoderKL(VAEConfig.from_dict(CONFIG | {"scaling_factor": 1.0}))
    vae.to(memory_format=torch.channels_last)
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
        torch.manual_seed(args.seed * 10**6 + step)
        optimizer.param_groups[0]["lr"] = cosine_rate(step, args.steps, args.rate)
        loss, error = loss_of(
            vae, frame_batch(args.seed, step, args.batch, CROP if step < CROPPED * args.steps else None)
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        average.update(vae, step)
        shown = 0.95 * shown + 0.05 * error.item() if step > first else error.item()
        if (step + 1) % 50 == 0:
            print(
                f"step {step + 1}  mse {shown:.5f}  {(time.time() - start) / (step + 1 - first):.2f} s/step", flush=True
            )
        if (step + 1) % 200 == 0 or step + 1 == args.steps:
            state = {"step": step + 1, "model": vae.state_dict(), "average": average.module.state_dict()}
            save_snapshot(args.out / "vae.pt", state | {"optimizer": optimizer.state_dict()})
    export(average.module, args.out)


def export(vae: AutoencoderKL, out: Path) -> None:
    """Write vae/ in the checkpoint's form, the scaling factor chosen so that latents have unit variance."""
    figures = measure(vae)
    folder = out / "vae"
    folder.mkdir(parents=True, exist_ok=True)
    config = CONFIG | {"scaling_factor": round(1 / figures["latent_std"], 5)}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    state = {name: p.half().contiguous() for name, p in vae.state_dict().items()}
    save_file(state, folder / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    print(json.dumps(figures | {"scaling_factor": config["scaling_factor"]}))


if __name__ == "__main__":
    main()
