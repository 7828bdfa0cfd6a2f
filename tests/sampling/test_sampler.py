"""Algorithm 1 step by step: the two updates, when the network is called, what is recorded, what stops a run."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from adaptation.temporal_prior import temporal_consistency
from sampling.ddim import predict_clean
from sampling.sampler import NonFinite, State, Streams, gradients, initial_state, sample
from sampling.settings import SamplingSettings
from tests.helpers import MOVING, SHAPE, normal, start, strength

MU = normal(*SHAPE, seed=1)
TWO = SamplingSettings(steps=2, guidance_scale=3.0, frozen_steps=0, iterations=0, c_g=0.0)  # t = 501 and 1
EVERYTHING = replace(TWO, steps=4, eta=0.5, frozen_steps=2, iterations=2, c_g=strength(100.0, *SHAPE))


def test_trajectory_equals_diffusers(reference, schedule):
    times = schedule.timesteps(10)

    def denoise(z, t, frozen):
        eps = 0.7 * z.tanh() + 0.5 * reference["E"][times.index(t)]  # the fixture's stand-in for a network
        return eps, eps

    state = State(step=0, z=reference["x_T"], streams=Streams((0,)))
    states = list(sample(denoise, schedule, state, replace(TWO, steps=10)))
    for actual, expected in zip(states, reference["traj.eta0.0.steps10"], strict=True):
        assert (actual.z - expected).norm() <= 1e-6 * expected.norm()


def test_plain_sampling_of_the_unit_gaussian(gaussians, schedule):
    """z' = sqrt(a') z0_hat + sqrt(1 - a') eps = (sqrt(a a') + sqrt((1 - a)(1 - a'))) z, step after step."""
    expected = start().z
    for t in schedule.timesteps(5):
        a, b = schedule.alpha_bar[t].double(), schedule.previous(t, 5).double()
        expected = ((a * b).sqrt() + ((1 - a) * (1 - b)).sqrt()) * expected
    actual = list(sample(gaussians(), schedule, start(), replace(TWO, steps=5)))[-1].z
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=0)


def test_a_state_holds_the_clean_estimate_of_its_step(gaussians, schedule):
    """Of the unit Gaussian z0_hat = sqrt(a) z, of the latents before the step; at the start there is none."""
    assert start().z0_hat is None
    first, second = sample(gaussians(), schedule, start(), TWO)
    for t, z, state in ((501, start().z, first), (1, first.z, second)):
        expected = schedule.alpha_bar[t].double().sqrt() * z
        torch.testing.assert_close(state.z0_hat, expected, rtol=1e-12, atol=1e-12)


def test_the_clean_estimate_comes_with_the_gradients(gaussians, schedule):
    """With a prior or without one: sqrt(a) z."""
    z, a = start().z, schedule.alpha_bar[501].double()
    for boxes in (None, MOVING):
        _, _, z0 = gradients(gaussians(), z, 501, False, a, replace(TWO, c_g=1.0), boxes)
        torch.testing.assert_close(z0, a.sqrt() * z, rtol=1e-12, atol=1e-12)


def test_guidance_reaches_the_step(gaussians, schedule):
    """With text z0 ~ N(mu, I): guided eps = sqrt(1 - a) (z - 3 sqrt(a) mu), z0_hat = sqrt(a) z + 3 (1 - a) mu."""
    z, a, b = start().z, schedule.alpha_bar[501].double(), schedule.previous(501, 2).double()
    expected = b.sqrt() * (a.sqrt() * z + 3 * (1 - a) * MU) + ((1 - b) * (1 - a)).sqrt() * (z - 3 * a.sqrt() * MU)
    actual = next(sample(gaussians(MU), schedule, start(), TWO)).z
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def test_refinement_by_hand(gaussians, schedule):
    """Unit Gaussian, c_g = 0: G_p = -z, so z^m = (1 - eta_l) z^{m-1} + eta_k eps^m, whatever the guidance scale."""
    state, network = start(), gaussians()
    next(sample(network, schedule, state, replace(TWO, iterations=2, gamma=0.1)))
    a, z = schedule.alpha_bar[501].double(), state.z
    for m in range(2):
        noise = state.streams.draw("refinement", SHAPE, step=0, iteration=m).double()
        z = (1 - 0.1 * (1 - a)) * z + (0.1 * 1.9 * (1 - a)).sqrt() * noise
        torch.testing.assert_close(network.latents[m + 1], z, rtol=1e-12, atol=1e-12)


def test_refinement_keeps_the_variance(gaussians, schedule):
    """Unit Gaussian: a refinement takes a variance V to (1 - gamma (1 - a))^2 V + gamma (2 - gamma)(1 - a), which is
    1 up to gamma^2 a (1 - a) for V = 1. 131,072 values tell a variance to 0.4 %."""
    state, network = initial_state([0], (4, 8, 64, 64)), gaussians()
    next(sample(network, schedule, state, replace(TWO, iterations=60)))
    a, expected = schedule.alpha_bar[501].item(), 1.0
    for z in network.latents[1:]:
        expected = (1 - 0.05 * (1 - a)) ** 2 * expected + 0.05 * 1.95 * (1 - a)
        assert z.var().item() == pytest.approx(expected, rel=0.015)
    assert expected == pytest.approx(1, abs=0.02)
    # and it does refresh: after 60 iterations (1 - 0.05 (1 - a))^60 = 11 % of the first latent is left
    assert (network.latents[-1] * state.z).mean().item() == pytest.approx((1 - 0.05 * (1 - a)) ** 60, abs=0.015)


@pytest.mark.parametrize(
    ("changes", "calls"),
    [
        ({}, 3),
        ({"iterations": 2}, 3 * (2 + 1)),
        ({"iterations": 2, "c_g": strength(10.0, *SHAPE)}, 3 * (2 + 1)),  # one call serves both gradients
        ({"iterations": 2, "refine_steps": 1}, 3 + 2),
        ({"iterations": 2, "refine_steps": 0}, 3),
        ({"iterations": 1, "refine_steps": 7}, 3 * (1 + 1)),
    ],
)
def test_number_of_network_calls(gaussians, schedule, changes, calls):
    network = gaussians()
    list(sample(network, schedule, start(), replace(TWO, steps=3, **changes), MOVING))
    assert len(network.times) == calls


def test_frozen_steps_mask_the_refinement_too(gaussians, schedule):
    settings = replace(TWO, steps=4, frozen_steps=2, iterations=1)
    with_boxes, without = gaussians(), gaussians()
    list(sample(with_boxes, schedule, start(), settings, MOVING))
    list(sample(without, schedule, start(), settings))
    assert with_boxes.times == [751, 751, 501, 501, 251, 251, 1, 1]
    assert with_boxes.frozen == [True] * 4 + [False] * 4
    assert without.frozen == [False] * 8  # nothing to mask by


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_only_the_network_is_in_half_precision(schedule, dtype):
    """What it returns is all that is rounded: the same numbers handed over in float32 give the same bits."""

    def denoise(z, t, frozen):
        eps = 0.5 * z.to(dtype)
        return eps, 1.25 * eps

    def same_in_float32(z, t, frozen):
        return tuple(eps.float() for eps in denoise(z, t, frozen))

    runs = (sample(f, schedule, initial_state([0], SHAPE), EVERYTHING, MOVING) for f in (denoise, same_in_float32))
    for half, single in zip(*runs, strict=True):
        assert half.z.dtype == torch.float32
        assert torch.equal(half.z, single.z)


# --- Records ---


def test_record_by_hand(gaussians, schedule):
    """Unit Gaussian, M = 1: the terms of Eq. 2 are eta_l c_g G_g, eta_l (-z) and eta_k eps^1, with G_g as in
    z^1 = z + their sum."""
    state, network = start(0, 1), gaussians()
    settings = replace(TWO, iterations=1, gamma=0.1, c_g=strength(50.0, *SHAPE))
    after = next(sample(network, schedule, state, settings, MOVING))
    a, (record,) = schedule.alpha_bar[501].double(), after.records
    score = -0.1 * (1 - a) * state.z
    noise = (0.1 * 1.9 * (1 - a)).sqrt() * state.streams.draw("refinement", SHAPE).double()
    prior = network.latents[1] - state.z - score - noise

    def rms(x):
        return [video.square().mean().sqrt().item() for video in x]

    assert record["t"] == 501
    assert record["rms_prior"] == pytest.approx(rms(prior), rel=1e-9)
    assert record["rms_score"] == pytest.approx(rms(score), rel=1e-9)
    assert record["rms_noise"] == pytest.approx(rms(noise), rel=1e-9)
    assert record["latent_std"] == pytest.approx([video.std().item() for video in after.z], rel=1e-9)


def test_tau_is_that_of_the_clean_estimate(gaussians, schedule):
    after = next(sample(gaussians(MU), schedule, start(0, 1), TWO, MOVING))
    uncond, text = gaussians(MU).eps(start(0, 1).z, 501)
    z0 = predict_clean(start(0, 1).z, uncond + 3.0 * (text - uncond), schedule.alpha_bar[501].double())
    assert after.records[0]["tau"] == pytest.approx(temporal_consistency(z0, MOVING).tolist(), rel=1e-9)


def test_terms_are_averaged_over_iterations(silent, schedule):
    network = silent()
    after = next(sample(network, schedule, start(), replace(TWO, iterations=3), MOVING))
    moves = [(z_next - z).square().mean().sqrt().item() for z, z_next in pairwise(network.latents)]
    assert after.records[0]["rms_noise"] == pytest.approx([sum(moves) / 3], rel=1e-9)
    assert after.records[0]["rms_score"] == after.records[0]["rms_prior"] == [0.0]


def test_records_are_json_and_say_nothing_of_what_did_not_happen(gaussians, schedule):
    records = list(sample(gaussians(), schedule, start(0, 1), TWO))[-1].records
    assert [record["t"] for record in records] == [501, 1]
    for record in json.loads(json.dumps(records)):
        assert record["tau"] is record["rms_prior"] is record["rms_score"] is record["rms_noise"] is None
        assert len(record["latent_std"]) == 2


# --- What stops a run ---


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("iterations", [0, 2])
def test_latents_that_are_not_finite(schedule, bad, iterations):
    def denoise(z, t, frozen):
        eps = z.clone() if t > 300 else z * bad
        return eps, eps

    states = sample(denoise, schedule, start(), replace(EVERYTHING, iterations=iterations), MOVING)
    assert next(states).step == 1 and next(states).step == 2
    with pytest.raises(NonFinite, match=r"after step 3 of 4 \(t = 251\): run the network in float32"):
        next(states)


def test_latents_that_overflow(schedule):
    """eps = 2e38 is finite; z0_hat = -sqrt(1 - a) eps / sqrt(a), a = 0.06 at t = 751, is beyond 3.4e38."""

    def denoise(z, t, frozen):
        return torch.full_like(z, 2e38), torch.full_like(z, 2e38)

    with pytest.raises(NonFinite, match=r"after step 1 of 4 \(t = 751\)"):
        next(sample(denoise, schedule, initial_state([0], SHAPE), replace(TWO, steps=4)))


@pytest.mark.parametrize(
    ("changes", "boxes", "message"),
    [
        ({"z": torch.zeros(1, *SHAPE, dtype=torch.float16)}, None, r"latents must be \(B, C, F, H, W\) in float32"),
        ({"z": torch.zeros(SHAPE)}, None, r"latents must be \(B, C, F, H, W\) in float32"),
        ({"streams": Streams((0, 1))}, None, "1 videos need as many seeds, got 2"),
        ({"step": 3}, None, "after step 3, but the settings end at step 2"),
        ({}, MOVING[:, :2], r"boxes must be \(K, F, 4\) with F = 3"),
        ({}, MOVING[0], r"boxes must be \(K, F, 4\) with F = 3"),
    ],
)
def test_bad_states_and_boxes(gaussians, schedule, changes, boxes, message):
    with pytest.raises(ValueError, match=message):
        next(sample(gaussians(), schedule, replace(start(), **changes), TWO, boxes))
