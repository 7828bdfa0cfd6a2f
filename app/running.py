"""One video of the command: from its first step, or from where it was stopped, to its folder."""

import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from app.folder import describe, write_run
from app.job import Job, Video
from app.unfinished import STATE, Unfinished, begin, go_on, load_state, save_state
from ending import MEMORY_RAN_OUT, explain, is_out_of_memory
from evaluation.figures.activations import FIGURE_2, record_activations, write_activations
from evaluation.figures.compare import run_methods, write_comparison
from evaluation.figures.distributions import record_matching, write_distributions
from evaluation.figures.masks_picture import write_masks
from sampling.generate import Result, generate, method_settings
from sampling.sampler import NonFinite, State
from sampling.settings import PRESETS

Figure = Callable[[Path], None]  # writes its files into a folder
Watch = Callable[[State], None]  # is shown the state after each step, when it is kept already


class Stopped(KeyboardInterrupt):
    """What a `Watch` raises so that a run stops where it is, as by Ctrl-C."""


def new_videos(job: Job) -> Iterator[Path]:
    """Make one video after the other; yields their folders."""
    for video in job.videos:
        folder, job = make_video(job, video, begin(job, video))
        yield folder


def resumed_videos(job: Job, unfinished: Unfinished) -> Iterator[Path]:
    """Make what is left of an unfinished run, and the videos after it; yields their folders."""
    first = job.videos[0]
    folder, job = make_video(job, first, go_on(unfinished, job, first))
    yield folder
    yield from new_videos(replace(job, videos=job.videos[1:]))


def make_video(job: Job, video: Video, run: Unfinished, watch: Watch | None = None) -> tuple[Path, Job]:
    """Sample what is left of the run, draw the figures that were asked for, write all; returns the finished folder.

    Where memory runs out, the run goes on from its last step with what needs less, as do the videos after it: the job
    that is returned knows.
    """
    with resumable(run):
        while True:
            try:
                result = sample_video(job, video, run, watch)
                return write_video(job, run, result, make_figures(job, result)), job
            except Exception as error:
                if not (is_out_of_memory(error) and job.economy.rest):
                    raise
            job = job.with_less_memory()  # outside the except, so that what failed is let go
            run = go_on(run, job, video)


def sample_video(job: Job, video: Video, run: Unfinished, watch: Watch | None = None) -> Result:
    """Algorithm 1, from the state that is kept on, each step being kept in its turn; then the frames."""
    state = load_state(run, next(job.pipeline.unet.parameters()).device)
    with progress_bar(job.label(video), run.settings.steps, 0 if state is None else state.step) as show:

        def progress(done: State) -> None:
            save_state(run, done)
            show(done)
            if watch is not None:
                watch(done)

        return generate(
            job.pipeline,
            video.prompt,
            run.trajectory,
            run.settings,
            run.begun["seed"],
            negative_prompt=job.request.negative_prompt,
            **job.economy.how,
            **job.size,
            progress=progress,
            state=state,
        )


def make_figures(job: Job, result: Result) -> list[Figure]:
    """Figures 4, 2 and 3 from the noise of `result`, and its masks, where they are asked for; none without boxes."""
    request, pipeline, trajectory = job.request, job.pipeline, job.trajectory
    figures: list[Figure] = []
    if trajectory is None:
        return figures
    texts: dict[str, Any] = {"prompt": result.prompt, "negative_prompt": request.negative_prompt}
    options = {**texts, **job.economy.how, **job.size}
    if request.compare:
        methods = method_settings(pipeline, PRESETS, request.settings)
        if result.settings not in methods.values():  # a flag turned over what its method says
            methods = {"as asked": result.settings, **methods}
        steps = sum(settings.steps for settings in {*methods.values()} - {result.settings})  # of those not made yet
        with progress_bar("all methods", steps) as show:
            results = run_methods(pipeline, trajectory, methods, result.seed, known=[result], progress=show, **options)
        figures.append(partial(write_comparison, results=results, trajectory=trajectory, fps=job.fps))
    if request.record_activations:
        methods = method_settings(pipeline, FIGURE_2, request.settings)
        together = options | {"sequential_guidance": False}  # the variance is that of both guidance halves
        with progress_bar("activations", sum(settings.steps for settings in methods.values())) as show:
            recorded = record_activations(pipeline, trajectory, methods, result.seed, progress=show, **together)
        figures.append(partial(write_activations, activations=recorded))
        (normalized,) = method_settings(pipeline, ["mask-norm"], request.settings).values()
        matchings = record_matching(pipeline, trajectory, normalized, result.seed, **texts, **job.size)
        figures.append(partial(write_distributions, matchings=matchings))
    if request.show_masks:
        plan: dict[str, Any] = {"prompt": result.prompt, "settings": result.settings, **job.size}
        figures.append(partial(write_masks, pipeline=pipeline, trajectory=trajectory, **plan))
    return figures


def write_video(job: Job, run: Unfinished, result: Result, figures: list[Figure]) -> Path:
    """Write the finished folder, and return it: the video, its pictures, the figures, and what it was made of."""
    facts = {"arguments": run.begun["arguments"], "method": job.method, "fps": job.fps}
    facts |= {"negative_prompt": job.request.negative_prompt, **job.economy.how, "resumed": run.begun["resumed"]}
    facts |= describe(job.pipeline, result, run.trajectory, {"loading": job.loading})
    return write_run(run.target, result, run.trajectory, job.fps, facts, figures)


@contextmanager
def resumable(run: Unfinished) -> Iterator[None]:
    """Whatever stops a run ends in a message with the command that goes on; in the end its folder is let go.

    Where going on would end in the same place, nothing is left behind: numbers that are not finite, and what is
    refused before the first step.
    """
    how = f"to go on: python train_free.py --resume {shlex.quote(str(run.folder))}"
    with closing(run):
        try:
            yield
        except KeyboardInterrupt as stop:
            raise type(stop)(f"finished runs are kept; {how}") from None
        except Exception as error:
            sentence = explain(error)
            if sentence is None:
                print(how, file=sys.stderr)  # above the traceback
                raise
            refused = isinstance(error, ValueError) and not (run.folder / STATE).exists()
            if refused or isinstance(error, NonFinite):
                shutil.rmtree(run.folder, ignore_errors=True)
                raise
            also = ", with any of these but another size" if sentence == MEMORY_RAN_OUT else ""
            raise ValueError(f"{sentence}; {how}{also}") from error


@contextmanager
def progress_bar(label: str, steps: int, done: int = 0) -> Iterator[Callable[[object], None]]:
    """Steps done and time left on stderr; yields what `generate` is to call after each step."""
    from tqdm import tqdm

    with tqdm(total=steps, initial=done, desc=label, unit="step", file=sys.stderr) as bar:
        yield lambda state: bar.update()
