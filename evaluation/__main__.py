"""The paper's tables, in steps that may each be interrupted, repeated, and shared among workers.

    python -m evaluation bench --to bench.jsonl     a list of videos to make: random boxes, or Peekaboo's own files
    python -m evaluation generate                   make the videos of each method
    python -m evaluation extract                    measure what they show
    python -m evaluation reduce                     from measurements to numbers: results.json
    python -m evaluation table                      from numbers to Markdown: tables.md, and pictures of the videos
    python -m evaluation run                        all of these in order

`generate` and `extract` share their work under torchrun, on one machine or on many with a common folder, or with
`--shard i/n` anywhere. What is there and whole is never made again; what is missing or broken is.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from tqdm import tqdm

from ending import exit_code
from evaluation import options
from evaluation.benchmarks.items import Item, load_items, make_items, name_items, save_items
from evaluation.benchmarks.peekaboo import load_peekaboo
from evaluation.tables import gallery, table
from evaluation.tables.making import Suite, check_plans, check_suite, make_video, measure_video, published, stand_ins
from evaluation.tables.reference import Reference
from evaluation.tables.results import Rules, reduce_row
from evaluation.tables.store import Row, Store, share, worker, worker_device
from sampling.generate import HOW
from sampling.methods import method_settings
from storage import write_bytes
from weights.circumstances import versions
from weights.load import load_pipeline

ROWS = ("plain", "peekaboo", "trailblazer", "mask", "mask-norm", "mask-norm+id", "full")  # of Table 1, and plain, mask


def main(argv: list[str] | None = None) -> int:
    """Do a step; see `ending.exit_code`. A slip on the command line is 2 as well."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = build_parser().parse_args(argv)
    arguments.command = shlex.join(["python", "-m", "evaluation", *argv])
    torch.set_num_threads(arguments.threads)
    return exit_code(partial(arguments.step, arguments))


# ---- Steps -----------------------------------------------------------------------------------------------------------


def bench(arguments: Namespace) -> None:
    """Write the list of items."""
    if arguments.peekaboo is None:
        items, report = read_items(arguments, options.BENCH_FRAMES), None
    else:
        order, frames = arguments.axis_order, arguments.frames or options.BENCH_FRAMES
        items, report = load_peekaboo(arguments.peekaboo, frames, arguments.seed, axis_order=order, gaps=arguments.gaps)
    save_items(arguments.to, items)
    print(f"{arguments.to}: {len(items)} items", *filter(None, [report]), sep="\n")


def generate(arguments: Namespace) -> None:
    """Make the videos of this worker's items."""
    pipeline = load_pipeline(arguments.model, worker_device(arguments.device), getattr(torch, arguments.dtype))
    pipeline.unet.checkpoint_activations = arguments.checkpoint_activations
    how = {name: getattr(arguments, name) for name in HOW}
    items = read_items(arguments, pipeline.defaults.frames)
    settings = method_settings(pipeline, arguments.methods or ROWS)
    rows = {label: Row.of(pipeline, s, items[0].frames, arguments.negative_prompt) for label, s in settings.items()}
    mine = in_turn(items, arguments.shard)
    check_plans(pipeline, mine, rows, **how)
    store = Store(arguments.out)
    store.save(items, rows)
    for item in progress(mine, "generate"):
        for row in rows.values():
            make_video(store, pipeline, item, row, **how)


def extract(arguments: Namespace) -> None:
    """Measure the videos of this worker's items, and of the reference."""
    store = Store(arguments.out)
    rows, items, suite = store.rows(arguments.methods), store.items(), load_suite(arguments)
    if (reference := Reference.of(arguments.reference, items[0].frames)) is not None:
        for name in progress(in_turn(reference.names, arguments.shard), "reference"):
            reference.measure(store, suite, name)
    for item in progress(in_turn(items, arguments.shard), "extract"):
        for row in rows.values():
            if not arguments.allow_missing or store.read_record(item, row) is not None:
                measure_video(store, suite, item, row)


def reduce(arguments: Namespace) -> None:
    """Numbers of every row, from what `extract` has found and by the rules of this call."""
    rules, own = read_rules(arguments), arguments.jedi_features
    store = Store(arguments.out)
    rows, items, suite = store.rows(arguments.methods), store.items(), load_suite(arguments)
    reference = Reference.of(arguments.reference, items[0].frames)
    features = None if reference is None else reference.features(store, suite)
    results = {}
    for label, row in progress(rows.items(), "reduce"):
        folders = None if own is None else (own / label, own / "reference")
        results[label] = reduce_row(store, suite, items, row, rules, features, folders, arguments.allow_missing)
    told = {
        "command": arguments.command,
        "versions": versions(),
        "items": name_items(items),
        "reference": None if reference is None else reference.description,
        "results": results,
    }
    write_bytes(arguments.out / "results.json", (json.dumps(told, indent=1, allow_nan=False) + "\n").encode())


