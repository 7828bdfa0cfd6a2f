"""One input, as a user may hand it over, tried in a folder of its own: accepted, refused in a sentence, or a fault."""

import functools
import io
import os
import signal
import socket
import sys
import tempfile
import time
import traceback
import warnings
import webbrowser
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn
from unicodedata import category
from unittest.mock import patch

import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import train_free  # noqa: E402
from app import running  # noqa: E402
from app.job import Job  # noqa: E402
from sampling import generate  # noqa: E402
from sampling.sampler import State, Streams  # noqa: E402
from weights import circumstances, load  # noqa: E402

ACCEPTED, REFUSED, FAULT = "accepted", "refused", "fault"
LIMIT = 20.0  # seconds for one input, on a busy machine
LONGEST = 2500  # characters of a sentence
SMALL = ("--frames", "2", "--height", "32", "--width", "32", "--steps", "2", "--iterations", "1")


@dataclass(frozen=True)
class Case:
    """A command line, and the files that lie in the folder where it is given; the content None makes a folder."""

    arguments: list[str]
    files: dict[str, bytes | None] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        for name, content in self.files.items():
            path = folder / name
            (path if content is None else path.parent).mkdir(parents=True, exist_ok=True)
            if content is not None:
                path.write_bytes(content)

    def shortened(self) -> "Case":
        """The same over two small frames and few steps; a run that is resumed keeps its own."""
        if "--resume" in self.arguments:
            return self
        resample = ["--resample"] if "--boxes" in self.arguments else []
        return Case([*self.arguments, *SMALL, *resample], self.files)


@dataclass(frozen=True)
class Outcome:
    verdict: str
    told: str  # the sentence of a refusal, or what is wrong
    seconds: float


class Reached(BaseException):
    """Sampling would begin here."""


class Hang(BaseException):
    """An input has had its time."""


def attempt(case: Case, limit: float = LIMIT, all_the_way: bool = False) -> Outcome:
    """Give the command in this process; without `all_the_way` each of its videos ends where sampling would begin."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "work"  # not the topmost, so that what is written beside it is seen as well
        folder.mkdir()
        case.write(folder)
        before, began = listing(root), time.perf_counter()
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", errors) for errors in ("strict", "backslashreplace"))
        with ExitStack() as stack:
            for context in (inside(folder), redirect_stdout(out), redirect_stderr(err), alone()):
                stack.enter_context(context)
            if not all_the_way:
                stack.enter_context(up_to_sampling())
            wrong = None
            try:
                with time_limit(limit):
                    code = train_free.main(list(case.arguments))
            except Hang:
                wrong = f"not done after {limit:g} seconds"
            except BaseException:
                wrong = traceback.format_exc()
        seconds = time.perf_counter() - began
        if wrong is not None:
            return Outcome(FAULT, wrong, seconds)
        printed = [stream.buffer.getvalue().decode() for stream in (out, err) if not stream.flush()]
        # A run that went wrong under way may leave the folder that was to hold it, outputs/, but no file.
        changed = sorted(path for path, file in before ^ listing(root) if file or not all_the_way)
        wanted = () if not all_the_way else ("",) if "--draw" in case.arguments else ("run.json", "video.mp4")
        return Outcome(*judge(code, *printed, changed, wanted), seconds)


def judge(code: int, out: str, err: str, changed: list[str], wanted: tuple[str, ...]) -> tuple[str, str]:
    """Verdict, and what to tell of it. wanted: how names end that have to be among those written; () = none is."""
    if code == 0:
        lacking = [name for name in wanted if not any(path.endswith(name) for path in changed)]
        return (FAULT, f"not finished: {lacking or out!r}") if lacking or not out else (ACCEPTED, "")
    lines = [line for line in err.splitlines() if line and not line.startswith(("warning: ", "video "))]  # nor its bar
    begun = wanted and any(".unfinished" in path for path in changed)  # kept, to be resumed
    for wrong, what in (
        (code != 2, f"exit code {code}"),
        (out and not wanted, f"printed {out!r}"),
        (not lines or not lines[-1].startswith("error: "), f"no sentence, but {err!r}"),
        (not begun and len(lines) > 1, f"more than a sentence: {err!r}"),
        (lines and len(lines[-1]) > LONGEST, f"a sentence of {len(lines[-1])} characters: {err[:500]!r}"),
        (any(category(letter) == "Cc" for line in lines for letter in line), f"control characters: {err!r}"),
        (changed and not begun, f"refused ({err.strip()}), but wrote {', '.join(changed)}"),
    ):
        if wrong:
            return FAULT, what
    return REFUSED, lines[-1]


# ---- Around the command ----------------------------------------------------------------------------------------------


@contextmanager
def up_to_sampling() -> Iterator[None]:
    """Everything before Algorithm 1 is as ever; where its first line would draw noise, the video is given up.

    The command then goes on with its next video. The tiny checkpoint is loaded once for each device and dtype.
    """
    make_video = running.make_video

    def stop(*_: object) -> NoReturn:
        raise Reached

    def no_noise(seeds: list[int], shape: tuple[int, ...], device: torch.device) -> State:
        return State(0, torch.zeros(1, device=device).expand(1, *shape), Streams(tuple(seeds)))  # takes no memory

    def make_video_up_to_sampling(job: Job, *others: object) -> tuple[object, Job]:
        try:
            return make_video(job, *others)
        except Reached:
            return "sampling would begin", job

    with (
        patch.object(generate, "initial_state", no_noise),
        patch.object(generate, "sample", stop),
        patch.object(running, "make_video", make_video_up_to_sampling),
        patch.object(load, "load_pipeline", load_once),
        patch.object(circumstances, "versions", versions_once),
    ):
        yield


def load_once(name: str, device: str, dtype: torch.dtype) -> load.Pipeline:
    return load_tiny(device, dtype) if name == "tiny" else really_load(name, device, dtype)


versions_once = functools.cache(circumstances.versions)
really_load = load.load_pipeline
load_tiny = functools.cache(functools.partial(really_load, "tiny"))


@contextmanager
def alone() -> Iterator[None]:
    """No network, no browser, warnings as a user sees them, and the number of threads as it was."""

    def refuse(*_: object) -> NoReturn:
        raise OSError("there is no network here")

    threads = torch.get_num_threads()
    try:
        with (
            warnings.catch_warnings(),
            patch.object(socket.socket, "connect", refuse),
            patch.object(socket, "getaddrinfo", refuse),
            patch.object(webbrowser, "open", lambda address: True),
        ):
            warnings.simplefilter("ignore")
            warnings.simplefilter("default", UserWarning)
            yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> NoReturn:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def listing(root: str) -> set[tuple[str, tuple[int, int] | None]]:
    """All that lies in a folder, files with size and time; but not the empty lock of a run that is resumed."""
    found = set()
    for parent, folders, files in os.walk(root):
        found |= {(os.path.relpath(os.path.join(parent, name), root), None) for name in folders}
        for name in files:
            path = os.path.join(parent, name)
            status = os.lstat(path)
            if (name, status.st_size) != ("lock", 0):
                found.add((os.path.relpath(path, root), (status.st_size, status.st_mtime_ns)))
    return found
