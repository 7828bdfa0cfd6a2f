"""What float16 and bfloat16 change, against float32: `python tests/benchmarks/precision.py PART --size tiny`.

PART is one of
    layers    the largest magnitudes of a forward pass and of decoding, in float32, beside float16's largest, 65,504
    gradient  the direction of the prior's gradient: its cosine to float32's, and its length, by noise level
    ties      Mask Normalization: how many values of a masked output are equal, and how far the result is from float32's
    run       final latents of whole runs, and those of float32 runs whose noise was changed a little, as a yardstick

Sizes: tiny is the embedded checkpoint with its weights; quarter has random weights, which say little of the magnitudes
of trained ones.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[2]))

from sizes import SIZES, TINY, make_boxes, make_control, make_latents, make_text, make_unet, make_vae

from adaptation.attention_masks import AttentionControl
from adaptation.mask_normalization import axis_dims, match_distribution
from model.attention import GEGLU, Attention
from model.unet import UNet3D
from model.vae import AutoencoderKL
from sampling.denoise import make_denoise
from sampling.sampler import gradients, initial_state, sample
from sampling.settings import SamplingSettings, preset
from weights.load import load_pipeline

HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
LARGEST = torch.finfo(torch.float16).max
LEVELS = (801, 401, 1)  # timesteps
NUDGES = (2.0**-11, 1e-5)  # relative changes of the start: float16's rounding, and one that only float32 sees
STEPS = 10


class Subject:
    """Networks of a size with what they are given, in any dtype."""

    def __init__(self, size: str) -> None:
        self.size, trained = SIZES[size], load_pipeline(str(TINY))
        self.schedule = trained.schedule
        if size == "tiny":
            self.unet, self.vae = trained.unet, trained.vae
            self.text = trained.text_encoder.encode(["", "a red ball moving over the grass"])
        else:
            self.unet, self.vae = (make(self.size, "cpu", torch.float32) for make in (make_unet, make_vae))
            self.text = make_text(self.size, "cpu", torch.float32)
        self.boxes = make_boxes(self.size)
        self.z = make_latents(self.size, "cpu")
        self.control = make_control(self.size, "cpu", normalize=True)

    def network(self, dtype: torch.dtype) -> UNet3D:
        return copy.deepcopy(self.unet).to(dtype)


def cosine(a: Tensor, b: Tensor) -> float:
    a, b = a.double().flatten(), b.double().flatten()
    return float(a @ b / (a.norm() * b.norm()))


def distance(a: Tensor, b: Tensor) -> float:
    """Relative L2 distance from b."""
    a, b = a.detach().double(), b.detach().double()
    return float((a - b).norm() / b.norm())


# ---- Parts -----------------------------------------------------------------------------------------------------------


def magnitudes(network: nn.Module, call: Callable[[], object]) -> dict[str, tuple[float, str]]:
    """The largest output of each kind of layer during a call, and the layer: {kind: (magnitude, name)}."""
    largest: dict[str, tuple[float, str]] = defaultdict(lambda: (0.0, ""))

    def note(kind: str, name: str, x: Tensor) -> None:
        largest[kind] = max(largest[kind], (float(x.detach().abs().max()), name))

    def hook(name: str) -> Callable[..., None]:
        def after(module: nn.Module, given: tuple, out: Tensor) -> None:
            note(type(module).__name__, name, out)
            if isinstance(module, nn.GroupNorm):  # what a variance adds up, if it were added in float16
                x = given[0].flatten(2).unflatten(1, (module.num_groups, -1)).flatten(2)
                note("sum of squares in a GroupNorm", name, x.square().sum(-1))

        return after

    def logits(name: str) -> Callable[..., None]:
        def before(module: Attention, given: tuple, more: dict) -> None:
            x, context = given[0], (given[1] if len(given) > 1 else None)
            q, k = (
                y.unflatten(-1, (module.heads, -1))
                for y in (module.to_q(x), module.to_k(x if context is None else context))
            )
            bound = q.norm(dim=-1).max() * k.norm(dim=-1).max()  # no logit is larger
            note("attention logits, at most", name, bound * q.shape[-1] ** -0.5)

        return before

    handles = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d | nn.Linear | nn.GroupNorm | nn.LayerNorm | GEGLU):
            handles.append(module.register_forward_hook(hook(name)))
        if isinstance(module, Attention):
            handles.append(module.register_forward_pre_hook(logits(name), with_kwargs=True))
    try:
        call()
    finally:
        for handle in handles:
            handle.remove()
    return dict(largest)


@torch.no_grad()
def layers(subject: Subject) -> None:
    """Print the largest of each kind in the U-Net, over the noise levels, and in the decoder."""
    found: dict[str, dict[str, tuple[float, str]]] = {"U-Net": {}, "decoder": {}}
    for t in LEVELS:
        seen = magnitudes(subject.unet, lambda t=t: subject.unet(subject.z, t, subject.text, subject.control))
        found["U-Net"] = {kind: max(seen[kind], found["U-Net"].get(kind, (0.0, ""))) for kind in seen}
    vae: AutoencoderKL = subject.vae
    found["decoder"] = magnitudes(vae, lambda: vae.decode(0.18 * subject.z))
    for network, kinds in found.items():
        for kind, (value, name) in sorted(kinds.items(), key=lambda item: -item[1][0]):
            print(f"| {network} | {kind} | {value:.3g} | {value / LARGEST:.1%} | {name} |")


def gradient(subject: Subject) -> None:
    """Print the gradient's cosine and length to float32's for each dtype, noise level and kind of gradient."""
    networks = {name: subject.network(dtype) for name, dtype in {"float32": torch.float32, **HALVES}.items()}
    for through in ("unet", "text-half", "tweedie"):
        for t in LEVELS:
            settings, alpha_bar = SamplingSettings(prior_gradient=through), subject.schedule.alpha_bar[t].float()
            found = {}
            for name, network in networks.items():
                denoise = make_denoise(network, subject.text, subject.control)
                with torch.no_grad():
                    found[name] = gradients(denoise, subject.z, t, True, alpha_bar, settings, subject.boxes.boxes)[0]
            exact = found["float32"]
            told = [
                f"{cosine(found[name], exact):.4f} | {float(found[name].norm() / exact.norm()):.3f}" for name in HALVES
            ]
            print(f"| {through} | {t} | {' | '.join(told)} |", flush=True)


@torch.no_grad()
def ties(subject: Subject) -> None:
    """Print, for the decoder's first masked self-attention, ties and the distance of the matched output."""
    captured: dict[str, Tensor] = {}
    attention = next(
        m for name, m in subject.unet.named_modules() if name.startswith("up_blocks") and isinstance(m, Attention)
    )

    def before(module: Attention, given: tuple, more: dict) -> None:
        normalize = more["normalize"]
        captured.clear()

        def keep(a_m: Tensor, a_u: Tensor) -> Tensor:
            captured.update(a_m=a_m, a_u=a_u)
            return normalize(a_m, a_u)

        return given, {**more, "normalize": keep}

    handle = attention.register_forward_pre_hook(before, with_kwargs=True)
    subject.unet(subject.z, LEVELS[0], subject.text, subject.control)
    handle.remove()
    for axis in ("channel", "joint"):
        dims = axis_dims(axis)
        exact = match_distribution(captured["a_m"], captured["a_u"], dims)
        for name, dtype in HALVES.items():
            a_m, a_u = (captured[key].to(dtype) for key in ("a_m", "a_u"))
            matched = match_distribution(a_m, a_u, dims)
            rows = (x.movedim(dims, tuple(range(-len(dims), 0))).flatten(-len(dims)).flatten(0, -2) for x in (a_m, a_u))
            shares = [sum(1 - len(row.unique()) / len(row) for row in x) / len(x) for x in rows]
            told = " | ".join(f"{share:.1%}" for share in shares)
            print(
                f"| {axis} | {name} | {told} | {distance(matched, exact):.1e} | {distance(a_u, captured['a_u']):.1e} |"
            )


