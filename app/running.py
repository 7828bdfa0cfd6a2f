"""One run of the command: from its first step, or from where it was stopped, to its folder."""

import sys
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from adaptation.trajectory import Trajectory
from app.folder import describe, write_run
from app.unfinished import Unfinished, load_state, save_state
from evaluation.figures.activations import record_activations, write_activations
from evaluation.figures.compare import run_methods, write_comparison
from evaluation.figures.masks_picture import write_masks
from sampling.generate import Pipeline, Plan, Result, generate
from sampling.methods import method_settings
from sampling.sampler import State
from sampling.settings import PRESETS, SamplingSettings, without_effect
from weights.memory import check_memory

SIZE = ("frames", "height", "width")
HOW = ("sequential_guidance", "offload", "frames_per_chunk")  # what of a run's memory is up to `generate`
RECORDED = ("plain", "mask", "mask-norm")  # the curves of Figure 2


def check_fit(arguments: Namespace, pipeline: Pipeline, plans: Iterable[Plan], given: Mapping[str, Any]) -> None:
    """Refuse what cannot fit into the GPU's memory: the runs, and the other methods of the figures asked for."""
    how = {name: getattr(arguments, name) for name in HOW}
    compared = method_settings(pipeline, PRESETS, given) if arguments.compare else {}
    recorded = method_settings(pipeline, RECORDED, given) if arguments.record_activations else {}
    for plan in plans:
        for settings in (plan.settings, *compared.values()):
            check_memory(pipeline, replace(plan, settings=settings), **how)
        for settings in recorded.values():
            check_memory(pipeline, replace(plan, settings=settings), **how | {"sequential_guidance": False})


def warn_of_idle(arguments: Namespace, settings: SamplingSettings, given: Mapping[str, Any]) -> None:
    """Say which of the settings that were asked for change nothing under the method; --compare has others as well."""
    idle = [f"--{name.replace('_', '-')}" for name in given if name in without_effect(settings)]
    if idle and not arguments.compare:
        warnings.warn(f"{', '.join(idle)} without effect: method {arguments.method} leaves that part out", stacklevel=2)


def make_run(
    arguments: Namespace,
    pipeline: Pipeline,
    unfinished: Unfinished,
    prompt: str | None,
    label: str,
    given: Mapping[str, Any],
    loading: float,
) -> Path:
    """Sample what is left, draw the figures that were asked for, write all. Returns the finished folder.

    arguments: of train_free.py, with no gaps in method, size and fps
    label: for the progress bar
    given: settings that were asked for, which count for the figures' other methods too
    loading: seconds
    """
    settings, trajectory, seed = unfinished.settings, unfinished.trajectory, unfinished.begun["seed"]
    chosen = {name: getattr(arguments, name) for name in ("negative_prompt", *HOW)}
    options = chosen | {name: getattr(arguments, name) for name in SIZE}
    state = load_state(unfinished, next(pipeline.unet.parameters()).device)
    with progress_bar(label, settings.steps, 0 if state is None else state.step) as show:

        def progress(done: State) -> None:
            save_state(unfinished, done)
            show(done)

        result = generate(pipeline, prompt, trajectory, settings, seed, progress=progress, state=state, **options)
    figures = make_figures(arguments, pipeline, trajectory, result, given, options)
    facts = {"arguments": arguments.argv, "method": arguments.method, "fps": arguments.fps, **chosen}
    facts |= {"resumed": unfinished.begun["resumed"], **describe(pipeline, result, trajectory, {"loading": loading})}
    return write_run(unfinished.target, result, trajectory, arguments.fps, facts, figures)


def make_figures(
    arguments: Namespace,
    pipeline: Pipeline,
    trajectory: Trajectory | None,
    result: Result,
    given: Mapping[str, Any],
    options: Mapping[str, Any],
) -> list[Callable[[Path], None]]:
    """Figures 4 and 2 from the noise of `result`, and its masks, where they are asked for, each as what writes it into
    a folder. options: of `generate`, as `result` was made with them
    """
    figures, options = [], {"prompt": result.prompt, **options}
    if arguments.compare:
        methods = method_settings(pipeline, PRESETS, given)
        if result.settings not in methods.values():  # a flag turned over what its method says
            methods = {"as asked": result.settings, **methods}
        rows = len({*methods.values()} - {result.settings})  # those not made yet
        with progress_bar("all methods", rows * result.settings.steps) as options["progress"]:
            results = run_methods(pipeline, trajectory, methods, result.seed, known=[result], **options)
        figures.append(partial(write_comparison, results=results, trajectory=trajectory, fps=arguments.fps))
    if arguments.record_activations:
        methods = method_settings(pipeline, RECORDED, given)
        together = options | {"sequential_guidance": False}  # the variance is that of both guidance halves
        with progress_bar("activations", len(methods) * result.settings.steps) as together["progress"]:
            recorded = record_activations(pipeline, trajectory, methods, result.seed, **together)
        figures.append(partial(write_activations, activations=recorded))
    if arguments.show_masks:
        size = {name: options[name] for name in ("prompt", "frames", "height", "width")}
        settings = result.settings
        figures.append(partial(write_masks, pipeline=pipeline, trajectory=trajectory, settings=settings, **size))
    return figures


def read_trajectory(arguments: Namespace, frames: int | None) -> Trajectory | None:
    """The boxes that were asked for, over `frames` frames; None = the checkpoint's number, not known yet."""
    if arguments.unfinished is not None:
        return arguments.unfinished.trajectory
    if arguments.boxes is not None:
        trajectory = Trajectory.load(arguments.boxes, None if arguments.resample else frames)
        if arguments.resample and frames is not None:
            trajectory = trajectory.resample(frames)
        return replace(trajectory, subjects=arguments.subject) if arguments.subject else trajectory
    if arguments.box_from is None:
        return None
    frames = 2 if frames is None else frames
    keyframes = {frames - 1: arguments.box_to or arguments.box_from, 0: arguments.box_from}
    return Trajectory.from_keyframes(keyframes, frames, arguments.subject[0])


@contextmanager
def progress_bar(label: str, steps: int, done: int = 0) -> Iterator[Callable[[object], None]]:
    """Steps done and time left on stderr; yields what `generate` is to call after each step."""
    from tqdm import tqdm

    with tqdm(total=steps, initial=done, desc=label, unit="step", file=sys.stderr) as bar:
        yield lambda state: bar.update()
