"""How torch's threads wait for one another, settled before torch is loaded: commands import it first. It uses no room.

A thread that waits in a loop is ready at once, but keeps a core from whoever it waits for. One that sleeps has to be
woken, which takes longer than many a small operation of a network. So they loop on a quiet machine, and sleep where
other work is under way. The number of threads stays as it is, for the bits depend on it; on this they do not.
"""

import os
import time
from collections.abc import Mapping, MutableMapping
from pathlib import Path

CHOSEN_BY_USER = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
TURNS = "20000"  # of the loop, a millisecond; with its usual 300,000, work that begins later costs a run far more


def settle(environment: MutableMapping[str, str]) -> None:
    """Say how threads wait, in the environment that OpenMP reads when it is loaded; what the user says there stands."""
    if any(name in environment for name in CHOSEN_BY_USER):
        return
    if count_others() + count_threads(environment) > (os.cpu_count() or 1):
        environment["OMP_WAIT_POLICY"] = "passive"
    else:
        environment["GOMP_SPINCOUNT"] = TURNS


def count_others(looks: int = 5, seconds: float = 0.004) -> int:
    """Tasks that want a core in each of a few looks, this one aside; 0 where the system does not say."""
    try:
        return min(_running(seconds) for _ in range(looks)) - 1
    except OSError:
        return 0


def _running(seconds: float) -> int:
    """A while later: how many tasks of the machine run or are ready to."""
    time.sleep(seconds)
    return int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0])


def count_threads(environment: Mapping[str, str]) -> int:
    """As many as OpenMP will use: what the user says, or one for each core that this program may use."""
    asked = environment.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if asked.isdecimal():
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


settle(os.environ)
