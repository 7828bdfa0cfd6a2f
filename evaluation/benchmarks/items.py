"""Benchmarks: lists of videos to make, each with its prompt, boxes and seed. One JSON line for each in a file.

    {"id": "jain-static-0003", "split": "static", "source": "jain", "seed": 123,
     "prompt": "a cat dozing on a red sofa", "subjects": ["cat"], "boxes": [[[0.1, 0.4, 0.4, 0.8], null, ...]]}

A random item is made from the benchmark's seed and its own name alone: how many others there are does not matter, and
every method gets the same item with the same noise.
"""

import hashlib
import json
import re
import reprlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from adaptation.trajectory import Trajectory, interpolate_keyframes
from evaluation.benchmarks import prompts
from evaluation.benchmarks.tracks import (
    SPLITS,
    Box,
    jain_boxes,
    moving_keyframes,
    pair_ends,
    smooth_ends,
    static_keyframes,
)
from storage import write_bytes
from weights.train_tiny.world import Scene, sample_scene

FORMS = ("jain", "keyframes", "smooth", "pairs")  # of random boxes; see `make_item`
WORDS = ("tiny", "real")  # which world the prompts are about

Boxes = tuple[tuple[tuple[float, ...] | None, ...], ...]  # (K, F) of x1 y1 x2 y2


@dataclass(frozen=True)
class Item:
    """One video to make.

    id: of letters, digits and . _ - , since files are named by it
    split: "static" or "moving"
    source: where the boxes come from: a form of `FORMS`, a file of Peekaboo's, or whatever a list says
    seed: of the noise
    subjects: K phrases of the prompt
    boxes: for each subject one a frame, x1 y1 x2 y2 relative to the frame, None = absent
    """

    id: str
    split: str
    source: str
    seed: int
    prompt: str
    subjects: tuple[str, ...]
    boxes: Boxes

    def __post_init__(self) -> None:
        for name in ("id", "source", "prompt"):
            _expect_text(name, getattr(self, name))
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.id):
            raise ValueError(f"an id is made of letters, digits and . _ - , since it names files, not {self.id!r}")
        if self.split not in SPLITS:
            raise ValueError(f"a split is one of {', '.join(SPLITS)}, not {reprlib.repr(self.split)}")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < 2**64:
            raise ValueError(f"a seed is a whole number from 0 to 2**64 - 1, not {reprlib.repr(self.seed)}")
        if not isinstance(self.subjects, list | tuple) or not self.subjects:
            raise ValueError(f"'subjects' is a list of at least one phrase, not {reprlib.repr(self.subjects)}")
        for subject in self.subjects:
            _expect_text("subjects", subject)
            if find_words(self.prompt, subject) is None:
                raise ValueError(f"the prompt {self.prompt!r} does not name the subject {subject!r}")
        _expect_tracks(self.boxes, len(self.subjects))
        object.__setattr__(self, "subjects", tuple(self.subjects))
        # Through a trajectory, which refuses what is no box.
        object.__setattr__(self, "boxes", _tuples(self.trajectory.as_lists()))

    @classmethod
    def from_trajectory(cls, id: str, split: str, source: str, seed: int, trajectory: Trajectory) -> "Item":
        """An item whose `trajectory` has the given one's float32 boxes."""
        subjects, boxes = tuple(trajectory.subjects), _tuples(trajectory.as_lists())
        return cls(id, split, source, seed, trajectory.prompt, subjects, boxes)

    @property
    def frames(self) -> int:
        return len(self.boxes[0])

    @property
    def trajectory(self) -> Trajectory:
        """What `generate` takes; float32."""
        tracks = [
            interpolate_keyframes(dict(enumerate(track)), len(track), f"subject {reprlib.repr(subject)}, ")
            for subject, track in zip(self.subjects, self.boxes, strict=True)
        ]
        return Trajectory(torch.stack(tracks).float(), list(self.subjects), self.prompt)


def find_words(prompt: str, subject: str) -> str | None:
    """The subject as the prompt writes it; None where it does not stand there in whole words, as cat in concatenate."""
    found = re.search(rf"(?<!\w){re.escape(subject.strip())}(?!\w)", prompt, re.IGNORECASE)
    return found[0] if found else None


