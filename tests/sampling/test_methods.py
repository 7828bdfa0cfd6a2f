"""Names of methods and the settings behind them, on one checkpoint."""

from dataclasses import replace

import pytest

from sampling.generate import make_plan, method_settings, recommended
from sampling.schedule import NoiseSchedule
from sampling.settings import METHODS, preset
from tests.small import ball, pipeline  # noqa: F401  (fixtures)


def test_a_name_is_a_preset_on_the_checkpoint(pipeline):
    settings = method_settings(pipeline, METHODS)
    assert list(settings) == list(METHODS)
    base = replace(preset("full"), steps=2, guidance_scale=2.0, c_g=4600.0, gamma=0.1)  # as tests/small.py recommends
    assert settings == {name: preset(name, base) for name in METHODS}
    assert settings == {name: recommended(pipeline, name) for name in METHODS}


def test_what_is_given_counts_where_a_method_leaves_it_open(pipeline):
    settings = method_settings(pipeline, ["mask-norm+id", "full", "paper"], {"c_g": 7.0})
    assert [s.c_g for s in settings.values()] == [0.0, 7.0, 10_000.0]
    assert [s.steps for s in settings.values()] == [2, 2, 50]
    assert settings["full"].gamma == 0.1  # the checkpoint's


def test_how_a_video_is_sampled_is_given_to_all_methods_alike(pipeline):
    given = {"steps": 3, "guidance_scale": 4.0, "eta": 0.5}
    for settings in method_settings(pipeline, METHODS, given).values():
        assert (settings.steps, settings.guidance_scale, settings.eta) == (3, 4.0, 0.5)


def test_a_schedule_that_cannot_serve_the_papers_steps_says_so(pipeline, ball):
    pipeline.schedule = NoiseSchedule(40, 0.001, 0.02, "linear", steps_offset=0, set_alpha_to_one=True)
    with pytest.raises(ValueError, match="steps must be an integer from 1 to 39, got 50"):
        make_plan(pipeline, None, ball, recommended(pipeline, "paper"))
    assert make_plan(pipeline, None, ball, recommended(pipeline, "paper", {"steps": 20})).settings.steps == 20


def test_former_names_in_a_checkpoints_file_are_refused(pipeline):
    pipeline.defaults.settings["normalize"] = True
    with pytest.raises(ValueError, match="'normalize', which is now 'mask_normalization'"):
        recommended(pipeline, "full")
