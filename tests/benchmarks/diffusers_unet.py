"""Our U-Net's forward pass to that of diffusers' UNet3DConditionModel: same weights, inputs, threads and run.

diffusers is no dependency; it gets an environment of its own:

    python -m venv outputs/diffusers
    outputs/diffusers/bin/pip install -c constraints.txt -e . diffusers==0.42.1
    outputs/diffusers/bin/python tests/benchmarks/diffusers_unet.py --size quarter --threads 1

diffusers is given both guidance halves as a batch of two videos, as its pipeline does; ours takes the video once. Where
the two outputs differ by more than rounding there is no table.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from measuring import DTYPES, arguments, measure, prepare
from sizes import SIZES, make_latents, make_text, make_unet

T = 500
ROUNDING = {"float32": 2e-5, "float16": 2e-2, "bfloat16": 1e-1}  # relative L2 between the two outputs


@torch.no_grad()
def compare(args: argparse.Namespace) -> None:
    """Raises ValueError where the outputs differ."""
    import diffusers

    size, dtype = SIZES[args.size], DTYPES[args.dtype]
    ours, z = make_unet(size, args.device, dtype), make_latents(size, args.device)
    text = make_text(size, args.device, dtype)
    with torch.device("meta"):
        theirs = diffusers.UNet3DConditionModel(**asdict(size.unet))
    theirs.load_state_dict(ours.state_dict(), assign=True)  # the very same tensors
    theirs.eval().requires_grad_(False)
    both = z.to(dtype).repeat(2, 1, 1, 1, 1)

    calls = {
        "diffusers": lambda: theirs(both, T, text).sample,
        "ours": lambda: ours(z, T, text),
    }
    a, b = (call().double() for call in calls.values())
    difference = float((a - b).norm() / a.norm())
    if not difference <= ROUNDING[args.dtype]:
        raise ValueError(f"the two outputs differ by {difference:.2g} in relative L2, which is more than rounding")
    print(f"diffusers {diffusers.__version__}, outputs equal to {difference:.1e} (relative L2)")
    facts = {"diffusers": diffusers.__version__, "relative_l2": difference}
    measure(calls, "diffusers", args, "U-Net to diffusers", facts)


def main() -> None:
    args = arguments(__doc__, SIZES).parse_args()
    prepare(args)
    compare(args)


if __name__ == "__main__":
    main()
