"""What each part contributes, in the layout of the paper's Table 1: `python -m evaluation.ablate --model tiny`.

Every method makes the same videos: random box tracks, held-out prompts, the same noise; subjects are found by colour.
What is under OUT/runs already is not made again, so an interrupted run goes on where it stopped (after a change of the
code, delete that folder). `--sweep c_g=5,20 frozen_steps=4,8` tries each combination over one method. `--base paper`
gives all rows the values of the method `paper` where they else have the checkpoint's. `--oracle` adds two
rows by the world's own renderer, seen by the same detector: each subject in its boxes, the ceiling, and the background
without it; their tau, of the encoded videos, says what the temporal prior prefers. How natural videos are is told by
their distance from scenes of the world (`--real`) in features that were trained on it. Needs scipy.
"""

from __future__ import annotations

import waiting  # noqa: F401  (first, for torch reads its choice once)

import argparse
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from adaptation.temporal_prior import temporal_consistency
from ending import exit_code
from evaluation.asked import read_savings
from evaluation.benchmarks.items import Item, make_items, name_items, with_noise
from evaluation.benchmarks.oracle import bare_video, oracle_video
from evaluation.benchmarks.tracks import SPLITS
from evaluation.extractors.stand_ins import ColourDetector, JudgedNames, JudgedVideo, see
from evaluation.metrics.intervals import mean_interval
from evaluation.options import count, form, memory, noise, shard
from evaluation.tables.making import Suite, check_plans, fit_rows, make_video, measure_video
from evaluation.tables.reference import Reference, encode
from evaluation.tables.results import Rules, reduce_row, shares
from evaluation.tables.store import Row, Store, share, worker, worker_device
from evaluation.tables.table import ADDED, conditional_table, differences_table, footer, show_interval
from sampling.generate import method_settings
from sampling.settings import COUNTS, FLAGS, METHODS, NUMBERS, SUBSETS, SamplingSettings, preset
from storage import write_bytes
from weights.load import Pipeline, load_pipeline
from weights.savings import within_memory

ABLATION_FIGURES = ("coverage", "miou_covered", "miou_all", "tau", "latent_std", "named", "distance")
RENDERED = {"oracle": oracle_video, "bare": bare_video}
Sweep = tuple[str, list[Any]]  # a field of SamplingSettings and its values


def main(argv: list[str] | None = None) -> int:
    """Make the table; see `ending.exit_code`. A slip on the command line is 2 as well."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = build_parser().parse_args(argv)
    arguments.command = shlex.join(["python", "-m", "evaluation.ablate", *argv])
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    return exit_code(partial(ablate, arguments))


def ablate(arguments: argparse.Namespace) -> None:
    """Make what is not made yet of this call's videos; then, unless it is a shard, print and write the table."""
    see(np.zeros((1, 8, 8, 3), np.uint8), "red")  # refuses where scipy is missing, before hours are spent
    if arguments.real < 2:
        raise ValueError(f"--real {arguments.real}: a distance needs at least 2 real videos, such as --real 512")
    number, workers = worker(arguments.shard)
    pipeline = load_pipeline(arguments.model, worker_device(arguments.device))
    given = asdict(preset("paper")) if arguments.base == "paper" else {}
    given |= dict(arguments.set or [])
    settings = make_rows(pipeline, arguments.methods, arguments.sweep, given)
    frames = pipeline.defaults.frames
    splits = [split for split in SPLITS if split in arguments.split]
    items = make_items(arguments.form, "tiny", arguments.tracks, frames, splits=splits, first=arguments.first)
    items = items if arguments.noise_seed is None else with_noise(items, arguments.noise_seed)
    mine = share(items, (number, workers))
    rows = {label: Row.of(pipeline, s, frames) for label, s in settings.items()}
    economy = fit_rows(pipeline, check_plans(pipeline, mine, rows), read_savings(arguments), arguments.memory)
    store, suite = Store(arguments.out / "runs"), Suite(ColourDetector(), videos=JudgedVideo(), names=JudgedNames())
    extractors = suite.describe()
    store.save_rows(rows)  # the items are those of this command alone; other lists may share the folder

    for item, row in tqdm(list(product(mine, rows.values())), unit="video", disable=None):
        economy = within_memory(economy, pipeline, partial(make_video, store, pipeline, item, row))
        measure_video(store, suite, item, row)
    for name, renderer in RENDERED.items() if arguments.oracle else ():
        rows[name] = replace(next(iter(rows.values())), model=f"the renderer, {name}")
        for item in mine:
            write_rendered(store, pipeline, item, rows[name], renderer(item))
            measure_video(store, suite, item, rows[name])
    if workers > 1:
        print("this shard is done; when all are, the same command without --shard makes the table")
        return

    real, floors = measure_real(store, suite, pipeline, arguments.real)
    results = {label: reduce_row(store, extractors, items, row, Rules(), real=real) for label, row in rows.items()}
    parts = [conditional_table(results, ABLATION_FIGURES), floors]
    parts.append(footer(results, arguments.command, name_items(items)))
    if not arguments.sweep and (added := differences_table(results)):
        parts.insert(2, f"**{ADDED}**\n\n{added}")
    text = "\n".join(parts)
    print(text)
    write_bytes(arguments.out / table_name(arguments), text.encode())


def write_rendered(store: Store, pipeline: Pipeline, item: Item, row: Row, frames: np.ndarray) -> None:
    """Keep a rendered video (F, H, W, 3) as if it were the row's; tau and spread are of its latents."""
    z0 = encode(pipeline, frames)
    tau = temporal_consistency(z0, item.trajectory.boxes)
    store.write_record(item, row, frames, {"failure": None, "tau": tau.item(), "latent_std": z0.std().item()})


