"""What was asked for: the command line as a value that does not change. No torch here, so that slips answer at once."""

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from adaptation.letters import check_letters
from app.page import drop_flags
from sampling.settings import CHOICES, COUNTS, NUMBERS, PRESETS, SUBSETS, SamplingSettings

ABOUT = "Videos from prompts, with subjects that follow boxes. Without an argument: the built-in example."
EXAMPLE: dict[str, Any] = {  # what runs when neither a prompt nor boxes are given
    "prompts": ["a red ball moving over the ocean"],
    "subjects": ["red ball"],
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
    "subject_words": "a subject's tokens in the prompt: where its phrase stands, or wherever one of its token ids does",
    "start_token": "who sees the prompt's start token",
    "mask_normalization": "Mask Normalization",
    "normalize_in": "kinds of attention that are normalized",
    "axis": "channel: one distribution for each channel of a frame; joint: one for the whole frame",
    "matching_gradient": "gradient of the distribution matching",
    "iterations": "M, refinements before each step",
    "c_g": "strength of the temporal prior, as at Zeroscope's size: other latents scale it to theirs",
    "gamma": "size of a refinement",
    "refine_steps": "refine before the first N steps only",
    "prior_gradient": "what the temporal prior is differentiated through",
    "unit_gradient": "bring the prior's gradient to length 1",
    "strengthen": "TrailBlazer's c_s, what is added inside a box",
    "weaken": "TrailBlazer's c_w, what is left outside",
    "trailing": "TrailBlazer: tokens after the prompt's that are edited as well",
}
NEED_NO_BOXES = ("steps", "guidance_scale", "eta", "iterations", "gamma", "refine_steps")
MEMORY = ("checkpoint_activations", "sequential_guidance", "offload", "frames_per_chunk")

Box = tuple[float, float, float, float]  # x1 y1 x2 y2


@dataclass(frozen=True)
class Request:
    """What the command line asks for. None: left to the checkpoint, or to what else was given."""

    words: tuple[str, ...]  # the command line itself
    model: str
    prompts: tuple[str, ...]  # () = the trajectory file's, or else the checkpoint's
    negative_prompt: str
    seeds: tuple[int, ...]
    frames: int | None
    height: int | None
    width: int | None
    fps: float | None
    boxes: Path | None
    resample: bool
    box_from: Box | None
    box_to: Box | None
    subjects: tuple[str, ...]
    method: str | None
    settings: Mapping[str, Any]  # fields of SamplingSettings that were named
    device: str | None
    dtype: str | None
    compare: bool
    record_activations: bool
    show_masks: bool
    draw: bool
    static: bool
    port: int | None
    no_browser: bool
    out: Path | None
    memory: str | None  # auto or none; None = auto on a GPU, unless one of the next four is named
    checkpoint_activations: bool
    sequential_guidance: bool
    offload: bool
    frames_per_chunk: int

    def __post_init__(self) -> None:
        """Refuse what can be seen to be wrong before anything is loaded."""
        SamplingSettings(**self.settings)
        from_file, from_box = self.boxes is not None, self.box_from is not None
        alone = self._named_without_boxes()
        edits = self.settings.get("steer", "edit" if self.method == "trailblazer" else "masks") == "edit"
        for wrong, sentence in (
            ("" in map(str.strip, self.prompts), "--prompt must have at least one word"),
            (from_file and from_box, "--boxes and --box-from exclude each other"),
            (self.box_to and not from_box, "--box-to needs --box-from"),
            (self.resample and not from_file, "--resample needs --boxes FILE"),
            (from_box and len(self.subjects) != 1, "--box-from needs one --subject, words of the prompt"),
            (
                alone and not (from_file or from_box),
                f"{', '.join(map(flag, alone))} need{'s' if len(alone) == 1 else ''} --boxes or --box-from",
            ),
            (self.static and not self.draw, "--static needs --draw"),
            (
                self.port and (self.static or not self.draw),
                "--port is of the page that --draw serves, without --static",
            ),
            (
                self.memory == "auto" and self.names_savings,
                f"--memory auto chooses {', '.join(map(flag, MEMORY))} itself; leave it or them out",
            ),
            (
                edits and self.settings.get("mask_normalization"),
                "--mask-normalization is of masked attention, and TrailBlazer's edit masks none",
            ),
        ):
            if wrong:
                raise ValueError(sentence)

    @property
    def names_savings(self) -> bool:
        """Whether an option that saves memory was named."""
        return self.checkpoint_activations or self.sequential_guidance or self.offload or self.frames_per_chunk != 4

    def _named_without_boxes(self) -> list[str]:
        """What was named and means nothing without boxes."""
        named = [name for name in self.settings if name not in NEED_NO_BOXES]
        named += ["subject"] if self.subjects else []
        named += [name for name in ("compare", "record_activations", "show_masks") if getattr(self, name)]
        return named + (["method"] if self.method not in (None, "plain") else [])


@dataclass(frozen=True)
class Resume:
    """An unfinished run to go on with, whose own command line counts."""

    folder: Path
    words: tuple[str, ...]  # of the options that save memory, which count over its own


def parse(words: Sequence[str]) -> Request | Resume:
    """What a command line asks for; a slip is a ValueError."""
    for word in words:
        check_letters("an argument", word)
        if word.startswith("--") and word.endswith("=--"):  # argparse takes it for no value at all
            raise ValueError(f"{word[:-3]} needs a value, not '--'")
    resumed, others = add_resume(Parser(add_help=False, allow_abbrev=False)).parse_known_args(words)
    if resumed.resume is None:
        return parse_request(words)
    if others:
        beside = ", ".join(map(flag, ("memory", *MEMORY)))
        raise ValueError(f"--resume keeps the run's own arguments; beside it go {beside}, but not {others[0]}")
    return Resume(resumed.resume, tuple(drop_flags(words, "--resume")))


