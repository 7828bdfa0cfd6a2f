from dataclasses import replace

import numpy as np
import pytest

from weights.train_tiny.detect import detect, name_shape
from weights.train_tiny.world import (
    BACKGROUNDS,
    COLORS,
    FRAMES,
    HEIGHT,
    SHAPES,
    SIZES,
    WIDTH,
    held_out,
    render,
    sample_pair,
    sample_path,
    sample_scene,
    travelled,
)


def scenes(count, seed=0, **kwargs):
    rng = np.random.default_rng(seed)
    return [sample_scene(rng, **kwargs) for _ in range(count)]


def test_a_scene_is_a_function_of_its_seed():
    one, two = scenes(1)[0], scenes(1)[0]
    assert one.caption == two.caption
    assert np.array_equal(render(one), render(two))
    assert render(one).shape == (FRAMES, HEIGHT, WIDTH, 3)


def test_captions_name_what_is_shown():
    for scene in scenes(50):
        assert scene.subject in scene.caption
        assert scene.background in scene.caption
    assert {"a", "an"} <= {word for s in scenes(50) for word in s.caption.split()}


def test_held_out_combinations_are_a_ninth_and_cover_everything():
    held = [(c, s, b) for c in COLORS for s in SHAPES for b in BACKGROUNDS if held_out(c, s, b)]
    assert len(held) == 20
    assert [len(set(part)) for part in zip(*held, strict=True)] == [6, 6, 5]
    assert not any(held_out(s.color, s.shape, s.background) for s in scenes(100))
    assert all(held_out(s.color, s.shape, s.background) for s in scenes(20, held=True))


@pytest.mark.parametrize("motion", ["still", "slow", "fast", "bouncing", "zigzag"])
def test_paths_keep_the_subject_inside(motion):
    for seed in range(30):
        rng = np.random.default_rng(seed)
        way = travelled(rng, motion, FRAMES)
        size = np.full(FRAMES, 40.0) if motion == "still" else 20 + 20 * way  # (F,), in pixels
        path = sample_path(rng, motion, size, way)
        assert path.shape == (FRAMES, 2)
        assert (path >= size[:, None] / 2 - 1e-9).all()
        assert (path <= np.array([WIDTH, HEIGHT]) - size[:, None] / 2 + 1e-9).all()
        assert (np.ptp(path, axis=0).max() == 0) == (motion == "still")


def test_a_zigzag_comes_back():
    """Two to six keyframes at equal distances, by turns at 0 and at 1; all other motions go from 0 to 1 steadily."""
    ways = [travelled(np.random.default_rng(seed), "zigzag", FRAMES) for seed in range(40)]
    assert {int((np.diff(np.sign(np.diff(way))) != 0).sum()) for way in ways} >= {0, 1}
    for way in ways:
        assert way[0] == 0
        assert way.max() <= 1
        assert way[-1] in (0, 1)
    assert np.allclose(travelled(np.random.default_rng(0), "fast", 3), [0, 0.5, 1])


def test_sizes_change_on_the_way_or_stay():
    sizes = [scene.size for scene in scenes(100)]
    changing = np.mean([np.ptp(size) > 0 for size in sizes])
    assert 0.15 < changing < 0.45  # GROWS of those that move
    assert min(size.min() for size in sizes) >= SIZES[0]
    assert max(size.max() for size in sizes) <= SIZES[1]


def test_patches_stay_and_are_as_large_as_a_subject():
    """On grass, which does not move: both shades in every square of twice a patch's wave, the same in every frame."""
    scene = next(s for s in scenes(50, seed=1) if s.background == "grass")
    bare = render(replace(scene, centers=np.full_like(scene.centers, -10 * WIDTH)))
    assert np.array_equal(bare, np.repeat(bare[:1], FRAMES, axis=0))
    green = bare[0, :, :, 1].astype(float)
    whole = green.std()
    for top in (0, 48):
        for left in (0, 40, 80):
            assert green[top : top + 48, left : left + 48].std() > whole / 3
    assert np.abs(np.diff(green, axis=1)).mean() < whole / 3  # neighbours are alike: it is no noise


def test_the_detector_finds_what_was_drawn():
    """Over 60 videos: one subject of the right colour on the right background, its box within two pixels a side."""
    for scene in scenes(60, seed=5):
        for seen, box in zip(detect(render(scene), scene.color), scene.boxes, strict=True):
            assert seen.blobs == 1, scene
            assert seen.background == scene.background
            error = np.abs(np.array(seen.box) - box) * [WIDTH, HEIGHT, WIDTH, HEIGHT]
            # A corner of a triangle or a diamond is too thin for the detector's opening.
            assert error.max() <= (2 if scene.shape in ("ball", "box", "cross", "ring") else 5), scene


def test_a_drawn_shape_is_named():
    """In every frame of 60 videos; and of 4 x 4 cells a full square is a box, one without its corners a ball."""
    for scene in scenes(60, seed=6):
        assert {seen.shape for seen in detect(render(scene), scene.color)} == {scene.shape}
    blob = np.ones((4, 4), bool)
    assert name_shape(blob) == "box"
    blob[::3, ::3] = False
    assert name_shape(blob) == "ball"
    blob[1:3, 1:3] = False
    assert name_shape(blob) == "ring"


def test_the_detector_misses_what_is_not_there():
    scene = next(s for s in scenes(50) if s.color == "red")
    other = detect(render(scene), "yellow")
    assert all(seen.box is None for seen in other)
    empty = np.zeros((2, HEIGHT, WIDTH, 3), np.uint8)
    assert [(d.box, d.blobs, d.background) for d in detect(empty, "red")] == [(None, 0, "night")] * 2


def test_two_subjects_differ_and_never_touch():
    for seed in range(40):
        scene = sample_pair(np.random.default_rng(seed))
        a, b = scene.boxes, scene.other.boxes
        gap = np.maximum(np.maximum(a[:, :2] - b[:, 2:], b[:, :2] - a[:, 2:]).max(axis=1), 0)
        overlap = (np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])).min(axis=1)
        assert (np.where(gap > 0, -gap, overlap) <= 1e-9).all(), scene
        assert scene.color != scene.other.color
        assert scene.shape != scene.other.shape
        assert np.array_equal(scene.size, scene.other.size)
        assert scene.size.max() <= HEIGHT / 3
        assert not held_out(scene.color, scene.shape, scene.background)
        assert not held_out(scene.other.color, scene.other.shape, scene.background)


def test_two_subjects_are_both_named_and_both_drawn():
    for seed in range(15):
        scene = sample_pair(np.random.default_rng(seed))
        assert f"{scene.subject} and a" in scene.caption
        assert scene.other.subject in scene.caption
        assert " is " not in scene.caption
        for subject in (scene, scene.other):
            for seen, box in zip(detect(render(scene), subject.color), subject.boxes, strict=True):
                assert seen.blobs == 2, scene
                assert np.abs(np.array(seen.box) - box).max() * WIDTH <= 5, scene
