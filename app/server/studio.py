"""The runs of a session, and the one place where the server's threads meet.

One run is at work and at most one waits. What is told of them is a value with a version, so that any page can ask for
what has changed since it asked last, and a page that was just opened for all.
"""

import re
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from adaptation.trajectory import Trajectory
from app.arguments import Request, parse
from app.draw import DRAWN, FIELDS
from app.job import Job, choose_method, read_trajectory
from app.page import drop_flags
from app.report import make_charts
from sampling.sampler import RECORD_KEYS
from storage import sha256, write_bytes
from weights.load import Pipeline

FILE = "drawn.json"  # in the folder of all runs: what was drawn last


class Busy(Exception):
    """A run is under way; it is stopped for another one only where that is asked for."""


@dataclass(eq=False)
class Run:
    """A video that was asked for on the page, and all that there is to tell of it."""

    number: int  # from 1
    asked: dict[str, Any]  # as the page sent it: the drawing as a trajectory file, resample, method, seed, steps
    request: Request
    trajectory: Trajectory
    status: str = "waiting"  # running, done, stopped (or failed, and can be resumed), refused
    version: int = 0
    job: Job | None = None  # from when it is planned
    records: tuple[dict[str, Any], ...] = ()
    pictures: dict[int, dict[str, Any]] = field(default_factory=dict)  # by frame: what it looked like after which step
    left: float | None = None  # seconds, by estimate
    seconds: float | None = None  # that the steps and the files took in this session
    notes: list[str] = field(default_factory=list)  # what was warned of
    sentence: str = ""  # how it ended, where it is not done
    unfinished: Path | None = None  # the folder from which it can go on
    folder: Path | None = None  # the finished one
    stop: bool = False  # as soon as the step is done

    def told(self) -> dict[str, Any]:
        """Ready for JSON."""
        told: dict[str, Any] = {name: getattr(self, name) for name in ("number", "status", "left", "seconds", "notes")}
        told |= {"asked": self.asked, "sentence": self.sentence, "about": place_of(self.sentence)}
        told |= {"prompt": self.trajectory.prompt, "subjects": self.trajectory.subjects}
        told |= {"boxes": self.trajectory.as_lists(), "group": sha256(repr(self.trajectory.as_lists()).encode())[:16]}
        told |= {"method": choose_method(self.request, self.trajectory), "seed": str(self.request.seeds[0])}
        told |= {"stopping": self.stop}
        told |= {"step": len(self.records), "pictures": list(self.pictures.values()), "steps": None}
        told |= {"folder": str(self.folder or self.unfinished or ""), "resumable": self.resumable}
        if self.job is not None:
            settings = self.job.settings
            told |= {"steps": settings.steps, "masked": settings.frozen_steps, "charts": self.charts(self.job)}
            told |= {"fps": self.job.fps, **self.job.size}
        return told

    @property
    def resumable(self) -> bool:
        """Whether there is something to go on with."""
        return self.status == "stopped" and self.unfinished is not None

    def charts(self, job: Job) -> list[str]:
        """The report's, as far as they go, over all steps."""
        rest = [dict.fromkeys(RECORD_KEYS)] * (job.settings.steps - len(self.records))
        run = {"records": [*self.records, *rest], "settings": asdict(job.settings)}
        return make_charts({**run, "subjects": self.trajectory.subjects}, None)


