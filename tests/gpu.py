"""What only a GPU can show, in one command of under ten minutes: `python -m tests.gpu`, from the repository's root.

    parity      the tiny checkpoint's latents on the device to those on the CPU, in float32
    methods     every method once on the tiny checkpoint
    precisions  the full method on it in float16 and bfloat16, to float32
    memory      the most that each kind of call holds, beside the account of `tests/benchmarks/memory.py`
    unet, refine, decode, step, compile, batch: parts of `tests/benchmarks/speed.py`
    diffusers   our U-Net to diffusers', where that is installed

It writes one JSON and beside it one Markdown table. What is finished is kept there: the same command goes on, on the
same machine and commit, and runs again what could not be run. Without a GPU it runs at tiny's size on the CPU, which
shows that every part works and, of a GPU, nothing.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent / "benchmarks")]

import diffusers_unet  # noqa: E402
import memory as account  # noqa: E402
import speed  # noqa: E402
from measuring import DTYPES, arguments, device_name, peak_memory, prepare, waiter  # noqa: E402
from sizes import SIZES, make_control, make_latents, make_text, make_unet  # noqa: E402

from adaptation.trajectory import Trajectory  # noqa: E402
from ending import exit_code, is_out_of_memory  # noqa: E402
from sampling.generate import Result, generate, recommended  # noqa: E402
from sampling.settings import METHODS  # noqa: E402
from storage import write_bytes  # noqa: E402
from weights.load import Pipeline, load_pipeline  # noqa: E402

Part = dict[str, Any]  # rows, what their ratios are to, and other facts; or why it was not run
NEEDS_CUDA = {  # what a part leaves out elsewhere
    "parity": "a comparison of two devices: this one is the CPU itself",
    "memory": "measured peaks, for only CUDA counts them: the account stands alone",
    "batch": "the largest batch: the part ends before memory does",
    "compile": "compiling, which takes minutes on a CPU, and CUDA graphs: the network was traced whole, with no graph "
    "break, and run as traced",
}
COMPARED = ("plain", "mask", "mask-norm", "full[unet]", "full[text-half]")


class NotRun(Exception):
    """Why a part cannot be run here."""


# ---- On the tiny checkpoint ------------------------------------------------------------------------------------------


def make(pipeline: Pipeline, method: str) -> Result:
    """Three steps of a method, at the size of the benchmarks' tiny."""
    size = SIZES["tiny"]
    boxes = Trajectory.load(ROOT / "examples" / "red_ball.json", 8).resample(size.frames)
    settings = recommended(pipeline, method, {"steps": 3})
    return generate(pipeline, None, boxes, settings, height=8 * size.height, width=8 * size.width, frames=size.frames)


def relative(ours: Tensor, other: Tensor) -> float:
    """L2 of the difference, to that of the other."""
    return float((ours.cpu() - other.cpu()).norm() / other.cpu().norm())


def parity(args: argparse.Namespace) -> Part:
    rows, pipelines = [], [load_pipeline("tiny", device) for device in (args.device, "cpu")]
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for method in COMPARED:
            there, here = (make(pipeline, method).latents for pipeline in pipelines)
            rows.append({"name": method, "difference": relative(there, here)})
    return {"reference": "the CPU", "rows": rows}


def methods(args: argparse.Namespace) -> Part:
    """`generate` refuses what is not finite."""
    pipeline = load_pipeline("tiny", args.device, DTYPES[args.dtype])
    seconds = {method: sum(make(pipeline, method).seconds.values()) for method in METHODS}
    return {"rows": [{"name": method, "seconds": [taken]} for method, taken in seconds.items()]}


def precisions(args: argparse.Namespace) -> Part:
    rows, exact = [], load_pipeline("tiny", args.device)
    latents = {method: make(exact, method).latents for method in ("plain", "full[unet]")}
    for name in ("float16", "bfloat16"):
        half = load_pipeline("tiny", args.device, DTYPES[name])
        for method, expected in latents.items():
            rows.append({"name": f"{method}, {name}", "difference": relative(make(half, method).latents, expected)})
    return {"reference": "float32", "rows": rows}


# ---- With random weights of any size ---------------------------------------------------------------------------------


def memory(args: argparse.Namespace) -> Part:
    """In bfloat16 where float32 was asked for: of the CPU's own sort of float32 there is no account."""
    size, dtype = SIZES[args.size], DTYPES[args.dtype if args.dtype != "float32" else "bfloat16"]
    network, z = make_unet(size, args.device, dtype), make_latents(size, args.device)
    text, control = make_text(size, args.device, dtype), make_control(size, args.device, normalize=True)
    rows = []
    for case in account.CASES:
        call = partial(case.call, network, z, text, control)
        try:
            measured = peak_memory(call, args.device)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            measured = None
        rows.append({"name": case.name, "account_bytes": sum(account.account(size, case, dtype))})
        rows[-1]["peak_bytes"] = measured
    return {"rows": rows}


