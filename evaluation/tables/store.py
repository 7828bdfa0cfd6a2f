"""Videos and measurements of a benchmark on disk: one file for each, named by all that made it.

    DIR/bench.jsonl                     the items
    DIR/rows.json                       label of a row -> what makes its videos: settings, model, size
    DIR/measured.json                   what `extract` measured with, and which videos it compared with
    DIR/store.lock                      held by whoever changes one of these
    DIR/files/ID-DIGEST.json            one video's record, and .mkv beside it, its frames without loss
    DIR/files/ID-DIGEST.KEY.json        what the extractor KEY found in it; .safetensors for features

DIGEST is a hash of the item and of the row, so that nothing made in another way is ever taken for it: a file that is
there and whole need not be made again, whoever made it, and one that is not whole is made again. What it cannot know
is a change of the code; after one, begin in a new folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from evaluation.benchmarks.items import Item, load_items, name_items, save_items
from evaluation.figures.video import read_video, write_lossless
from sampling.settings import SamplingSettings
from storage import read_json, read_sealed, sha256, write_bytes, write_sealed
from weights.load import Pipeline

T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """What makes the videos of one row of a table."""

    settings: SamplingSettings
    model: str  # fingerprint of the weights
    dtype: str  # of the networks, "float32"
    frames: int
    height: int
    width: int
    negative_prompt: str = ""

    @classmethod
    def of(cls, pipeline: Pipeline, settings: SamplingSettings, frames: int, negative_prompt: str = "") -> Row:
        """With this pipeline's weights and number type, and the height and width that it recommends."""
        dtype = str(next(pipeline.unet.parameters()).dtype).removeprefix("torch.")
        size = pipeline.defaults.height, pipeline.defaults.width
        return cls(settings, pipeline.fingerprint, dtype, frames, *size, negative_prompt)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Row:
        """From what `asdict` gives, also by way of JSON."""
        return cls(**{**values, "settings": SamplingSettings.from_dict(values["settings"])})