class Studio:
    """What the pages ask for, and what the worker makes of it; each method may be called by any thread."""

    def __init__(self, request: Request, pipeline: Pipeline, loading: float, parent: Path) -> None:
        """request: the command line's, whose options count for every run. parent: where the runs' folders go."""
        self.words = drop_flags(request.words, *DRAWN, *FIELDS)
        self.frames = request.frames or pipeline.defaults.frames
        self.pipeline, self.loading, self.parent = pipeline, loading, parent
        self.runs: list[Run] = []
        self.current: Run | None = None
        self.waiting: Run | None = None
        self.version = 0
        self.preview = True  # whether pictures are made after each step
        self.draft: Mapping[str, Any] | None = None  # what the page holds that is not asked for yet
        self.changed = threading.Condition()

    # ---- For the pages -----------------------------------------------------------------------------------------------

    def start(self, asked: Mapping[str, Any], replace: bool) -> Run:
        """A new run of what is drawn; a slip is the command's own ValueError."""
        texts = {name: asked.get(name, "") for name in ("drawing", "method", "seed", "steps")}
        if not all(isinstance(text, str) for text in texts.values()):
            raise ValueError("drawing, method, seed and steps must be texts")
        with self.changed:
            self._check_free(replace)
            path = self.parent / FILE
            self.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, texts["drawing"].encode("utf-8", "surrogatepass"))
            given = [f"{flag}={text}" for flag in FIELDS if (text := texts[flag.removeprefix("--")].strip())]
            resample = ["--resample"] if asked.get("resample") is True else []
            request = parse([*self.words, f"--boxes={path}", *resample, *given])
            assert isinstance(request, Request)
            trajectory = read_trajectory(request, self.frames)
            assert trajectory is not None
            run = Run(len(self.runs) + 1, {**texts, "resample": bool(resample)}, request, trajectory)
            self.runs.append(run)
            self._enqueue(run)
            return run

    def resume(self, run: Run, replace: bool) -> None:
        """Go on with a run that was stopped."""
        with self.changed:
            if not run.resumable:
                raise ValueError(f"run {run.number} is not one that can go on")
            self._check_free(replace)
            self._enqueue(run)

    def stop(self, run: Run) -> None:
        """After the step that is under way; it is kept as an unfinished one."""
        with self.changed:
            if run is self.waiting:
                self._drop()
            elif run is self.current:
                run.stop = True
                self._mark(run)

    def told(self, since: int) -> dict[str, Any]:
        """The state of all, with those runs that have changed after version `since`."""
        with self.changed:
            runs = [run.told() for run in self.runs if run.version > since] if since < self.version else []
            return {"version": self.version, "preview": self.preview, "runs": runs}

    def find(self, number: object) -> Run | None:
        """A run by its number."""
        with self.changed:
            whole = isinstance(number, int) and 1 <= number <= len(self.runs)
            return self.runs[number - 1] if whole else None  # type: ignore[operator]

    # ---- For the worker ----------------------------------------------------------------------------------------------

    def take(self) -> Run:
        """The next run, when there is one."""
        with self.changed:
            self.current = None
            while self.waiting is None:
                self.changed.wait(timeout=1)  # else Ctrl-C would not come through on Windows
            run = self.current = self.waiting
            self.waiting = None
            self._mark(run, status="running", stop=False)
            return run

    def change(self, run: Run, **fields: Any) -> None:
        """Tell what is new of a run."""
        with self.changed:
            self._mark(run, **fields)

    # ---- With the lock held ------------------------------------------------------------------------------------------

    def _check_free(self, replace: bool) -> None:
        if (self.current or self.waiting) and not replace:
            raise Busy

    def _enqueue(self, run: Run) -> None:
        self._drop()
        if self.current is not None:
            self.current.stop = True
            self._mark(self.current)
        self.waiting = run
        self._mark(run, status="waiting", sentence="")
        self.changed.notify_all()

    def _drop(self) -> None:
        if self.waiting is not None:
            self._mark(self.waiting, status="stopped", sentence="it had not begun")
            self.waiting = None

    def _mark(self, run: Run, **fields: Any) -> None:
        for name, value in fields.items():
            setattr(run, name, value)
        self.version += 1
        run.version = self.version


def place_of(sentence: str) -> str:
    """The field of the page that a sentence is about, by the name that it begins with; "" = the drawing, or all."""
    found = re.match(r"(?:argument )?(?:--)?(method|seed|steps)\b", sentence)
    return found[1] if found else ""
