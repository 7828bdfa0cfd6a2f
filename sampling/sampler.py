"""Algorithm 1: diffusion sampling with Temporal Intrinsic Denoising, as a generator over an explicit state.

No network is named here: whatever predicts the noise is handed in as `denoise`. What lies outside it is in the
precision of the latents: float32, or float64 where the state is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from adaptation.intrinsic_denoising import intrinsic_step, scale_c_g, step_sizes
from adaptation.temporal_prior import Crops, prepare_crops, temporal_consistency
from sampling.ddim import ddim_step, predict_clean
from sampling.guidance import classifier_free, score, unit_norm
from sampling.schedule import NoiseSchedule
from sampling.settings import SamplingSettings


class Denoise(Protocol):
    """denoise(z, t, frozen) -> (eps_uncond, eps_text), the noise in latents z (B, C, F, H, W) at timestep t.

    frozen: whether this is one of the first steps, in which the control (masks, or TrailBlazer's edit) acts
    """

    def __call__(self, z: Tensor, t: int, frozen: bool, /) -> tuple[Tensor, Tensor]: ...


@runtime_checkable
class Differentiable(Denoise, Protocol):
    """A denoise that is told where a gradient is wanted, so as to keep no more for it than it needs.

    through: "unet", both halves of the result as functions of z; "text-half", eps_text alone. Any other denoise
    is called as always where a gradient is wanted, and autograd keeps what it keeps.
    """

    def differentiable(self, z: Tensor, t: int, frozen: bool, through: str) -> tuple[Tensor, Tensor]: ...


STREAMS = ("latent", "refinement", "ddim")
# At Zeroscope's size the prior's gradient has an rms of 1e-5 to 1e-4, and may have less inside the network, where
# float16 would round much of it to zero.
TAU_SCALE = 2.0**10


class NonFinite(FloatingPointError):
    """NaN or infinity in the latents or pixels: nothing after them could mean anything, nor would another try."""


@dataclass(frozen=True)
class Streams:
    """Three independent random streams for each video, addressed rather than advanced.

    A draw is a pure function of (seed, stream, step, iteration): nothing has to be carried from step to step, and
    neither M, nor eta, nor the other videos of the batch can shift it. Drawn on the CPU in float32 for any device.
    """

    seeds: tuple[int, ...]

    def draw(self, stream: str, shape: Sequence[int], step: int = 0, iteration: int = 0) -> Tensor:
        """Standard normal noise for every video, (B, *shape) float32."""
        address = (STREAMS.index(stream), step, iteration)
        videos = []
        for seed in self.seeds:
            generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=address)))
            videos.append(torch.from_numpy(generator.standard_normal(shape, dtype=np.float32)))
        return torch.stack(videos)


@dataclass(frozen=True, eq=False)
class State:
    """All that a run needs to go on from here, beside its settings."""

    step: int  # DDIM steps done
    z: Tensor  # (B, C, F, H, W) latents
    streams: Streams
    records: tuple[dict[str, Any], ...] = ()  # one for each step done, see `_record`
    z0_hat: Tensor | None = None  # the clean estimate from which the last step was made, to be looked at


def initial_state(seeds: Sequence[int], shape: Sequence[int], device: torch.device | str = "cpu") -> State:
    """Pure noise for one video per seed, each of `shape` (C, F, H, W)."""
    if isinstance(seeds, int) or not seeds:
        raise ValueError(f"seeds must be a list with one seed for each video, got {seeds!r}")
    for seed in seeds:
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**64:
            raise ValueError(f"a seed must be an integer from 0 to 2**64 - 1, got {seed!r}")
    if len(shape) != 4 or any(size < 1 for size in shape):
        raise ValueError(
            f"shape must be that of one video's latents, (C, F, H, W), each at least 1, got {tuple(shape)}"
        )
    streams = Streams(tuple(seeds))
    return State(step=0, z=streams.draw("latent", shape).to(device), streams=streams)


@torch.no_grad()  # the caller's mode is back at every yield; `gradients` lifts it where the prior needs it
def sample(
    denoise: Denoise,
    schedule: NoiseSchedule,
    state: State,
    settings: SamplingSettings,
    boxes: Tensor | None = None,
) -> Iterator[State]:
    """Algorithm 1 from `state` on, yielding the state after every DDIM step; boxes (K, F, 4), shared by the batch.

    Going on from any yielded state gives, on a CPU, the same bits as not having stopped. Without boxes there are
    neither masks nor a prior, and the refinement is Intrinsic Denoising.
    """
    _check(state, settings, boxes)
    timesteps = schedule.timesteps(settings.steps)
    crops = None if boxes is None else prepare_crops(boxes, state.z)  # once: no step copies them to the device again
    c_g = scale_c_g(settings.c_g, state.z.shape[1:], settings.unit_gradient)  # the setting is of Zeroscope's size

    for step in range(state.step, settings.steps):  # 1: for t = T downto 1 do
        t, z, shape = timesteps[step], state.z, state.z.shape[1:]  # 2: z_t^0 <- z_t
        frozen = boxes is not None and step < settings.frozen_steps
        alpha_bar = schedule.alpha_bar[t].to(z.dtype)  # () on the CPU, as good as a number on any device
        alpha_bar_prev = schedule.previous(t, settings.steps).to(z.dtype)
        eta_l, eta_k = step_sizes(settings.gamma, alpha_bar)
        refined = settings.refine_steps is None or step < settings.refine_steps
        terms = []

        for m in range(settings.iterations if refined else 0):  # 3: for m = 1 to M do
            G_g, G_p, _ = gradients(denoise, z, t, frozen, alpha_bar, settings, crops)  # 4, 5: one call for both
            noise = state.streams.draw("refinement", shape, step, m).to(z)
            z = intrinsic_step(  # 6: Eq. 2
                z, prior_gradient=G_g, score=G_p, eta_l=eta_l, eta_k=eta_k, c_g=c_g, noise=noise
            )
            terms.append(torch.stack([_rms(eta_l * c_g * G_g), _rms(eta_l * G_p), _rms(eta_k * noise)]))
        # 7: end for

        eps = classifier_free(*_predict(denoise, z, t, frozen), settings.guidance_scale)
        fresh = state.streams.draw("ddim", shape, step).to(z) if settings.eta > 0 else None
        z_prev = ddim_step(z, eps, alpha_bar, alpha_bar_prev, settings.eta, fresh)  # 8: z_{t-1} <- DDIMStep(z_t^M)
        z0_hat = predict_clean(z, eps, alpha_bar)
        finite, record = _record(t, z0_hat, terms, z_prev, crops)
        if not finite:
            raise NonFinite(
                f"latents are not finite after step {step + 1} of {settings.steps} (t = {t}): "
                "run the network in float32; where it is, c_g or guidance_scale is too large, or the weights are broken"
            )
        state = State(step + 1, z_prev, state.streams, (*state.records, record), z0_hat)
        yield state  # 9, 10: the last one is z_0


def gradients(
    denoise: Denoise,
    z: Tensor,
    t: int,
    frozen: bool,
    alpha_bar: Tensor,
    settings: SamplingSettings,
    boxes: Tensor | Sequence[Crops] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Lines 4 and 5 of Algorithm 1: G_g = grad_z tau(b, z0_hat(z)), G_p = grad_z log p_t(z | y, b), and z0_hat, like z.

    z0_hat(z) is, for `settings.prior_gradient`, the clean estimate of
        "unet"       the guided eps, differentiated through both halves of the network;
        "text-half"  eps_text, differentiated through the text half, so that no guidance scale enters;
        "tweedie"    the guided eps held constant, so that no backward pass enters the network.
    G_g without c_g: that comes in with Eq. 2. Where it is 0, or without boxes, G_g is zero and costs no gradient.
    boxes (K, F, 4), or `prepare_crops` of them.

    Line 4 alone runs with gradients, for it alone is one: from z through the network (but for "tweedie") to tau. Line 5
    is a prediction that the same call has made, lines 6 and 8 are sums of what is there, and line 8's call of the
    network is not differentiated: nothing after a step looks back through it.
    """
    if boxes is None or settings.c_g == 0:
        eps = classifier_free(*_predict(denoise, z, t, frozen), settings.guidance_scale)
        return torch.zeros_like(z), score(eps, alpha_bar), predict_clean(z, eps, alpha_bar)

    if torch.is_inference_mode_enabled():
        raise ValueError("the prior's gradient cannot be taken in torch.inference_mode, use torch.no_grad instead")
    through = None if settings.prior_gradient == "tweedie" else settings.prior_gradient
    z = z.detach().requires_grad_()
    with torch.set_grad_enabled(through is not None):
        eps_uncond, eps_text = _predict(denoise, z, t, frozen, through)
        eps = classifier_free(eps_uncond, eps_text, settings.guidance_scale)
    with torch.enable_grad():
        z0 = predict_clean(z, eps_text if through == "text-half" else eps, alpha_bar)
        tau = temporal_consistency(z0, boxes)  # (B,)
        (G_g,) = torch.autograd.grad(TAU_SCALE * tau.sum(), z)  # a sum, for the videos do not touch each other
    G_g = G_g / TAU_SCALE
    return unit_norm(G_g) if settings.unit_gradient else G_g, score(eps.detach(), alpha_bar), z0.detach()


def _predict(denoise: Denoise, z: Tensor, t: int, frozen: bool, through: str | None = None) -> tuple[Tensor, Tensor]:
    """(eps_uncond, eps_text) in z's precision, whatever the network's; through: what is to be differentiated."""
    if through is not None and isinstance(denoise, Differentiable):
        eps_uncond, eps_text = denoise.differentiable(z, t, frozen, through)
    else:
        eps_uncond, eps_text = denoise(z, t, frozen)
    return eps_uncond.to(z.dtype), eps_text.to(z.dtype)


RECORD_KEYS = {"t", "tau", "rms_prior", "rms_score", "rms_noise", "latent_std"}


def _record(
    t: int, z0: Tensor, terms: list[Tensor], z_prev: Tensor, crops: Sequence[Crops] | None
) -> tuple[bool, dict[str, Any]]:
    """Whether the new latents are finite, and what one step did, all fetched from the device in one copy.

    The record is ready for JSON: a list with a number for each video, or None where there is nothing to tell.
    tau is that of the clean estimate from which the DDIM step was made, so that it compares between all methods;
    the terms of Eq. 2 are as applied, step size included, and averaged over the M iterations. A name that is added here
    goes into RECORD_KEYS as well, else a run with it cannot be resumed.
    """
    numbers = {"latent_std": z_prev.flatten(1).std(dim=1), "finite": z_prev.flatten(1).isfinite().all(dim=1).to(z0)}
    if crops is not None:
        numbers["tau"] = temporal_consistency(z0, crops)
    if terms:
        numbers |= zip(("rms_prior", "rms_score", "rms_noise"), torch.stack(terms).mean(dim=0), strict=True)
    found = dict(zip(numbers, torch.stack([*numbers.values()]).tolist(), strict=True))
    names = ("tau", "rms_prior", "rms_score", "rms_noise", "latent_std")
    return all(found["finite"]), {"t": t} | {name: found.get(name) for name in names}


def _rms(x: Tensor) -> Tensor:
    """Root mean square of each video, (B,)."""
    return x.flatten(1).square().mean(dim=1).sqrt()


def _check(state: State, settings: SamplingSettings, boxes: Tensor | None) -> None:
    if state.z.ndim != 5 or state.z.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            "latents must be (B, C, F, H, W) in float32 or float64, whatever the network's precision, "
            f"got {tuple(state.z.shape)} in {state.z.dtype}"
        )
    if len(state.streams.seeds) != len(state.z):
        raise ValueError(f"{len(state.z)} videos need as many seeds, got {len(state.streams.seeds)}")
    if not 0 <= state.step <= settings.steps:
        raise ValueError(f"the state is after step {state.step}, but the settings end at step {settings.steps}")
    if boxes is not None and (boxes.ndim != 3 or boxes.shape[1:] != (state.z.shape[2], 4)):
        raise ValueError(
            f"boxes must be (K, F, 4) with F = {state.z.shape[2]} as the latents, got {tuple(boxes.shape)}"
        )
