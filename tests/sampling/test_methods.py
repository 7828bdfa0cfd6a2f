"""Names of methods and the settings behind them, on one checkpoint."""

from dataclasses import replace

import pytest

from sampling.generate import recommended
from sampling.methods import METHODS, method_settings
from sampling.settings import CHOICES, PRESETS
from tests.small import pipeline  # noqa: F401  (a fixture)


def test_every_method_of_the_tables_is_there():
    assert set(PRESETS) | {"full[unet]", "full[text-half]", "full[tweedie]"} == set(METHODS)


def test_a_name_is_a_preset_on_the_checkpoint(pipeline):
    settings = method_settings(pipeline, METHODS)
    assert list(settings) == list(METHODS)
    assert {name: settings[name] for name in PRESETS} == {name: recommended(pipeline, name) for name in PRESETS}


def test_brackets_choose_the_gradient(pipeline):
    pipeline.defaults.settings["prior_gradient"] = "tweedie"
    settings = method_settings(pipeline, METHODS)
    assert settings["full"] == settings["full[tweedie]"]
    assert settings["full[text-half]"] == replace(settings["full"], prior_gradient="text-half")
    assert settings["paper"].prior_gradient == "unet"


def test_brackets_may_hold_the_choice_of_any_setting(pipeline):
    settings = method_settings(pipeline, ["mask-norm", "mask-norm[joint]", "mask-norm[channel]", "mask[background]"])
    assert {name: s.axis for name, s in settings.items() if "[" in name} == {
        "mask-norm[joint]": "joint",
        "mask-norm[channel]": "channel",
        "mask[background]": settings["mask-norm"].axis,
    }
    assert settings["mask[background]"].start_token == "background"
    words = [word for choices in CHOICES.values() for word in choices]
    assert len(set(words)) == len(words)  # so that a word alone says which setting is meant


def test_what_is_given_counts_where_a_method_leaves_it_open(pipeline):
    settings = method_settings(pipeline, ["mask-norm+id", "full", "paper"], {"c_g": 7.0, "steps": 3})
    assert [s.c_g for s in settings.values()] == [0.0, 7.0, 10_000.0]
    assert [s.steps for s in settings.values()] == [3, 3, 3]
    assert settings["full"].gamma == 0.1  # the checkpoint's


@pytest.mark.parametrize("name", ["fuller", "full[some]", "full[", "[full]", "fuller[full]"])
def test_an_unknown_name_is_refused(pipeline, name):
    with pytest.raises(ValueError, match="must be one of"):
        method_settings(pipeline, [name])
