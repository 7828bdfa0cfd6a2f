"""Videos from prompts, with subjects that follow boxes. Without an argument: the built-in example."""

from __future__ import annotations

import argparse
import math
import sys
import time
import webbrowser
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from adaptation.letters import check_letters
from app.ending import exit_code
from app.faults import resumable
from app.page import drop_flags
from sampling.settings import CHOICES, COUNTS, NUMBERS, PRESETS, SUBSETS, SamplingSettings

EXAMPLE = {  # what runs when neither a prompt nor boxes are given
    "prompt": ["a red ball moving over the ocean"],
    "subject": ["red ball"],
    "box_from": (0.05, 0.3, 0.35, 0.7),
    "box_to": (0.55, 0.3, 0.85, 0.7),
}
SETTINGS = {  # flag: help; what values it takes is in sampling.settings
    "steps": "DDIM steps",
    "guidance_scale": "strength of classifier-free guidance",
    "eta": "noise of DDIM; 0 is deterministic",
    "steer": "what holds subjects in their boxes: masks, or TrailBlazer's edit of cross-attention",
    "frozen_steps": "first steps, in which masks or the edit act",
    "where": "blocks whose attention is masked; temporal adds temporal attention",
    "attention": "kinds of spatial attention that are masked",
    "grid": "how a mask reaches a coarser grid; cover never loses a box",
    "start_token": "who sees the prompt's start token",
    "mask_normalization": "Mask Normalization",
    "normalize_in": "kinds of attention that are normalized",
    "axis": "one distribution a frame, or one a channel",
    "matching_gradient": "gradient of the distribution matching",
    "iterations": "M, refinements before each step",
    "c_g": "strength of the temporal prior",
    "gamma": "size of a refinement",
    "refine_steps": "refine before the first N steps only",
    "prior_gradient": "what the temporal prior is differentiated through",
    "unit_gradient": "bring the prior's gradient to length 1",
    "strengthen": "TrailBlazer's c_s, what is added inside a box",
    "weaken": "TrailBlazer's c_w, what is left outside",
    "trailing": "TrailBlazer: tokens after the prompt's that are edited as well",
}
ABOUT_BOXES = ("subject", "compare", "record_activations", "show_masks")  # not settings; mean nothing without boxes
NEED_NO_BOXES = ("steps", "guidance_scale", "eta", "iterations", "gamma", "refine_steps")
MEMORY = ("checkpoint_activations", "sequential_guidance", "offload", "frames_per_chunk")  # --resume takes these alone


def main(argv: list[str] | None = None) -> int:
    """Make what is asked for; see `ending.exit_code`."""

    def work() -> None:
        arguments = parse(sys.argv[1:] if argv is None else argv)
        check(arguments)
        draw(arguments) if arguments.draw else run_all(arguments)

    return exit_code(work, kept="no run was under way; finished ones are kept")


# ---- Arguments -----------------------------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """Slips are ValueErrors, told as all others are."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (see --help)")


def build_parser() -> Parser:
    """The options; what a setting may be is in `sampling.settings`."""
    parser = Parser(prog="train-free", description=__doc__, allow_abbrev=False)
    add = parser.add_argument_group("what to make (defaults: the checkpoint's)").add_argument
    add("--model", default="tiny", help="tiny, zeroscope, a name on the Hugging Face hub, or a folder")
    add("--prompt", action="append", metavar="TEXT", help="may be repeated, for several videos")
    add("--negative-prompt", default="", metavar="TEXT", help="what guidance leads away from")
    add("--seed", nargs="+", default=[0], type=_number(int, 0, 2**64 - 1), metavar="N", help="one or more (0)")
    add("--frames", type=_number(int, 1, 10_000), metavar="N", help="length of the video")
    add("--height", type=_number(int, 8, 8192, unit=8), metavar="N", help="pixels, a multiple of 8")
    add("--width", type=_number(int, 8, 8192, unit=8), metavar="N", help="pixels, a multiple of 8")
    add("--fps", type=_number(float, 0.1, 1000), metavar="X", help="frames a second of the video files")
    add = parser.add_argument_group("where the subjects go").add_argument
    add("--boxes", type=Path, metavar="FILE", help="a trajectory file, see examples/")
    add("--resample", action="store_true", help="bring the file's path to the video's number of frames")
    add("--box-from", type=_box, metavar="X1,Y1,X2,Y2", help="box in the first frame, coordinates from 0 to 1")
    add("--box-to", type=_box, metavar="X1,Y1,X2,Y2", help="box in the last frame (as in the first)")
    add("--subject", action="append", metavar="WORDS", help="the prompt's words for what is in the box")
    add = parser.add_argument_group("how (defaults: the method's, then the checkpoint's)").add_argument
    add("--method", choices=PRESETS, help="full with boxes, plain without")
    for name, text in SETTINGS.items():
        add("--" + name.replace("_", "-"), help=text, **_values(name))
    add = parser.add_argument_group("on what, and where to").add_argument
    add("--device", help="cuda where there is one, else cpu")
    add("--dtype", choices=("float16", "bfloat16", "float32", "float64"), help="float16 on cuda, float32 on cpu")
    add("--compare", action="store_true", help="also all methods from the same noise, a labelled row each: Figure 4")
    add("--record-activations", action="store_true", help="also the variance of activations step by step: Figure 2")
    add("--show-masks", action="store_true", help="also the masks on every attention grid, and who sees which token")
    add("--draw", action="store_true", help="make no video: write a page on which to draw boxes, and open it")
    add("--no-browser", action="store_true", help="with --draw: do not open it")
    add("--out", type=Path, metavar="DIR", help="the new folder; with several videos, their parent (outputs/...)")
    return add_resume(parser)


