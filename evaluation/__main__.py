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

import waiting  # noqa: F401  (first, for torch reads its choice once)

import argparse
import json
import shlex
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from tqdm import tqdm

from ending import exit_code, explain
from evaluation import options
from evaluation.asked import (
    load_suite,
    open_pipeline,
    read_extractors,
    read_items,
    read_reference,
    read_rules,
    read_savings,
    refuse_idle,
)
from evaluation.benchmarks.items import Item, name_items, save_items, with_noise
from evaluation.benchmarks.peekaboo import AXIS_ORDERS, GAPS, load_peekaboo
from evaluation.metrics.intervals import student_t
from evaluation.tables import gallery, table
from evaluation.tables.making import (
    FEATURES,
    Suite,
    check_plans,
    check_suite,
    check_words,
    fit_rows,
    known_words,
    make_video,
    measure_video,
)
from evaluation.tables.reference import read_features
from evaluation.tables.results import reduce_row
from evaluation.tables.store import Row, Store, share, worker
from sampling.generate import method_settings
from storage import write_bytes
from weights.circumstances import versions
from weights.load import Pipeline
from weights.savings import within_memory

Turn = Callable[[Sequence[Any]], Iterable[Any]]  # which of some things a worker takes, and in which order


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
        refuse_idle(arguments, ("axis_order", "gaps"), "without --peekaboo")
        items, report = read_items(arguments, options.BENCH_FRAMES, "tiny"), None
    else:
        refuse_idle(arguments, ("form", "words", "tracks", "split"), f"on the boxes of {arguments.peekaboo}")
        frames, seed = arguments.frames or options.BENCH_FRAMES, arguments.seed or options.DRAWN["seed"]
        how = {"axis_order": arguments.axis_order or AXIS_ORDERS[0], "gaps": arguments.gaps or GAPS[0]}
        items, report = load_peekaboo(arguments.peekaboo, frames, seed, **how)
        items = items if arguments.noise_seed is None else with_noise(items, arguments.noise_seed)
    save_items(arguments.to, items)
    print(f"{arguments.to}: {len(items)} items", *filter(None, [report]), sep="\n")


def generate(arguments: Namespace) -> None:
    """Make the videos of this worker's items."""
    turn = partial(share, of=worker(arguments.shard))
    make_videos(arguments, open_pipeline(arguments), turn)


def make_videos(arguments: Namespace, pipeline: Pipeline, turn: Turn) -> None:
    """Note what is to be made, and make the videos of these items."""
    items = read_items(arguments, pipeline.defaults.frames, known_words(pipeline))
    settings = method_settings(pipeline, arguments.methods or options.ROWS)
    rows = {label: Row.of(pipeline, s, items[0].frames, arguments.negative_prompt) for label, s in settings.items()}
    mine = list(turn(items))
    check_words(pipeline, items)
    economy = fit_rows(pipeline, check_plans(pipeline, mine, rows), read_savings(arguments), arguments.memory)
    store = Store(arguments.out)
    store.save(items, rows)
    for item in progress(mine, "generate"):
        for row in rows.values():
            economy = within_memory(economy, pipeline, partial(make_video, store, pipeline, item, row))


def extract(arguments: Namespace) -> None:
    """Measure the videos of this worker's items, and of the reference."""
    turn = partial(share, of=worker(arguments.shard))
    rows, items = Store(arguments.out).rows(arguments.methods), Store(arguments.out).items()
    measure_videos(arguments, rows, items, load_suite(arguments), turn)


