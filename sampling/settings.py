"""Every switch of a run, and the named methods: the rows of the paper's tables and what they are made of."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from adaptation.choices import MASK_CHOICES

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
    "subject_words": ("phrase", "ids"),
    "grid": MASK_CHOICES["grid"],
    "start_token": MASK_CHOICES["start_token"],
    "axis": MASK_CHOICES["axis"],
    "matching_gradient": MASK_CHOICES["gradient"],
    "prior_gradient": ("unet", "text-half", "tweedie"),
}
SUBSETS = {name: MASK_CHOICES[name] for name in ("where", "attention", "normalize_in")}
# Former names and values of settings: a file that has one is refused, in a sentence that says the present one.
FORMER = {
    "control": "steer",
    "normalize": "mask_normalization",
    "gradient": "matching_gradient",
    "normalize_gradient": "unit_gradient",
    "up": "decoder",
    "down": "encoder",
    "full": "unet",
    "conditional": "text-half",
    "detached": "tweedie",
}


@dataclass(frozen=True)
class SamplingSettings:
    """One run. The defaults are the method `paper`; `PRESETS["paper"]` says where each value comes from."""

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
    subject_words: str = "phrase"  # a subject's tokens: where its phrase stands; "ids": wherever one of them stands
    start_token: str = "hidden"  # who sees the prompt's start token
    # Section 2.2, Mask Normalization
    mask_normalization: bool = True
    normalize_in: tuple[str, ...] = ("self", "cross")  # kinds of attention that are normalized
    axis: str = "channel"  # one distribution for each channel of a frame; "joint": one for the whole frame
    matching_gradient: str = "straight-through"  # of the distribution matching
    # Section 2.3, Temporal Intrinsic Denoising
    iterations: int = 2  # M; 0 leaves the refinement out
    c_g: float = 10_000.0  # strength of the temporal prior at Zeroscope's size, `scale_c_g`; 0: Intrinsic Denoising
    gamma: float = 0.05  # size of a refinement step
    refine_steps: int | None = None  # refine before the first ones only; None means all
    prior_gradient: str = "unet"  # what tau is differentiated through
    unit_gradient: bool = False  # to length 1 for each video
    # The baseline TrailBlazer. Its code sets the first and the third where it draws moving boxes itself; the second is
    # its configs', whose own values are 0.1, 0.001, 13 (metrics) and 0.125 to 0.15, 0.001 to 0.05, 10 to 15 (examples).
    strengthen: float = 0.125  # c_s, what is added inside a box
    weaken: float = 0.001  # c_w, what is left outside
    trailing: int = 15  # tokens after the prompt's that are edited with the subject's words

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "SamplingSettings":
        """From a file's names and values; what it leaves out has its default. ValueError for a name there is not."""
        names = [field.name for field in fields(cls)]
        for name in raw:
            if name not in names:
                known = f", which is now {FORMER[name]!r}" if name in FORMER else f"; known are {', '.join(names)}"
                raise ValueError(f"settings has the unknown key {name!r}{known}")
        return cls(**raw)

    def __post_init__(self) -> None:
        for name, (low, high) in COUNTS.items():
            value = getattr(self, name)
            if value is None and name == "refine_steps":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise ValueError(f"{name} must be an integer from {low} to {high}, got {value!r}")
        for name, (least, most) in NUMBERS.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
                raise ValueError(f"{name} must be a number from {least} to {most:g}, got {value!r}")
        for name in FLAGS:
            if not isinstance(value := getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, got {value!r}")
        for name, words in CHOICES.items():
            value = getattr(self, name)
            if not isinstance(value, str) or value not in words:
                raise ValueError(f"{name} must be one of {', '.join(words)}, got {value!r}{_now([value])}")
        for name, words in SUBSETS.items():
            value = getattr(self, name)
            listed = isinstance(value, tuple | list)
            if not listed or not value or any(word not in words for word in value):
                now = _now(value) if listed else ""
                raise ValueError(f"{name} must list one or more of {', '.join(words)}, got {value!r}{now}")
            object.__setattr__(self, name, tuple(value))  # lists come from JSON; a tuple keeps the settings hashable


def _now(words: Iterable[object]) -> str:
    """What former words are called today; nothing for others."""
    return "".join(f"; {word!r} is now {FORMER[word]!r}" for word in words if isinstance(word, str) and word in FORMER)


# ---- The methods, switch by switch ---------------------------------------------------------------------------------

MASK = {"steer": "masks"}
NO_REFINEMENT = {"iterations": 0, "c_g": 0.0}
BARE = {"mask_normalization": False, **NO_REFINEMENT}

# What each method says about a run; whatever it leaves open is the checkpoint's, or else the paper's, the defaults.
# Steps, guidance_scale and eta are open in all but the last: two methods are compared under one sampler.
PRESETS: dict[str, dict[str, Any]] = {
    "plain": {"frozen_steps": 0, **BARE},
    "peekaboo": {  # its released code; the frozen steps are its command's default
        **MASK,
        "frozen_steps": 2,
        "where": ("decoder", "mid", "temporal"),
        "attention": ("self", "cross"),
        "grid": "stride",
        "subject_words": "ids",
        "start_token": "hidden",
        **BARE,
    },
    # Its released code: "strengthen" and "trailing" where it draws moving boxes itself, "weaken" from its configs.
    "trailblazer": {"steer": "edit", "frozen_steps": 5, "strengthen": 0.125, "weaken": 0.001, "trailing": 15, **BARE},
    "mask": {**MASK, **BARE},
    "mask-norm": {**MASK, "mask_normalization": True, **NO_REFINEMENT},
    "mask-norm+id": {**MASK, "mask_normalization": True, "c_g": 0.0},
    "full": {**MASK, "mask_normalization": True},
    # Whatever the checkpoint recommends. Who says so: the paper; a summary of it by others; the code of a work
    # that it cites, where the paper is silent; or we do, where neither speaks or more than one reading is left.
    "paper": {
        "steps": 50,  # cited: the default of Peekaboo's command. A schedule that cannot serve them is an error
        "guidance_scale": 9.0,  # cited: Peekaboo's and TrailBlazer's code leave it at diffusers' default
        "eta": 0.0,  # cited: likewise
        **MASK,  # paper, 2.1
        "frozen_steps": 4,  # paper, 2.2, for its analysis: "the first four"; summary for the experiments
        "where": ("decoder",),  # paper, 2.1; Peekaboo's code masks the mid block and temporal attention as well
        "attention": ("self", "cross"),  # paper, 2.1: M_self and M_cross
        "grid": "stride",  # cited: Peekaboo's code
        "subject_words": "phrase",  # ours: M_y are the subject's own words; Peekaboo's code has "ids"
        "start_token": "hidden",  # cited: Peekaboo's code, to which 2.1 adheres; its formula makes it background
        "mask_normalization": True,  # paper, 2.2
        "normalize_in": ("self", "cross"),  # paper, 2.2 as we read it: one formula for both masks
        "axis": "channel",  # cited: EFDM's released function sorts each channel by itself
        "matching_gradient": "straight-through",  # cited: the same function
        "iterations": 2,  # summary
        "c_g": 10_000.0,  # summary
        "gamma": 0.05,  # summary
        "refine_steps": None,  # paper, Algorithm 1: at every t
        "prior_gradient": "unet",  # ours: grad_z tau(b, z0_hat(z)) to the letter, and z0_hat holds the U-Net
        "unit_gradient": False,  # summary: normalized gradients were tried and given up
    },
}
# The rows of Table 1 and what they are made of; "full" is as the checkpoint recommends it, then with each gradient.
METHODS = (*(m for m in PRESETS if m != "paper"), *(f"full[{g}]" for g in CHOICES["prior_gradient"]), "paper")


def preset(name: str, base: SamplingSettings | None = None) -> SamplingSettings:
    """The named method over `base`, which carries what the checkpoint recommends; without one, over the defaults.

    One choice may follow in brackets, as in "mask-norm[joint]" or "full[tweedie]".
    """
    bracketed = re.fullmatch(r"(?P<method>.+)\[(?P<choice>.+)\]", name)
    method = bracketed["method"] if bracketed else name
    if method not in PRESETS:
        raise ValueError(f"method must be one of {', '.join(PRESETS)}, got {method!r}")
    settings = replace(SamplingSettings() if base is None else base, **PRESETS[method])
    return replace(settings, **_setting_of(bracketed["choice"])) if bracketed else settings


def _setting_of(choice: str) -> dict[str, Any]:
    """The setting that a choice is of: no word is one of two."""
    for name, words in CHOICES.items():
        if choice in words:
            return {name: choice}
    choices = ", ".join(word for words in CHOICES.values() for word in words)
    raise ValueError(f"what stands in brackets must be one of {choices}, got {choice!r}{_now([choice])}")


def without_effect(settings: SamplingSettings) -> set[str]:
    """Names of settings that change nothing beside the others, such as c_g where nothing is refined."""
    s = settings
    held = s.frozen_steps > 0
    masked, edited = held and s.steer == "masks", held and s.steer == "edit"
    normalized = masked and s.mask_normalization
    some = not {*s.attention}.isdisjoint(s.normalize_in)  # of the masked attentions are normalized
    refined = s.iterations > 0 and s.refine_steps != 0
    prior_acts = refined and s.gamma > 0 and s.c_g > 0
    acts = {
        "steer": held,
        "where attention grid": masked,
        "subject_words": edited or (masked and "cross" in s.attention),
        "start_token": masked and "cross" in s.attention,
        "mask_normalization": masked and some,
        "normalize_in": normalized,
        "axis": normalized and some,
        "matching_gradient": normalized and some and prior_acts and s.prior_gradient != "tweedie",
        "iterations": s.refine_steps != 0 and s.gamma > 0,
        "refine_steps": s.iterations > 0 and s.gamma > 0,
        "gamma": refined,
        "c_g": refined and s.gamma > 0,
        "prior_gradient unit_gradient": prior_acts,
        "strengthen weaken trailing": edited,
    }
    return {name for names, acting in acts.items() if not acting for name in names.split()}
