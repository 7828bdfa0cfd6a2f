"""From a prompt, and boxes, to a video: hands a pipeline's networks to Algorithm 1 and decodes what comes out."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from adaptation.attention_masks import AttentionControl
from adaptation.control import Control
from adaptation.trailblazer import TrailBlazerControl, edited_tokens
from adaptation.trajectory import Trajectory
from sampling.denoise import make_denoise, off_device
from sampling.sampler import NonFinite, State, initial_state, sample
from sampling.schedule import NoiseSchedule
from sampling.settings import SamplingSettings, preset

HOW = ("sequential_guidance", "offload", "frames_per_chunk")  # options of `generate` that save memory
OF_ALL_METHODS = ("steps", "guidance_scale", "eta")  # how a video is sampled, whatever holds its subjects


class Parts(Protocol):
    """What is needed of a pipeline; `weights.load.load_pipeline` makes one from a checkpoint."""

    @property
    def unet(self) -> Any: ...  # unet(z, t, text, control) -> eps of both guidance halves

    @property
    def vae(self) -> Any: ...  # vae.decode(latents, frames_per_chunk) -> pixels in [-1, 1]

    @property
    def text_encoder(self) -> Any: ...  # encode(prompts) -> (B, L, D), subject_tokens(prompt, subject) -> bool (L,)

    @property
    def schedule(self) -> NoiseSchedule: ...

    @property
    def defaults(self) -> Any: ...  # recommended frames, height, width, prompt (or None) and settings


@dataclass(frozen=True, eq=False)
class Plan:
    """All about a run that can be settled, or refused, before a network is called."""

    prompt: str
    settings: SamplingSettings
    shape: tuple[int, int, int, int]  # of the latents, C F h w
    boxes: Tensor | None  # (K, F, 4)
    control: Control | None  # for the frozen steps


@dataclass(frozen=True, eq=False)
class Result:
    """What `generate` made, and all that it was made of."""

    frames: np.ndarray  # uint8 (F, H, W, 3)
    latents: Tensor  # (1, C, F, h, w) float32, z_0
    records: tuple[dict[str, Any], ...]  # one for each step, see `sampler.sample`
    prompt: str
    seed: int
    settings: SamplingSettings
    seconds: dict[str, float]  # by phase


def recommended(pipeline: Parts, method: str, given: Mapping[str, Any] | None = None) -> SamplingSettings:
    """A named method, with the checkpoint's recommendation for all that it leaves open.

    given: settings that were asked for. They count in place of the checkpoint's; steps, guidance_scale and eta also in
        place of a method's own, so that all rows of a comparison have them.
    """
    given = given or {}
    base = SamplingSettings.from_dict({**pipeline.defaults.settings, **given})
    return replace(preset(method, base), **{name: given[name] for name in given if name in OF_ALL_METHODS})


def method_settings(
    pipeline: Parts, methods: Iterable[str], given: Mapping[str, Any] | None = None
) -> dict[str, SamplingSettings]:
    """What is `recommended` for each of several methods, by name."""
    return {method: recommended(pipeline, method, given) for method in methods}


def make_plan(
    pipeline: Parts,
    prompt: str | None = None,
    trajectory: Trajectory | None = None,
    settings: SamplingSettings | None = None,
    *,
    frames: int | None = None,
    height: int | None = None,
    width: int | None = None,
) -> Plan:
    """What `generate` will do, with all gaps filled; a fault is a ValueError. Its arguments are those of `generate`."""
    if prompt is None:
        prompt = (trajectory.prompt if trajectory is not None else "") or pipeline.defaults.prompt
    if prompt is None:
        raise ValueError("a prompt is missing: none was given, and the checkpoint recommends none")
    if settings is None:
        settings = recommended(pipeline, "plain" if trajectory is None else "full")
    pipeline.schedule.timesteps(settings.steps)  # refuses steps that the schedule cannot serve

    defaults, cell = pipeline.defaults, pipeline.vae.config.downscale
    F = _whole("frames", defaults.frames if frames is None else frames, 1)
    H = _whole("height", defaults.height if height is None else height, cell)
    W = _whole("width", defaults.width if width is None else width, cell)
    shape = (pipeline.unet.config.in_channels, F, H // cell, W // cell)
    if trajectory is None:
        return Plan(prompt, settings, shape, None, None)

    trajectory.expect_frames(F)
    control = _make_control(pipeline, prompt, trajectory, settings, H // cell, W // cell)
    return Plan(prompt, settings, shape, trajectory.boxes, control)


def _make_control(
    pipeline: Parts, prompt: str, trajectory: Trajectory, settings: SamplingSettings, h: int, w: int
) -> Control:
    """Masks, or TrailBlazer's edit, for latents of h x w cells."""
    words = _subject_words(pipeline.text_encoder, prompt, trajectory.subjects, settings.subject_words)
    if settings.steer == "edit":
        tokens = edited_tokens(words, prompt, settings.trailing)
        return TrailBlazerControl(trajectory.boxes, tokens, strengthen=settings.strengthen, weaken=settings.weaken)
    return AttentionControl(
        trajectory.rasterize(h, w).to(next(pipeline.unet.parameters()).device),
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


def _subject_words(text_encoder: Any, prompt: str, subjects: Sequence[str], rule: str) -> Tensor:
    """M_y, bool (K, L): the places of each subject's phrase; by the rule "ids" also those of its single tokens.

    Peekaboo's code, whose rule that is, has one subject. Of several, each gets the tokens that no other has as well,
    and in every phrase its own subject's words: "a red ball and a red cross" keeps two subjects apart.
    """
    phrases = torch.stack([text_encoder.subject_tokens(prompt, subject) for subject in subjects])
    if rule == "phrase":
        return phrases
    ids = torch.stack([text_encoder.tokens_alike(prompt, subject) for subject in subjects])
    return phrases | (ids & (ids.sum(0) == 1))


@torch.no_grad()  # the sampler lifts it where the temporal prior needs a gradient
def generate(
    pipeline: Parts,
    prompt: str | None = None,
    trajectory: Trajectory | None = None,
    settings: SamplingSettings | None = None,
    seed: int = 0,
    *,
    negative_prompt: str = "",
    frames: int | None = None,
    height: int | None = None,
    width: int | None = None,
    frames_per_chunk: int = 4,
    sequential_guidance: bool = False,
    offload: bool = False,
    progress: Callable[[State], None] | None = None,
    state: State | None = None,
) -> Result:
    """One video. Whatever is None is the checkpoint's recommendation.

    prompt: None is the trajectory's own, if it has one; another may be given, if it names the trajectory's subjects
    trajectory: boxes for the subjects, one for each of the frames
    settings: None is the full method where there is a trajectory, and plain sampling where there is none
    height, width: in pixels, multiples of the autoencoder's downscale (8)
    frames_per_chunk: frames decoded at a time; fewer need less memory; the same up to rounding
    sequential_guidance: one guidance half after the other, for about half the activations; the same up to rounding
    offload: keep the VAE and the text encoder in the CPU's memory while the U-Net works
    progress: called with the state after every step
    state: goes on from a state of an earlier run, which knows its own seed
    """
    began = time.perf_counter()
    _whole("frames_per_chunk", frames_per_chunk, 1)
    plan = make_plan(pipeline, prompt, trajectory, settings, frames=frames, height=height, width=width)
    first = initial_state([seed], plan.shape, next(pipeline.unet.parameters()).device) if state is None else state
    if first.z.shape != (1, *plan.shape):
        raise ValueError(f"the state's latents are {tuple(first.z.shape)}, but this run's are {(1, *plan.shape)}")
    text = pipeline.text_encoder.encode([negative_prompt, plan.prompt])  # (2, L, D), the guidance halves
    encoded = time.perf_counter()

    denoise = make_denoise(pipeline.unet, text, plan.control, sequential=sequential_guidance)
    state = first
    with off_device([pipeline.vae, pipeline.text_encoder.model], first.z.device) if offload else nullcontext():
        for state in sample(denoise, pipeline.schedule, first, plan.settings, plan.boxes):
            if progress is not None:
                progress(state)
    sampled = time.perf_counter()

    video = to_uint8(pipeline.vae.decode(state.z, frames_per_chunk))
    seconds = {"text": encoded - began, "sampling": sampled - encoded, "decoding": time.perf_counter() - sampled}
    return Result(video, state.z, state.records, plan.prompt, state.streams.seeds[0], plan.settings, seconds)


def to_uint8(pixels: Tensor) -> np.ndarray:
    """Pixels (1, 3, F, H, W) in [-1, 1] -> frames (F, H, W, 3), rounded to the nearest of 256 levels."""
    if not pixels.isfinite().all():
        raise NonFinite("the decoded pixels are not finite: run the autoencoder in float32")
    levels = (pixels.float().clamp(-1, 1) + 1) * 127.5
    return rearrange(levels.round().byte(), "1 c f h w -> f h w c").cpu().numpy()


def _whole(name: str, value: int, unit: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1 or value % unit:
        what = f"a multiple of {unit}" if unit > 1 else "a whole number of at least 1"
        raise ValueError(f"{name} must be {what}, got {value!r}")
    return value
