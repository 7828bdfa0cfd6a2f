"""The schedule against diffusers' DDIMScheduler (tests/fixtures/diffusers_ddim.safetensors) and by hand."""

import json
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sampling.schedule import NoiseSchedule
from tests.helpers import read_safetensors

# Zeroscope's scheduler_config.json
ZEROSCOPE = {
    "_class_name": "DDIMScheduler",
    "_diffusers_version": "0.17.0.dev0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "clip_sample_range": 1.0,
    "dynamic_thresholding_ratio": 0.995,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "rescale_betas_zero_snr": False,
    "sample_max_value": 1.0,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "thresholding": False,
    "trained_betas": None,
}
# Four timesteps, beta = 0.1, 0.2, 0.3, 0.4: alpha_bar = 0.9, 0.9*0.8 = 0.72, 0.72*0.7 = 0.504, 0.504*0.6 = 0.3024
FOUR = {
    "num_train_timesteps": 4,
    "beta_start": 0.1,
    "beta_end": 0.4,
    "beta_schedule": "linear",
    "steps_offset": 0,
    "clip_sample": False,
    "set_alpha_to_one": False,
}


def test_alpha_bar_equals_diffusers(reference):
    alpha_bar = NoiseSchedule.from_config(ZEROSCOPE).alpha_bar
    assert alpha_bar.shape == (1000,) and alpha_bar.dtype == torch.float32
    torch.testing.assert_close(alpha_bar, reference["alphas_cumprod"], rtol=1e-6, atol=0)


@pytest.mark.parametrize("steps", [1, 2, 10, 25, 40, 50])
def test_timesteps_equal_diffusers(reference, steps):
    assert NoiseSchedule.from_config(ZEROSCOPE).timesteps(steps) == reference[f"timesteps.{steps}"].tolist()


def test_the_fixtures_own_config_is_read(fixtures):
    metadata, _ = read_safetensors(fixtures / "diffusers_ddim.safetensors")
    assert NoiseSchedule.from_config(json.loads(metadata["full_config"])) == NoiseSchedule.from_config(ZEROSCOPE)


def test_the_last_step_ends_at_the_first_alpha_bar(reference):
    schedule = NoiseSchedule.from_config(ZEROSCOPE)
    torch.testing.assert_close(schedule.previous(1, 50), reference["final_alpha_cumprod"], rtol=1e-6, atol=0)


def test_previous_is_one_stride_below():
    schedule = NoiseSchedule.from_config(ZEROSCOPE)
    assert schedule.previous(981, 50) == schedule.alpha_bar[961]
    assert schedule.previous(976, 40) == schedule.alpha_bar[951]


@given(st.integers(2, 100))
def test_each_step_ends_where_the_next_begins(steps):
    schedule = NoiseSchedule.from_config(ZEROSCOPE)
    visited = schedule.timesteps(steps)
    for t, t_next in pairwise(visited):
        assert schedule.previous(t, steps) == schedule.alpha_bar[t_next]
    assert len(visited) == steps and visited[-1] == 1


def test_linear_by_hand():
    schedule = NoiseSchedule.from_config(FOUR)
    torch.testing.assert_close(schedule.alpha_bar, torch.tensor([0.9, 0.72, 0.504, 0.3024]))
    assert schedule.timesteps(2) == [2, 0]  # stride 4 // 2 = 2
    assert schedule.previous(2, 2) == schedule.alpha_bar[0]
    assert schedule.previous(0, 2) == schedule.alpha_bar[0]  # -2 lies before the table


def test_scaled_linear_by_hand():
    # sqrt(beta) = 0.1, 0.2, 0.3: beta = 0.01, 0.04, 0.09; alpha_bar = 0.99, 0.99*0.96 = 0.9504, 0.9504*0.91 = 0.864864
    config = FOUR | {"num_train_timesteps": 3, "beta_start": 0.01, "beta_end": 0.09, "beta_schedule": "scaled_linear"}
    torch.testing.assert_close(NoiseSchedule.from_config(config).alpha_bar, torch.tensor([0.99, 0.9504, 0.864864]))


