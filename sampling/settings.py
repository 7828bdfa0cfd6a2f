"""Every switch of a run under the paper's symbol, and the named methods of the paper's tables."""

from dataclasses import dataclass, replace
from typing import Any

# name: smallest and largest value; the largest are far beyond use, so that a slip of the keyboard is caught.
COUNTS = {
    "steps": (1, 10_000),
    "frozen_steps": (0, 10_000),
    "iterations": (0, 1_000),
    "refine_steps": (0, 10_000),
    "trailing": (0, 10_000),
}
NUMBERS = {
    "guidance_scale": (0, 1_000),
    "eta": (0, 1),
    "c_g": (0, 1e9),
    "gamma": (0, 1),
    "strengthen": (0, 1_000),
    "weaken": (0, 1),
}
FLAGS = ("mask_normalization", "unit_gradient")
CHOICES = {
    "steer": ("masks", "edit"),
    "axis": ("joint", "channel"),
    "matching_gradient": ("exact", "straight-through"),
    "grid": ("stride", "cover"),
    "start_token": ("hidden", "background"),
    "prior_gradient": ("unet", "text-half", "tweedie"),
}
SUBSETS = {
    "where": ("decoder", "mid", "temporal", "encoder"),
    "attention": ("self", "cross"),
    "normalize_in": ("self", "cross"),
}


@dataclass(frozen=True)
class SamplingSettings:
    """One run. The defaults are the paper's full method: M, c_g and gamma as its longer version and supplement give
    them, steps, guidance_scale and eta, which it does not give, as in the pipelines it builds on."""

    # Sampling
    steps: int = 50  # DDIM steps
    guidance_scale: float = 9.0  # of classifier-free guidance
    eta: float = 0.0  # of DDIM; 0 is deterministic
    # Section 2.1, masks
    steer: str = "masks"  # what holds the subjects in their boxes; "edit" is TrailBlazer's, see below
    frozen_steps: int = 4  # masks, or TrailBlazer's edit, act in the first ones
    where: tuple[str, ...] = ("decoder",)  # blocks whose attention is masked; "temporal" adds temporal attention
    attention: tuple[str, ...] = ("self", "cross")  # kinds of spatial attention that are masked
    grid: str = "stride"  # how a mask reaches a coarser grid
    start_token: str = "hidden"  # who sees the prompt's start token
    # Section 2.2, Mask Normalization
    mask_normalization: bool = True
    normalize_in: tuple[str, ...] = ("self", "cross")  # kinds of attention that are normalized
    axis: str = "joint"  # "joint": one distribution a frame; "channel": one for each channel
    matching_gradient: str = "exact"  # of the distribution matching
    # Section 2.3, Temporal Intrinsic Denoising
    iterations: int = 2  # M; 0 leaves the refinement out
    c_g: float = 10_000.0  # strength of the temporal prior; 0 is Intrinsic Denoising
    gamma: float = 0.05  # size of a refinement step
    refine_steps: int | None = None  # refine before the first ones only; None means all
    prior_gradient: str = "unet"  # what tau is differentiated through
    unit_gradient: bool = False  # to length 1 for each video: the supplement's ablation
    # The baseline TrailBlazer. Its code sets the first and the third where it draws moving boxes itself; the second is
    # its configs', whose own values are 0.1, 0.001, 13 (metrics) and 0.125 to 0.15, 0.001 to 0.05, 10 to 15 (examples).
    strengthen: float = 0.125  # c_s, what is added inside a box
    weaken: float = 0.001  # c_w, what is left outside
    trailing: int = 15  # tokens after the prompt's that are edited with the subject's words

    def __post_init__(self) -> None:
        for name, (low, high) in COUNTS.items():
            value = getattr(self, name)
            if value is None and name == "refine_steps":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise ValueError(f"{name} must be an integer from {low} to {high}, got {value!r}")
        for name, (low, high) in NUMBERS.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise ValueError(f"{name} must be a number from {low} to {high:g}, got {value!r}")
        for name in FLAGS:
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise ValueError(f"{name} must be true or false, got {value!r}")
        for name, words in CHOICES.items():
            value = getattr(self, name)
            if not isinstance(value, str) or value not in words:
                raise ValueError(f"{name} must be one of {', '.join(words)}, got {value!r}")
        for name, words in SUBSETS.items():
            value = getattr(self, name)
            if not isinstance(value, tuple | list) or not value or any(word not in words for word in value):
                raise ValueError(f"{name} must list one or more of {', '.join(words)}, got {value!r}")
            object.__setattr__(self, name, tuple(value))  # lists come from JSON; a tuple keeps the settings hashable


MASK = {"steer": "masks"}
NO_REFINEMENT = {"iterations": 0, "c_g": 0.0}

# What each method says about a run; whatever it leaves open is the checkpoint's, or else the paper's, the defaults.
PRESETS: dict[str, dict[str, Any]] = {
    "plain": {"frozen_steps": 0, "mask_normalization": False, **NO_REFINEMENT},
    "peekaboo": {
        **MASK,
        "where": ("decoder", "mid", "temporal"),
        "attention": ("self", "cross"),
        "frozen_steps": 2,
        "start_token": "hidden",
        "grid": "stride",
        "mask_normalization": False,
        **NO_REFINEMENT,
    },
    "trailblazer": {
        "steer": "edit",
        "frozen_steps": 5,
        "mask_normalization": False,
        "strengthen": 0.125,
        "weaken": 0.001,
        "trailing": 15,
        **NO_REFINEMENT,
    },
    "mask": {**MASK, "mask_normalization": False, **NO_REFINEMENT},
    "mask-norm": {**MASK, "mask_normalization": True, **NO_REFINEMENT},
    "mask-norm+id": {**MASK, "mask_normalization": True, "c_g": 0.0},
    "full": {**MASK, "mask_normalization": True},  # c_g is the checkpoint's: it depends on the latents' size
    "paper": {  # as published, whatever the checkpoint recommends
        **MASK,
        "where": ("decoder",),
        "attention": ("self", "cross"),
        "frozen_steps": 4,
        "start_token": "hidden",
        "grid": "stride",
        "mask_normalization": True,
        "normalize_in": ("self", "cross"),
        "axis": "joint",
        "matching_gradient": "exact",
        "iterations": 2,
        "c_g": 10_000.0,
        "gamma": 0.05,
        "refine_steps": None,
        "prior_gradient": "unet",
        "unit_gradient": False,
    },
}


def without_effect(settings: SamplingSettings) -> set[str]:
    """Names of settings that change nothing beside the others, such as c_g where nothing is refined."""
    s, idle = settings, set()
    if s.steer != "masks" or s.frozen_steps == 0:
        idle |= {"where", "attention", "grid", "start_token", "normalize_in", "axis"}
    elif not s.mask_normalization:
        idle |= {"normalize_in", "axis"}
    if s.iterations == 0 or s.refine_steps == 0:
        idle |= {"c_g", "gamma", "refine_steps", "prior_gradient", "unit_gradient"}
    elif s.c_g == 0:
        idle |= {"prior_gradient", "unit_gradient"}
    if s.steer != "edit" or s.frozen_steps == 0:
        idle |= {"strengthen", "weaken", "trailing"}
    return idle


def preset(name: str, base: SamplingSettings | None = None) -> SamplingSettings:
    """The named method over `base`, which carries what the checkpoint recommends; without one, over the defaults."""
    if name not in PRESETS:
        raise ValueError(f"method must be one of {', '.join(PRESETS)}, got {name!r}")
    return replace(SamplingSettings() if base is None else base, **PRESETS[name])
