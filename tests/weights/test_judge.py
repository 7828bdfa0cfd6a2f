"""The world's judge as it is shipped, and its training."""

import numpy as np
import pytest
import torch

from weights.train_tiny.judge import ANSWERS, FILE, SEEN, Judge, draw, measure, shrink, train, vary
from weights.train_tiny.world import render, sample_scene


@pytest.fixture(scope="module")
def judge():
    return Judge.load()


def test_it_is_small():
    assert FILE.stat().st_size < 300_000


def test_it_knows_what_it_never_saw(judge):
    """The numbers in weights/tiny/README.md are of 256 scenes; chance is 1/6, 1/6, 1/5, and 1/4 for the most frequent
    motion. Slow, fast and bouncing paths overlap."""
    found = measure(judge, 128)
    least = {"shape": 0.97, "color": 0.98, "background": 0.98, "motion": 0.6}
    assert found.keys() == least.keys() == ANSWERS.keys()
    assert all(found[kind] >= least[kind] for kind in least), found


def test_a_video_is_judged_by_itself(judge):
    videos, _ = draw(0, 3, 8, held=True)
    together = judge.features(videos)
    for video, features in zip(videos, together, strict=True):
        torch.testing.assert_close(judge.features(video[None])[0], features)


def test_frames_are_averaged_into_the_size_that_it_sees():
    """Chequers of 1 pixel are 127.5, which is 0 between -1 and 1; white is 1."""
    chequers = np.indices((96, 128)).sum(0) % 2 * 255
    frames = np.stack([np.repeat(chequers[..., None], 3, -1), np.full((96, 128, 3), 255)]).astype(np.uint8)
    video = shrink(frames)
    assert video.shape == (3, 2, *SEEN)
    assert video[:, 0].abs().max() < 1e-6
    assert (video[:, 1] == 1).all()


def test_scenes_are_drawn_with_the_right_words():
    videos, right = draw(7, 3, 4, held=False)
    rng = np.random.default_rng(7)
    for n, scene in enumerate([sample_scene(rng, 4) for _ in range(3)]):
        assert torch.equal(videos[n], shrink(render(scene)))
        assert all(words[right[kind][n]] == getattr(scene, kind) for kind, words in ANSWERS.items())


def test_what_is_varied_stays_the_same_video():
    """Blur, noise, a mirror or the other direction of time: up to the noise, the mean of each video stays."""
    videos, _ = draw(0, 2, 4, held=False)
    varied = [vary(videos, torch.Generator().manual_seed(seed)) for seed in range(6)]
    for one in varied:
        torch.testing.assert_close(one.mean((2, 3, 4)), videos.mean((2, 3, 4)), atol=0.01, rtol=0)
        assert not torch.equal(one, videos)
    flips = ([], [-1], [2], [2, -1])
    nearest = {min(range(4), key=lambda k: (one - videos.flip(flips[k])).square().mean()) for one in varied}
    assert len(nearest) > 1


def test_training_is_a_function_of_its_seed():
    one, same, other = (train(scenes=4, steps=2, seed=seed, batch=2).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["answers.shape.weight"], other["answers.shape.weight"])