# ---- Random items ---------------------------------------------------------------------------------------------------


def item_seed(seed: int, id: str) -> int:
    """A seed of 48 bits for one item of the benchmark with this seed; the method has no part in it."""
    return int.from_bytes(hashlib.sha256(f"{seed} {id}".encode()).digest()[:6], "big")


def with_noise(items: Iterable[Item], seed: int) -> list[Item]:
    """The same boxes and words with other noise: a second seed of the same benchmark."""
    return [replace(item, seed=item_seed(seed, f"noise {item.id}")) for item in items]


def make_items(
    form: str, words: str, count: int, frames: int, seed: int = 0, splits: Sequence[str] = SPLITS, first: int = 0
) -> list[Item]:
    """`count` items of each split, with the numbers from `first` on; arguments as in `make_item`."""
    return [
        make_item(form, words, split, number, frames, seed)
        for split in splits
        for number in range(first, first + count)
    ]


def make_item(form: str, words: str, split: str, number: int, frames: int, seed: int = 0) -> Item:
    """One random item.

    form: "jain" = boxes as Jain et al. draw them for Peekaboo, which the paper names; "keyframes" = as TrailBlazer's
        metric runs draw them; "smooth" = static ones as in keyframes, moving ones straight at one speed, from 8 frames
        on by at most 0.12 of the frame at a time; "pairs" = two subjects whose boxes, moving like that, keep apart
    words: "tiny" = subject and background in a combination that the tiny checkpoint never saw in training;
        "real" = from our own lists
    """
    for name, value, known in (("form", form, FORMS), ("words", words, WORDS), ("split", split, SPLITS)):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, not {value!r}")
    if number < 0 or frames < 1:
        raise ValueError(f"an item has a number of at least 0 and at least 1 frame, not {number} and {frames}")
    if form == "pairs" and words != "tiny":
        raise ValueError("items of two subjects have words of the tiny world only")
    id = f"{form}-{split}-{number:04d}"
    own_seed = item_seed(seed, id)
    rng = np.random.default_rng(own_seed)
    words_rng = np.random.default_rng(item_seed(seed, f"words-{number}"))  # one for both splits
    if form == "pairs":
        trajectory = _pair(rng, words_rng, split, frames)
    else:
        subject, prompt, motion = _real_words(form, split, number) if words == "real" else _tiny_words(words_rng)
        if form == "jain":
            trajectory = _jain(rng, split, motion, frames, subject, prompt)
        else:
            trajectory = Trajectory.from_keyframes(_keyframes(rng, form, split, frames), frames, subject, prompt)
    return Item.from_trajectory(id, split, form, own_seed, trajectory)


def _jain(
    rng: np.random.Generator, split: str, motion: str | None, frames: int, subject: str, prompt: str
) -> Trajectory:
    """16 frames, brought to another number as the released files are; motion None = any."""
    motion = "still" if split == "static" else motion or ("left-right", "up-down", "zig-zag")[rng.integers(3)]
    boxes = torch.from_numpy(jain_boxes(rng, motion))
    return Trajectory(boxes[None], [subject], prompt).resample(frames)


def _keyframes(rng: np.random.Generator, form: str, split: str, frames: int) -> dict[int, Box]:
    if split == "static":
        return static_keyframes(rng)
    return moving_keyframes(rng, frames) if form == "keyframes" else _straight(smooth_ends(rng), frames)


def _straight(ends: tuple[Box, Box], frames: int) -> dict[int, Box]:
    """From the first frame to the last; of one frame, the start."""
    return {0: ends[0], frames - 1: ends[1]} if frames > 1 else {0: ends[0]}


def _pair(rng: np.random.Generator, words_rng: np.random.Generator, split: str, frames: int) -> Trajectory:
    scene, other = _held_out_pair(words_rng)
    tracks = [Trajectory.from_keyframes(_straight(ends, frames), frames) for ends in pair_ends(rng, split)]
    return Trajectory(torch.cat([track.boxes for track in tracks]), [scene.subject, other.subject], scene.caption)


