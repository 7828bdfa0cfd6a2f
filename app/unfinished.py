"""A run that is not done yet: the folder from which it can go on, whatever stopped it.

    <name>.unfinished/begun.json          what it was begun with: arguments, settings, boxes, weights, threads, versions
    <name>.unfinished/state.safetensors   latents and records after the last finished step
    <name>.unfinished/result/             pictures and run.json, while they are written (see `folder.write_run`)
    <name>.unfinished/lock                held by the process at work, until it ends in any way

Random draws are addressed by seed, stream, step and iteration, so that nothing else has to be kept.
"""

import hashlib
import json
import math
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from adaptation.trajectory import Trajectory
from app.arguments import MEMORY, Request, flag, parse_request
from app.folder import SUFFIX, new_names, unfinished_folder
from app.job import Job, Video, count_videos, make_job
from app.page import drop_flags
from sampling.sampler import RECORD_KEYS, State, Streams
from sampling.settings import SamplingSettings
from storage import read_sealed, write_bytes, write_sealed
from weights.load import Pipeline

STATE = "state.safetensors"
AGAIN = "delete it to begin this video again, with all else as it was"
COMPARED = ("device", "device_name", "dtype", "threads", "memory")  # and versions: what may change the bits
NEEDED = {  # of begun.json: what each member has to be
    "arguments": lambda value: isinstance(value, list) and all(isinstance(word, str) for word in value),
    "run": lambda value: _is_whole(value, 0, 10**9),
    "seed": lambda value: _is_whole(value, 0, 2**64 - 1),
    "settings": lambda value: isinstance(value, dict),
    "trajectory": lambda value: value is None or (isinstance(value, dict) and isinstance(value.get("prompt"), str)),
    "model": lambda value: isinstance(value, dict) and isinstance(value.get("fingerprint"), str),
    "versions": lambda value: isinstance(value, dict),
    "resumed": lambda value: isinstance(value, list) and all(isinstance(n, dict) and "step" in n for n in value),
    "device": lambda value: isinstance(value, str),
    "device_name": lambda value: isinstance(value, str),
    "dtype": lambda value: isinstance(value, str),
    "threads": lambda value: _is_whole(value, 1, 10_000),
    "memory": lambda value: isinstance(value, dict),
}


@dataclass(frozen=True, eq=False)
class Unfinished:
    """A run under way."""

    folder: Path
    begun: dict[str, Any]  # begun.json
    lock: IO[bytes] | None  # open as long as this process works on it

    def close(self) -> None:
        """Let go of the folder; another process may go on with what lies there."""
        if self.lock is not None:
            self.lock.close()

    @property
    def target(self) -> Path:
        """The folder that it is to become."""
        return self.folder.with_name(self.folder.name.removesuffix(SUFFIX))

    @property
    def settings(self) -> SamplingSettings:
        """Those it was begun with; a ValueError where this program has others."""
        try:
            return SamplingSettings.from_dict(self.begun["settings"])
        except ValueError as error:
            raise ValueError(f"{self.folder} is of another version of this program: {error}") from None

    @property
    def trajectory(self) -> Trajectory | None:
        """Its boxes, resampled to the run's frames; None = plain sampling."""
        kept = self.begun["trajectory"]
        if kept is None:
            return None
        try:
            boxes = [[[math.nan] * 4 if box is None else box for box in track] for track in kept["boxes"]]
            return Trajectory(torch.tensor(boxes), kept["subjects"], kept["prompt"])
        except (TypeError, KeyError, ValueError, RuntimeError):
            raise ValueError(f"{self.folder} has boxes of another version of this program") from None


def begin(job: Job, video: Video) -> Unfinished:
    """Take the name of the folder that the video is to become, and note what it is begun with."""
    path, target = None, job.target(video)
    if (boxes := job.trajectory) is not None:
        path = {"boxes": boxes.as_lists(), "subjects": boxes.subjects, "prompt": boxes.prompt}
    begun = {"arguments": list(job.request.words), "run": video.number, "seed": video.seed}
    begun |= {"settings": asdict(job.settings), "trajectory": path, **job.facts, "resumed": []}
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = _take_name(target)
    unfinished = None
    try:
        unfinished = Unfinished(folder, begun, _lock(folder))
        write_sealed(folder / "begun.json", begun)
    except BaseException:
        if unfinished is not None:
            unfinished.close()
        shutil.rmtree(folder, ignore_errors=True)  # nothing to go on with
        raise
    return unfinished


def open_unfinished(folder: Path) -> Unfinished:
    """A run that was stopped, to go on with; a folder that is none, is broken or is being worked on is a ValueError."""
    begun = read_sealed(folder / "begun.json") if folder.name.endswith(SUFFIX) else None
    if begun is None:
        whole = f"a folder NAME{SUFFIX} with a begun.json that is whole"
        raise ValueError(f"{folder} is no unfinished run; --resume needs {whole}")
    if missing := [name for name in NEEDED if name not in begun]:
        raise ValueError(f"{folder} was begun by another version of this program: its begun.json has no {missing[0]}")
    if wrong := [name for name, right in NEEDED.items() if not right(begun[name])]:
        raise ValueError(f"{folder} was begun by another version of this program: {wrong[0]} is of another form there")
    return Unfinished(folder, begun, _lock(folder))


def begun_request(unfinished: Unfinished, added: Sequence[str]) -> Request:
    """What the run was asked for when it was begun, and the options that save memory which were added now.

    What cannot be gone on with is refused; torch gets the number of threads that the run began with.
    """
    begun, folder = unfinished.begun, unfinished.folder
    _ = unfinished.settings, unfinished.trajectory  # refused here, before weights are loaded
    torch.set_num_threads(begun["threads"])  # another number of them adds in another order
    try:
        request = parse_request([*drop_flags(begun["arguments"], *overruled(added)), *added])
    except ValueError as error:
        raise ValueError(f"{folder} was begun by another version of this program: {error}") from None
    if begun["run"] >= (videos := count_videos(request)):
        raise ValueError(f"{folder} is said to be video {begun['run'] + 1} of the {videos} that its arguments ask for")
    return request


