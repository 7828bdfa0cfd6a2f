"""From prompt to video on small random networks: what reaches them, in which order, and what is refused before."""

import copy
import inspect
import time
import zlib
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from adaptation.trajectory import Trajectory
from sampling.generate import HOW, generate, make_plan, recommended, to_uint8
from sampling.sampler import NonFinite, initial_state, sample
from sampling.schedule import NoiseSchedule
from sampling.settings import SamplingSettings, preset
from tests.helpers import strength

PROMPT = "a red ball over the grass"
TWO = SamplingSettings(steps=2, guidance_scale=3.0, frozen_steps=1, iterations=1, c_g=strength(50.0, 4, 3, 6, 8))
PLAIN = preset("plain", TWO)
BALL = Trajectory.from_keyframes({0: [0, 0, 0.5, 0.5], 2: [0.5, 0.5, 1, 1]}, 3, "red ball", PROMPT)


class Words:
    """A text encoder of 8 tokens: start, words, padding; a word's embedding depends on the word and its place."""

    def encode(self, prompts):
        return torch.stack([self.embed(prompt) for prompt in prompts])

    def embed(self, prompt):
        words = ["<start>", *prompt.split(), *["<pad>"] * 8][:8]
        seeds = [zlib.crc32(f"{place} {word}".encode()) for place, word in enumerate(words)]
        return torch.stack([torch.randn(16, generator=torch.Generator().manual_seed(seed)) for seed in seeds])

    def subject_tokens(self, prompt, subject):
        if not set(subject.split()) <= set(prompt.split()):
            raise ValueError(f"{subject!r} is not in the prompt, whose words are {prompt!r}")
        words = ["<start>", *prompt.split(), *["<pad>"] * 8][:8]
        return torch.tensor([word in subject.split() for word in words])

    tokens_alike = subject_tokens


@pytest.fixture
def pipeline(networks, schedule):
    """6 x 8 cells, 3 frames; `calls` remembers what the U-Net was given."""
    unet, vae = copy.deepcopy(networks)
    calls = []
    unet.register_forward_pre_hook(lambda _, args: calls.append(args))
    settings = {"steps": 2, "guidance_scale": 3.0, "c_g": TWO.c_g, "gamma": 0.1}
    defaults = SimpleNamespace(frames=3, height=48, width=64, prompt="grass", settings=settings)
    return SimpleNamespace(unet=unet, vae=vae, text_encoder=Words(), schedule=schedule, defaults=defaults, calls=calls)


# ---- What is computed ----------------------------------------------------------------------------------------------


def test_a_video_equals_the_parts_put_together_by_hand(pipeline):
    pipeline.unet.double()  # Mask Normalization sorts: rounding that swaps two values would show
    began = time.perf_counter()
    result = generate(pipeline, PROMPT, BALL, TWO, seed=7, negative_prompt="sand")

    text, control = pipeline.text_encoder, make_plan(pipeline, PROMPT, BALL, TWO).control

    def denoise(z, t, frozen):  # two calls instead of a guidance batch
        return tuple(pipeline.unet(z, t, text.encode([p]), control if frozen else None) for p in ("sand", PROMPT))

    *_, end = sample(denoise, pipeline.schedule, initial_state([7], (4, 3, 6, 8)), TWO, BALL.boxes)
    with torch.no_grad():
        pixels = pipeline.vae.decode(end.z)[0]

    assert result.latents.shape == (1, 4, 3, 6, 8)
    assert result.latents.dtype == torch.float32
    torch.testing.assert_close(result.latents, end.z, rtol=1e-5, atol=1e-5)
    assert result.frames.shape == (3, 48, 64, 3)
    assert result.frames.dtype == np.uint8
    by_hand = ((pixels.clamp(-1, 1) + 1) * 127.5).permute(1, 2, 3, 0).numpy()
    assert np.abs(result.frames - by_hand).max() <= 0.51  # half a level, and rounding errors
    assert (result.prompt, result.seed, result.settings) == (PROMPT, 7, TWO)
    assert [record["t"] for record in result.records] == pipeline.schedule.timesteps(2)
    assert result.records[-1]["tau"] == pytest.approx(end.records[-1]["tau"], abs=1e-3)
    assert set(result.seconds) == {"text", "sampling", "decoding"}
    assert all(value > 0 for value in result.seconds.values())
    assert sum(result.seconds.values()) < time.perf_counter() - began