def test_set_alpha_to_one_ends_without_noise():
    schedule = NoiseSchedule.from_config(FOUR | {"set_alpha_to_one": True})
    assert schedule.previous(0, 2) == 1
    assert schedule.previous(2, 2) == schedule.alpha_bar[0]  # only the last step is concerned


def test_absent_keys_mean_what_the_file_format_says():
    schedule = NoiseSchedule.from_config({"clip_sample": False})
    assert (schedule.beta_schedule, schedule.beta_start, schedule.beta_end) == ("linear", 0.0001, 0.02)
    assert (schedule.num_train_timesteps, schedule.steps_offset, schedule.set_alpha_to_one) == (1000, 0, True)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("clip_sample", True),
        ("thresholding", True),
        ("rescale_betas_zero_snr", True),
        ("prediction_type", "v_prediction"),
        ("timestep_spacing", "trailing"),
        ("trained_betas", [0.1, 0.2]),
        ("beta_schedule", "squaredcos_cap_v2"),
        ("solver_order", 2),
        ("num_train_timesteps", 0),
        ("num_train_timesteps", 10**12),
        ("num_train_timesteps", True),
        ("steps_offset", -1),
        ("steps_offset", 1.0),
        ("beta_start", float("nan")),
        ("beta_end", 1.0),
        ("beta_end", "0.012"),
        ("set_alpha_to_one", "no"),
    ],
)
def test_what_is_not_supported_is_named(key, value):
    with pytest.raises(ValueError, match=key):
        NoiseSchedule.from_config(ZEROSCOPE | {key: value})


def test_the_one_value_that_is_supported_may_be_said():
    config = ZEROSCOPE | {"timestep_spacing": "leading"}
    assert NoiseSchedule.from_config(config) == NoiseSchedule.from_config(ZEROSCOPE)


def test_absent_clip_sample_means_clipping_and_is_refused():
    with pytest.raises(ValueError, match="clip_sample is absent, which means True"):
        NoiseSchedule.from_config({key: value for key, value in ZEROSCOPE.items() if key != "clip_sample"})


def test_betas_must_not_fall():
    with pytest.raises(ValueError, match="beta_start must not exceed beta_end"):
        NoiseSchedule.from_config(ZEROSCOPE | {"beta_start": 0.02})


@pytest.mark.parametrize("steps", [0, -1, 1000, 5000, True, 25.0, "25", None])
def test_steps_outside_the_table(steps):
    with pytest.raises(ValueError, match="steps must be an integer from 1 to 999"):
        NoiseSchedule.from_config(ZEROSCOPE).timesteps(steps)


def test_steps_that_would_begin_far_from_noise():
    # 1000 // 600 = 1, so that 600 steps would be t = 600 ... 1
    with pytest.raises(ValueError, match="begin at t = 600: use 500 steps"):
        NoiseSchedule.from_config(ZEROSCOPE).timesteps(600)


def test_steps_that_the_offset_pushes_out_of_the_table():
    # stride 2: t = 2, 0 without an offset; 4 with an offset of 2 is one too many for four timesteps
    assert NoiseSchedule.from_config(FOUR | {"steps_offset": 0}).timesteps(2) == [2, 0]
    with pytest.raises(ValueError, match="begin at t = 4"):
        NoiseSchedule.from_config(FOUR | {"steps_offset": 2}).timesteps(2)


@given(st.integers(1, 999))
def test_a_refusal_names_steps_that_work(steps):
    schedule = NoiseSchedule.from_config(ZEROSCOPE)
    try:
        visited = schedule.timesteps(steps)
    except ValueError as error:
        visited = schedule.timesteps(int(str(error).split("use ")[1].split()[0]))
    assert all(0 < t < 1000 for t in visited)


@pytest.mark.parametrize("t", [-1, 1000])
def test_previous_outside_the_table(t):
    with pytest.raises(ValueError, match="t must lie between 0 and 999"):
        NoiseSchedule.from_config(ZEROSCOPE).previous(t, 50)
