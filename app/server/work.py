"""Runs, one by one, by the code of the command; in the main thread, so that Ctrl-C ends a run as it does there."""

import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import ending
from app.job import Job, Video, choose_settings, make_job
from app.running import Stopped, Watch, make_video
from app.server.preview import Preview
from app.server.studio import Run, Studio
from app.unfinished import Unfinished, begin, begun_job, begun_request, go_on, open_unfinished
from sampling.sampler import State
from sampling.settings import SamplingSettings


def work(studio: Studio) -> None:
    """Without end."""
    while True:
        run = studio.take()
        try:
            with noted(studio, run):
                make(studio, run)
        except Stopped as stop:
            studio.change(run, status="stopped", sentence=str(stop))
        except Exception as error:
            tell(studio, run, error)


def make(studio: Studio, run: Run) -> None:
    """A video from its first step, or from where it was stopped, to its folder."""
    began = time.perf_counter()
    with ExitStack() as stack:
        job, video, begun = start_again(studio, run, stack) if run.unfinished else start(studio, run)
        studio.change(run, job=job, unfinished=begun.folder)
        folder, _ = make_video(job, video, begun, watch(studio, run, job))
    seconds = time.perf_counter() - began
    studio.change(run, status="done", folder=folder, unfinished=None, seconds=seconds, left=None)
    print(folder, flush=True)


def start(studio: Studio, run: Run) -> tuple[Job, Video, Unfinished]:
    """A new run."""
    settings = choose_settings(run.request, studio.pipeline, run.trajectory)
    job = make_job(run.request, studio.pipeline, studio.loading, run.trajectory, settings, studio.parent)
    (video,) = job.videos
    return job, video, begin(job, video)


def start_again(studio: Studio, run: Run, stack: ExitStack) -> tuple[Job, Video, Unfinished]:
    """One that was stopped, as `train_free.py --resume` takes it up."""
    assert run.unfinished is not None
    unfinished = open_unfinished(run.unfinished)
    stack.callback(unfinished.close)
    request = begun_request(unfinished, ())
    job = begun_job(unfinished, request, studio.pipeline, studio.loading)
    (video,) = job.videos
    return job, video, go_on(unfinished, job, video)


def watch(studio: Studio, run: Run, job: Job) -> Watch:
    """What shows each step to the pages, and stops the run where that was asked for."""
    began, first = time.perf_counter(), len(run.records)
    preview = Preview(studio.pipeline.vae, job.size["frames"])

    def show(state: State) -> None:
        pictures = preview.look(state) if studio.preview else {}
        new = {frame: {"frame": frame, "step": state.step, "source": source} for frame, source in pictures.items()}
        left = time_left(job.settings, first, state.step, time.perf_counter() - began)
        studio.change(run, records=state.records, pictures=run.pictures | new, left=left)
        if run.stop:
            raise Stopped

    return show


def time_left(settings: SamplingSettings, first: int, done: int, seconds: float) -> float:
    """Seconds for the remaining steps, from those for steps `first` to `done`, by their calls of the network."""

    def calls(start: int, end: int) -> int:
        refined = settings.steps if settings.refine_steps is None else settings.refine_steps
        return end - start + settings.iterations * max(0, min(end, refined) - min(start, refined))

    return seconds * calls(done, settings.steps) / max(1, calls(first, done))


def tell(studio: Studio, run: Run, error: Exception) -> None:
    """How a run ended that is not done; of a fault of the program the terminal has the traceback."""
    sentence = ending.explain(error)
    if sentence is None:
        traceback.print_exception(error)
        sentence = "a fault of the program; its traceback is in the terminal"
    kept = run.unfinished is not None and run.unfinished.exists()
    if kept:
        studio.change(run, status="stopped", sentence=sentence)
    else:
        studio.change(run, status="refused", sentence=sentence, unfinished=None)


@contextmanager
def noted(studio: Studio, run: Run) -> Iterator[None]:
    """What is warned of is told on the page as well, each time anew."""

    def note(message: Warning | str, *rest: Any, **more: Any) -> None:
        ending.show_warning(message)
        studio.change(run, notes=[*run.notes, ending.one_sentence(str(message))])

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = note
        yield
