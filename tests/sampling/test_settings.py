"""The settings' ranges, and the presets against the table of methods."""

import json
from dataclasses import FrozenInstanceError, asdict, replace

import pytest

from sampling.settings import PRESETS, SamplingSettings, preset

# What a small checkpoint may recommend: all unlike the defaults.
RECOMMENDED = SamplingSettings(
    steps=25,
    guidance_scale=3.0,
    eta=0.1,
    where=("decoder", "mid"),
    axis="channel",
    grid="cover",
    c_g=60.0,
    gamma=0.1,
    refine_steps=8,
    prior_gradient="tweedie",
    normalize_in=("self",),
    start_token="background",
    iterations=3,
    frozen_steps=6,
    strengthen=0.3,
    weaken=0.2,
    trailing=4,
)

# method: where, frozen steps, start token, normalize, M, c_g; None is "as the checkpoint says"
TABLE = {
    "plain": (None, 0, None, False, 0, 0),
    "peekaboo": (("decoder", "mid", "temporal"), 2, "hidden", False, 0, 0),
    "trailblazer": (None, 5, None, False, 0, 0),
    "mask": (None, None, None, False, 0, 0),
    "mask-norm": (None, None, None, True, 0, 0),
    "mask-norm+id": (None, None, None, True, None, 0),
    "full": (None, None, None, True, None, None),
    "paper": (("decoder",), 4, "hidden", True, 2, 10_000),
}


def test_every_method_has_a_preset():
    assert list(PRESETS) == list(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_presets_are_the_table(name):
    settings = preset(name, RECOMMENDED)
    columns = ("where", "frozen_steps", "start_token", "mask_normalization", "iterations", "c_g")
    for column, expected in zip(columns, TABLE[name], strict=True):
        expected = getattr(RECOMMENDED, column) if expected is None else expected
        assert getattr(settings, column) == expected, column
    assert settings.attention == ("self", "cross")


@pytest.mark.parametrize("name", ["mask", "mask-norm", "mask-norm+id", "full", "paper"])
def test_over_the_defaults_masks_are_the_papers(name):
    settings = preset(name)
    assert (settings.where, settings.frozen_steps, settings.start_token) == (("decoder",), 4, "hidden")


@pytest.mark.parametrize("name", TABLE)
def test_what_the_paper_leaves_open_is_the_checkpoints(name):
    settings = preset(name, RECOMMENDED)
    assert (settings.steps, settings.guidance_scale, settings.eta) == (25, 3.0, 0.1)


def test_full_takes_recommended_values_and_paper_does_not():
    names = ("c_g", "gamma", "refine_steps", "prior_gradient", "axis", "grid", "normalize_in")
    full, paper = preset("full", RECOMMENDED), preset("paper", RECOMMENDED)
    assert [getattr(full, name) for name in names] == [60.0, 0.1, 8, "tweedie", "channel", "cover", ("self",)]
    assert [getattr(paper, name) for name in names] == [
        10_000,
        0.05,
        None,
        "unet",
        "joint",
        "stride",
        ("self", "cross"),
    ]


def test_trailblazer_takes_its_own_values_and_edits_attention_alone():
    settings = preset("trailblazer", RECOMMENDED)
    assert (settings.steer, settings.strengthen, settings.weaken, settings.trailing) == (
        "edit",
        0.125,
        0.001,
        15,
    )
    others = {name: preset(name, settings).steer for name in PRESETS if name not in ("plain", "trailblazer")}
    assert set(others.values()) == {"masks"}  # whatever the checkpoint recommends; plain has no frozen step
    assert SamplingSettings().steer == "masks"


def test_without_a_checkpoint_full_is_the_paper_and_the_default():
    assert preset("full") == preset("paper") == SamplingSettings()


def test_unknown_preset():
    with pytest.raises(ValueError, match=r"method must be one of plain, peekaboo, .* got 'boxdiff'"):
        preset("boxdiff")


def test_settings_survive_json():
    assert SamplingSettings(**json.loads(json.dumps(asdict(RECOMMENDED)))) == RECOMMENDED
    assert hash(SamplingSettings(where=["decoder", "mid"])) == hash(SamplingSettings(where=("decoder", "mid")))


def test_settings_are_frozen():
    with pytest.raises(FrozenInstanceError):
        RECOMMENDED.steps = 10


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("steps", bad) for bad in (0, -1, 10**9, True, 25.0, "25", None)],
        *[("frozen_steps", bad) for bad in (-1, 10**9, True, 2.0, None)],
        *[("iterations", bad) for bad in (-1, 10**9, True, 2.0, None)],
        *[("refine_steps", bad) for bad in (-1, 10**9, True, 2.0)],
        *[("guidance_scale", bad) for bad in (-1, float("nan"), float("inf"), 1e300, True, "9", None)],
        *[("c_g", bad) for bad in (-1, float("nan"), float("inf"), 1e300, True, None)],
        *[("strengthen", bad) for bad in (-0.1, float("nan"), 1e300, True, None)],
        *[("weaken", bad) for bad in (-0.1, 1.1, float("nan"), True, None)],
        *[("trailing", bad) for bad in (-1, 10**9, True, 2.0, None)],
        *[("steer", bad) for bad in ("none", None, ["masks"])],
        *[("gamma", bad) for bad in (-0.1, 1.1, float("nan"), True, None)],
        *[("eta", bad) for bad in (-0.1, 1.1, float("nan"), True, None)],
        *[("mask_normalization", bad) for bad in (1, None, "yes")],
        *[("unit_gradient", bad) for bad in (1, None)],
        *[("axis", bad) for bad in ("frame", None, ["joint"])],
        ("matching_gradient", "none"),
        ("grid", "area"),
        ("start_token", "open"),
        *[("prior_gradient", bad) for bad in ("none", None)],
        *[("where", bad) for bad in ("decoder", (), ("up",), None)],
        *[("attention", bad) for bad in ("self", (), ("temporal",))],
        *[("normalize_in", bad) for bad in ("cross", (), ("both",))],
    ],
)
def test_bad_values_are_named(name, value):
    with pytest.raises(ValueError, match=rf"^{name} must "):
        replace(RECOMMENDED, **{name: value})


@pytest.mark.parametrize(("name", "value"), [("refine_steps", None), ("refine_steps", 0), ("eta", 1), ("gamma", 0)])
def test_the_ends_of_the_ranges_are_allowed(name, value):
    assert getattr(replace(RECOMMENDED, **{name: value}), name) == value
