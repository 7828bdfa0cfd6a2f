"""What the sections of the walkthrough share: the run that they take apart, and the page that they write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from torch import Tensor, nn

from adaptation.attention_masks import AttentionControl
from adaptation.trajectory import Trajectory
from evaluation.figures.video import write_png
from sampling.denoise import make_denoise
from sampling.generate import make_plan, recommended, to_uint8
from sampling.sampler import Denoise, State, gradients, initial_state
from sampling.settings import SamplingSettings
from storage import write_bytes
from weights.load import Pipeline

# What is walked through where no file names other boxes.
PROMPT, SUBJECT = "a red ball moving over the grass", "red ball"
FIRST, LAST = (0.05, 0.3, 0.35, 0.7), (0.65, 0.3, 0.95, 0.7)


class Size(TypedDict):
    """Of a video, in frames and pixels, as `generate` takes it."""

    frames: int
    height: int
    width: int


@dataclass(frozen=True, eq=False)
class Walk:
    """One run, stopped at line 2 of Algorithm 1 in its first step."""

    pipeline: Pipeline
    trajectory: Trajectory
    settings: SamplingSettings
    control: AttentionControl
    text: Tensor  # (2, L, D), the guidance halves [uncond, text]
    state: State  # nothing but noise yet

    @property
    def t(self) -> int:
        return self.pipeline.schedule.timesteps(self.settings.steps)[0]

    @property
    def alpha_bar(self) -> Tensor:
        return self.pipeline.schedule.alpha_bar[self.t]

    @property
    def size(self) -> Size:
        """Of the video that the latents become."""
        cell = self.pipeline.vae.config.downscale
        _, _, F, h, w = self.state.z.shape
        return Size(frames=F, height=h * cell, width=w * cell)

    @property
    def denoise(self) -> Denoise:
        """As the sampler is handed it."""
        return make_denoise(self.pipeline.unet, self.text, self.control)

    def predict(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """(eps_uncond, eps_text) under the masks: the first step is a frozen one."""
        return self.denoise(z, self.t, True)

    def gradients(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The sampler's own G_g, G_p and z0_hat, lines 4 and 5 of Algorithm 1."""
        return gradients(self.denoise, z, self.t, True, self.alpha_bar, self.settings, self.trajectory.boxes)

    def draw_noise(self, m: int) -> Tensor:
        """eps_k of iteration m, like z."""
        return self.state.streams.draw("refinement", self.state.z.shape[1:], self.state.step, m)

    def decode(self, z0: Tensor) -> np.ndarray:
        """Clean latents (1, C, F, h, w) to frames uint8 (F, H, W, 3)."""
        return to_uint8(self.pipeline.vae.decode(z0, 4))


def begin(
    pipeline: Pipeline,
    trajectory: Trajectory | None = None,
    seed: int = 0,
    settings: SamplingSettings | None = None,
    **size: int | None,
) -> Walk:
    """A run before its first step; without settings the full method as the checkpoint recommends it.

    size: frames, height, width
    """
    frames = size.get("frames") or pipeline.defaults.frames
    if trajectory is None:
        trajectory = Trajectory.from_keyframes({frames - 1: LAST, 0: FIRST}, frames, SUBJECT, PROMPT)
    trajectory = trajectory.resample(frames)
    # What a checkpoint may recommend beyond the paper's method would add a line to the step.
    settings = replace(settings or recommended(pipeline, "full"), eta=0.0, unit_gradient=False)
    plan = make_plan(pipeline, None, trajectory, settings, **size)
    if not isinstance(plan.control, AttentionControl) or not settings.frozen_steps or settings.refine_steps == 0:
        raise ValueError(
            "a walkthrough shows masks and a refinement, so that frozen_steps and refine_steps cannot be 0"
        )
    text = pipeline.text_encoder.encode(["", plan.prompt])
    trajectory = replace(trajectory, prompt=plan.prompt)
    return Walk(pipeline, trajectory, settings, plan.control, text, initial_state([seed], plan.shape))


@dataclass(frozen=True)
class Book:
    """walkthrough.md as it grows; what is written is also told: printed here, shown below its cell in a notebook."""

    folder: Path
    parts: list[str] = field(default_factory=list)

    def write(self, text: str) -> None:
        self.parts.append(text)
        self.tell(text)

    def tell(self, text: str, picture: Path | None = None) -> None:
        """text: Markdown; picture: the file that a caption is of."""
        print(text, end="\n\n", flush=True)

    def show(self, name: str, caption: str, picture: bytes | np.ndarray | None = None) -> None:
        """A picture with its caption: PNG bytes, uint8 (H, W, 3), or None where the file is there already."""
        if isinstance(picture, bytes):
            write_bytes(self.folder / name, picture)
        elif picture is not None:
            write_png(self.folder / name, picture)
        self.parts.append(f"![{caption}]({name})\n\n*{caption}*")
        self.tell(f"*{caption}*", self.folder / name)

    def save(self) -> Path:
        path = self.folder / "walkthrough.md"
        write_bytes(path, ("\n\n".join(self.parts) + "\n").encode())
        return path


def last_call(module: nn.Module, run: Callable[[], object]) -> tuple[tuple, dict[str, Any], Tensor]:
    """Arguments, those by name, and output of the module's last forward call while `run` runs."""
    calls = []
    handle = module.register_forward_hook(lambda _, *call: calls.append(call), with_kwargs=True)
    try:
        run()
    finally:
        handle.remove()
    return calls[-1]


def where(function: Callable[..., Any]) -> str:
    """A function's file and name, as text refers to it; both are its own, and cannot be out of date."""
    return f"`{function.__module__.replace('.', '/')}.py` `{function.__qualname__}`"


def table(*rows: tuple[object, ...]) -> str:
    """A table of Markdown; the first row is its head."""
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def shape(x: Tensor) -> str:
    return " x ".join(map(str, x.shape))


def variance(x: Tensor) -> float:
    return x.double().var(correction=0).item()


def rms(x: Tensor) -> float:
    """Root mean square."""
    return x.double().square().mean().sqrt().item()
