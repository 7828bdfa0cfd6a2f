"""A run is an explicit state: it goes on from anywhere, and no draw depends on anything but its address."""

from dataclasses import replace

import pytest
import torch

from sampling.sampler import State, Streams, initial_state, sample
from sampling.settings import SamplingSettings
from tests.helpers import MOVING, SHAPE, start, strength

MU = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
TWO = SamplingSettings(steps=2, guidance_scale=3.0, frozen_steps=0, iterations=0, c_g=0.0)
EVERYTHING = replace(TWO, steps=4, eta=0.5, frozen_steps=2, iterations=2, c_g=strength(100.0, *SHAPE))


def test_going_on_from_any_state_gives_the_same_bits(gaussians, schedule):
    states = list(sample(gaussians(MU, 0.2), schedule, initial_state([0, 1], SHAPE), EVERYTHING, MOVING))
    assert [state.step for state in states] == [1, 2, 3, 4]
    for stopped in states:
        copy = State(stopped.step, stopped.z.clone(), Streams(stopped.streams.seeds), stopped.records)
        resumed = list(sample(gaussians(MU, 0.2), schedule, copy, EVERYTHING, MOVING))
        assert len(resumed) == 4 - stopped.step
        for actual, expected in zip(resumed, states[stopped.step :], strict=True):
            assert torch.equal(actual.z, expected.z)
            assert actual.records == expected.records


def test_states_are_not_changed_afterwards(gaussians, schedule):
    first = initial_state([0], SHAPE)
    states, copies = [first], [first.z.clone()]
    for state in sample(gaussians(), schedule, first, EVERYTHING, MOVING):
        states.append(state)
        copies.append(state.z.clone())
    assert all(torch.equal(state.z, copy) for state, copy in zip(states, copies, strict=True))
    assert [len(state.records) for state in states] == [0, 1, 2, 3, 4]


def test_ddim_noise_does_not_depend_on_the_refinement(silent, schedule):
    """With eps = 0, z' = sqrt(a' / a) z^M + sigma noise; solved for the noise of the second step, t = 1."""
    state = start()

    def noise(iterations):
        network = silent()
        end = list(sample(network, schedule, state, replace(TWO, eta=0.5, iterations=iterations)))[-1]
        a, b = schedule.alpha_bar[1].double(), schedule.previous(1, 2).double()
        sigma = 0.5 * ((1 - b) / (1 - a) * (1 - a / b)).sqrt()
        return (end.z - (b / a).sqrt() * network.latents[-1]) / sigma

    torch.testing.assert_close(noise(0), noise(3), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(noise(0), state.streams.draw("ddim", SHAPE, step=1).double(), rtol=1e-8, atol=1e-8)


def test_refinement_noise_does_not_depend_on_eta_or_later_iterations(silent, schedule):
    """With eps = 0, z^1 - z^0 = eta_k eps^1, in the first iteration of the second step."""

    def move(eta, iterations):
        network = silent()
        state = start()
        list(sample(network, schedule, state, replace(TWO, eta=eta, iterations=iterations)))
        before, after = network.latents[iterations + 1 : iterations + 3]
        return after - before

    torch.testing.assert_close(move(0.0, 1), move(0.7, 1), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(move(0.0, 1), move(0.0, 4), rtol=1e-9, atol=1e-12)


def test_a_video_does_not_depend_on_its_batch(gaussians, schedule):
    assert torch.equal(initial_state([5, 7, 9], SHAPE).z[1:2], initial_state([7], SHAPE).z)

    def end(*seeds):
        return list(sample(gaussians(MU, 0.2), schedule, start(*seeds), EVERYTHING, MOVING))[-1]

    together, alone = end(5, 7, 9), end(7)
    torch.testing.assert_close(together.z[1:2], alone.z, rtol=1e-9, atol=1e-9)
    for name in ("tau", "rms_prior", "rms_score", "rms_noise", "latent_std"):
        assert together.records[-1][name][1] == pytest.approx(alone.records[-1][name][0], rel=1e-9), name


def test_streams_are_independent_standard_normals():
    streams = Streams((0, 1))
    draws = [streams.draw("latent", (4000,))]
    draws += [
        streams.draw(name, (4000,), step, m) for name in ("refinement", "ddim") for step in (0, 1) for m in (0, 1)
    ]
    values = torch.cat(draws)  # every address of both seeds, (2 * 9, 4000)
    assert values.dtype == torch.float32
    # The correlation of two independent draws of 4000 has standard deviation 1.6 %: five of them.
    assert (torch.corrcoef(values) - torch.eye(18)).abs().max() < 0.08
    # The mean of 72,000 values has standard deviation 0.4 %, their standard deviation 0.3 %.
    assert values.mean().abs() < 0.02
    assert (values.std() - 1).abs() < 0.015


def test_a_seed_means_the_same_video_for_good():
    streams, first = Streams((2025,)), {"latent": [0.2448, 0.6594, -0.0828], "ddim": [-1.0845, 0.4957, 0.4481]}
    torch.testing.assert_close(streams.draw("latent", (3,)), torch.tensor([first["latent"]]), rtol=0, atol=1e-4)
    torch.testing.assert_close(streams.draw("ddim", (3,), step=4), torch.tensor([first["ddim"]]), rtol=0, atol=1e-4)


def test_a_state_begins_as_its_latent_stream():
    state = initial_state([3, 4], SHAPE)
    assert (state.step, state.records, state.z.shape, state.z.dtype) == (0, (), (2, *SHAPE), torch.float32)
    assert torch.equal(state.z, Streams((3, 4)).draw("latent", SHAPE))


@pytest.mark.parametrize("enabled", [True, False])
def test_gradients_do_not_leak(schedule, enabled):
    weight = torch.ones((), requires_grad=True)  # a network whose parameters were left trainable

    def denoise(z, t, frozen):
        return weight * z, 0.5 * weight * z

    with torch.set_grad_enabled(enabled):
        for state in sample(denoise, schedule, initial_state([0], SHAPE), EVERYTHING, MOVING):
            assert torch.is_grad_enabled() is enabled  # the caller's own mode, between two steps
            assert not state.z.requires_grad
    assert weight.grad is None


@pytest.mark.parametrize("seeds", [0, [], [-1], [2**64], [True], [1.0], ["1"]])
def test_bad_seeds(seeds):
    with pytest.raises(ValueError, match=r"^(a seed must be|seeds must be)"):
        initial_state(seeds, SHAPE)


@pytest.mark.parametrize("shape", [(1, *SHAPE), (2, 3, 4), (2, 0, 4, 5)])
def test_bad_shapes(shape):
    with pytest.raises(ValueError, match=r"shape must be that of one video's latents, \(C, F, H, W\)"):
        initial_state([0], shape)
