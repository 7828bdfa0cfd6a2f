"""How much memory the parts need, computed: `python tests/benchmarks/memory.py PART --size full --dtype float16`.

PART is one of
    account  a forward pass, and a refinement's gradient with and without checkpointing, both guidance halves at once
             or one after the other, and decoding
    growth   plain sampling and the full method with checkpointing against the number of frames, at two sizes
    check    the account beside the memory that a process, or torch on a GPU, is measured to take for the same

The program's own code is run on tensors that have a shape and no memory (torch's FakeTensorMode), and every storage
is counted from its birth to its death. What an operation needs for itself alone, the allocator's gaps and the CUDA
context come on top.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

sys.path.insert(0, str(Path(__file__).parents[2]))

from measuring import DTYPES
from sizes import SIZES, Size, make_control, make_latents, make_text, make_unet

from adaptation.attention_masks import AttentionControl
from model.unet import UNet3D
from model.vae import AutoencoderKL
from sampling.denoise import make_denoise
from sampling.guidance import classifier_free
from storage import write_bytes

T = 500  # a timestep; any needs the same
GROWTH = ((40, 72), (72, 128))  # cells: 576 x 320 and 1024 x 576 pixels


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all storages that are alive: `now`, and at most so far, `peak`."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.now = self.peak = 0

    def count(self, tensor: Tensor) -> None:
        """From here until nothing holds its storage any more; views of one storage are counted once."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.sizes:
            return
        self.sizes[key] = storage.nbytes()
        self.now += self.sizes[key]
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.now -= self.sizes.pop(key)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self.count(tensor)
        return out


@dataclass(frozen=True)
class Case:
    """One way to use the U-Net: a guided prediction, or a refinement's gradient through it."""

    name: str
    prior_gradient: str | None = None  # None: no gradient
    masked: bool = False  # masks and Mask Normalization
    checkpointed: bool = False
    sequential: bool = False

    def call(self, network: UNet3D, z: Tensor, text: Tensor, control: AttentionControl | None) -> None:
        """Run it; the prior's own few kilobytes are replaced by a sum of squares."""
        network.checkpoint_activations = self.checkpointed
        denoise = make_denoise(network, text, control, sequential=self.sequential)
        if self.prior_gradient is None:
            denoise(z, T, self.masked)
            return
        z = z.detach().requires_grad_()
        eps_uncond, eps_text = denoise.differentiable(z, T, self.masked, self.prior_gradient)
        with torch.enable_grad():
            eps = eps_text if self.prior_gradient == "text-half" else classifier_free(eps_uncond, eps_text, 9.0)
            torch.autograd.grad(eps.float().square().sum(), z)


PLAIN = Case("plain")
FULL = Case("full", "unet", masked=True)
CONDITIONAL = replace(FULL, name="full, conditional", prior_gradient="text-half")
CASES = [
    PLAIN,
    replace(PLAIN, name="plain, sequential", sequential=True),
    Case("masked and normalized", masked=True),
    *(
        replace(case, name=case.name + checkpointed * ", checkpointed" + sequential * ", sequential", **how)
        for checkpointed in (False, True)
        for case, sequential in ((FULL, False), (FULL, True), (CONDITIONAL, False))
        for how in [{"checkpointed": checkpointed, "sequential": sequential}]
    ),
]


CHECKPOINTED = next(case for case in CASES if case.name == "full, checkpointed")


