"""From a prompt, and boxes, to a video: what the command does, in order. See python train_free.py --help

Each step is a function of app/; Algorithm 1 itself is sampling/sampler.py, and its equations are adaptation/. What
takes seconds to import is imported where it is used, so that --help and slips answer at once.
"""

import waiting  # noqa: F401  (first, for torch reads its choice once)

import sys
import webbrowser

from app.arguments import Request, Resume, parse
from ending import exit_code


def main(argv: list[str] | None = None) -> int:
    """Make what is asked for; see `ending.exit_code`."""
    words = sys.argv[1:] if argv is None else argv
    return exit_code(lambda: make(parse(words)), kept="no run was under way; finished ones are kept")


def make(asked: Request | Resume) -> None:
    """New videos, the rest of those that were stopped, or a page; prints where each lies."""
    if isinstance(asked, Resume):
        resume(asked)
    elif asked.draw and asked.static:
        draw(asked)
    elif asked.draw:
        serve(asked)
    else:
        generate(asked)


def generate(request: Request) -> None:
    """A new video for each prompt and seed."""
    from app.job import choose_settings, load_checkpoint, make_job, read_trajectory, refuse_early
    from app.running import new_videos

    refuse_early(request)
    pipeline, seconds = load_checkpoint(request)
    trajectory = read_trajectory(request, request.frames or pipeline.defaults.frames)
    settings = choose_settings(request, pipeline, trajectory)
    job = make_job(request, pipeline, seconds, trajectory, settings)
    for folder in new_videos(job):
        print(folder, flush=True)


def resume(asked: Resume) -> None:
    """The video that was stopped, from its last step on, and those that were to follow it."""
    from app.job import load_checkpoint
    from app.running import resumed_videos
    from app.unfinished import begun_job, begun_request, open_unfinished

    unfinished = open_unfinished(asked.folder)
    request = begun_request(unfinished, asked.words)
    pipeline, seconds = load_checkpoint(request)
    job = begun_job(unfinished, request, pipeline, seconds)
    for folder in resumed_videos(job, unfinished):
        print(folder, flush=True)


def serve(request: Request) -> None:
    """A page on which to draw boxes and make videos of them, until Ctrl-C."""
    from app.server.serve import serve

    serve(request)


def draw(request: Request) -> None:
    """A page on which to draw boxes, as a file."""
    from app.draw import write_page

    path = write_page(request)
    print(path)
    if not request.no_browser:
        webbrowser.open(path.resolve().as_uri())


if __name__ == "__main__":
    sys.exit(main())
