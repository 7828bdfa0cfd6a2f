"""The world's judge: a small network that names shape, colour, background and motion of a video.

What it sees before its four answers are features that were trained on the world: how far generated videos lie from the
world's own in them says how natural they still are. `python -m weights.train_tiny.judge` makes judge.safetensors.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from einops import rearrange, reduce
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, avg_pool3d, cross_entropy

from weights.train_tiny.common import cosine_rate
from weights.train_tiny.world import BACKGROUNDS, COLORS, FRAMES, HEIGHT, SHAPES, WIDTH, render, sample_scene

FILE = Path(__file__).with_name("judge.safetensors")
SEEN = HEIGHT // 2, WIDTH // 2  # height and width in pixels that the network sees
WIDTHS = 16, 24, 32, 32  # channels of its layers; mean and maximum of the last are its features
ANSWERS = {
    "shape": SHAPES,
    "color": tuple(COLORS),
    "background": tuple(BACKGROUNDS),
    "motion": ("still", "slow", "fast", "bouncing", "zigzag"),
}
HELD_OUT_SEED = 3 * 10**6  # of the scenes on which it is measured


class Judge(nn.Module):
    """Three convolutions of single frames, one in space and time, and a linear answer of each kind to their mean."""

    def __init__(self) -> None:
        super().__init__()
        a, b, c, d = WIDTHS
        self.frames = nn.Sequential(
            *(nn.Conv2d(3, a, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(a), nn.ReLU()),
            *(nn.Conv2d(a, b, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU()),
            *(nn.Conv2d(b, c, 3, padding=1, bias=False), nn.BatchNorm2d(c), nn.ReLU()),
        )
        # Beyond the first and the last frame stands the same frame again, so that one frame is a still video.
        self.video = nn.Sequential(
            nn.Conv3d(c, d, 3, stride=(1, 2, 2), padding=1, padding_mode="replicate", bias=False),
            nn.BatchNorm3d(d),
            nn.ReLU(),
        )
        self.answers = nn.ModuleDict({kind: nn.Linear(2 * d, len(words)) for kind, words in ANSWERS.items()})

    def features(self, video: Tensor) -> Tensor:
        """What the answers are made of: (b, 3, f, *SEEN) in [-1, 1] -> (b, 2 d), the mean over frames of each frame's
        mean over places, which tells of the background, and of its maximum, which tells of a subject wherever it is."""
        maps = self.frames(rearrange(video, "b c f h w -> (b f) c h w"))
        maps = self.video(rearrange(maps, "(b f) c h w -> b c f h w", b=len(video)))
        pooled = [reduce(maps, "b c f h w -> b c f", how) for how in ("mean", "max")]
        return torch.cat(pooled, dim=1).mean(2)

    def forward(self, video: Tensor) -> dict[str, Tensor]:
        """{kind: logits (b, its words)}."""
        features = self.features(video)
        return {kind: answer(features) for kind, answer in self.answers.items()}

    @classmethod
    def load(cls) -> Judge:
        """The one that is shipped, in float32 and ready to judge."""
        judge = cls().eval().requires_grad_(False)
        judge.load_state_dict({name: tensor.float() for name, tensor in load_file(FILE).items()})
        return judge


def shrink(frames: np.ndarray) -> Tensor:
    """uint8 (F, H, W, 3) -> (3, F, *SEEN) in [-1, 1], each pixel the mean of those that it stands for."""
    return adaptive_avg_pool2d(rearrange(torch.from_numpy(frames).float(), "f h w c -> c f h w") / 127.5 - 1, SEEN)


# ---- Training --------------------------------------------------------------------------------------------------------


def draw(seed: int, count: int, frames: int, held: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """Random scenes -> videos (count, 3, frames, *SEEN), and by kind the number of the right word (count,)."""
    rng = np.random.default_rng(seed)
    scenes = [sample_scene(rng, frames, held) for _ in range(count)]
    right = {kind: torch.tensor([words.index(getattr(s, kind)) for s in scenes]) for kind, words in ANSWERS.items()}
    return torch.stack([shrink(render(scene)) for scene in scenes]), right


def vary(video: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the batches mirrored, half of them backward, each video with its own blur and noise: what an autoencoder
    rebuilds is to be nothing foreign."""
    mirrored, backward = torch.rand(2, generator=generator) < 0.5
    video = video.flip(-1) if mirrored else video
    video = video.flip(2) if backward else video
    strength, noise = torch.rand(2, len(video), 1, 1, 1, 1, generator=generator)
    blurred = avg_pool3d(video, (1, 3, 3), stride=1, padding=(0, 1, 1), count_include_pad=False)
    return video + strength * (blurred - video) + 0.05 * noise * torch.randn(video.shape, generator=generator)


def train(scenes: int, steps: int, seed: int = 0, batch: int = 16) -> Judge:
    """A function of all of these, on one thread."""
    torch.manual_seed(seed)
    judge, generator = Judge(), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(judge.parameters(), weight_decay=0.02)
    videos, right = draw(seed, scenes, FRAMES, held=False)
    for step in range(steps):
        some = torch.randint(scenes, (batch,), generator=generator)
        logits = judge(vary(videos[some], generator))
        losses = {kind: cross_entropy(logits[kind], right[kind][some]) for kind in ANSWERS}
        optimizer.param_groups[0]["lr"] = cosine_rate(step, steps, 5e-3, warmup=20)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        if (step + 1) % 25 == 0:
            print(f"step {step + 1}  loss", *(f"{kind} {loss:.2f}" for kind, loss in losses.items()), flush=True)
    return judge.eval().requires_grad_(False)


@torch.no_grad()
def measure(judge: Judge, count: int, frames: int = FRAMES) -> dict[str, float]:
    """Share of right answers by kind, over scenes of combinations that training never saw."""
    videos, right = draw(HELD_OUT_SEED, count, frames, held=True)
    logits = judge(videos)
    return {kind: round(float((logits[kind].argmax(1) == right[kind]).float().mean()), 3) for kind in ANSWERS}


def main() -> None:
    """Train, write, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=8000)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--out", type=Path, default=FILE)
    args = parser.parse_args()
    torch.set_num_threads(1)
    judge = train(args.scenes, args.steps)
    save_file({name: t.half() if t.is_floating_point() else t for name, t in judge.state_dict().items()}, args.out)
    print(json.dumps(measure(judge, 256)))


if __name__ == "__main__":
    main()
