"""Options of `python -m evaluation`, in groups: each function adds one to a command, see `__main__.build_parser`."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evaluation.benchmarks.items import FORMS, WORDS
from evaluation.benchmarks.peekaboo import AXIS_ORDERS, GAPS
from evaluation.benchmarks.tracks import SPLITS
from evaluation.extractors.owl_clip import CLIP, OWL
from evaluation.extractors.vjepa import VJEPA2
from evaluation.tables.making import SUITES
from evaluation.tables.results import Rules
from sampling.settings import METHODS

ROWS = ("plain", "peekaboo", "trailblazer", "mask", "mask-norm", "mask-norm+id", "full")  # of Table 1, and plain, mask
BENCH_FRAMES = 24  # where no checkpoint says how many: Zeroscope's
# Random items where the command says nothing.
DRAWN: dict[str, Any] = {"form": FORMS[0], "tracks": 16, "split": SPLITS, "seed": 0}
NETWORKS = {"owl": OWL, "clip": CLIP, "inception": "tf", "vjepa2": VJEPA2}  # of --suite published


def random_items(add: Callable) -> None:
    """Which items are drawn, where no file lists them; None where nothing was said."""
    form(add, default=None)
    add(
        "--words",
        choices=WORDS,
        help="prompts of the tiny world, or of the real one (the checkpoint's; for bench tiny)",
    )
    add("--tracks", type=count, metavar="N", help=f"random items in each split ({DRAWN['tracks']})")
    add("--split", nargs="+", choices=SPLITS, help="boxes that stay, or that move (both)")
    add("--frames", type=count, metavar="N", help=f"of an item (the checkpoint's; for bench {BENCH_FRAMES})")
    add("--seed", type=int, metavar="N", help=f"of the list: boxes, words and noise come from it ({DRAWN['seed']})")


def noise(add: Callable) -> None:
    """A second seed for the same boxes."""
    add("--noise-seed", type=int, metavar="N", help="other noise for the same boxes and words (that of the list)")


def form(add: Callable, default: str | None = FORMS[0]) -> None:
    """Which kind of random boxes."""
    told = f"random boxes: Jain et al.'s ({FORMS[0]}), TrailBlazer's between keyframes, one smooth way, two subjects'"
    add("--form", choices=FORMS, default=default, help=told)


def list_file(add: Callable) -> None:
    """Where a list of items goes, and which file of Peekaboo's it is read from."""
    add("--to", type=Path, required=True, metavar="FILE")
    add("--peekaboo", type=Path, metavar="FILE", help="your copy of davis_, imc_, lasot_ or ssv2_inputs.json")
    add("--axis-order", choices=AXIS_ORDERS, help=f"as-released repeats the peers' reading ({AXIS_ORDERS[0]})")
    add("--gaps", choices=GAPS, help=f"frames without a box in Peekaboo's files ({GAPS[0]})")


def folder(add: Callable) -> None:
    """Where videos, features, results and tables lie."""
    add("--out", type=Path, default=Path("runs/evaluation"), metavar="DIR", help="where everything lies (%(default)s)")


def made_rows(add: Callable) -> None:
    """Which rows are made."""
    add("--methods", nargs="+", metavar="NAME", help=f"rows, of {', '.join(METHODS)} ({' '.join(ROWS)})")


def read_rows(add: Callable) -> None:
    """Which rows of a folder are read."""
    add("--methods", nargs="+", metavar="NAME", help="rows of the folder (all)")


def device(add: Callable) -> None:
    """Where networks compute."""
    add("--device", default="cpu", help="cuda: under torchrun, each worker has its own (%(default)s)")


def threads(add: Callable) -> None:
    """How many cores compute."""
    add("--threads", type=count, default=1, metavar="N", help="of each worker (1); several may round pixels otherwise")


def sharing(add: Callable) -> None:
    """How the work is split among workers."""
    add(
        "--shard", type=shard, metavar="I/N", help="this worker's share (all); under torchrun it is known, leave it out"
    )


def making(add: Callable) -> None:
    """What videos are made of: items, checkpoint, number type."""
    add("--bench", type=Path, metavar="FILE", help="the items, as `bench` writes them (random ones)")
    add("--model", default="tiny", help="tiny, zeroscope, a name on the Hugging Face hub, or a folder (%(default)s)")
    add("--dtype", choices=("float16", "bfloat16", "float32"), default="float32", help="of the networks (%(default)s)")
    add("--negative-prompt", default="", metavar="TEXT", help="for every item (none)")


def memory(add: Callable) -> None:
    """What saves a GPU's memory; none of it is part of a row, since videos stay the same up to rounding."""
    auto = "auto chooses what of the next four fits at the least cost of time (auto on a GPU where none is named)"
    add("--memory", choices=("auto", "none"), help=auto)
    add("--checkpoint-activations", action="store_true", help="less memory for the prior's gradient, more time")
    add("--sequential-guidance", action="store_true", help="one guidance half after the other: less memory, more time")
    add("--offload", action="store_true", help="text encoder and autoencoder off the GPU while the U-Net works")
    add("--frames-per-chunk", default=4, type=count, metavar="N", help="frames decoded at a time (4)")


def missing(add: Callable) -> None:
    """What becomes of videos that are not there."""
    add("--allow-missing", action="store_true", help="a video that is not there counts as not covered, and is listed")


def measured(add: Callable) -> None:
    """What measures, and which videos are compared with."""
    add("--suite", choices=SUITES, default=SUITES[0], help="what measures; stand-ins for tiny (%(default)s)")
    add("--reference", metavar="WHAT", help="for FID, KID and JEDi: a folder of videos, or world:N of tiny's (none)")


def networks(add: Callable) -> None:
    """Which networks measure, and what is taken of the reference videos."""
    add("--reference-stride", type=count, metavar="N", help="every N-th of the reference videos' frames (1)")
    add("--owl", metavar="MODEL", help=f"finds subjects ({OWL})")
    add("--clip", metavar="MODEL", help=f"for CLIP-SIM ({CLIP}), or off")
    add("--inception", choices=("tf", "clean", "off"), help=f"how frames are resized for it ({NETWORKS['inception']})")
    add("--vjepa2", metavar="MODEL", help=f"for jedi_vjepa2 ({VJEPA2}), or off")


def rules(add: Callable) -> None:
    """What counts as covered, and how scores become numbers: `results.Rules`."""
    default = Rules()
    add("--threshold", type=float, default=default.threshold, metavar="X", help="least score of a box (%(default)s)")
    add("--coverage", default=default.coverage, metavar="RULE", help="half, or count:N = in more than N (%(default)s)")
    add("--iou", choices=("volume", "frame"), default=default.iou, help="of a video, or mean of frames (%(default)s)")
    add("--raw-clip", action="store_true", help="do not count negative CLIP scores as 0")
    add("--kid-subset", type=count, default=default.kid_subset, metavar="N", help="frames in a subset (%(default)s)")


def jedi(add: Callable) -> None:
    """Features that are made elsewhere."""
    add(
        "--jedi-features",
        type=Path,
        metavar="DIR",
        help="your V-JEPA features: DIR/ID-HASH.npy, named as videos in files/ are, and DIR/reference/*.npy",
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
