"""From what was asked for to what is made: the pipeline, the boxes, the settings, and a plan for each video."""

import math
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from adaptation.trajectory import Trajectory
from app.arguments import MEMORY, Request, flag
from app.folder import check_output, check_space, folder_name
from evaluation.figures.activations import FIGURE_2, load_figure
from sampling.generate import Plan, make_plan, method_settings, recommended
from sampling.settings import PRESETS, SamplingSettings, without_effect
from weights import load
from weights.circumstances import circumstances
from weights.load import Pipeline
from weights.memory import Savings, check_memory
from weights.savings import Economy, plan_economy

SIZE = ("frames", "height", "width")


@dataclass(frozen=True, eq=False)
class Video:
    """One of the videos that a command asks for."""

    number: int  # from 0
    prompt: str | None  # None = the trajectory's, or else the checkpoint's
    seed: int
    plan: Plan


@dataclass(frozen=True, eq=False)
class Job:
    """Videos that can be made, every fault that can be found before the first step being found."""

    request: Request
    pipeline: Pipeline
    loading: float  # seconds
    trajectory: Trajectory | None
    settings: SamplingSettings
    parent: Path  # where the videos' folders go
    videos: tuple[Video, ...]  # those left to make
    economy: Economy  # of memory

    @property
    def method(self) -> str:
        """The one that was asked for, or else full where there are boxes."""
        return choose_method(self.request, self.trajectory)

    @property
    def size(self) -> dict[str, Any]:
        """Frames, and height and width in pixels."""
        return choose_size(self.request, self.pipeline)

    @property
    def fps(self) -> float:
        """Frames a second of the video files."""
        return self.pipeline.defaults.fps if self.request.fps is None else self.request.fps

    @property
    def facts(self) -> dict[str, Any]:
        """What the videos' bits depend on: `circumstances`, and under "memory" the options that save it."""
        return circumstances(self.pipeline) | {"memory": asdict(self.economy.savings)}

    def with_less_memory(self) -> "Job":
        """The same with the next savings, which take effect; there must be some left."""
        economy = self.economy.less()
        economy.take_effect(self.pipeline)
        return replace(self, economy=economy)

    def label(self, video: Video) -> str:
        """What a progress bar is called."""
        return f"video {video.number + 1} of {count_videos(self.request)}"

    def target(self, video: Video) -> Path:
        """The folder that a new video is to become: --out itself where it is the only one."""
        out = self.request.out
        if out is not None and count_videos(self.request) == 1:
            return out
        return self.parent / folder_name(video.plan.prompt, video.seed)


def make_job(
    request: Request,
    pipeline: Pipeline,
    loading: float,
    trajectory: Trajectory | None,
    settings: SamplingSettings,
    parent: Path | None = None,
    first: int = 0,
) -> Job:
    """Plan every video from number `first` on, and refuse what cannot be made.

    loading: seconds that the pipeline took. parent: where the videos' folders go, None = as was asked for
    """
    parent = parent or request.out or Path("outputs")
    size = choose_size(request, pipeline)
    check_space(parent, (count_videos(request) - first) * math.prod(size.values()))
    prompts: Sequence[str | None] = request.prompts or [None]
    plans = {prompt: make_plan(pipeline, prompt, trajectory, settings, **size) for prompt in prompts}
    runs = [(prompt, seed) for prompt in prompts for seed in request.seeds]
    videos = tuple(Video(number, *run, plans[run[0]]) for number, run in enumerate(runs) if number >= first)
    compared = compared_plans(request, pipeline, plans.values())
    named = Savings(**{name: getattr(request, name) for name in MEMORY})
    economy = plan_economy(pipeline, compared, named, request.memory)
    job = Job(request, pipeline, loading, trajectory, settings, parent, videos, economy)
    check_fit(job, compared)
    economy.take_effect(pipeline)
    warn_of_idle(job)
    return job