def run(subject: Subject) -> None:
    """Print final latents' distances to float32's, without the prior and with it."""
    network = {name: subject.network(dtype) for name, dtype in {"float32": torch.float32, **HALVES}.items()}
    for method, c_g in (("mask-norm", 0.0), ("full", 1_480.0), ("full", 10_000.0), ("full", 500_000.0)):
        settings = replace(preset(method), steps=STEPS, frozen_steps=4, refine_steps=4, c_g=c_g)
        exact = final(subject, network["float32"], settings)
        told = [distance(final(subject, network[name], settings), exact) for name in HALVES]
        told += [distance(final(subject, network["float32"], settings, nudge), exact) for nudge in NUDGES]
        print(f"| {method}, c_g = {c_g:g} | {' | '.join(f'{value:.1e}' for value in told)} |", flush=True)


def final(subject: Subject, network: UNet3D, settings: SamplingSettings, nudge: float = 0.0) -> Tensor:
    state = initial_state((0,), subject.z.shape[1:])
    torch.manual_seed(3)
    state = replace(state, z=state.z * (1 + nudge * torch.randn_like(state.z)))
    control: AttentionControl = subject.control
    denoise = make_denoise(network, subject.text, control)
    for done in sample(denoise, subject.schedule, state, settings, subject.boxes.boxes):
        state = done
    return state.z


PARTS = {"layers": layers, "gradient": gradient, "ties": ties, "run": run}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS, metavar="PART")
    parser.add_argument("--size", choices=("tiny", "quarter"), default="tiny")
    args = parser.parse_args()
    PARTS[args.part](Subject(args.size))


if __name__ == "__main__":
    main()