def benchmark(run: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> Part:
    """What one of the benchmarks writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        run(argparse.Namespace(**vars(args) | {"json": path}))
        return json.loads(path.read_bytes())


def step(args: argparse.Namespace) -> Part:
    """With the time of a video of 50 steps added up: masks act in the first four."""
    part = benchmark(speed.step, args)
    seconds = {row["name"]: float(np.median(row["seconds"])) for row in part["rows"]}
    full = 4 * seconds["full, checkpointed"] + 46 * seconds["full, checkpointed, masks over"]
    for name, steps in (("plain", 50 * seconds["plain"]), ("full, checkpointed", full)):
        part["rows"].append({"name": f"a video, {name} (added up)", "seconds": [steps + seconds["decoding"]]})
    return part


def diffusers(args: argparse.Namespace) -> Part:
    if importlib.util.find_spec("diffusers") is None:
        raise NotRun("diffusers is not installed")
    return benchmark(diffusers_unet.compare, args)


PARTS: dict[str, Callable[[argparse.Namespace], Part]] = {
    "parity": parity,
    "methods": methods,
    "precisions": precisions,
    "memory": memory,
    "unet": partial(benchmark, speed.unet),
    "refine": partial(benchmark, speed.refine),
    "decode": partial(benchmark, speed.decode),
    "step": step,
    "batch": partial(benchmark, speed.batch),
    "compile": partial(benchmark, speed.compiled),
    "diffusers": diffusers,
}


def run_part(name: str, args: argparse.Namespace) -> Part:
    """The part, or why it was not run."""
    began = time.perf_counter()
    left_out = {} if args.device.startswith("cuda") or name not in NEEDS_CUDA else {"left out": NEEDS_CUDA[name]}
    try:
        part = PARTS[name](args)
        waiter(args.device)()
        return part | left_out | {"took": time.perf_counter() - began}
    except NotRun as reason:
        return {"not run": str(reason)}
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return {"not run": "memory ran out"}


# ---- The table -------------------------------------------------------------------------------------------------------

COLUMNS = ("part", "what", "relative to", "ratio", "quartiles", "seconds", "peak GB", "by the account", "difference")


def markdown(told: dict[str, Any]) -> str:
    """All rows of all parts, and what was not run."""
    about = ", ".join(f"{name} {value}" for name, value in told["about"].items())
    rows = [cells for name, part in told["parts"].items() for cells in part_cells(name, part)]
    lines = [f"| {' | '.join(cells)} |" for cells in (COLUMNS, ["---"] * len(COLUMNS), *rows)]
    missing = [
        f"- {name}: {part[why]}"
        for name, part in told["parts"].items()
        for why in ("not run", "left out")
        if why in part
    ]
    return (
        "\n".join(
            [f"Made by `{told['command']}`: {about}.", "", *lines, "", "Not run:", "", *(missing or ["- nothing"])]
        )
        + "\n"
    )


def part_cells(name: str, part: Part) -> Iterator[list[str]]:
    """Its rows, a word for each column."""
    reference = part.get("reference", "")
    for row in part.get("rows", []):
        quartiles = "{:.2f}-{:.2f}".format(*row["quartiles"]) if "quartiles" in row else ""
        seconds = f"{np.median(row['seconds']):.3g}" if "seconds" in row else ""
        ratio = f"{row['ratio']:.2f}" if "ratio" in row else ""
        held = [f"{row[key] / 1e9:.3g}" if row.get(key) else "" for key in ("peak_bytes", "account_bytes")]
        difference = f"{row['difference']:.1e}" if "difference" in row else ""
        compared = reference if ratio or difference else ""
        yield [name, row["name"], compared, ratio, quartiles, seconds, *held, difference]


def commit() -> str:
    """The commit of the working tree, and whether anything differs from it; "" outside of a repository."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    done = subprocess.run(git, capture_output=True, text=True, check=False)
    return done.stdout.strip()


# ---- The command -----------------------------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> int:
    parser = arguments(__doc__, SIZES)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[*PARTS], metavar="PART", help=", ".join(PARTS))
    parser.set_defaults(device="cuda" if torch.cuda.is_available() else "cpu", size=None, dtype=None, repeats=3)
    args = parser.parse_args(argv)
    on_gpu = args.device.startswith("cuda")
    args.size = args.size or ("full" if on_gpu else "tiny")
    args.dtype = args.dtype or ("float16" if on_gpu else "float32")
    args.json = args.json or Path("outputs") / f"gpu-{args.size}-{args.device.replace(':', '')}.json"
    args.backend = (
        "inductor" if on_gpu else "eager"
    )  # compiling takes minutes on a CPU; eager shows that it can be done
    args.most = 64 if on_gpu else 2
    return exit_code(partial(run, args, " ".join(["python -m tests.gpu", *(sys.argv[1:] if argv is None else argv)])))


def run(args: argparse.Namespace, command: str) -> None:
    """Every part that was asked for and is not finished."""
    prepare(args)
    about = {"commit": commit(), "device": device_name(args.device), "size": args.size, "dtype": args.dtype}
    about |= {"threads": torch.get_num_threads(), "rounds": args.repeats, "torch": torch.__version__}
    told = json.loads(args.json.read_bytes()) if args.json.exists() else {}
    kept = told["parts"] if told.get("about") == about else {}
    parts = {name: part for name, part in kept.items() if "not run" not in part}
    args.json.parent.mkdir(parents=True, exist_ok=True)
    for name in args.parts:
        if name in parts:
            print(f"{name}: finished before")
            continue
        parts[name] = run_part(name, args)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        print(f"{name}: {parts[name].get('not run') or '{:.0f} s'.format(parts[name]['took'])}", flush=True)
        told = {"command": command, "about": about, "parts": parts}
        write_bytes(args.json, (json.dumps(told, indent=1) + "\n").encode())
        write_bytes(args.json.with_suffix(".md"), markdown(told).encode())
    print(f"{args.json}\n{args.json.with_suffix('.md')}")


if __name__ == "__main__":
    sys.exit(main())