def parse_request(words: Sequence[str]) -> Request:
    """What a new run is asked for, with the example filled in where there is neither a prompt nor a box."""
    values = vars(build_parser().parse_args(words))
    if not any(values[name] for name in ("prompts", "subjects", "boxes", "resample", "box_from", "box_to")):
        values |= EXAMPLE
    del values["resume"]
    settings = {name: value for name in SETTINGS if (value := values.pop(name)) is not None}
    for name in ("prompts", "seeds", "subjects"):
        values[name] = tuple(values[name] or ())
    return Request(words=tuple(words), settings=settings, **values)


def flag(name: str) -> str:
    """A name as it is typed."""
    return "--" + name.replace("_", "-")


# ---- The parser ------------------------------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """Slips are ValueErrors, told as all others are."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print."""
        raise ValueError(f"{message} (see --help)")


def build_parser() -> Parser:
    """The options; what a setting may be is in `sampling.settings`."""
    parser = Parser(prog="train-free", description=ABOUT, allow_abbrev=False)
    add = parser.add_argument_group("what to make (defaults: the checkpoint's)").add_argument
    add("--model", default="tiny", help="tiny, zeroscope, a name on the Hugging Face hub, or a folder")
    add("--prompt", action="append", dest="prompts", metavar="TEXT", help="may be repeated, for several videos")
    add("--negative-prompt", default="", metavar="TEXT", help="what guidance leads away from")
    seed = _number(int, 0, 2**64 - 1)
    add("--seed", nargs="+", default=[0], type=seed, dest="seeds", metavar="N", help="one or more (0)")
    add("--frames", type=_number(int, 1, 10_000), metavar="N", help="length of the video")
    add("--height", type=_number(int, 8, 8192, unit=8), metavar="N", help="pixels, a multiple of 8")
    add("--width", type=_number(int, 8, 8192, unit=8), metavar="N", help="pixels, a multiple of 8")
    add("--fps", type=_number(float, 0.1, 1000), metavar="X", help="frames a second of the video files")
    add = parser.add_argument_group("where the subjects go").add_argument
    add("--boxes", type=Path, metavar="FILE", help="a trajectory file, see examples/")
    add("--resample", action="store_true", help="bring the file's path to the video's number of frames")
    add("--box-from", type=_box, metavar="X1,Y1,X2,Y2", help="box in the first frame, coordinates from 0 to 1")
    add("--box-to", type=_box, metavar="X1,Y1,X2,Y2", help="box in the last frame (as in the first)")
    add(
        "--subject", action="append", dest="subjects", metavar="WORDS", help="the prompt's words for what is in the box"
    )
    add = parser.add_argument_group("how (defaults: the method's, then the checkpoint's)").add_argument
    add("--method", choices=PRESETS, help="full with boxes, plain without")
    for name, text in SETTINGS.items():
        add(flag(name), help=text, **_values(name))
    add = parser.add_argument_group("on what, and where to").add_argument
    add("--device", help="cuda where there is one, else cpu")
    add("--dtype", choices=("float16", "bfloat16", "float32", "float64"), help="float16 on cuda, float32 on cpu")
    add("--compare", action="store_true", help="also all methods from the same noise, a labelled row each: Figure 4")
    add("--record-activations", action="store_true", help="also Figures 2 and 3: activations, step by step")
    add("--show-masks", action="store_true", help="also the masks on every attention grid, and who sees which token")
    add("--draw", action="store_true", help="serve a page, to this machine alone, that draws boxes and makes videos")
    add("--static", action="store_true", help="with --draw: write the page as a file that only draws")
    add("--port", type=_number(int, 1024, 65535), metavar="N", help="with --draw: where to serve it (a free port)")
    add("--no-browser", action="store_true", help="with --draw: do not open it")
    add("--out", type=Path, metavar="DIR", help="the new folder; with several videos, their parent (outputs/...)")
    return add_resume(parser)


def add_resume(parser: Parser) -> Parser:
    """--resume, and all that may be given with it."""
    add = parser.add_argument_group("memory, and going on").add_argument
    auto = "auto chooses what of the next four fits at the least cost of time (auto on a GPU where none is named)"
    add("--memory", choices=("auto", "none"), help=auto)
    add("--checkpoint-activations", action="store_true", help="less memory for the prior's gradient, more time")
    add("--sequential-guidance", action="store_true", help="one guidance half after the other: less memory, more time")
    add("--offload", action="store_true", help="text encoder and autoencoder off the GPU while the U-Net works")
    add("--frames-per-chunk", default=4, type=_number(int, 1, 10_000), metavar="N", help="frames decoded at a time (4)")
    add("--resume", type=Path, metavar="DIR", help="go on with an unfinished run; only options of this group beside it")
    return parser


def _values(name: str) -> dict[str, Any]:
    """How argparse reads a setting; its range is checked by SamplingSettings."""
    if name in COUNTS:
        return {"type": int, "metavar": "N"}
    if name in NUMBERS:
        return {"type": float, "metavar": "X"}
    if name in CHOICES:
        return {"choices": CHOICES[name]}
    return {"choices": SUBSETS[name], "nargs": "+"} if name in SUBSETS else {"action": argparse.BooleanOptionalAction}


def _number(kind: type[int] | type[float], low: float, high: float, unit: int = 1) -> Callable[[str], float]:
    """A type for argparse: numbers from low to high, multiples of unit."""

    def parse_number(text: str) -> float:
        """The number; argparse tells what is wrong with it."""
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