def measure_real(store: Store, suite: Suite, pipeline: Pipeline, count: int) -> tuple[list[Tensor], str]:
    """The features of `count` scenes of the world, and a sentence on how far other real videos lie from them."""
    frames, fresh = pipeline.defaults.frames, -(-count // 8)  # of 512 scenes 64, as many as a split of the tables has
    real = features_of(store, suite, Reference.of(f"world:{count}", frames))
    floors = []
    for further in (Reference.further(count, fresh, frames), Reference.further(count, fresh, frames, pipeline)):
        found = shares(dict(zip(further.names, features_of(store, suite, further), strict=True)), real)
        interval = mean_interval(np.array(list(found.values())), list(found))
        floors.append(f"{show_interval(interval)} {further.description}")
    told = f"Real videos are {count} scenes of the world. The distance of {fresh} others is {' and '.join(floors)}.\n"
    return real, told


def features_of(store: Store, suite: Suite, reference: Reference) -> list[Tensor]:
    """Of each video of a set (1, D), measured now unless they are there already."""
    names = tqdm(reference.names, unit="real video", disable=None)
    return [reference.measure(store, suite, name)["videos"] for name in names]


# ---- Which videos --------------------------------------------------------------------------------------------------


def make_rows(
    pipeline: Pipeline, methods: list[str] | None, sweep: list[Sweep] | None, given: Mapping[str, Any]
) -> dict[str, SamplingSettings]:
    """Settings by label: of the methods, or of each combination of a sweep's values over its one method.

    given: settings that count in place of the checkpoint's, for all that a method leaves open
    """
    if not sweep:
        return method_settings(pipeline, methods or METHODS, given)
    methods = methods or ["full"]
    if len(methods) != 1:
        raise ValueError(f"a sweep is over one method, not over {', '.join(methods)}")
    (base,) = method_settings(pipeline, methods, given).values()
    names, values = zip(*sweep, strict=True)
    if len(set(names)) < len(names):
        raise ValueError(f"a sweep names each setting once, not {', '.join(names)}")
    changes = [dict(zip(names, combination, strict=True)) for combination in product(*values)]
    return {", ".join(f"{k}={_show(v)}" for k, v in change.items()): replace(base, **change) for change in changes}


def table_name(arguments: argparse.Namespace) -> str:
    """MODEL-methods.md, or MODEL-sweep-FIELDS.md with the swept method in front of the fields unless it is full;
    with the base in front of all, unless it is the checkpoint's own settings."""
    words = ["methods"]
    if arguments.sweep:
        words = ["sweep", *(m for m in arguments.methods or [] if m != "full"), *(name for name, _ in arguments.sweep)]
    base = [] if arguments.base == "checkpoint" else [arguments.base]
    return "-".join([Path(arguments.model).name, *base, *words]) + ".md"


def _show(value: Any) -> str:
    if isinstance(value, tuple):
        return "+".join(value)
    return "all" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _sweep(text: str) -> Sweep:
    """name=v1,v2: names in one value are joined by +, all = refine before all steps."""
    name, _, values = text.partition("=")
    if name not in [f.name for f in fields(SamplingSettings)]:
        raise argparse.ArgumentTypeError(f"must be a setting and its values, name=v1,v2, got {text!r}")
    try:
        parsed = [_value(name, value) for value in values.split(",")]
        for value in parsed:
            SamplingSettings(**{name: value})
    except (ValueError, KeyError):
        raise argparse.ArgumentTypeError(f"has a value that {name} cannot take: {text!r}") from None
    return name, parsed


def _setting(text: str) -> tuple[str, Any]:
    """name=value."""
    name, values = _sweep(text)
    if len(values) != 1:
        raise argparse.ArgumentTypeError(f"must be a setting and one value, name=value, got {text!r}")
    return name, values[0]


def _value(name: str, text: str) -> Any:
    if name in FLAGS:
        return {"true": True, "false": False}[text]
    if name in SUBSETS:
        return tuple(text.split("+"))
    if name in COUNTS:
        return None if text == "all" else int(text)
    return float(text) if name in NUMBERS else text


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        "evaluation.ablate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", default="tiny", help="a checkpoint of the tiny world (%(default)s)")
    form(add)
    add("--tracks", default=32, type=count, metavar="N", help="box tracks in each split (32)")
    add("--methods", nargs="+", metavar="NAME", help=f"rows (all): {', '.join(METHODS)}")
    add(
        "--sweep",
        nargs="+",
        type=_sweep,
        metavar="NAME=V1,V2",
        help="settings to vary (none), over full unless --methods",
    )
    add("--base", choices=("checkpoint", "paper"), default="checkpoint", help="whose values rows have (%(default)s)")
    add("--set", nargs="+", type=_setting, metavar="NAME=V", help="settings in place of the base's (none)")
    add("--oracle", action="store_true", help="two last rows: the world's own pictures, with and without subject")
    add("--real", default=512, type=count, metavar="N", help="scenes of the world that videos are compared with (512)")
    add("--first", default=0, type=int, metavar="N", help="number of the first track (0)")
    add("--split", nargs="+", choices=SPLITS, default=SPLITS, help="boxes that stay, or that move (both)")
    add("--shard", type=shard, metavar="I/N", help="every N-th item only (all); under torchrun it is known")
    add("--out", default=Path("runs/ablate"), type=Path, metavar="DIR", help="where all lies (%(default)s)")
    add("--device", default="cpu", help="cuda: under torchrun, each worker has its own (%(default)s)")
    add("--threads", type=count, metavar="N", help="of this process (torch's choice)")
    noise(add)
    memory(add)
    return parser


if __name__ == "__main__":
    sys.exit(main())