def measure_videos(
    arguments: Namespace, rows: Mapping[str, Row], items: Sequence[Item], suite: Suite, turn: Turn
) -> None:
    """Note what measures; measure what can be measured, then raise ValueError if that was not all."""
    store, reference = Store(arguments.out), read_reference(arguments, items[0].frames)
    earlier = store.noted("suites").get(arguments.suite, {})
    kept = {} if reference else {role: earlier[role] for role in FEATURES if role in earlier}
    store.note("suites", arguments.suite, suite.describe() | kept)
    work: dict[str, Callable[[], Any]] = {}
    if reference is not None:
        reference.note(store)
        for name in turn(reference.names):
            work[f"the reference's {name}"] = partial(reference.measure, store, suite, name)
    for item in turn(items):
        for label, row in rows.items():
            if not arguments.allow_missing or store.read_record(item, row) is not None:
                work[f"row {label}, item {item.id}"] = partial(measure_video, store, suite, item, row)
    faults = 0
    for what, measure in progress(work.items(), "extract"):
        try:
            measure()
        except (ValueError, OSError) as error:
            faults += 1
            print(f"not measured: {what}: {explain(error)}", file=sys.stderr)
    if faults:
        raise ValueError(f"{faults} of {len(work)} videos could not be measured, as told above; the others are")


def reduce(arguments: Namespace) -> None:
    """Numbers of every row, from what `extract` has found and by the rules of this call; the folder is all it needs."""
    rules, store = read_rules(arguments), Store(arguments.out)
    rows, items = store.rows(arguments.methods), store.items()
    extractors = read_extractors(store, arguments)
    told, features = None, None
    if arguments.reference is not None:
        told, features = read_features(store, extractors, arguments.reference)
    results = {}
    for label, row in progress(rows.items(), "reduce"):
        try:
            results[label] = reduce_row(
                store, extractors, items, row, rules, features, arguments.jedi_features, arguments.allow_missing
            )
        except ValueError as error:
            raise ValueError(f"row {label}: {error}") from None
    result = {
        "command": arguments.command,
        "versions": versions(),
        "items": name_items(items),
        "reference": told,
        "results": results,
    }
    write_bytes(arguments.out / "results.json", (json.dumps(result, indent=1, allow_nan=False) + "\n").encode())


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
    number, workers = worker(arguments.shard)
    read_rules(arguments)
    read_reference(arguments, 1)
    pipeline = open_pipeline(arguments)
    arguments.methods = arguments.methods or list(options.ROWS)
    suite = try_suite(arguments, pipeline)
    turns: list[Turn] = [partial(share, of=(number, workers))]
    if 1 == number < workers:  # it helps from the end of the list on, away from where the others may still be at work
        turns.append(reversed)
    for turn in turns:
        make_videos(arguments, pipeline, turn)
        store = Store(arguments.out)
        measure_videos(arguments, store.rows(arguments.methods), store.items(), suite, turn)
    if number > 1:
        print(f"worker {number} of {workers} is done; the first one goes on to the tables")
        return
    reduce(arguments)
    make_table(arguments)


def try_suite(arguments: Namespace, pipeline: Pipeline) -> Suite:
    """The extractors, refused before hours are spent on videos that they cannot measure."""
    student_t(1)  # refuses where scipy is missing
    items = read_items(arguments, pipeline.defaults.frames, known_words(pipeline))
    check_words(pipeline, items)
    suite = load_suite(arguments)
    try:
        check_suite(suite, items[0])
    except ValueError as error:
        raise ValueError(f"--suite {arguments.suite} cannot measure such items: {error}") from None
    return suite


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
    drawn = (options.random_items, options.noise)
    makes = (*drawn, options.making, options.memory)
    measures = (options.measured, options.networks)
    works = (options.folder, options.device, options.sharing)
    numbers = (options.missing, options.rules, options.threads)
    groups: dict[Callable, tuple[Callable, ...]] = {
        bench: (*drawn, options.list_file),
        generate: (*works, options.threads, options.made_rows, *makes),
        extract: (*works, options.threads, options.read_rows, *measures, options.missing),
        reduce: (options.folder, options.read_rows, options.measured, *numbers, options.jedi),
        make_table: (options.folder, options.showing),
        run: (*works, options.made_rows, *makes, *measures, *numbers, options.showing),
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