# ---- One part after the other ----------------------------------------------------------------------------------------


def refuse_early(request: Request) -> None:
    """What can be seen to be wrong before the weights are loaded: where the videos are to go, and the boxes."""
    check_output(request.out, several=count_videos(request) > 1)
    read_trajectory(request, request.frames)


def load_checkpoint(request: Request) -> tuple[Pipeline, float]:
    """The pipeline, and the seconds that it took; what a figure needs and is not installed is refused before."""
    if request.record_activations:
        load_figure()
    began = time.perf_counter()
    device = request.device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = request.dtype or ("float16" if device.startswith("cuda") else "float32")
    pipeline = load.load_pipeline(request.model, device, getattr(torch, dtype))
    circumstances(pipeline)  # reads the weights once more, for their fingerprint
    return pipeline, time.perf_counter() - began


def read_trajectory(request: Request, frames: int | None) -> Trajectory | None:
    """The boxes that were asked for, over `frames` frames; None = the checkpoint's number, not known yet."""
    if request.boxes is not None:
        trajectory = Trajectory.load(request.boxes, None if request.resample else frames)
        if request.resample and frames is not None:
            trajectory = trajectory.resample(frames)
        return replace(trajectory, subjects=list(request.subjects)) if request.subjects else trajectory
    if request.box_from is None:
        return None
    frames = 2 if frames is None else frames
    keyframes = {frames - 1: request.box_to or request.box_from, 0: request.box_from}
    return Trajectory.from_keyframes(keyframes, frames, request.subjects[0])


def choose_settings(request: Request, pipeline: Pipeline, trajectory: Trajectory | None) -> SamplingSettings:
    """The method, over what the checkpoint recommends, and under the settings that were named."""
    return replace(recommended(pipeline, choose_method(request, trajectory)), **request.settings)


def choose_method(request: Request, trajectory: Trajectory | None) -> str:
    """The named one, or else full where there are boxes and plain where there are none."""
    return request.method or ("plain" if trajectory is None else "full")


def choose_size(request: Request, pipeline: Pipeline) -> dict[str, Any]:
    """Frames, height and width; what was not named is the checkpoint's."""
    named = {name: getattr(request, name) for name in SIZE}
    return {name: getattr(pipeline.defaults, name) if size is None else size for name, size in named.items()}


def count_videos(request: Request) -> int:
    """One for each prompt and seed."""
    return max(1, len(request.prompts)) * len(request.seeds)


# ---- Checks ----------------------------------------------------------------------------------------------------------


def compared_plans(request: Request, pipeline: Pipeline, plans: Iterable[Plan]) -> list[Plan]:
    """The plans, and with --compare those of all other methods."""
    methods = method_settings(pipeline, PRESETS, request.settings) if request.compare else {}
    return [replace(plan, settings=settings) for plan in plans for settings in (plan.settings, *methods.values())]


def check_fit(job: Job, plans: Sequence[Plan]) -> None:
    """Refuse what cannot fit into the GPU's memory: the runs, and the other methods of the figures asked for."""
    how, pipeline = job.economy.how, job.pipeline
    pipeline.unet.checkpoint_activations = job.economy.savings.checkpoint_activations
    for plan in plans:
        check_memory(pipeline, plan, **how)
    if job.request.record_activations:
        for settings in method_settings(pipeline, FIGURE_2, job.request.settings).values():
            for plan in {plan.prompt: plan for plan in plans}.values():
                recorded = replace(plan, settings=settings)
                check_memory(pipeline, recorded, **how | {"sequential_guidance": False})


def warn_of_idle(job: Job) -> None:
    """Say which of the settings that were asked for change nothing under the method; --compare has others as well."""
    idle = [flag(name) for name in job.request.settings if name in without_effect(job.settings)]
    if idle and not job.request.compare:
        warnings.warn(f"{', '.join(idle)} without effect: method {job.method} leaves that part out", stacklevel=3)
