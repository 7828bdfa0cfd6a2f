"""How long the parts take, as ratios within one run: `python tests/benchmarks/speed.py PART --size tiny`.

PART is one of
    unet    a forward pass of the guidance batch: plain, masked, masked and normalized
    refine  a refinement iteration of Algorithm 1 (lines 4 to 6) with each gradient of the prior, to one forward and
            one backward pass of the guidance batch
    step    a DDIM step of each method with the paper's values, masks acting where the method has them, and decoding
    compile a forward pass as it is, and compiled by torch, on a GPU as CUDA graphs too
    batch   a forward pass of several videos at once, twice as many each time until memory runs out or --most is reached
    growth  a forward pass of the guidance batch against the number of frames, at the size's cells and twice as wide
    decode  the autoencoder, some frames at a time
    run     whole runs on the tiny checkpoint, by phase
Sizes: tiny, the embedded checkpoint's; quarter, a quarter of Zeroscope's widths on 8 frames of 20 x 36; full,
Zeroscope's on 24 frames of 40 x 72, for a GPU (`--device cuda --dtype float16`).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2]))

from measuring import (
    DTYPES,
    Call,
    Rates,
    arguments,
    interleave,
    measure,
    prepare,
    report,
    row,
    waiter,
    work,
    yardsticks,
)
from sizes import ROOT, SIZES, TINY, make_boxes, make_control, make_latents, make_text, make_unet, make_vae

from adaptation.intrinsic_denoising import intrinsic_step, scale_c_g, step_sizes
from adaptation.temporal_prior import prepare_crops
from adaptation.trajectory import Trajectory
from ending import is_out_of_memory
from sampling.denoise import make_denoise
from sampling.generate import generate, recommended
from sampling.sampler import gradients, initial_state, sample
from sampling.schedule import NoiseSchedule
from sampling.settings import CHOICES, SamplingSettings, preset
from weights.files import read_json
from weights.load import load_pipeline

T = 500  # a timestep; any costs the same
FRAMES = (8, 16, 24, 32, 48)
METHODS = ("plain", "mask", "mask-norm", "mask-norm+id", "full")


@torch.no_grad()
def unet(args: argparse.Namespace) -> None:
    size, dtype = SIZES[args.size], DTYPES[args.dtype]
    network, z = make_unet(size, args.device, dtype), make_latents(size, args.device)
    text = make_text(size, args.device, dtype)
    masked, normalized = (make_control(size, args.device, normalize) for normalize in (False, True))
    calls = {
        "guidance batch": lambda: network(z, T, text),
        "masked": lambda: network(z, T, text, masked),
        "masked and normalized": lambda: network(z, T, text, normalized),
        "one half alone": lambda: network(z, T, text[1:]),
    }
    parameters = sum(p.numel() for p in network.parameters())
    measure(calls, "guidance batch", args, "U-Net forward", {"parameters": parameters})


@torch.no_grad()  # as the sampler, which lifts it where it needs a gradient
def refine(args: argparse.Namespace) -> None:
    size, dtype = SIZES[args.size], DTYPES[args.dtype]
    network, z = make_unet(size, args.device, dtype), make_latents(size, args.device)
    text, noise = make_text(size, args.device, dtype), torch.randn_like(z)
    boxes, control = prepare_crops(make_boxes(size).boxes, z), make_control(size, args.device, normalize=True)
    alpha_bar = torch.tensor(0.3)

    def iteration(prior_gradient: str, frozen: bool = False, checkpointed: bool = False) -> Call:
        settings = SamplingSettings(prior_gradient=prior_gradient)
        denoise = make_denoise(network, text, control)
        eta_l, eta_k = step_sizes(settings.gamma, alpha_bar)
        c_g = scale_c_g(settings.c_g, z.shape[1:])

        def call() -> None:
            network.checkpoint_activations = checkpointed
            G_g, G_p, _ = gradients(denoise, z, T, frozen, alpha_bar, settings, boxes)
            intrinsic_step(z, G_p, G_g, eta_l, eta_k, c_g, noise)
            network.checkpoint_activations = False

        return call

    def forward_backward() -> None:
        with torch.enable_grad():
            leaf = z.detach().requires_grad_()
            torch.autograd.grad(network(leaf, T, text).sum(), leaf)

    calls = {
        "forward + backward": forward_backward,
        "forward": lambda: network(z, T, text),
        **{f"iteration, {gradient}": iteration(gradient) for gradient in CHOICES["prior_gradient"]},
        "iteration, full, masked and normalized": iteration("unet", frozen=True),
        "iteration, full, checkpointed": iteration("unet", checkpointed=True),
    }
    measure(calls, "forward + backward", args, "refinement")


@torch.no_grad()
def step(args: argparse.Namespace) -> None:
    size, dtype = SIZES[args.size], DTYPES[args.dtype]
    network, vae = make_unet(size, args.device, dtype), make_vae(size, args.device, dtype)
    text, boxes = make_text(size, args.device, dtype), make_boxes(size).boxes
    schedule = NoiseSchedule.from_config(read_json(TINY / "scheduler" / "scheduler_config.json"))
    first = initial_state([0], make_latents(size, "cpu").shape[1:], args.device)

    def one(method: str, checkpointed: bool = False, masks_over: bool = False) -> Call:
        settings = preset(method)
        control = make_control(size, args.device, settings.mask_normalization)
        begin = replace(first, step=settings.frozen_steps) if masks_over else first

        def call() -> None:
            network.checkpoint_activations = checkpointed
            next(sample(make_denoise(network, text, control), schedule, begin, settings, boxes))
            network.checkpoint_activations = False

        return call

    calls = {
        **{method: one(method) for method in ("plain", "mask", "mask-norm", "mask-norm+id", "full[tweedie]")},
        "full[text-half], checkpointed": one("full[text-half]", checkpointed=True),
        "full, checkpointed": one("full", checkpointed=True),
        "full, checkpointed, masks over": one("full", checkpointed=True, masks_over=True),
        "decoding": lambda: vae.decode(first.z),
    }
    measure(calls, "plain", args, "DDIM step")


@torch.no_grad()
def compiled(args: argparse.Namespace) -> None:
    size, dtype = SIZES[args.size], DTYPES[args.dtype]
    network, z = make_unet(size, args.device, dtype), make_latents(size, args.device)
    text, wait = make_text(size, args.device, dtype), waiter(args.device)
    calls: dict[str, Call] = {"as it is": lambda: network(z, T, text)}
    ways = {f"compiled ({args.backend})": None}
    if args.device.startswith("cuda") and args.backend == "inductor":
        ways["compiled, CUDA graphs"] = "reduce-overhead"
    facts = {}
    for name, mode in ways.items():
        forward = torch.compile(network, fullgraph=True, backend=args.backend, mode=mode)  # fails at a graph break
        began = time.perf_counter()
        forward(z, T, text)
        wait()
        facts[f"seconds until {name}"] = time.perf_counter() - began
        calls[name] = lambda forward=forward: forward(z, T, text)
    print(", ".join(f"{name}: {seconds:.0f}" for name, seconds in facts.items()))
    measure(calls, "as it is", args, "compile", facts, uncounted=ways)


@torch.no_grad()
def batch(args: argparse.Namespace) -> None:
    size, dtype = SIZES[args.size], DTYPES[args.dtype]
    network, z = make_unet(size, args.device, dtype), make_latents(size, args.device)
    text = make_text(size, args.device, dtype)

    def videos(count: int) -> Call:
        zs, texts = z.repeat(count, 1, 1, 1, 1), text.repeat_interleave(count, dim=0)
        return lambda: network(zs, T, texts)

    calls: dict[str, Call] = {}
    count, ended = 1, f"--most {args.most}"
    while count <= args.most:
        try:
            videos(count)()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            ended = "memory ran out"
            break
        calls[f"{count} at once"] = videos(count)
        count *= 2
    measure(calls, "1 at once", args, "videos at once", {"largest": count // 2, "ended by": ended})


@torch.no_grad()
def growth(args: argparse.Namespace) -> None:
    size, dtype = SIZES[args.size], DTYPES[args.dtype]
    network, text = make_unet(size, args.device, dtype), make_text(size, args.device, dtype)

    def forward(frames: int, width: int) -> Call:
        z = make_latents(replace(size, frames=frames, width=width), args.device)
        return lambda: network(z, T, text)

    calls = {f"{F} frames of {size.height}x{w}": forward(F, w) for w in (size.width, 2 * size.width) for F in FRAMES}
    measure(calls, next(iter(calls)), args, "U-Net forward against frames")


@torch.no_grad()
def decode(args: argparse.Namespace) -> None:
    size = SIZES[args.size]
    network, z = make_vae(size, args.device, DTYPES[args.dtype]), make_latents(size, args.device)

    def by(frames: int) -> Call:
        return lambda: network.decode(z, frames_per_chunk=frames)

    calls = {f"{frames} frame{'s' * (frames > 1)} at a time": by(frames) for frames in (4, 1, 2, size.frames)}
    measure(calls, "4 frames at a time", args, "VAE decode")


@contextmanager
def forward_seconds(module: nn.Module, wait: Call) -> Iterator[list[float]]:
    """A list that grows by the seconds of every forward call of the module."""
    seconds: list[float] = []
    began: list[float] = []

    def before(*_) -> None:
        wait()
        began.append(time.perf_counter())

    def after(*_) -> None:
        wait()
        seconds.append(time.perf_counter() - began.pop())

    handles = module.register_forward_pre_hook(before), module.register_forward_hook(after)
    try:
        yield seconds
    finally:
        for handle in handles:
            handle.remove()


def run(args: argparse.Namespace) -> None:
    if args.size != "tiny":
        raise SystemExit(f"run measures the tiny checkpoint, not --size {args.size}")
    wait, dtype = waiter(args.device), DTYPES[args.dtype]
    trajectory = Trajectory.load(ROOT / "examples" / "red_ball.json", 8)
    pipeline = load_pipeline("tiny", args.device, dtype)
    settings = {method: recommended(pipeline, method) for method in METHODS}
    counted = {method: work(lambda s=s: generate(pipeline, None, trajectory, s)) for method, s in settings.items()}
    seconds: dict[str, list[float]] = defaultdict(list)
    for _ in range(args.repeats):
        began = time.perf_counter()
        pipeline = load_pipeline("tiny", args.device, dtype)
        seconds["load"].append(time.perf_counter() - began)
        for method in METHODS:
            with forward_seconds(pipeline.unet, wait) as calls:
                phases = generate(pipeline, None, trajectory, settings[method]).seconds
            seconds[method].append(sum(phases.values()))
            seconds[f"  text of {method}"].append(phases["text"])
            seconds[f"  {len(calls)} U-Net calls of {method}"].append(sum(calls))
            seconds[f"  the rest of sampling of {method}"].append(phases["sampling"] - sum(calls))
            seconds[f"  decoding of {method}"].append(phases["decoding"])
    sticks = yardsticks(args.device, dtype)
    rates = Rates.measured(sticks, interleave({name: call for name, (call, _) in sticks.items()}, args.repeats, wait))
    rows = [row(name, values, seconds["plain"], counted.get(name), rates) for name, values in seconds.items()]
    report(rows, "plain", args, "whole run", rates, {"prompt": trajectory.prompt})


PARTS = {
    "unet": unet,
    "refine": refine,
    "step": step,
    "compile": compiled,
    "batch": batch,
    "growth": growth,
    "decode": decode,
    "run": run,
}


def main() -> None:
    parser = arguments(__doc__, SIZES)
    parser.add_argument("part", choices=PARTS, metavar="PART")
    parser.add_argument("--backend", default="inductor", help="of `compile`; eager shows that there is no graph break")
    parser.add_argument("--most", type=int, default=64, help="videos of `batch`")
    args = parser.parse_args()
    prepare(args)
    PARTS[args.part](args)


if __name__ == "__main__":
    main()