def overruled(added: Sequence[str]) -> list[str]:
    """Flags that no longer count where others were added: --memory, and the options that it chooses."""
    named = {word.partition("=")[0] for word in added}
    return [*map(flag, MEMORY)] if flag("memory") in named else [flag("memory")] if named else []


def begun_job(unfinished: Unfinished, request: Request, pipeline: Pipeline, loading: float) -> Job:
    """The video that was stopped and those after it, with the boxes and settings that they were begun with.

    Other weights are refused; of other circumstances it is said that they may change the bits.
    """
    settings, trajectory, begun = unfinished.settings, unfinished.trajectory, unfinished.begun
    parent = unfinished.folder.parent
    job = make_job(request, pipeline, loading, trajectory, settings, parent, first=begun["run"])
    if begun["model"]["fingerprint"] != pipeline.fingerprint:
        old, new = (fingerprint[:12] for fingerprint in (begun["model"]["fingerprint"], pipeline.fingerprint))
        raise ValueError(
            f"{unfinished.folder} was begun with other weights, {old}..., than {pipeline.name} has now, {new}..."
        )
    if differences := _differences(begun, job.facts):
        told = "; ".join(differences)
        warnings.warn(f"the run goes on otherwise than it began, so its bits may differ: {told}", stacklevel=2)
    return job


def go_on(unfinished: Unfinished, job: Job, video: Video) -> Unfinished:
    """Note that the run goes on, and under what circumstances."""
    begun, folder, facts = unfinished.begun, unfinished.folder, job.facts
    differences = _differences(begun, facts)
    state = load_state(unfinished)
    if state is not None and state.z.shape != (1, *video.plan.shape):
        raise ValueError(f"{folder / STATE} holds latents of another size than the run's; {AGAIN}")
    note = {
        "step": 0 if state is None else state.step,
        "same_bits": facts["device"] == "cpu" and not differences,  # a GPU's kernels promise none
        "differences": differences,
    }
    begun = {**begun, "arguments": list(job.request.words), "resumed": [*begun["resumed"], note]}
    write_sealed(folder / "begun.json", begun)
    return Unfinished(folder, begun, unfinished.lock)


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is not as it was, each as "torch 2.6.0 -> 2.7.0"."""

    def flat(facts: Mapping[str, Any]) -> dict[str, Any]:
        return {name: facts[name] for name in COMPARED if name != "memory"} | facts["memory"] | facts["versions"]

    old, new = flat(then), flat(now)
    names = dict.fromkeys([*old, *new])
    return [f"{name} {old.get(name)} -> {new.get(name)}" for name in names if old.get(name) != new.get(name)]


# ---- States ----------------------------------------------------------------------------------------------------------


def save_state(unfinished: Unfinished, state: State) -> None:
    """Replace the state kept so far; a process killed meanwhile leaves the old one."""
    z = state.z.cpu().contiguous()
    told = json.dumps({"step": state.step, "records": state.records})
    write_bytes(unfinished.folder / STATE, save({"latents": z}, {"state": told, "checksum": _checksum(told, z)}))


def load_state(unfinished: Unfinished, device: torch.device | str = "cpu") -> State | None:
    """The state after the last finished step; None = there is none yet."""
    path = unfinished.folder / STATE
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            z, metadata = file.get_tensor("latents"), file.metadata()
        whole = metadata["checksum"] == _checksum(metadata["state"], z)
        told = json.loads(metadata["state"])
        whole = whole and z.dtype == torch.float32 and _is_whole(told["step"], 1, unfinished.settings.steps)
        whole = whole and len(told["records"]) == told["step"] and all(map(_is_record, told["records"]))
    except (OSError, SafetensorError, KeyError, TypeError, json.JSONDecodeError):
        whole = False
    if not whole:
        raise ValueError(f"{path} is broken; {AGAIN}")
    z = z.clone().to(device)  # a file's tensor lies anywhere in memory, and sums may depend on where it begins
    return State(told["step"], z, Streams((unfinished.begun["seed"],)), tuple(told["records"]))


def _is_whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_record(value: object) -> bool:
    """Whether it has the form of what the sampler records of a step of one video."""
    if not isinstance(value, dict) or value.keys() != RECORD_KEYS or not isinstance(value["t"], int):
        return False
    numbers = [value[name] for name in RECORD_KEYS - {"t"} if value[name] is not None]
    return all(isinstance(n, list) and len(n) == 1 and isinstance(n[0], float) for n in numbers)


def _checksum(told: str, z: Tensor) -> str:
    form = f"{z.dtype} {tuple(z.shape)}"
    return hashlib.sha256(told.encode() + form.encode() + z.numpy().tobytes()).hexdigest()


# ---- Folders ---------------------------------------------------------------------------------------------------------


def _take_name(target: Path) -> Path:
    """Make the unfinished folder of the first of target, target-2, ... that neither exists nor is being made."""
    names = new_names(target)
    while True:
        folder = unfinished_folder(next(names))
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder


def _lock(folder: Path) -> IO[bytes] | None:
    """Refuse a folder on which another process is at work. None = this system has no such locks."""
    try:
        import fcntl
    except ImportError:
        return None
    file = (folder / "lock").open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # let go when the process ends, even by SIGKILL
    except BlockingIOError:
        file.close()
        raise ValueError(f"{folder} is being made by another process; wait for it, or end it first") from None
    return file
