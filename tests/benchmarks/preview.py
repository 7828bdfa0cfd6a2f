"""What it costs to look at z0_hat after each step of a run, as the served page does: `tests/benchmarks/preview.py`.

Seconds of the processor, in one thread, so that other work on the machine hardly changes them: those of the pictures
are counted within a run, and the ratio is of the run with them to the run without. The share that the pictures may
take is of the run's time by the clock. Beside it: what one answer to the page's question for news takes, in another
thread, four times a second.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from measuring import device_name  # noqa: E402

from adaptation.trajectory import Trajectory  # noqa: E402
from app.arguments import parse_request  # noqa: E402
from app.job import choose_settings, make_job  # noqa: E402
from app.server.preview import Preview  # noqa: E402
from app.server.studio import Run  # noqa: E402
from sampling.generate import Result, generate, recommended  # noqa: E402
from sampling.sampler import State  # noqa: E402
from weights.load import Pipeline, load_pipeline  # noqa: E402

EXAMPLE = ROOT / "examples" / "red_ball.json"


def watched(pipeline: Pipeline, method: str) -> tuple[float, float, int, Result]:
    """Seconds of the processor of a run and of its pictures, how many there were, and what was made."""
    preview, spent, seen = Preview(pipeline.vae, 8), 0.0, 0

    def look(state: State) -> None:
        nonlocal spent, seen
        began = time.thread_time()
        seen += len(preview.look(state))
        spent += time.thread_time() - began

    began = time.thread_time()
    result = generate(
        pipeline, trajectory=Trajectory.load(EXAMPLE, 8), settings=recommended(pipeline, method), progress=look
    )
    return time.thread_time() - began, spent, seen, result


def answer(pipeline: Pipeline, method: str, result: Result) -> float:
    """Seconds of the processor for all that is told of a run."""
    request = parse_request(["--boxes", str(EXAMPLE), "--method", method, "--device", "cpu"])
    boxes = Trajectory.load(EXAMPLE, 8)
    job = make_job(request, pipeline, 0.0, boxes, choose_settings(request, pipeline, boxes))
    run = Run(1, {}, request, boxes, "running", job=job, records=result.records)
    began = time.thread_time()
    for _ in range(20):
        json.dumps(run.told())
    return (time.thread_time() - began) / 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="runs of each method")
    parser.add_argument("--methods", nargs="+", default=["full", "plain"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    pipeline = load_pipeline("tiny")
    print(f"{device_name('cpu')}, one thread, tiny, {args.repeats} runs of each method, medians")
    for method in args.methods:
        runs = [watched(pipeline, method) for _ in range(args.repeats)]
        ratios = [whole / (whole - pictures) for whole, pictures, *_ in runs]
        whole, pictures, seen = (np.median([run[i] for run in runs]) for i in range(3))
        told = answer(pipeline, method, runs[0][-1])
        print(
            f"{method:12} {np.median(ratios):.3f}  {min(ratios):.3f}-{max(ratios):.3f}  {seen:.0f} pictures, "
            f"{pictures:.2f} s of {whole:.2f} s; an answer {1000 * told:.1f} ms",
            flush=True,
        )


if __name__ == "__main__":
    main()
