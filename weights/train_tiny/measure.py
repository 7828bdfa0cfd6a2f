"""How well a tiny checkpoint draws what its prompts say: `python -m weights.train_tiny.measure --model tiny`.

Prompts come from combinations of colour, shape and background that training never saw; sampling is plain. With
`--guidance-scale 2 3 4` each scale is measured on the same prompts and noise. Needs scipy.
"""

from __future__ import annotations

import waiting  # noqa: F401  (first, for torch reads its choice once)

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from sampling.generate import generate
from sampling.settings import SamplingSettings, preset
from weights.load import Pipeline, load_pipeline
from weights.train_tiny.detect import detect
from weights.train_tiny.vae import measure as measure_vae
from weights.train_tiny.world import FRAMES, HEIGHT, WIDTH, Scene, sample_scene


def held_out_scenes(count: int, seed: int = 10**6) -> list[Scene]:
    """Scenes whose combinations training never saw; only their captions are used."""
    rng = np.random.default_rng(seed)
    return [sample_scene(rng, held=True) for _ in range(count)]


def judge(frames: np.ndarray, scene: Scene) -> dict[str, float]:
    """Shares of frames uint8 (F, H, W, 3) with the subject's colour, with exactly one subject; whether background and
    shape, as most frames show them, are those of the prompt."""
    seen = detect(frames, scene.color)
    names, shapes = [d.background for d in seen], [d.shape for d in seen]
    return {
        "colour": float(np.mean([d.box is not None for d in seen])),
        "single": float(np.mean([d.blobs == 1 for d in seen])),
        "background": float(max(set(names), key=names.count) == scene.background),
        "shape": float(max(set(shapes), key=shapes.count) == scene.shape),
    }


def measure(pipeline: Pipeline, settings: SamplingSettings, count: int) -> tuple[dict[str, float], list[np.ndarray]]:
    """Mean figures in percent over `count` held-out prompts, and the videos."""
    figures, videos = [], []
    for seed, scene in enumerate(tqdm(held_out_scenes(count), unit="video", disable=None)):
        result = generate(
            pipeline, scene.caption, settings=settings, seed=seed, frames=FRAMES, height=HEIGHT, width=WIDTH
        )
        figures.append(judge(result.frames, scene))
        videos.append(result.frames)
    return {key: round(100 * float(np.mean([f[key] for f in figures])), 1) for key in figures[0]}, videos


def picture(videos: list[np.ndarray]) -> Image.Image:
    """A row of frames for each video."""
    return Image.fromarray(np.concatenate([np.concatenate(list(v), axis=1) for v in videos], axis=0))


def main() -> None:
    """Print the figures of a checkpoint, one JSON line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--count", type=int, default=128, help="held-out prompts, each with its own seed")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance-scale", type=float, nargs="+", help="default: the checkpoint's own")
    parser.add_argument("--picture", type=Path, help="write the first videos of the last scale as one PNG")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    pipeline = load_pipeline(args.model)
    own = SamplingSettings.from_dict(pipeline.defaults.settings)
    print(json.dumps({"vae": measure_vae(pipeline.vae)}), flush=True)
    for scale in args.guidance_scale or [own.guidance_scale]:
        settings = preset("plain", SamplingSettings(steps=args.steps, guidance_scale=scale))
        figures, videos = measure(pipeline, settings, args.count)
        print(json.dumps({"guidance_scale": scale, "videos": args.count} | figures), flush=True)
    if args.picture:
        picture(videos[:12]).save(args.picture)


if __name__ == "__main__":
    main()