def test_masks_reach_the_network_in_frozen_steps_alone(pipeline):
    settings = replace(TWO, steps=4, frozen_steps=2)
    generate(pipeline, PROMPT, BALL, settings)
    frozen = [control is not None for _, _, _, control in pipeline.calls]
    assert frozen == [True] * 4 + [False] * 4  # M = 1: a refinement and a step, four times
    assert all(text.shape == (2, 8, 16) for _, _, text, _ in pipeline.calls)  # one call for both halves

    control = pipeline.calls[0][3]
    assert torch.equal(control.regions, BALL.rasterize(6, 8))
    assert control.tokens.int().tolist() == [[0, 0, 1, 1, 0, 0, 0, 0]]  # <start> a red ball over the grass <pad>


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mask_normalization", False),
        ("where", ("mid", "temporal")),
        ("attention", ("cross",)),
        ("grid", "cover"),
        ("start_token", "background"),
        ("axis", "joint"),
        ("matching_gradient", "exact"),
        ("normalize_in", ("self",)),
    ],
)
def test_every_switch_of_the_masks_is_handed_on(pipeline, name, value):
    assert getattr(TWO, name) != value
    control = make_plan(pipeline, PROMPT, BALL, replace(TWO, **{name: value})).control
    ours = {"mask_normalization": "normalize", "matching_gradient": "gradient"}  # names that differ in the control
    assert getattr(control, ours.get(name, name)) == value


def test_boxes_change_the_video_and_its_prior_is_at_work(pipeline):
    plain = generate(pipeline, PROMPT, settings=PLAIN)
    steered = generate(pipeline, PROMPT, BALL, TWO)
    unmasked = generate(pipeline, PROMPT, BALL, replace(TWO, frozen_steps=0))
    assert plain.records[0]["tau"] is None
    assert steered.records[0]["rms_prior"][0] > 0
    assert not torch.equal(steered.latents, plain.latents)
    assert not torch.equal(steered.latents, unmasked.latents)


def test_several_subjects_each_have_their_words(pipeline):
    prompt = "red ball and blue box"
    boxes = torch.tensor([[[0.0, 0, 0.5, 1]] * 3, [[0.5, 0, 1, 1]] * 3])
    control = make_plan(pipeline, None, Trajectory(boxes, ["red ball", "blue box"], prompt), TWO).control
    assert control.tokens.int().tolist() == [[0, 1, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 0, 0]]
    assert control.regions[:, 0, 0].int().tolist() == [[1] * 4 + [0] * 4, [0] * 4 + [1] * 4]


def test_peekaboo_takes_every_token_that_the_subject_has(pipeline):
    """<start> a red ball and a red cross: the phrase is at 2 and 3, and another "red" at 6."""
    prompt = "a red ball and a red cross"
    pipeline.text_encoder.subject_tokens = lambda prompt, subject: torch.tensor([0, 0, 1, 1, 0, 0, 0, 0]).bool()
    ball = replace(BALL, prompt=prompt)
    marked = {
        name: make_plan(pipeline, None, ball, preset(name, TWO)).control.tokens.int().tolist()
        for name in ("peekaboo", "mask", "paper")
    }
    assert marked["peekaboo"] == [[0, 0, 1, 1, 0, 0, 1, 0]]
    assert marked["mask"] == marked["paper"] == [[0, 0, 1, 1, 0, 0, 0, 0]]


def test_a_token_of_two_subjects_is_that_of_the_phrase_where_it_stands(pipeline):
    """<start> red ball and red cross near ball: both subjects have "red", which stays where its phrase is; the second
    "ball" is the ball's alone."""
    phrases = {"red ball": [0, 1, 1, 0, 0, 0, 0, 0], "red cross": [0, 0, 0, 0, 1, 1, 0, 0]}
    pipeline.text_encoder.subject_tokens = lambda prompt, subject: torch.tensor(phrases[subject]).bool()
    boxes = torch.tensor([[[0.0, 0, 0.5, 1]] * 3, [[0.5, 0, 1, 1]] * 3])
    two = Trajectory(boxes, [*phrases], "red ball and red cross near ball")
    control = make_plan(pipeline, None, two, preset("peekaboo", TWO)).control
    assert control.tokens.int().tolist() == [[0, 1, 1, 0, 0, 0, 0, 1], [0, 0, 0, 0, 1, 1, 0, 0]]


