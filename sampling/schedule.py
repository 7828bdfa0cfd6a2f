"""The noise schedule of a checkpoint: cumulative alphas and the timesteps that DDIM visits."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

ONLY: dict[str, Any] = {  # keys that are accepted at this one value
    "clip_sample": False,
    "prediction_type": "epsilon",
    "timestep_spacing": "leading",
    "thresholding": False,
    "rescale_betas_zero_snr": False,
    "trained_betas": None,
}
FIELDS: dict[
    str, Any
] = {  # the keys that make a NoiseSchedule, with what their absence from a scheduler_config.json means
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "steps_offset": 0,
    "set_alpha_to_one": True,
}
ABSENT = FIELDS | ONLY | {"clip_sample": True}  # clipping is on unless a file says otherwise
# Keys that say nothing here: they belong to clipping and thresholding, which are off, or to another sampler.
NEUTRAL = ("clip_sample_range", "sample_max_value", "dynamic_thresholding_ratio", "skip_prk_steps")


@dataclass(frozen=True)
class NoiseSchedule:
    """How much of the clean latent is left at each of the T training timesteps, and which of them are visited."""

    num_train_timesteps: int  # T
    beta_start: float
    beta_end: float
    beta_schedule: str  # "scaled_linear" or "linear"
    steps_offset: int  # added to every visited timestep
    set_alpha_to_one: bool  # whether the last step ends at alpha_bar = 1, or at alpha_bar[0]

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "NoiseSchedule":
        """From the contents of a checkpoint's scheduler_config.json; keys that start with "_" are ignored."""
        given = {key: value for key, value in config.items() if not key.startswith("_") and value is not None}
        unknown = sorted(set(given) - set(ABSENT) - set(NEUTRAL))
        if unknown:
            raise ValueError(f"scheduler config: {unknown[0]!r} is not a key that this sampler knows, remove it")
        values = ABSENT | given
        for key, only in ONLY.items():
            if values[key] != only:
                how = "is" if key in given else "is absent, which means"
                raise ValueError(f"scheduler config: {key} {how} {values[key]!r}, only {only!r} is supported")
        return cls(**{name: values[name] for name in FIELDS})

    def __post_init__(self) -> None:
        total, offset = self.num_train_timesteps, self.steps_offset
        if not _is_int(total) or not 2 <= total <= 100_000:
            raise ValueError(f"scheduler config: num_train_timesteps must be an integer of 2 to 100000, got {total!r}")
        if not _is_int(offset) or not 0 <= offset < total:
            raise ValueError(f"scheduler config: steps_offset must be an integer from 0 to {total - 1}, got {offset!r}")
        for name in ("beta_start", "beta_end"):
            beta = getattr(self, name)
            if isinstance(beta, bool) or not isinstance(beta, int | float) or not 0 < beta < 1:
                raise ValueError(f"scheduler config: {name} must be a number between 0 and 1, got {beta!r}")
        if self.beta_start > self.beta_end:
            raise ValueError(
                f"scheduler config: beta_start must not exceed beta_end, got {self.beta_start} and {self.beta_end}"
            )
        if self.beta_schedule not in ("scaled_linear", "linear"):
            raise ValueError(
                f"scheduler config: beta_schedule must be 'scaled_linear' or 'linear', got {self.beta_schedule!r}"
            )
        if not isinstance(self.set_alpha_to_one, bool):
            raise ValueError(f"scheduler config: set_alpha_to_one must be true or false, got {self.set_alpha_to_one!r}")

    @cached_property
    def alpha_bar(self) -> Tensor:
        """alpha_bar_t = prod_{s <= t} (1 - beta_s), (T,) float32; z_t has sqrt(alpha_bar_t) of z_0 in it."""
        power = 2 if self.beta_schedule == "scaled_linear" else 1  # scaled: sqrt(beta) is what grows linearly
        ends = self.beta_start ** (1 / power), self.beta_end ** (1 / power)
        beta = torch.linspace(*ends, self.num_train_timesteps, dtype=torch.float32) ** power
        return (1 - beta).cumprod(dim=0)

    def timesteps(self, steps: int) -> list[int]:
        """The visited timesteps, noisiest first, in "leading" spacing: multiples of T // steps, plus the offset."""
        total, stride = self.num_train_timesteps, self.stride(steps)
        visited = [i * stride + self.steps_offset for i in reversed(range(steps))]
        # Rounding T / steps down leaves T % steps timesteps out at the noisy end, where sampling has to begin.
        if visited[0] >= total or 10 * (total % steps) > total:
            raise ValueError(
                f"{steps} steps cannot be spaced evenly over {total} timesteps, they would begin at t = {visited[0]}: "
                f"use {total // (stride + 1)} steps instead"
            )
        return visited

    def stride(self, steps: int) -> int:
        """Training timesteps between two visited ones, T // steps."""
        if not _is_int(steps) or not 1 <= steps < self.num_train_timesteps:
            raise ValueError(f"steps must be an integer from 1 to {self.num_train_timesteps - 1}, got {steps!r}")
        return self.num_train_timesteps // steps

    def previous(self, t: int, steps: int) -> Tensor:
        """alpha_bar of the timestep one stride below t, () float32; below 0, where the last step ends."""
        if not 0 <= t < self.num_train_timesteps:
            raise ValueError(f"t must lie between 0 and {self.num_train_timesteps - 1}, got {t}")
        t_prev = t - self.stride(steps)
        if t_prev < 0 and self.set_alpha_to_one:
            return torch.ones(())
        return self.alpha_bar[max(t_prev, 0)]


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