@dataclass(frozen=True)
class Store:
    """A folder of videos and measurements."""

    root: Path

    # ---- What is to be made ------------------------------------------------------------------------------------------

    def save(self, items: Sequence[Item], rows: dict[str, Row]) -> None:
        """Note what is to be made; rows noted before stay, unless their label is used again.

        One folder has one list of items, over which all of its rows are compared: another one is a ValueError. Several
        processes may note theirs at once.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        path = self.root / "bench.jsonl"
        with self.alone():
            if not path.exists():
                save_items(path, items)
        if (known := self.items()) != list(items):
            raise ValueError(
                f"{self.root} has the videos of another list of items ({len(known)} of {name_items(known)}) than this "
                f"one ({len(items)} of {name_items(items)}); take another --out for it"
            )
        self.save_rows(rows)

    def save_rows(self, rows: Mapping[str, Row]) -> None:
        """Note rows alone, whose items are listed elsewhere."""
        (self.root / "files").mkdir(parents=True, exist_ok=True)
        self._add("rows.json", {label: asdict(row) for label, row in rows.items()})

    def note(self, kind: str, name: str, value: Any) -> None:
        """Keep what `extract` must tell `reduce`, by kind and name."""
        self._add("measured.json", {f"{kind}: {name}": value})

    def noted(self, kind: str) -> dict[str, Any]:
        """{name: what was noted of this kind}."""
        known = read_json(self.root / "measured.json") or {}
        return {name.removeprefix(f"{kind}: "): value for name, value in known.items() if name.startswith(f"{kind}: ")}

    def _add(self, name: str, members: dict[str, Any]) -> None:
        """Add members to a JSON object on disk; each process's are added to those of the others."""
        path = self.root / name
        with self.alone():
            write_bytes(path, (json.dumps((read_json(path) or {}) | members, indent=1) + "\n").encode())

    def items(self) -> list[Item]:
        """All items that are noted; a ValueError where there are none."""
        return load_items(self.root / "bench.jsonl")

    def rows(self, labels: Iterable[str] | None = None) -> dict[str, Row]:
        """All rows, or those with these labels in this order."""
        path = self.root / "rows.json"
        noted = read_json(path)
        if not noted:
            raise ValueError(f"{path} is not there or not whole; run `python -m evaluation generate` first")
        labels = list(noted if labels is None else labels)
        if unknown := [label for label in labels if label not in noted]:
            raise ValueError(f"{path} knows no row {unknown[0]!r}; it has {', '.join(noted)}")
        try:
            return {label: Row.from_dict(noted[label]) for label in labels}
        except (ValueError, TypeError, KeyError):
            raise ValueError(
                f"{path} has rows of another version of this program; run `python -m evaluation generate` again"
            ) from None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other process is in here with the same folder."""
        with (self.root / "store.lock").open("ab") as file:  # a lock belongs to the opened file
            with suppress(ImportError, OSError):  # a system, or a file system, that has no locks
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    # ---- Videos ------------------------------------------------------------------------------------------------------

    def record_path(self, item: Item, row: Row) -> Path:
        """Where the record of a video lies, if there is one; the names of all that belongs to it begin so."""
        digest = sha256(json.dumps([asdict(item), asdict(row)], sort_keys=True).encode())
        return self.root / "files" / f"{item.id}-{digest[:12]}.json"

    def read_record(self, item: Item, row: Row) -> dict[str, Any] | None:
        """A video's record; None unless the record is whole, and the video beside it the one that it speaks of."""
        path = self.record_path(item, row)
        record = read_sealed(path)
        if record is None or record["video"] is None:
            return record
        try:
            return record if sha256(path.with_suffix(".mkv").read_bytes()) == record["video"] else None
        except OSError:
            return None

    def write_record(self, item: Item, row: Row, frames: np.ndarray | None, record: dict[str, Any]) -> dict[str, Any]:
        """Write the frames, then the record, which is what says that they are there; frames None = there are none."""
        path = self.record_path(item, row)
        if frames is not None:
            write_lossless(path.with_suffix(".mkv"), frames)
        video = None if frames is None else sha256(path.with_suffix(".mkv").read_bytes())
        record = {"video": video, **record}
        write_sealed(path, record)
        return record

    def read_frames(self, item: Item, row: Row) -> np.ndarray:
        """uint8 (F, H, W, 3)."""
        frames = read_video(self.record_path(item, row).with_suffix(".mkv"))
        if len(frames) != item.frames:
            raise ValueError(f"the video of {item.id} has {len(frames)} frames, not {item.frames}; make it again")
        return frames


# ---- Sharing the work ------------------------------------------------------------------------------------------------


def worker(shard: tuple[int, int] | None = None) -> tuple[int, int]:
    """(i, n): this is worker i of n, from 1. What is given, else what torchrun or accelerate says, else (1, 1).

    Both at once is a ValueError: all of the launcher's workers would take the one share that is given.
    """
    rank, size = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    if rank is None and size is None:
        return shard or (1, 1)
    if not (rank and size and rank.isdecimal() and size.isdecimal() and int(rank) < int(size)):
        raise ValueError(
            f"the environment has RANK {rank} and WORLD_SIZE {size}, but a launcher sets both, RANK below WORLD_SIZE; "
            "unset them, or start the workers with torchrun"
        )
    if shard is not None and int(size) > 1:
        raise ValueError(
            f"--shard {shard[0]}/{shard[1]} would be the share of each of the launcher's {size} workers; leave it out, "
            "the launcher's numbers are known"
        )
    return shard or (int(rank) + 1, int(size))


def share(things: Sequence[T], of: tuple[int, int]) -> Sequence[T]:
    """What worker i of n does, of = (i, n): every n-th."""
    i, n = of
    return things[i - 1 :: n]


def worker_device(device: str) -> str:
    """With "cuda" and several workers on a machine, each its own GPU."""
    local = os.environ.get("LOCAL_RANK")
    return f"cuda:{local}" if device == "cuda" and local is not None else device
