"""Bounds for the tiny world's tables: what the world's own renderer shows, with each subject in its boxes or none."""

from dataclasses import replace

import numpy as np

from evaluation.benchmarks.items import Item, find_words
from weights.train_tiny.world import BACKGROUNDS, HEIGHT, SIZES, WIDTH, Scene, render


def oracle_video(item: Item) -> np.ndarray:
    """The world's own picture of an item, uint8 (F, H, W, 3): each subject in the middle of its boxes.

    A subject is as high as it is wide and has a size that training shows, so even here few boxes are filled. A
    ValueError where an item has other words than the world's, or a subject that is absent in a frame.
    """
    scenes = [_scene(item, subject, track) for subject, track in zip(item.subjects, item.boxes, strict=True)]
    if len(scenes) > 2:
        raise ValueError(f"item {item.id} has {len(scenes)} subjects, and the tiny world at most 2")
    return render(scenes[0] if len(scenes) == 1 else replace(scenes[0], other=scenes[1]))


def bare_video(item: Item) -> np.ndarray:
    """The same background without a subject, uint8 (F, H, W, 3): what a box that holds nothing shows."""
    scene = _scene(item, item.subjects[0], item.boxes[0])
    return render(replace(scene, centers=np.full_like(scene.centers, -10 * WIDTH)))


def _scene(item: Item, subject: str, track: tuple[tuple[float, ...] | None, ...]) -> Scene:
    color, _, shape = subject.partition(" ")
    backgrounds = [name for name in BACKGROUNDS if find_words(item.prompt, name)]
    if None in track or len(backgrounds) != 1:
        raise ValueError(f"item {item.id} is no video of the tiny world, with {subject} in each frame")
    boxes = np.array(track) * [WIDTH, HEIGHT, WIDTH, HEIGHT]  # (F, 4) in pixels
    size = (boxes[:, 2:] - boxes[:, :2]).min(axis=1).clip(*SIZES)  # (F,)
    half = size[:, None] / 2
    centers = ((boxes[:, :2] + boxes[:, 2:]) / 2).clip(half, np.array([WIDTH, HEIGHT]) - half)
    return Scene(color, shape, backgrounds[0], "any", centers, size, texture_seed=item.seed, wording=(0, 0))