def test_a_seed_means_one_video(pipeline):
    first, again, other = (generate(pipeline, PROMPT, settings=PLAIN, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.frames, again.frames)
    assert not np.array_equal(first.frames, other.frames)


def test_both_prompts_matter(pipeline):
    latents = [
        generate(pipeline, prompt, settings=PLAIN, negative_prompt=negative).latents
        for prompt, negative in ((PROMPT, ""), ("blue box", ""), (PROMPT, "blue box"))
    ]
    assert not torch.equal(latents[0], latents[1])
    assert not torch.equal(latents[0], latents[2])


def test_chunks_do_not_change_the_video(pipeline):
    sizes = []
    pipeline.vae.decoder.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    one, three = (generate(pipeline, PROMPT, settings=PLAIN, frames_per_chunk=n).frames for n in (1, 3))
    assert sizes == [1, 1, 1, 3]
    assert np.abs(one.astype(int) - three).max() <= 1  # convolutions of other batch sizes round otherwise


def test_latents_stay_in_float32_whatever_the_networks(pipeline):
    pipeline.unet.bfloat16(), pipeline.vae.bfloat16()
    result = generate(pipeline, PROMPT, BALL, TWO)
    assert result.latents.dtype == torch.float32
    assert result.frames.dtype == np.uint8
    assert pipeline.calls[0][0].dtype == torch.float32  # cast at the U-Net's own door


def test_no_graph_is_left_behind(pipeline):
    pipeline.unet.requires_grad_(), pipeline.vae.requires_grad_()  # as a trainer would hand them in
    graphs = []
    pipeline.vae.decoder.register_forward_hook(lambda _module, _args, pixels: graphs.append(pixels.requires_grad))
    result = generate(pipeline, PROMPT, BALL, TWO)
    assert graphs == [False]
    assert not result.latents.requires_grad
    assert torch.is_grad_enabled()
    assert all(p.grad is None for p in pipeline.unet.parameters())


# ---- Progress and states -------------------------------------------------------------------------------------------


def test_progress_is_told_after_every_step(pipeline):
    seen = []
    result = generate(pipeline, PROMPT, settings=PLAIN, progress=seen.append)
    assert [state.step for state in seen] == [1, 2]
    assert torch.equal(seen[-1].z, result.latents)


def test_an_interruption_passes_through(pipeline):
    def interrupt(state):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(pipeline, PROMPT, settings=PLAIN, progress=interrupt)
    assert torch.is_grad_enabled()


def test_a_run_goes_on_from_any_of_its_states(pipeline):
    states = []
    whole = generate(pipeline, PROMPT, BALL, TWO, seed=5, progress=states.append)
    for state in states:  # the last is a finished run, which is only decoded
        resumed = generate(pipeline, PROMPT, BALL, TWO, state=state)
        assert np.array_equal(resumed.frames, whole.frames)
        assert resumed.records == whole.records
        assert resumed.seed == 5  # the state's, not the argument's


# ---- What is left open ---------------------------------------------------------------------------------------------


def test_gaps_are_filled_by_the_checkpoint(pipeline):
    plan = make_plan(pipeline)
    assert (plan.prompt, plan.shape) == ("grass", (4, 3, 6, 8))
    assert plan.settings == preset("plain", SamplingSettings(**pipeline.defaults.settings))
    assert plan.boxes is plan.control is None
    steered = make_plan(pipeline, trajectory=BALL)
    assert steered.prompt == PROMPT
    assert steered.settings == recommended(pipeline, "full")
    assert (steered.settings.c_g, steered.settings.gamma) == (TWO.c_g, 0.1)


def test_what_is_given_counts(pipeline):
    plan = make_plan(pipeline, "a blue box", settings=TWO, frames=5, height=24, width=40)
    assert (plan.prompt, plan.settings, plan.shape) == ("a blue box", TWO, (4, 5, 3, 5))
    assert make_plan(pipeline, "", settings=TWO).prompt == ""  # the empty prompt is a prompt
    assert make_plan(pipeline, None, replace(BALL, subjects=["grass"], prompt="")).prompt == "grass"
    assert make_plan(pipeline, "the red ball", BALL).prompt == "the red ball"  # another prompt with the subject


def test_without_a_seed_and_a_negative_prompt_they_are_0_and_empty(pipeline):
    default, said = (
        generate(pipeline, PROMPT, settings=PLAIN),
        generate(pipeline, PROMPT, None, PLAIN, 0, negative_prompt=""),
    )
    assert default.seed == 0
    assert torch.equal(default.latents, said.latents)
    assert {*HOW} < {*inspect.signature(generate).parameters}


# ---- What is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"frames": 0}, "frames must be a whole number of at least 1, got 0"),
        ({"frames_per_chunk": 0}, "frames_per_chunk must be a whole number of at least 1, got 0"),
        ({"frames": 2.5}, "frames must be a whole number"),
        ({"height": 60}, "height must be a multiple of 8, got 60"),
        ({"width": 0}, "width must be a multiple of 8, got 0"),
        ({"width": -8}, "width must be a multiple of 8"),
        ({"seed": -1}, "a seed must be an integer"),
        ({"trajectory": BALL, "frames": 4}, "boxes for 3 frames, but the video has 4"),
        ({"trajectory": BALL, "prompt": "a blue box"}, "'red ball' is not in the prompt"),
        ({"trajectory": replace(BALL, prompt="a blue box"), "prompt": None}, "'red ball' is not in the prompt"),
        ({"prompt": None}, "a prompt is missing"),
        ({"settings": replace(PLAIN, steps=600)}, "600 steps cannot be spaced evenly"),
        ({"trajectory": BALL, "settings": replace(TWO, where=("temporal",))}, "temporal attention in no block"),
        ({"state": initial_state([0], (4, 3, 8, 6))}, r"the state's latents are \(1, 4, 3, 8, 6\), but this run's"),
        ({"state": initial_state([0, 1], (4, 3, 6, 8))}, r"the state's latents are \(2, 4, 3, 6, 8\)"),
    ],
)
def test_bad_input_is_refused_before_a_network_is_called(pipeline, monkeypatch, arguments, sentence):
    def never(*_):
        raise AssertionError("a network was called")

    monkeypatch.setattr(pipeline.text_encoder, "encode", never)
    pipeline.defaults.prompt = None
    with pytest.raises(ValueError, match=sentence):
        generate(pipeline, **{"prompt": PROMPT, **arguments})
    assert pipeline.calls == []