def make_table(arguments: Namespace) -> None:
    """Both tables as Markdown, and pictures."""
    path = arguments.out / "results.json"
    try:
        told = json.loads(path.read_bytes())
    except (OSError, ValueError):
        raise ValueError(f"{path} is not there or not whole; run `python -m evaluation reduce` first") from None
    results, store = told["results"], Store(arguments.out)
    text = table.tables(results, told["command"], told["items"], told["reference"])
    write_bytes(arguments.out / "tables.md", text.encode())
    gallery.write_montage(store, results, arguments.out / "montage.png", arguments.shown)
    gallery.write_failures(store, results, arguments.out / "failures.png", arguments.shown)
    print(text, end="")


def run(arguments: Namespace) -> None:
    """Everything. Of several workers the first goes on to the tables, and helps the others out before that."""
    refuse_early(arguments)
    arguments.methods = arguments.methods or list(ROWS)
    generate(arguments)
    extract(arguments)
    number, workers = worker(arguments.shard)
    if number > 1:
        print(f"worker {number} of {workers} is done; the first one goes on to the tables")
        return
    if workers > 1:
        arguments.shard = (1, 1)
        generate(arguments)
        extract(arguments)
    reduce(arguments)
    make_table(arguments)


def refuse_early(arguments: Namespace) -> None:
    """Try all that comes after the videos before hours are spent on them."""
    read_rules(arguments)
    first = read_items(arguments, 2)[0]
    Reference.of(arguments.reference, first.frames)
    try:
        check_suite(load_suite(arguments), first)
    except ValueError as error:
        raise ValueError(f"--suite {arguments.suite} cannot measure such items: {error}") from None


# ---- From arguments to things ----------------------------------------------------------------------------------------


def read_items(arguments: Namespace, frames: int) -> list[Item]:
    """From the file that was named, or made at random; `frames` where the command does not say how many."""
    if arguments.bench is None:
        frames = arguments.frames or frames
        return make_items(arguments.form, arguments.words, arguments.tracks, frames, arguments.seed, arguments.split)
    items = load_items(arguments.bench)
    if arguments.frames not in (None, items[0].frames):
        raise ValueError(f"{arguments.bench} has items of {items[0].frames} frames, not {arguments.frames}")
    return items


def read_rules(arguments: Namespace) -> Rules:
    """The rules that the command names; a ValueError where one is none."""
    return Rules(arguments.threshold, arguments.coverage, arguments.iou, not arguments.raw_clip, arguments.kid_subset)


def load_suite(arguments: Namespace) -> Suite:
    """The extractors; those of features only where there is a reference to compare them with."""
    distances = arguments.reference is not None
    if arguments.suite == "stand-ins":
        return stand_ins(distances)
    names = {
        name: getattr(arguments, name) for name in ("owl", "clip", *(("inception", "vjepa2") if distances else ()))
    }
    return published(worker_device(arguments.device), {name: value for name, value in names.items() if value != "off"})


def in_turn(things: Sequence[Any], shard: tuple[int, int] | None) -> list[Any]:
    """This worker's share; one that works alone begins at the end, away from where others may still be at work."""
    return list(reversed(things)) if shard == (1, 1) else list(share(things, shard))


def progress(things: Iterable[Any], label: str) -> tqdm:
    """The things in order, with a bar on stderr if that is a terminal."""
    return tqdm(list(things), desc=label, disable=None)


# ---- Arguments -------------------------------------------------------------------------------------------------------


def build_parser() -> ArgumentParser:
    """One subcommand for each step; `run` has the options of all."""
    parser = ArgumentParser(
        "python -m evaluation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="STEP")
    common = (options.folder, options.methods, options.machine)
    makes = (options.random_items, options.sharing, options.making, options.memory)
    measures = (options.missing, options.measuring)
    groups: dict[Callable, tuple[Callable, ...]] = {
        bench: (options.random_items, options.list_file),
        generate: (*common, *makes),
        extract: (*common, options.sharing, *measures),
        reduce: (*common, *measures, options.rules, options.jedi),
        make_table: (options.folder, options.showing),
        run: (*common, *makes, *measures, options.rules, options.showing),
    }
    for step, parts in groups.items():
        name = "table" if step is make_table else step.__name__
        command = commands.add_parser(name, help=step.__doc__, description=step.__doc__, allow_abbrev=False)
        command.set_defaults(step=step, bench=None, threads=1, jedi_features=None)
        for add_to in parts:
            add_to(command.add_argument)
    return parser


if __name__ == "__main__":
    sys.exit(main())
