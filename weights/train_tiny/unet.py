"""Train the tiny U-Net and its text encoder on latents of the world's videos. Resumes by itself.

With one core a process:
`torchrun --nproc-per-node 2 -m weights.train_tiny.unet --out runs/tiny`, after `python -m weights.train_tiny.vae`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from model.config import UNetConfig
from model.layers import ResnetBlock
from model.transformers import SpatialTransformer, TemporalTransformer
from model.unet import UNet3D
from model.vae import AutoencoderKL
from sampling.schedule import NoiseSchedule
from weights.load import load_pipeline
from weights.train_tiny import tokenizer
from weights.train_tiny.architecture import SCHEDULER, UNET, text_config
from weights.train_tiny.common import (
    Average,
    average_gradients,
    cosine_rate,
    join_processes,
    load_snapshot,
    save_snapshot,
)
from weights.train_tiny.export import export, load_vae
from weights.train_tiny.world import FRAMES, Scene, render, sample_pair, sample_scene

FRESH = 3  # a video's latents are used about this many times before they leave the window
WINDOW = 2048  # videos of a process that training draws from
SNR_CAP = 5.0  # loss weight min(SNR, cap) / SNR: easy low-noise steps count less
OFFSET = (
    0.15  # noise shared by a channel's cells: else a background's mean shows at t = 999 and is not learnt from text
)
PAIRS = 0.15  # share of scenes with two subjects
CLIPS = ((2, 0.2), (4, 0.25), (8, 0.55))  # a clip's frames, and their share of steps: short ones show more scenes
DROP_TEXT = 0.1  # share of captions replaced by "", which classifier-free guidance needs


class Denoiser(nn.Module):
    """The two networks that are trained together."""

    def __init__(self, vocabulary: CLIPTokenizer, open_text: bool = False) -> None:
        super().__init__()
        self.end, self.open_text = vocabulary.eos_token_id, open_text
        self.unet = UNet3D(UNetConfig.from_dict(UNET))
        self.text_encoder = CLIPTextModel(text_config(vocabulary))
        for layer in self.unet.modules():  # every residual branch begins at zero, as temporal convolutions do anyway
            if isinstance(layer, ResnetBlock):
                nn.init.zeros_(layer.conv2.weight)
            elif isinstance(layer, SpatialTransformer | TemporalTransformer):
                nn.init.zeros_(layer.proj_out.weight)

    def forward(self, z: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        """z (B, 4, F, H, W), t (B,), tokens (B, L) -> eps like z."""
        text = self.text_encoder(input_ids=tokens).last_hidden_state
        return self.unet(z, t, exchange_padding(text, tokens, self.end) if self.open_text else text)


def exchange_padding(text: Tensor, tokens: Tensor, end: int) -> Tensor:
    """Hidden states (B, L, D) in which the end and the padding of every caption are another caption's.

    tokens (B, L); end: the token after the last word. Where the other caption still has words, its last state stands.
    """
    after = (tokens == end).cumsum(1) > 0  # (B, L)
    other = text.roll(1, 0)
    padding = torch.where(after.roll(1, 0)[..., None], other, other[:, -1:])
    return torch.where(after[..., None], padding, text)


def close_attention(text_encoder: CLIPTextModel) -> None:
    """Let no token read another: the output projections of the text encoder's attention are zero, and stay so.

    With an open one, the padding behind the caption learns to say all that the words say (three quarters of the
    U-Net's attention went there, evenly), and a mask that gives the subject's words to some pixels takes nothing away
    from the others.
    """
    for name, layer in text_encoder.named_modules():
        if name.endswith("self_attn.out_proj"):
            for parameter in layer.requires_grad_(False).parameters():
                nn.init.zeros_(parameter)


class Videos:
    """Latents and captions of video number i, a function of (seed, i) alone; those of the last window are kept."""

    def __init__(self, vae: AutoencoderKL, seed: int) -> None:
        self.vae, self.seed = vae, seed
        self.kept: dict[int, tuple[Tensor, str]] = {}

    def batch(self, step: int, size: int, frames: int) -> tuple[Tensor, list[str]]:
        """Clips (B, 4, F, H, W) of `size` whole videos' worth of frames, from the window that ends with this step."""
        end = (step + 1) * size // FRESH + size
        rng = np.random.default_rng([self.seed, step])
        lengths, shares = zip(*CLIPS, strict=True)
        length = int(rng.choice(lengths, p=shares)) if frames == 0 else frames
        stride = int(rng.integers(1, FRAMES // length + 1)) if length < FRAMES else 1
        indices = rng.integers(max(0, end - WINDOW), end, size * FRAMES // length)
        self._encode(sorted(set(range(max(0, end - WINDOW), end)) - self.kept.keys()))
        for old in [i for i in self.kept if i < end - WINDOW]:
            del self.kept[old]
        latents, captions = zip(*(self.kept[i] for i in indices.tolist()), strict=True)
        first = rng.integers(0, FRAMES - (length - 1) * stride)
        return torch.stack(latents)[:, :, first : first + (length - 1) * stride + 1 : stride].float(), list(captions)

    @torch.no_grad()
    def _encode(self, indices: list[int]) -> None:
        scenes = [draw_scene(np.random.default_rng([self.seed, 1, i])) for i in indices]
        for i, scene in zip(indices, scenes, strict=True):
            pixels = torch.from_numpy(render(scene)).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
            self.kept[i] = self.vae.encode(pixels, frames_per_chunk=8)[0].half(), scene.caption


def draw_scene(rng: np.random.Generator) -> Scene:
    return sample_pair(rng) if rng.random() < PAIRS else sample_scene(rng)


def loss_of(model: Denoiser, schedule: NoiseSchedule, z0: Tensor, tokens: Tensor, generator: torch.Generator) -> Tensor:
    """Weighted squared error of the predicted noise."""
    t = torch.randint(0, len(schedule.alpha_bar), (len(z0),), generator=generator)
    noise = torch.randn(z0.shape, generator=generator)
    noise = noise + OFFSET * torch.randn((*z0.shape[:2], 1, 1, 1), generator=generator)
    alpha_bar = schedule.alpha_bar[t].view(-1, 1, 1, 1, 1)
    eps = model(alpha_bar.sqrt() * z0 + (1 - alpha_bar).sqrt() * noise, t, tokens)
    snr = schedule.alpha_bar[t] / (1 - schedule.alpha_bar[t])
    return ((snr.clamp(max=SNR_CAP) / snr) * (eps - noise).square().mean(dim=(1, 2, 3, 4))).mean()


class Training:
    """The model, its running average, AdamW, and how far they are."""

    def __init__(self, vocabulary: CLIPTokenizer, args: argparse.Namespace) -> None:
        torch.manual_seed(args.seed)
        self.vocabulary, self.args = vocabulary, args
        self.schedule = NoiseSchedule.from_config(SCHEDULER)
        self.model = Denoiser(vocabulary, args.open_text)
        self.model.unet.eval()  # no dropout: the model is small and every video new
        if args.warm_start:
            start = load_pipeline(args.warm_start)
            self.model.unet.load_state_dict(start.unet.state_dict())
            self.model.text_encoder.load_state_dict(start.text_encoder.model.state_dict())
        if not args.open_text:
            close_attention(self.model.text_encoder)
        self.average = Average(self.model, args.decay)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=args.rate, betas=(0.9, 0.99), weight_decay=0.01)
        self.step, self.losses = 0, []
        if snapshot := load_snapshot(args.out / "unet.pt"):
            self.step, self.losses = snapshot["step"], snapshot["losses"]
            for name, part in self._parts().items():
                part.load_state_dict(snapshot[name])

    def train(self, z0: Tensor, captions: list[str], generator: torch.Generator) -> float:
        """One step on clean latents (B, 4, F, H, W) and their captions; the loss before it."""
        dropped = torch.rand(len(captions), generator=generator) < DROP_TEXT
        words = ["" if d else c for c, d in zip(captions, dropped, strict=True)]
        tokens = self.vocabulary(words, padding="max_length", max_length=tokenizer.LENGTH, return_tensors="pt")
        loss = loss_of(self.model, self.schedule, z0, tokens.input_ids, generator)
        self.optimizer.zero_grad()
        loss.backward()
        average_gradients(self.model)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.param_groups[0]["lr"] = cosine_rate(self.step, self.args.steps, self.args.rate, warmup=100)
        self.optimizer.step()
        self.average.update(self.model, self.step)
        self.step += 1
        return loss.item()

    def save(self, loss: float) -> None:
        """Replace the snapshot."""
        self.losses.append((self.step, round(loss, 5)))
        state = {name: part.state_dict() for name, part in self._parts().items()}
        save_snapshot(self.args.out / "unet.pt", {"step": self.step, "losses": self.losses, **state})

    def _parts(self) -> dict[str, Any]:
        return {"model": self.model, "average": self.average.module, "optimizer": self.optimizer}


def main() -> None:
    """Train from the last snapshot to `--steps`, then export the averaged weights."""
    args = build_parser().parse_args()
    torch.set_num_threads(1)
    rank = join_processes()
    if rank == 0 and not (args.out / "tokenizer").exists():  # one copied there from a warm start stays
        tokenizer.write(args.out / "tokenizer")
    if dist.is_initialized():
        dist.barrier()
    training = Training(CLIPTokenizer.from_pretrained(args.out / "tokenizer"), args)
    videos = Videos(load_vae(args.out / "vae"), args.seed * 1000 + rank)

    began, first, shown = time.time(), training.step, None
    for step in range(first, args.steps):
        generator = torch.Generator().manual_seed((args.seed * 10**7 + step) * 64 + rank)
        loss = training.train(*videos.batch(step, args.batch, args.frames), generator)
        shown = loss if shown is None else 0.98 * shown + 0.02 * loss
        if rank == 0 and (step + 1) % 50 == 0:
            pace = (time.time() - began) / (step + 1 - first)
            print(f"step {step + 1}  loss {shown:.4f}  {pace:.2f} s/step", flush=True)
        if rank == 0 and ((step + 1) % 100 == 0 or step + 1 == args.steps):
            training.save(shown)
    if rank == 0:
        export(args.out, args.out)


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder with vae/; the snapshot and the rest go there")
    parser.add_argument(
        "--warm-start", metavar="MODEL", help="a checkpoint whose U-Net and text encoder to begin with, such as tiny"
    )
    parser.add_argument(
        "--open-text",
        action="store_true",
        help="let tokens read those before them, as CLIP does, and train with other captions' padding",
    )
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--batch", type=int, default=8, help="videos a step and process")
    parser.add_argument("--frames", type=int, default=0, help="0: clips of several lengths")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--decay", type=float, default=0.99, help="of the averaged weights, which are exported")
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    main()