def _real_words(form: str, split: str, number: int) -> tuple[str, str, str | None]:
    """Subject, prompt and, where the prompt tells it, the motion."""
    if form == "jain" and split == "moving":
        return prompts.JAIN_MOVING[number % len(prompts.JAIN_MOVING)]
    known = prompts.STILL if split == "static" else prompts.ACROSS
    return (*known[number % len(known)], None)


def _tiny_words(rng: np.random.Generator) -> tuple[str, str, None]:
    scene = sample_scene(rng, held=True)
    return scene.subject, scene.caption, None


def _held_out_pair(rng: np.random.Generator) -> tuple[Scene, Scene]:
    """Two subjects that training never saw over this background; no two of those share a colour or a shape."""
    scene = other = sample_scene(rng, held=True)
    while other.background != scene.background or other.subject == scene.subject:
        other = sample_scene(rng, held=True)
    return replace(scene, other=other), other


def name_items(items: Sequence[Item]) -> str:
    """Which items a table is about: where they come from, and a hash by which another list is told from this one."""
    digest = hashlib.sha256(json.dumps([asdict(item) for item in items]).encode()).hexdigest()
    return f"{' and '.join(sorted({item.source for item in items}))}, SHA-256 {digest[:12]}"


# ---- Files ----------------------------------------------------------------------------------------------------------


def save_items(path: str | Path, items: Sequence[Item]) -> None:
    """Write a file that `load_items` reads back to equal items; it appears whole or not at all."""
    _expect_different_ids(items)
    write_bytes(path, "".join(json.dumps(asdict(item), ensure_ascii=False) + "\n" for item in items).encode())


def load_items(path: str | Path) -> list[Item]:
    """Read a benchmark; every fault is a ValueError that names the file and the line."""
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ValueError(f"{path}: the benchmark cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: the benchmark is not UTF-8 text (byte {error.start})") from None
    items: list[Item] = []
    lines: dict[str, int] = {}  # where each id stands
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            item = _parse(line)
            if item.id in lines:
                raise ValueError(f"the id {item.id!r} stands in line {lines[item.id]} already")
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
        lines[item.id] = number
        items.append(item)
    if not items:
        raise ValueError(f"{path}: the benchmark holds no item; there is one JSON object in each line")
    return items


def _parse(line: str) -> Item:
    try:
        members = json.loads(line, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"this is not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ValueError("this nests its lists too deeply for an item") from None
    if not isinstance(members, dict):
        raise ValueError(f"an item is a JSON object, not {reprlib.repr(members)}")
    known = [field.name for field in fields(Item)]
    if differing := sorted(set(members) ^ set(known)):
        what = "lacks" if differing[0] in known else "has the unknown"
        raise ValueError(f"the item {what} {reprlib.repr(differing[0])}; it has {', '.join(known)}")
    return Item(**members)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON; null marks an absent subject")


def _expect_different_ids(items: Iterable[Item]) -> None:
    if repeated := [id for id, count in Counter(item.id for item in items).items() if count > 1]:
        raise ValueError(f"items of one benchmark have different ids, but there is more than one {repeated[0]!r}")


def _expect_text(name: str, value: Any) -> None:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name!r} is a text of at least one word, not {reprlib.repr(value)}")


def _expect_tracks(boxes: Any, subjects: int) -> None:
    """Raise unless `boxes` is a list for each subject, all of one length; what a box is, a trajectory knows."""
    tracks = boxes if isinstance(boxes, list | tuple) else []
    lengths = {len(track) if isinstance(track, list | tuple) else 0 for track in tracks}
    if len(tracks) != subjects or len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            f"'boxes' is a list for each of the {subjects} subjects, with one box (or null) for each frame, "
            f"not {reprlib.repr(boxes)}"
        )
    if any(all(box is None for box in track) for track in tracks):
        raise ValueError("'boxes' has a subject that is absent in every frame; leave it out")


def _tuples(boxes: list[list[list[float] | None]]) -> Boxes:
    return tuple(tuple(None if box is None else tuple(box) for box in track) for track in boxes)
