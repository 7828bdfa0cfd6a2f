"""What loading costs, on a full-size U-Net of random float16 weights (2.8 GB): `python tests/benchmarks/load.py`.

For Linux. Every measurement is a fresh process. Two ratios are printed:
    memory  peak resident memory while loading, beyond what Python and torch take by themselves, to the file's size
    time    loading, from opening the file to a network in eval mode, to reading the file's bytes into memory
Cold means that the kernel was told to forget the file's pages (posix_fadvise DONTNEED); warm, that the file has just
been read. The lowest time of some rounds counts: other work on the machine only adds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from model.config import UNetConfig  # noqa: E402
from model.unet import UNet3D  # noqa: E402
from weights.files import open_weights  # noqa: E402
from weights.fill import fill, match  # noqa: E402

NAME = "diffusion_pytorch_model.safetensors"
DTYPES = {"float16": torch.float16, "float32": torch.float32}


def on_meta() -> UNet3D:
    with torch.device("meta"):
        return UNet3D(UNetConfig())


def write(path: Path) -> None:
    """Random weights; one pool of numbers, begun at another place for each tensor, is random enough for a copy."""
    pool = torch.randn(2**26, dtype=torch.float32, generator=torch.Generator().manual_seed(0)).half()
    tensors = {}
    for i, (name, p) in enumerate(on_meta().state_dict().items()):
        tensors[name] = pool[i : i + p.numel()].clone().reshape(p.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata={"format": "pt"})


def peak() -> int:
    """Highest resident memory of this process so far, bytes. (getrusage would count the parent's as well.)"""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def forget(path: Path) -> None:
    """Ask the kernel to drop the file's pages from its cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(what: str, path: Path) -> dict[str, float]:
    """In this process, once: `read` or a dtype to load in."""
    before, start = peak(), time.perf_counter()
    if what == "read":
        held = path.read_bytes()
    else:
        held = fill(match("unet", on_meta(), [open_weights(path)]), torch.device("cpu"), DTYPES[what])
    result = {"seconds": time.perf_counter() - start, "before": before, "peak": peak()}
    del held
    return result


def in_fresh_process(what: str, path: Path, cold: bool) -> dict[str, float]:
    if cold:
        forget(path)
    command = [sys.executable, __file__, "--measure", what, "--folder", str(path.parent)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def report(path: Path, dtype: str, rounds: int) -> None:
    size = path.stat().st_size
    print(f"{path}: {size / 1e9:.3f} GB, loaded as {dtype}, best of {rounds}")
    for cold in (True, False):
        if not cold:
            path.read_bytes()
        runs = [(in_fresh_process("read", path, cold), in_fresh_process(dtype, path, cold)) for _ in range(rounds)]
        read, load = (min(one["seconds"] for one in kind) for kind in zip(*runs, strict=True))
        print(f"{'cold' if cold else 'warm'}: read {read:.2f} s, load {load:.2f} s, time ratio {load / read:.2f}")
    loads = [load for _, load in runs]
    base, top = max(run["before"] for run in loads), max(run["peak"] for run in loads)
    print(f"Python and torch alone {base / 1e9:.3f} GB, peak while loading {top / 1e9:.3f} GB")
    print(f"memory ratio {(top - base) / size:.3f} (with Python and torch {top / size:.3f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where the weights are written and left; default: a temporary one")
    parser.add_argument("--dtype", choices=DTYPES, default="float16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", choices=("read", *DTYPES), help=argparse.SUPPRESS)  # what a fresh process runs
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, args.folder / NAME)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        path = (args.folder or Path(temporary)) / NAME
        if not path.exists():
            write(path)
        report(path, args.dtype, args.rounds)


if __name__ == "__main__":
    main()
