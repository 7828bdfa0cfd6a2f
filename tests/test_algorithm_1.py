"""The repository's Algorithm 1 against the independent one of `algorithm_1.py`, around one real U-Net, in float64.

Nothing is square, the half grid of 5 x 7 is 3 x 4, one subject is absent in a frame and overlaps the other in another.
"""

from dataclasses import replace

import pytest
import torch

from adaptation.attention_masks import AttentionControl
from adaptation.trajectory import Trajectory
from model.unet import UNet3D
from sampling.denoise import make_denoise
from sampling.sampler import State, Streams, sample
from sampling.schedule import NoiseSchedule
from sampling.settings import SamplingSettings, preset
from tests.algorithm_1 import Choices, algorithm_1
from tests.helpers import TWO_GRIDS, bools, normal

F, H, W, L = 4, 5, 7, 8
SEED = 3
BALL = [(0.0, 0.0, 0.45, 0.62), (0.14, 0.1, 0.6, 0.7), (0.3, 0.2, 0.75, 0.85), (0.55, 0.33, 1.0, 1.0)]
BOX = [(0.5, 0.55, 0.95, 1.0), None, (0.6, 0.35, 0.9, 0.8), (0.1, 0.05, 0.5, 0.6)]  # overlaps the ball in frame 2
SUBJECTS = {"one": [BALL], "two": [BALL, BOX], "never there": [BALL, [None] * F]}
WORDS = bools("0011 0000", "0000 0110")  # of 8 tokens; the first is the start

# What a checkpoint would recommend, and the same in the paper's symbols. In Eq. 2 for these latents c_g is 200.
BASE = SamplingSettings(
    steps=3,
    guidance_scale=3.0,
    frozen_steps=2,
    c_g=126_000.0,
    gamma=0.1,
    axis="channel",
    matching_gradient="straight-through",
)
SAME = Choices(steps=3, w=3.0, frozen=2, c_g=126_000.0, gamma=0.1)
SHORT = {"steps": 2, "frozen_steps": 1}
NEITHER = {"M": 0, "normalized": ()}
METHODS = {  # by hand, so that a preset that has something else in it is found
    "plain": replace(SAME, frozen=0, **NEITHER),
    "peekaboo": replace(SAME, blocks=("decoder", "mid"), temporal=True, **NEITHER),
    "mask": replace(SAME, **NEITHER),
    "mask-norm": replace(SAME, M=0),
    "mask-norm+id": replace(SAME, c_g=0.0),
    "full": SAME,
}


@pytest.fixture(scope="module")
def unet(formula_weights):
    return formula_weights(UNet3D(TWO_GRIDS)).double()


@pytest.fixture
def agree(unet):
    """agree(settings, choices, subjects): z and tau of every step are the same, whichever of the two made them."""

    def check(settings: SamplingSettings, choices: Choices, subjects: str = "two") -> None:
        b = SUBJECTS[subjects]
        text, first = normal(2, L, 16, seed=1), normal(1, 4, F, H, W)
        nowhere = (torch.nan,) * 4
        boxes = torch.tensor([[nowhere if box is None else box for box in track] for track in b], dtype=torch.float64)
        words = WORDS[: len(b)]

        control = AttentionControl(
            Trajectory(boxes, ["a subject"] * len(b), "").rasterize(H, W),
            words,
            normalize=settings.mask_normalization,
            where=settings.where,
            attention=settings.attention,
            grid=settings.grid,
            start_token=settings.start_token,
            axis=settings.axis,
            gradient=settings.matching_gradient,
            normalize_in=settings.normalize_in,
        )
        denoise = make_denoise(unet, text, control)
        schedule = NoiseSchedule(1000, 0.00085, 0.012, "scaled_linear", steps_offset=1, set_alpha_to_one=False)
        ours = sample(denoise, schedule, State(0, first, Streams((SEED,))), settings, boxes)

        theirs = algorithm_1(unet, text, first.clone(), b, words, choices, SEED)
        for state, (z, tau) in zip(ours, theirs, strict=True):
            torch.testing.assert_close(state.z, z, rtol=1e-12, atol=1e-12)
            assert state.records[-1]["tau"] == pytest.approx([tau], abs=1e-12)

    return check


@pytest.mark.parametrize("method", METHODS)
def test_every_method(agree, method):
    agree(preset(method, BASE), METHODS[method])


def test_the_papers_own_settings(agree):
    """Whatever a checkpoint recommends; all but the number of steps, of which the first four are frozen."""
    agree(replace(preset("paper", BASE), steps=5), Choices(steps=5))


@pytest.mark.parametrize("subjects", SUBJECTS)
def test_subjects(agree, subjects):
    agree(replace(preset("full", BASE), **SHORT), replace(SAME, steps=2, frozen=1), subjects)


@pytest.mark.parametrize(
    ("prior", "through"), [("unet", "both halves"), ("text-half", "text half"), ("tweedie", "Tweedie")]
)
@pytest.mark.parametrize(("gradient", "straight"), [("exact", False), ("straight-through", True)])
@pytest.mark.parametrize(("axis", "joint"), [("channel", False), ("joint", True)])
def test_axis_and_gradients(agree, axis, joint, gradient, straight, prior, through):
    ours = replace(preset("full", BASE), **SHORT, axis=axis, matching_gradient=gradient, prior_gradient=prior)
    agree(ours, replace(SAME, steps=2, frozen=1, joint=joint, straight=straight, through=through))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"eta": 0.6}, {"eta": 0.6}),
        ({"refine_steps": 1}, {"refined": 1}),
        ({"unit_gradient": True, "c_g": 4_000.0}, {"unit": True, "c_g": 4_000.0}),
        ({"where": ("encoder",)}, {"blocks": ("encoder",)}),
        ({"where": ("mid", "temporal")}, {"blocks": ("mid",), "temporal": True}),
        ({"attention": ("cross",)}, {"masked": ("cross",)}),
        ({"attention": ("self",)}, {"masked": ("self",)}),
        ({"normalize_in": ("cross",)}, {"normalized": ("cross",)}),
        ({"normalize_in": ("self",)}, {"normalized": ("self",)}),
        ({"grid": "cover"}, {"cover": True}),
        ({"start_token": "background"}, {"start_hidden": False}),
    ],
    ids=str,
)
def test_every_other_switch(agree, ours, theirs):
    agree(replace(preset("full", BASE), **SHORT, **ours), replace(SAME, steps=2, frozen=1, **theirs))