def add_resume(parser: Parser) -> Parser:
    """--resume, and all that may be given with it."""
    add = parser.add_argument_group("memory, and going on").add_argument
    add("--checkpoint-activations", action="store_true", help="less memory for the prior's gradient, more time")
    add("--sequential-guidance", action="store_true", help="one guidance half after the other: half the activations")
    add("--offload", action="store_true", help="text encoder and autoencoder off the GPU while the U-Net works")
    add("--frames-per-chunk", default=4, type=_number(int, 1, 10_000), metavar="N", help="frames decoded at a time (4)")
    add("--resume", type=Path, metavar="DIR", help="go on with an unfinished run; only options of this group beside it")
    return parser


def parse(argv: list[str]) -> argparse.Namespace:
    """The arguments, with the example filled in where there is neither a prompt nor a box.

    With --resume: those of the unfinished run, and over them the options that save memory.
    """
    for word in argv:
        check_letters("an argument", word)
        if word.startswith("--") and word.endswith("=--"):  # argparse takes it for no value at all
            raise ValueError(f"{word[:-3]} needs a value, not '--'")
    unfinished = None
    asked, others = add_resume(Parser(add_help=False, allow_abbrev=False)).parse_known_args(argv)
    if asked.resume is not None:
        from app.unfinished import open_unfinished

        if others:
            beside = ", ".join("--" + name.replace("_", "-") for name in MEMORY)
            raise ValueError(f"--resume keeps the run's own arguments; beside it go {beside}, but not {others[0]}")
        unfinished = open_unfinished(asked.resume)
        argv = [*unfinished.begun["arguments"], *drop_flags(argv, "--resume")]
    arguments = build_parser().parse_args(argv)
    arguments.argv, arguments.unfinished = argv, unfinished
    if not any(getattr(arguments, name) for name in ("prompt", "subject", "boxes", "resample", "box_from", "box_to")):
        vars(arguments).update(EXAMPLE)
    return arguments


def check(arguments: argparse.Namespace) -> None:
    """Refuse what can be seen to be wrong before anything is loaded."""
    given = given_settings(arguments)
    SamplingSettings(**given)
    from_file, from_boxes = arguments.boxes is not None, arguments.box_from is not None
    edits = arguments.steer == "edit" or (arguments.steer is None and arguments.method == "trailblazer")
    about_boxes = [name for name in given if name not in NEED_NO_BOXES]
    about_boxes += [name for name in ABOUT_BOXES if getattr(arguments, name)]
    about_boxes += ["method"] if arguments.method not in (None, "plain") else []
    flags = ", ".join("--" + name.replace("_", "-") for name in about_boxes)
    plural = "s" if len(about_boxes) == 1 else ""
    for wrong, sentence in (
        ("" in map(str.strip, arguments.prompt or []), "--prompt must have at least one word"),
        (from_file and from_boxes, "--boxes and --box-from exclude each other"),
        (arguments.box_to and not from_boxes, "--box-to needs --box-from"),
        (arguments.resample and not from_file, "--resample needs --boxes FILE"),
        (from_boxes and len(arguments.subject or []) != 1, "--box-from needs one --subject, words of the prompt"),
        (about_boxes and not (from_file or from_boxes), f"{flags} need{plural} --boxes or --box-from"),
        (
            arguments.mask_normalization and edits,
            "--mask-normalization is of masked attention, and TrailBlazer's edit masks none",
        ),
    ):
        if wrong:
            raise ValueError(sentence)


