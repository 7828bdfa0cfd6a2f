"""Options of `python -m evaluation`, in groups: each function adds one to a command, see `__main__.build_parser`."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from collections.abc import Callable
from pathlib import Path

from evaluation.benchmarks.items import FORMS, WORDS
from evaluation.benchmarks.peekaboo import AXIS_ORDERS, GAPS
from evaluation.benchmarks.tracks import SPLITS
from evaluation.extractors.owl_clip import CLIP, OWL
from evaluation.extractors.vjepa import VJEPA2
from evaluation.tables.results import Rules
from sampling.methods import METHODS

BENCH_FRAMES = 24  # where no checkpoint says how many: Zeroscope's


def random_items(add: Callable) -> None:
    """Which items are drawn, where no file lists them."""
    form(add)
    add("--words", choices=WORDS, default=WORDS[0], help="prompts of the tiny world, or of the real one")
    add("--tracks", type=count, default=16, metavar="N", help="random items in each split (16)")
    add("--split", nargs="+", choices=SPLITS, default=SPLITS)
    add("--frames", type=count, metavar="N", help=f"of an item (the checkpoint's; for bench {BENCH_FRAMES})")
    add("--seed", type=int, default=0, metavar="N", help="of the list: boxes and noise of each item come from it")


def form(add: Callable) -> None:
    """Which kind of random boxes."""
    told = "random boxes: Jain et al.'s (%(default)s), TrailBlazer's between keyframes, one smooth way, two subjects'"
    add("--form", choices=FORMS, default=FORMS[0], help=told)


def list_file(add: Callable) -> None:
    """Where a list of items goes, and which file of Peekaboo's it is read from."""
    add("--to", type=Path, required=True, metavar="FILE")
    add("--peekaboo", type=Path, metavar="FILE", help="your copy of davis_, imc_, lasot_ or ssv2_inputs.json")
    add("--axis-order", choices=AXIS_ORDERS, default=AXIS_ORDERS[0], help="as-released repeats the peers' reading")
    add("--gaps", choices=GAPS, default=GAPS[0], help="frames without a box in Peekaboo's files")


def folder(add: Callable) -> None:
    """Where videos, features, results and tables lie."""
    add("--out", type=Path, default=Path("runs/evaluation"), metavar="DIR", help="where everything lies (%(default)s)")


def methods(add: Callable) -> None:
    """Which rows."""
    add("--methods", nargs="+", metavar="NAME", help=f"of {', '.join(METHODS)} (those of the paper's tables)")


def machine(add: Callable) -> None:
    """What computes."""
    add("--device", default="cpu", help="cuda: under torchrun, each worker has its own")
    add("--threads", type=count, default=1, metavar="N", help="of each worker (1); several may round pixels otherwise")


def sharing(add: Callable) -> None:
    """How the work is split among workers."""
    add("--shard", type=shard, metavar="I/N", help="this worker's share; under torchrun it is known")


def making(add: Callable) -> None:
    """What videos are made of: items, checkpoint, number type."""
    add("--bench", type=Path, metavar="FILE", help="the items, as `bench` writes them, in place of random ones")
    add("--model", default="tiny", help="tiny, zeroscope, a name on the Hugging Face hub, or a folder")
    add("--dtype", choices=("float16", "bfloat16", "float32"), default="float32")
    add("--negative-prompt", default="", metavar="TEXT", help="for every item")


def memory(add: Callable) -> None:
    """What saves a GPU's memory; none of it is part of a row, since videos stay the same up to rounding."""
    add("--checkpoint-activations", action="store_true", help="less memory for the prior's gradient, more time")
    add("--sequential-guidance", action="store_true", help="one guidance half after the other: half the activations")
    add("--offload", action="store_true", help="text encoder and autoencoder off the GPU while the U-Net works")
    add("--frames-per-chunk", default=4, type=count, metavar="N", help="frames decoded at a time (4)")


def missing(add: Callable) -> None:
    """What becomes of videos that are not there."""
    add("--allow-missing", action="store_true", help="a video that is not there counts as not covered, and is listed")


def measuring(add: Callable) -> None:
    """The extractors, and the reference videos."""
    add("--suite", choices=("stand-ins", "published"), default="stand-ins", help="what measures; stand-ins for tiny")
    add("--reference", metavar="WHAT", help="for FID, KID and JEDi: a folder of videos, or world:N of the tiny world")
    add("--owl", default=OWL, metavar="MODEL")
    add("--clip", default=CLIP, metavar="MODEL", help="or off")
    add("--inception", choices=("tf", "clean", "off"), default="tf", help="how frames are resized for it")
    add("--vjepa2", default=VJEPA2, metavar="MODEL", help="or off")


def rules(add: Callable) -> None:
    """What counts as covered, and how scores become numbers: `results.Rules`."""
    default = Rules()
    add("--threshold", type=float, default=default.threshold, metavar="X", help="score of a detection that counts")
    add("--coverage", default=default.coverage, metavar="RULE", help="half, or count:N = in more than N frames")
    add("--iou", choices=("volume", "frame"), default=default.iou)
    add("--raw-clip", action="store_true", help="do not count negative CLIP scores as 0")
    add("--kid-subset", type=count, default=default.kid_subset, metavar="N")


def jedi(add: Callable) -> None:
    """Features that are made elsewhere."""
    add(
        "--jedi-features", type=Path, metavar="DIR", help="your V-JEPA features: DIR/ROW/ID.npy and DIR/reference/*.npy"
    )


def showing(add: Callable) -> None:
    """How much the pictures show."""
    add("--shown", type=count, default=4, metavar="N", help="items in montage.png, and of each row in failures.png (4)")


# ---- Values ----------------------------------------------------------------------------------------------------------


def count(text: str) -> int:
    """A whole number of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return value


def shard(text: str) -> tuple[int, int]:
    """i/n: worker i of n, from 1."""
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    i, n = map(int, match.groups()) if match else (0, 0)
    if not 1 <= i <= n:
        raise ArgumentTypeError(f"must be i/n with i from 1 to n, such as 1/2, got {text!r}")
    return i, n
