"""What other work on one core costs a run of the command, by how torch's threads wait: `tests/benchmarks/busy.py`.

Each run is a process of its own. The other work is a program that keeps one core busy, from before the run on, or from
some seconds after its beginning. Ratios are to a run on a quiet machine with OpenMP's own waiting; nothing else may run
meanwhile. `--policies looping sleeping` leaves out the slow one.
"""

from __future__ import annotations

import waiting

import argparse
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from measuring import device_name, interleave, ratio  # noqa: E402

POLICIES = {
    "openmp's own": {"GOMP_SPINCOUNT": "300000"},
    "looping": {"GOMP_SPINCOUNT": waiting.TURNS},  # chosen on a quiet machine
    "sleeping": {"OMP_WAIT_POLICY": "passive"},  # chosen on a busy one
}
LOADS = {"quiet": None, "busy": 0.0, "busy later": 5.0}  # seconds from the run's beginning to the other work's


def run(policy: str, load: str, words: list[str]) -> None:
    """Make a video as the command does."""
    environment = {k: v for k, v in os.environ.items() if k not in waiting.CHOSEN_BY_USER} | POLICIES[policy]
    delay = LOADS[load]
    others: list[subprocess.Popen] = []

    def begin() -> None:  # in a session of its own, as another user's would be
        others.append(subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True))

    timer = threading.Timer(delay or 0.0, begin)
    with tempfile.TemporaryDirectory() as folder:
        try:
            if delay is not None:
                timer.start()
            command = [sys.executable, "train_free.py", *words, "--out", f"{folder}/video"]
            subprocess.run(command, env=environment, cwd=ROOT, check=True, capture_output=True)
        finally:
            timer.cancel()
            if timer.ident:
                timer.join()
            for other in others:
                other.kill()
                other.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="rounds that count")
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=list(POLICIES))
    parser.add_argument("--words", nargs=argparse.REMAINDER, default=[], help="of train_free.py (none), last")
    args = parser.parse_args()
    calls = {
        f"{policy}, {load}": lambda policy=policy, load=load: run(policy, load, args.words)
        for policy in args.policies
        for load in LOADS
    }
    seconds = interleave(calls, args.repeats)
    reference = seconds[next(iter(calls))]
    print(f"{device_name('cpu')}, {os.cpu_count()} cores, {args.repeats} rounds, train_free.py {' '.join(args.words)}")
    for name, taken in seconds.items():
        middle, low, high = ratio(taken, reference)
        print(f"{name:26} {middle:6.2f}  {low:6.2f}-{high:6.2f} {np.median(taken):8.2f} s")


if __name__ == "__main__":
    main()
