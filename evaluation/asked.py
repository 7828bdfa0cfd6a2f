"""What a command asks for: from its arguments to a checkpoint, items, rules, extractors, and videos to compare with."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import torch

from evaluation import options
from evaluation.benchmarks.items import Item, load_items, make_items, with_noise
from evaluation.tables.making import FEATURES, Descriptions, Suite, published, stand_ins
from evaluation.tables.reference import Reference
from evaluation.tables.results import Rules
from evaluation.tables.store import Store, worker_device
from weights.load import Pipeline, load_pipeline
from weights.memory import Savings


def open_pipeline(arguments: Namespace) -> Pipeline:
    """The checkpoint that the command names."""
    return load_pipeline(arguments.model, worker_device(arguments.device), getattr(torch, arguments.dtype))


def read_savings(arguments: Namespace) -> Savings:
    """What saves memory, as far as the command names it."""
    return Savings(**{field.name: getattr(arguments, field.name) for field in fields(Savings)})


def read_items(arguments: Namespace, frames: int, words: str) -> list[Item]:
    """From the file that was named, or made at random; `frames` and `words` where the command says nothing of them."""
    if arguments.bench is None:
        drawn = {name: _given(arguments, name, default) for name, default in options.DRAWN.items()}
        words, frames = arguments.words or words, arguments.frames or frames
        items = make_items(drawn["form"], words, drawn["tracks"], frames, drawn["seed"], drawn["split"])
    else:
        refuse_idle(arguments, ("words", *options.DRAWN), f"on the items of {arguments.bench}")
        items = load_items(arguments.bench)
        if arguments.frames not in (None, items[0].frames):
            raise ValueError(f"{arguments.bench} has items of {items[0].frames} frames, not {arguments.frames}")
    return items if arguments.noise_seed is None else with_noise(items, arguments.noise_seed)


def refuse_idle(arguments: Namespace, names: Iterable[str], where: str) -> None:
    """Raise ValueError if an option is given that would change nothing; where: for the sentence."""
    given = [f"--{name.replace('_', '-')}" for name in names if getattr(arguments, name) is not None]
    if given:
        raise ValueError(f"{' and '.join(given)} would change nothing {where}; leave it out")


def _given(arguments: Namespace, name: str, default: Any) -> Any:
    value = getattr(arguments, name)
    return default if value is None else value


def read_rules(arguments: Namespace) -> Rules:
    """The rules that the command names; a ValueError where one is none."""
    return Rules(arguments.threshold, arguments.coverage, arguments.iou, not arguments.raw_clip, arguments.kid_subset)


def read_reference(arguments: Namespace, frames: int) -> Reference | None:
    """The set that the command names, each video cut to `frames`."""
    if arguments.reference is None:
        refuse_idle(arguments, ("reference_stride",), "without --reference")
        return None
    return Reference.of(arguments.reference, frames, arguments.reference_stride or 1)


def read_extractors(store: Store, arguments: Namespace) -> Descriptions:
    """What the suite's extractors said of themselves when they measured; those of features only with a reference."""
    noted = store.noted("suites")
    if arguments.suite not in noted:
        known = f" (but by {', '.join(noted)})" if noted else ""
        raise ValueError(
            f"{store.root} is not measured by --suite {arguments.suite}{known}; run `python -m evaluation extract` "
            "with it first"
        )
    extractors = noted[arguments.suite]
    return {role: extractors[role] for role in extractors if role not in FEATURES or arguments.reference is not None}


def load_suite(arguments: Namespace) -> Suite:
    """The extractors; those of features only where there is a reference to compare them with."""
    distances = arguments.reference is not None
    if arguments.suite == "stand-ins":
        refuse_idle(arguments, options.NETWORKS, "with --suite stand-ins")
        return stand_ins(distances)
    if arguments.owl == "off":
        raise ValueError("--owl off leaves nothing that finds subjects; name a network, or leave it out")
    if not distances:
        refuse_idle(arguments, ("inception", "vjepa2"), "without --reference")
    needed = options.NETWORKS if distances else ("owl", "clip")
    names = {name: getattr(arguments, name) or options.NETWORKS[name] for name in needed}
    return published(worker_device(arguments.device), {name: value for name, value in names.items() if value != "off"})