# ---- Pixels --------------------------------------------------------------------------------------------------------


def test_pixels_are_rounded_to_the_nearest_level():
    """Level l is the pixel 2 l / 255 - 1; 0 lies between 127 and 128, 1.3 and -2 are overshoot."""
    level = lambda l: 2 * l / 255 - 1  # noqa: E731
    pixels = torch.tensor([-1, 1, 1.3, -2, level(100), level(100.4), level(100.6), level(254.4)])
    video = pixels.reshape(1, 1, 1, 2, 4).expand(1, 3, 1, 2, 4)
    assert to_uint8(video)[0, :, :, 0].tolist() == [[0, 255, 255, 0], [100, 100, 101, 254]]
    assert to_uint8(video.half()).shape == (1, 2, 4, 3)


def test_channels_are_last_and_frames_first():
    pixels = torch.linspace(-1, 1, 3 * 2 * 4 * 5).reshape(1, 3, 2, 4, 5)
    frames = to_uint8(pixels)
    assert frames.shape == (2, 4, 5, 3)
    assert frames[1, 2, 3, 0] == round((pixels[0, 0, 1, 2, 3].item() + 1) * 127.5)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_pixels_that_are_not_finite_are_no_picture(value):
    pixels = torch.zeros(1, 3, 1, 2, 2)
    pixels[0, 1, 0, 1, 1] = value
    with pytest.raises(NonFinite, match="decoded pixels are not finite"):
        to_uint8(pixels)


def test_the_schedule_is_the_pipelines(pipeline):
    pipeline.schedule = NoiseSchedule(100, 0.001, 0.02, "linear", steps_offset=0, set_alpha_to_one=True)
    assert [record["t"] for record in generate(pipeline, PROMPT, settings=PLAIN).records] == [50, 0]