def given_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings that the user named."""
    return {name: value for name in SETTINGS if (value := getattr(arguments, name)) is not None}


def _values(name: str) -> dict[str, Any]:
    """How argparse reads a setting; its range is checked by SamplingSettings."""
    if name in COUNTS:
        return {"type": int, "metavar": "N"}
    if name in NUMBERS:
        return {"type": float, "metavar": "X"}
    if name in CHOICES:
        return {"choices": CHOICES[name]}
    return {"choices": SUBSETS[name], "nargs": "+"} if name in SUBSETS else {"action": argparse.BooleanOptionalAction}


def _number(kind: type, low: float, high: float, unit: int = 1) -> Callable[[str], float]:
    """A type for argparse: numbers from low to high, multiples of unit."""

    def parse_number(text: str) -> float:
        value = kind(text)
        if not low <= value <= high or (unit > 1 and value % unit):
            multiple = f", a multiple of {unit}" if unit > 1 else ""
            raise argparse.ArgumentTypeError(f"must be from {low} to {high}{multiple}, got {text}")
        return value

    parse_number.__name__ = kind.__name__  # argparse's own message speaks of an "invalid int value"
    return parse_number


def _box(text: str) -> tuple[float, ...]:
    try:
        box = tuple(float(number) for number in text.split(","))
    except ValueError:
        box = ()
    if len(box) != 4 or not all(map(math.isfinite, box)):
        raise argparse.ArgumentTypeError(f"must be four finite numbers x1,y1,x2,y2, got {text}")
    return box


# ---- Runs ----------------------------------------------------------------------------------------------------------


def run_all(arguments: argparse.Namespace) -> None:
    """One video for each prompt and seed; every fault that can be found is found before the first begins."""
    import torch  # what takes seconds to import is imported where it is used, so that --help and slips answer at once

    from app.folder import check_output, check_space, circumstances, folder_name
    from app.running import SIZE, check_fit, make_run, read_trajectory, warn_of_idle
    from app.unfinished import begin, go_on
    from evaluation.figures.activations import load_figure
    from sampling.generate import make_plan, recommended
    from weights.load import load_pipeline

    unfinished = arguments.unfinished  # an Unfinished to go on with, or None
    prompts = arguments.prompt or [None]  # None: the trajectory's, or else the checkpoint's
    runs = [(prompt, seed) for prompt in prompts for seed in arguments.seed]
    if unfinished is None:
        check_output(arguments.out, several=len(runs) > 1)
    else:
        torch.set_num_threads(unfinished.begun["threads"])  # another number of them adds in another order
    read_trajectory(arguments, arguments.frames)
    if arguments.record_activations:
        load_figure()  # refuses where matplotlib is missing

    began = time.perf_counter()
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = arguments.dtype or ("float16" if device.startswith("cuda") else "float32")
    pipeline = load_pipeline(arguments.model, device, getattr(torch, dtype))
    pipeline.unet.checkpoint_activations = arguments.checkpoint_activations
    facts = circumstances(pipeline) | {"memory": {name: getattr(arguments, name) for name in MEMORY}}
    loading = time.perf_counter() - began

    for name in (*SIZE, "fps"):
        if getattr(arguments, name) is None:
            setattr(arguments, name, getattr(pipeline.defaults, name))
    trajectory = read_trajectory(arguments, arguments.frames)
    arguments.method = arguments.method or ("plain" if trajectory is None else "full")
    given = given_settings(arguments)
    settings, first = replace(recommended(pipeline, arguments.method), **given), 0
    if unfinished is not None:
        settings, first = unfinished.settings, unfinished.begun["run"]
    size = {name: getattr(arguments, name) for name in SIZE}
    parent = (arguments.out or Path("outputs")) if unfinished is None else unfinished.folder.parent
    check_space(parent, (len(runs) - first) * math.prod(size.values()))
    plans = {prompt: make_plan(pipeline, prompt, trajectory, settings, **size) for prompt in prompts}
    check_fit(arguments, pipeline, plans.values(), given)
    warn_of_idle(arguments, settings, given)

    if unfinished is not None:
        unfinished = go_on(unfinished, arguments.argv, facts, [plans[prompt].shape for prompt, _ in runs])
    for run, (prompt, seed) in list(enumerate(runs))[first:]:
        if unfinished is None:
            alone = arguments.out is not None and len(runs) == 1
            target = parent if alone else parent / folder_name(plans[prompt].prompt, seed)
            unfinished = begin(target, arguments.argv, run, seed, settings, trajectory, facts)
        with closing(unfinished), resumable(unfinished.folder):
            label = f"video {run + 1} of {len(runs)}"
            print(make_run(arguments, pipeline, unfinished, prompt, label, given, loading), flush=True)
        unfinished = None


def draw(arguments: argparse.Namespace) -> None:
    """The page on which to draw boxes; no weights are loaded."""
    from app.draw import write_page

    path = write_page(arguments)
    print(path)
    if not arguments.no_browser:
        webbrowser.open(path.resolve().as_uri())


if __name__ == "__main__":
    sys.exit(main())
