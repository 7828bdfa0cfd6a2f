"""The settings' ranges, and the presets against the table of methods."""

import json
import math
import re
from dataclasses import FrozenInstanceError, asdict, fields, replace

import pytest

from sampling.settings import CHOICES, METHODS, PRESETS, SamplingSettings, preset

# What a small checkpoint may recommend: all unlike the defaults.
RECOMMENDED = SamplingSettings(
    steps=25,
    guidance_scale=3.0,
    eta=0.1,
    where=("decoder", "mid"),
    axis="joint",
    matching_gradient="exact",
    grid="cover",
    subject_words="ids",
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

# method: where, frozen steps, start token, subject's words, normalize, axis, M, c_g, steps, guidance, eta;
# None is "as the checkpoint says"
TABLE = {
    "plain": (None, 0, None, None, False, None, 0, 0, None, None, None),
    "peekaboo": (("decoder", "mid", "temporal"), 2, "hidden", "ids", False, None, 0, 0, None, None, None),
    "trailblazer": (None, 5, None, None, False, None, 0, 0, None, None, None),
    "mask": (None, None, None, None, False, None, 0, 0, None, None, None),
    "mask-norm": (None, None, None, None, True, None, 0, 0, None, None, None),
    "mask-norm+id": (None, None, None, None, True, None, None, 0, None, None, None),
    "full": (None, None, None, None, True, None, None, None, None, None, None),
    "paper": (("decoder",), 4, "hidden", "phrase", True, "channel", 2, 10_000, 50, 9, 0),
}
COLUMNS = (
    "where",
    "frozen_steps",
    "start_token",
    "subject_words",
    "mask_normalization",
    "axis",
    "iterations",
    "c_g",
    "steps",
    "guidance_scale",
    "eta",
)


def test_every_method_has_a_preset():
    assert list(PRESETS) == list(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_presets_are_the_table(name):
    settings = preset(name, RECOMMENDED)
    for column, expected in zip(COLUMNS, TABLE[name], strict=True):
        expected = getattr(RECOMMENDED, column) if expected is None else expected
        assert getattr(settings, column) == expected, column
    assert settings.attention == ("self", "cross")


@pytest.mark.parametrize("name", ["mask", "mask-norm", "mask-norm+id", "full", "paper"])
def test_over_the_defaults_masks_are_the_papers(name):
    settings = preset(name)
    assert (settings.where, settings.frozen_steps, settings.start_token) == (("decoder",), 4, "hidden")


def test_full_is_the_checkpoints_and_paper_pins_all_but_what_it_does_not_use():
    edit = {"strengthen", "weaken", "trailing"}
    assert preset("full", RECOMMENDED) == RECOMMENDED
    assert set(PRESETS["paper"]) == {field.name for field in fields(SamplingSettings)} - edit
    assert preset("paper", RECOMMENDED) == replace(
        preset("paper"), **{name: getattr(RECOMMENDED, name) for name in edit}
    )


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


def test_the_papers_values_one_by_one():
    assert asdict(preset("paper")) == {
        "steps": 50,
        "guidance_scale": 9.0,
        "eta": 0.0,
        "steer": "masks",
        "frozen_steps": 4,
        "where": ("decoder",),
        "attention": ("self", "cross"),
        "grid": "stride",
        "subject_words": "phrase",
        "start_token": "hidden",
        "mask_normalization": True,
        "normalize_in": ("self", "cross"),
        "axis": "channel",
        "matching_gradient": "straight-through",
        "iterations": 2,
        "c_g": 10_000.0,
        "gamma": 0.05,
        "refine_steps": None,
        "prior_gradient": "unet",
        "unit_gradient": False,
        "strengthen": 0.125,
        "weaken": 0.001,
        "trailing": 15,
    }


def test_brackets_choose_the_gradient():
    assert preset("full[tweedie]", RECOMMENDED) == preset("full", RECOMMENDED)
    assert preset("full[text-half]", RECOMMENDED) == replace(RECOMMENDED, prior_gradient="text-half")
    assert {*METHODS} == {*PRESETS, "full[unet]", "full[text-half]", "full[tweedie]"}


def test_brackets_may_hold_the_choice_of_any_setting():
    assert preset("mask-norm[channel]", RECOMMENDED) == replace(preset("mask-norm", RECOMMENDED), axis="channel")
    assert preset("mask[hidden]", RECOMMENDED) == replace(preset("mask", RECOMMENDED), start_token="hidden")
    words = [word for choices in CHOICES.values() for word in choices]
    assert len(set(words)) == len(words)  # so that a word alone says which setting is meant


@pytest.mark.parametrize("name", ["fuller", "full[some]", "full[", "[full]", "fuller[full]", "full[unet][unet]"])
def test_an_unknown_name_is_refused(name):
    with pytest.raises(ValueError, match="must be one of"):
        preset(name)


def test_unknown_preset():
    with pytest.raises(ValueError, match=r"method must be one of plain, peekaboo, .* got 'boxdiff'"):
        preset("boxdiff")


def test_settings_survive_json():
    assert SamplingSettings(**json.loads(json.dumps(asdict(RECOMMENDED)))) == RECOMMENDED
    assert hash(SamplingSettings(where=["decoder", "mid"])) == hash(SamplingSettings(where=("decoder", "mid")))


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("normalize", True, "settings has the unknown key 'normalize', which is now 'mask_normalization'"),
        ("gradient", "exact", "settings has the unknown key 'gradient', which is now 'matching_gradient'"),
        ("normalize_gradient", False, "'normalize_gradient', which is now 'unit_gradient'"),
        ("control", "masks", "'control', which is now 'steer'"),
        ("where", ["up", "mid", "down"], "; 'up' is now 'decoder'; 'down' is now 'encoder'"),
        ("prior_gradient", "full", "; 'full' is now 'unet'"),
        ("prior_gradient", "conditional", "; 'conditional' is now 'text-half'"),
        ("prior_gradient", "detached", "; 'detached' is now 'tweedie'"),
        ("colour", 1, "settings has the unknown key 'colour'; known are steps, guidance_scale"),
    ],
)
def test_former_names_are_refused_with_the_present_one(name, value, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        SamplingSettings.from_dict({name: value})


def test_a_dictionary_is_read_as_the_settings_it_names():
    assert SamplingSettings.from_dict(asdict(RECOMMENDED)) == RECOMMENDED
    assert SamplingSettings.from_dict({"where": ["mid"], "c_g": 3}) == SamplingSettings(where=("mid",), c_g=3)


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
        ("subject_words", "words"),
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


# name: smallest and largest value
ENDS = {
    "steps": (1, 10_000),
    "frozen_steps": (0, 10_000),
    "iterations": (0, 1_000),
    "refine_steps": (0, 10_000),
    "trailing": (0, 10_000),
    "guidance_scale": (0.0, 1_000.0),
    "eta": (0.0, 1.0),
    "c_g": (0.0, 1e9),
    "gamma": (0.0, 1.0),
    "strengthen": (0.0, 1_000.0),
    "weaken": (0.0, 1.0),
}


@pytest.mark.parametrize("name", ENDS)
def test_the_ends_of_the_ranges_are_allowed_and_nothing_beyond(name):
    for end, outward in zip(ENDS[name], (-math.inf, math.inf), strict=True):
        assert getattr(replace(RECOMMENDED, **{name: end}), name) == end
        beyond = math.nextafter(end, outward) if isinstance(end, float) else end + (1 if outward > 0 else -1)
        with pytest.raises(ValueError, match=rf"^{name} must "):
            replace(RECOMMENDED, **{name: beyond})


def test_refining_at_every_step_has_no_number():
    assert replace(RECOMMENDED, refine_steps=None).refine_steps is None
