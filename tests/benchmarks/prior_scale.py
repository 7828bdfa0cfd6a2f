"""How strong the temporal prior is in latents of several sizes: `python tests/benchmarks/prior_scale.py`.

Prints the rms of Eq. 2's three terms for one c_g that `scale_c_g` brings to each size, as a Markdown table. One box
that covers a fifth of each frame and crosses it; no masks and no guidance.

--model is what predicts the noise:
    none     no network: of z = sqrt(alpha_bar) z0 + sqrt(1 - alpha_bar) n, z0 and n standard normal, n is known
    tiny     the embedded checkpoint with its weights, on noise
    quarter  a quarter of Zeroscope's widths with random weights, on noise
    full     Zeroscope's with random weights, on noise

"counted" is the rms of the prior's term by the derivation in `scale_c_g`, from rho and sigma of the clean estimate's
crops. It leaves out that the first and the last frame are in one pair, that a crop lies between the latents' cells,
and the derivative of the network, so that it is there for "tweedie" alone, which has none.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))

from sizes import SIZES, TINY, Size, make_boxes, make_latents, make_text, make_unet

from adaptation.intrinsic_denoising import scale_c_g, step_sizes
from adaptation.temporal_prior import Crops, common_grid, consecutive_correlations, crop, prepare_crops
from model.unet import UNet3D
from sampling.sampler import Denoise, gradients
from sampling.settings import CHOICES, SamplingSettings
from weights.load import load_pipeline

COLUMNS = ("latents", "t", "c_g in Eq. 2", "rho", "prior", "counted", "score", "noise", "prior / noise")


class OneHalf:
    """denoise of a U-Net without guidance: the text's half stands for both, so that it is called once."""

    def __init__(self, unet: UNet3D, text: Tensor) -> None:
        self.unet, self.text = unet, text

    @torch.no_grad()
    def __call__(self, z: Tensor, t: int, frozen: bool) -> tuple[Tensor, Tensor]:
        return (self.unet(z, t, self.text),) * 2

    @torch.enable_grad()
    def differentiable(self, z: Tensor, t: int, frozen: bool, through: str) -> tuple[Tensor, Tensor]:
        return (self.unet(z, t, self.text),) * 2


def make_network(model: str, size: Size) -> OneHalf:
    if model == "tiny":
        trained = load_pipeline(str(TINY))
        unet, text = trained.unet, trained.text_encoder.encode(["a red ball moving over the grass"])
    else:
        unet, text = make_unet(size, "cpu", torch.float32), make_text(size, "cpu", torch.float32)[1:]
    unet.checkpoint_activations = True
    return OneHalf(unet, text)


def known_noise(size: Size, alpha_bar: Tensor) -> tuple[Tensor, Denoise]:
    """Noised latents, and the prediction that is right."""
    noise = make_latents(size, "cpu")
    return alpha_bar.sqrt() * torch.randn_like(noise) + (1 - alpha_bar).sqrt() * noise, lambda z, t, frozen: (
        noise,
        noise,
    )


def counted(z0: Tensor, crops: Crops, boxes: Tensor, alpha_bar: Tensor) -> float:
    """rms of grad tau over the whole latents by the derivation: zero but in the crops, which are n_c of n values."""
    n = z0[0, :, 0].numel()
    parts = crop(z0, boxes, common_grid(boxes, *z0.shape[-2:]))[0].transpose(0, 1).flatten(1)  # (F, n_c)
    n_c, pairs = parts.shape[1], z0.shape[2] - 1
    rho, sigma = consecutive_correlations(z0, crops).mean(), parts.std(dim=1).mean()
    return float((2 * (1 - rho**2)).sqrt() / (sigma * n_c * pairs) * (n_c / n) ** 0.5 / alpha_bar.sqrt())


@torch.no_grad()
def row(network: OneHalf | None, size: Size, t: int, settings: SamplingSettings, alpha_bar: Tensor) -> str:
    if network is None:
        z, denoise = known_noise(size, alpha_bar)
    else:
        z, denoise = make_latents(size, "cpu"), network
    boxes, shape = make_boxes(size).boxes, z.shape[1:]
    (crops,) = prepare_crops(boxes, z)
    G_g, G_p, z0 = gradients(denoise, z, t, False, alpha_bar, settings, [crops])
    (eta_l, eta_k), c_g = step_sizes(settings.gamma, alpha_bar), scale_c_g(settings.c_g, shape)
    prior, score = (float(eta_l * term.square().mean().sqrt()) for term in (c_g * G_g, G_p))
    by_hand = ""
    if settings.prior_gradient == "tweedie":
        by_hand = f"{float(eta_l) * c_g * counted(z0, crops, boxes[0], alpha_bar):.2g}"
    rho, noise = float(consecutive_correlations(z0, crops).mean()), float(eta_k)  # eps has an rms of 1
    numbers = (f"{c_g:.4g}", f"{rho:.2f}", f"{prior:.2g}", by_hand, f"{score:.2g}", f"{noise:.2g}")
    return " | ".join((" x ".join(map(str, shape)), str(t), *numbers, f"{prior / noise:.2g}"))


def parse_size(text: str) -> tuple[int, ...]:
    size = tuple(map(int, text.split("x")))
    if len(size) != 3 or min(size) < 1:
        raise ValueError
    return size


parse_size.__name__ = "size such as 8x12x16"  # in argparse's sentence


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("none", *SIZES), default="none")
    parser.add_argument(
        "--latents",
        type=parse_size,
        nargs="+",
        metavar="FxHxW",
        help="sizes of the latents, 8x12x16; by default the model's own, and with none those of tiny, quarter and full",
    )
    parser.add_argument("--prior-gradient", choices=CHOICES["prior_gradient"], default="tweedie")
    parser.add_argument("--t", type=int, nargs="+", default=[801, 401, 1], help="timesteps, from 0 to 999")
    parser.add_argument("--c-g", type=float, default=SamplingSettings().c_g)
    args = parser.parse_args()

    model, own = SIZES["tiny" if args.model == "none" else args.model], args.latents
    if own is None:
        sizes = SIZES.values() if args.model == "none" else [model]
        own = [(size.frames, size.height, size.width) for size in sizes]
    settings = SamplingSettings(prior_gradient=args.prior_gradient, c_g=args.c_g)
    network = None if args.model == "none" else make_network(args.model, model)
    alpha_bar = load_pipeline(str(TINY)).schedule.alpha_bar

    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for t in args.t:
        for frames, height, width in own:
            size = replace(model, frames=frames, height=height, width=width)
            print(f"| {row(network, size, t, settings, alpha_bar[t].float())} |", flush=True)
    print(f"\n`{' '.join(['python tests/benchmarks/prior_scale.py', *sys.argv[1:]])}`")


if __name__ == "__main__":
    main()
