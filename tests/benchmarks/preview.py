"""What it costs to watch a run on the page: `tests/benchmarks/preview.py [--method plain]`.

The command serves the page to a visitor who asks for news as often as the page does, four times a second. Runs with
pictures of z0_hat after each step and runs without them take turns; the ratio is of a whole run, files included.
Beside the seconds stand those that the server's processor cores were at work, which other work on them hardly changes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from measuring import device_name, ratio  # noqa: E402

EXAMPLE = ROOT / "examples" / "red_ball.json"


def ask(address: str, body: dict | None = None) -> dict:
    """What the server answers."""
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, content, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def processor_seconds(process: subprocess.Popen) -> float:
    """Those of all its threads so far, on Linux."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def watch(process: subprocess.Popen, address: str, choice: dict[str, str], pictures: bool) -> tuple[float, float, int]:
    """A run: its seconds, those of the processor, and how many pictures came."""
    ask(f"{address}preview", {"on": pictures})
    before, version, seen = processor_seconds(process), 0, set()
    number = ask(f"{address}start", {"drawing": EXAMPLE.read_text(), **choice})["run"]
    while True:
        state = ask(f"{address}state?since={version}")
        version = state["version"]
        run = next((run for run in state["runs"] if run["number"] == number), None)
        if run is not None:
            seen |= {(picture["frame"], picture["step"]) for picture in run["pictures"]}
            if run["status"] == "done":
                return run["seconds"], processor_seconds(process) - before, len(seen)
            assert run["status"] in ("waiting", "running"), run["sentence"]
        time.sleep(0.25)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10, help="rounds that count")
    parser.add_argument("--method", default="full")
    args = parser.parse_args()
    taken: dict[bool, list[tuple[float, float, int]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "train_free.py"), "--draw", "--no-browser"]
        with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            try:
                address = process.stdout.readline().decode().strip()
                for round in range(args.repeats + 1):
                    for pictures in (True, False) if round % 2 else (False, True):
                        result = watch(process, address, {"method": args.method}, pictures)
                        if round:  # the first one warms up
                            taken[pictures].append(result)
            finally:
                process.terminate()
    print(f"{device_name('cpu')}, {os.cpu_count()} cores, {args.repeats} rounds, --method {args.method}")
    for what, i in (("seconds", 0), ("seconds of the processor", 1)):
        on, off = ([result[i] for result in taken[pictures]] for pictures in (True, False))
        middle, low, high = ratio(on, off)
        print(
            f"{what:26} {middle:6.3f}  {low:6.3f}-{high:6.3f}  with {np.median(on):.2f}, without {np.median(off):.2f}"
        )
    print(f"pictures seen in a run     {np.median([seen for *_, seen in taken[True]]):.0f}")


if __name__ == "__main__":
    main()