def shapes_only(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A network on meta whose tensors become those of the fake mode that is on."""
    tensors = {name: torch.empty(x.shape, dtype=dtype, device="cpu") for name, x in network.state_dict().items()}
    network.load_state_dict(tensors, assign=True)
    return network.eval().requires_grad_(False)


def prepared_control(size: Size) -> AttentionControl:
    """The masks of every grid, made beforehand: which cells see each other cannot be told from shapes."""
    control = make_control(size, "cpu", normalize=True)
    h, w = size.height, size.width
    for _ in size.unet.block_out_channels:
        _ = control.mask("self", h, w).places, control.mask("cross", h, w).dense()
        h, w = (h + 1) // 2, (w + 1) // 2
    return control


def account(size: Size, case: Case, dtype: torch.dtype) -> tuple[int, int]:
    """Bytes of the U-Net's weights, and the most that is alive beside them."""
    control = prepared_control(size) if case.masked else None
    with torch.device("meta"):
        network = UNet3D(size.unet)
    with FakeTensorMode(allow_non_fake_inputs=True):
        shapes_only(network, dtype)
        z, text = make_latents(size, "cpu"), make_text(size, "cpu", dtype)
        return live_peak(network, lambda: case.call(network, z, text, control))


def account_decoding(size: Size, dtype: torch.dtype, frames_per_chunk: int = 4) -> tuple[int, int]:
    """The same of the VAE and of decoding."""
    with torch.device("meta"):
        network = AutoencoderKL(size.vae)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        shapes_only(network, dtype)
        z = make_latents(size, "cpu")
        return live_peak(network, lambda: network.decode(z, frames_per_chunk))


def live_peak(network: nn.Module, call: Callable[[], object]) -> tuple[int, int]:
    with LiveBytes() as live:
        for p in network.parameters():
            live.count(p)
        weights = live.now
        call()
    return weights, live.peak - weights


# ---- Tables --------------------------------------------------------------------------------------------------------


def row(size: Size, name: str, weights: int, beside: int) -> dict[str, object]:
    """One line; its last number, in tensors of the U-Net's finest level, is what weights/memory.py estimates with."""
    place = {"frames": size.frames, "height": size.height, "width": size.width}
    finest = 2 * size.frames * size.height * size.width * size.unet.block_out_channels[0] * 2  # 2 halves, 2 bytes
    tensors = beside / finest
    at = f"{size.frames:3} x {size.height:3} x {size.width:3}"
    print(f"{at}  {name:40} {weights / 1e9:8.3f} {beside / 1e9:8.3f} {tensors:8.1f}", flush=True)
    return {"name": name, **place, "weights": weights, "beside": beside, "tensors": tensors}


def print_account(size: Size, args: argparse.Namespace) -> list[dict[str, object]]:
    dtype = DTYPES[args.dtype]
    rows = [row(size, case.name, *account(size, case, dtype)) for case in CASES]
    return [*rows, row(size, "decoding, 4 frames at a time", *account_decoding(size, dtype))]


def print_growth(size: Size, args: argparse.Namespace) -> list[dict[str, object]]:
    dtype = DTYPES[args.dtype]
    sizes = [replace(size, frames=F, height=h, width=w) for h, w in GROWTH for F in args.frames]
    return [row(s, case.name, *account(s, case, dtype)) for case in (PLAIN, CHECKPOINTED) for s in sizes]


def print_check(size: Size, args: argparse.Namespace) -> list[dict[str, object]]:
    """Each case beside its measurement, which a process of its own makes: a process keeps its peak for ever."""
    rows = []
    for case in (PLAIN, FULL, CHECKPOINTED):
        rows.append(row(size, case.name, *account(size, case, DTYPES[args.dtype])))
        command = [sys.executable, __file__, "measure", "--case", case.name, "--size", args.size]
        command += ["--device", args.device, "--dtype", args.dtype]
        # By this glibc gives freed memory back at once, so that a CPU's process is not larger than what it holds.
        environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        rows[-1]["measured"] = int(done.stdout)
        print(f"{'':58} measured {rows[-1]['measured'] / 1e9:8.3f}")
    return rows


def measure(size: Size, args: argparse.Namespace) -> None:
    """Print the bytes that one case takes beside the weights; on a CPU: by which the process grows."""
    case = next(case for case in CASES if case.name == args.case)
    dtype, cuda = DTYPES[args.dtype], args.device.startswith("cuda")
    network, z = make_unet(size, args.device, dtype), make_latents(size, args.device)
    text, control = make_text(size, args.device, dtype), make_control(size, args.device, normalize=True)
    PLAIN.call(network, z[..., :1, :8, :8], text, None)  # the libraries' own memory is taken at the first call
    before = torch.cuda.memory_allocated() if cuda else resident()
    case.call(network, z, text, control if case.masked else None)
    print((torch.cuda.max_memory_allocated() if cuda else resident(peak=True)) - before)


def resident(peak: bool = False) -> int:
    """Bytes of physical memory that this process holds now, or has held at most."""
    if peak:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # in KiB on Linux
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


PARTS = {"account": print_account, "growth": print_growth, "check": print_check}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=[*PARTS, "measure"], metavar="PART")
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--device", default="cpu", help="of `check`'s measurement")
    parser.add_argument("--dtype", choices=("float16", "bfloat16"), default="float16")
    parser.add_argument("--frames", type=int, nargs="+", default=[8, 16, 24, 32, 48], help="of `growth`")
    parser.add_argument("--case", choices=[case.name for case in CASES], default="plain", help="of `measure`")
    parser.add_argument("--json", type=Path, help="default: outputs/benchmarks/memory-<part>-<size>-<dtype>.json")
    args = parser.parse_args()
    size = SIZES[args.size]
    if args.part == "measure":
        measure(size, args)
        return
    print(
        f"{args.part}, {args.size}, {args.dtype}: GB of weights, at most beside them, the latter in tensors (computed)"
    )
    rows = PARTS[args.part](size, args)
    path = args.json or Path("outputs") / "benchmarks" / f"memory-{args.part}-{args.size}-{args.dtype}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"part": args.part, "size": args.size, "dtype": args.dtype, "torch": torch.__version__}
    write_bytes(path, (json.dumps({**about, "rows": rows}, indent=2) + "\n").encode())
    print(path)


if __name__ == "__main__":
    main()
