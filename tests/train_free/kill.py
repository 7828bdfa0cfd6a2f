"""Run the command in processes that kill themselves with SIGKILL at a given place, and resume it in others.

python kill.py JSON     [[name, arguments, [[place, call], ...]], ...]: each run is killed before the n-th call of the
                        place, resumed, killed there, and so on, and at last brought to its end; prints the step kept
                        after each kill, null = none
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch
from conftest import UNet, small_pipeline  # beside this file

import train_free
from app import folder as outputs
from app import unfinished
from model.unet import UNet3D
from weights import load

PLACES = {
    "network": (UNet, "forward"),
    "tiny": (UNet3D, "forward"),
    "rename": (Path, "replace"),  # a file is written under its temporary name, and not yet renamed
    "state": (unfinished, "save_state"),
    "pictures": (outputs, "write_png"),
    "report": (outputs, "write_report"),
    "done": (outputs, "_rename"),  # all is written, and the folder not yet renamed
}


def kill_before(place: str, call: int) -> None:
    owner, name = PLACES[place]
    original, calls = getattr(owner, name), []

    def counted(*arguments, **options):
        calls.append(None)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)

    setattr(owner, name, counted)


def in_a_process(arguments: list[str], killed: tuple[str, int] | None) -> int:
    """Exit status of the command, -9 if it was killed. This process has one thread, so that it can be forked."""
    child = os.fork()
    if child == 0:
        if killed is not None:
            kill_before(*killed)
        os._exit(train_free.main(arguments))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kept_step(folder: Path) -> int | None:
    run = unfinished.open_unfinished(folder)
    state = unfinished.load_state(run)
    run.close()
    return None if state is None else state.step


def main() -> None:
    torch.set_num_threads(1)
    real = load.load_pipeline
    load.load_pipeline = lambda name, *others: small_pipeline() if name == "small" else real(name, *others)
    told = {}
    for name, arguments, kills in json.loads(sys.argv[1]):
        folder, told[name] = Path(f"{name}.unfinished"), []
        arguments = [*arguments, "--out", name]
        for killed in kills:
            assert in_a_process(arguments, killed) == -9, (name, killed)
            told[name].append(kept_step(folder))
            arguments = ["--resume", str(folder)]
        assert in_a_process(arguments, None) == 0, name
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
