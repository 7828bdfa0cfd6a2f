"""A checkpoint's files: which ones a folder of Zeroscope's form holds, what tensors lie in them, and reading those.

Whatever is wrong with a file is a CheckpointError, one sentence that names the file and says what to do.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import warnings
import zipfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

# The networks, each in a folder of this name, with the names its weights go by: as safetensors and as a pickle.
STEMS = {
    "unet": ("diffusion_pytorch_model", "diffusion_pytorch_model"),
    "vae": ("diffusion_pytorch_model", "diffusion_pytorch_model"),
    "text_encoder": ("model", "pytorch_model"),
}
CONFIGS = {part: f"{part}/config.json" for part in STEMS} | {"scheduler": "scheduler/scheduler_config.json"}
VOCABULARY = ("tokenizer/vocab.json", "tokenizer/merges.txt", "tokenizer/tokenizer_config.json")
RECOMMENDED = "train_free.json"
REQUIRED = (*CONFIGS.values(), *VOCABULARY)
OPTIONAL = ("model_index.json", RECOMMENDED, "tokenizer/special_tokens_map.json", "tokenizer/added_tokens.json")

FLOATS = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}
CODES = {dtype: code for code, dtype in FLOATS.items()}
CHUNK = 64 * 2**20  # bytes of a file that are mapped into memory at a time


class CheckpointError(ValueError):
    """A checkpoint that cannot be found, read or used."""


def one_line(error: BaseException) -> str:
    """What another library says went wrong, without its line breaks."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


@contextmanager
def blame(path: Path | str) -> Iterator[None]:
    """Any ValueError inside is about this file."""
    try:
        yield
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{path}: {' '.join(str(error).split())}") from error


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; download the checkpoint again, or take it from its source") from None
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror}); check the file and its permissions"
        ) from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON ({one_line(error)}); download it again") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a JSON {type(value).__name__} where an object belongs; download it again")
    return value


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


# Which files


def weight_names(part: str, half: bool) -> list[str]:
    """Names a network's weights may have, the best first: safetensors before pickles, one file before shards.

    half: float16 is wanted, so the fp16 variant is read where there is one; otherwise only where there is no other.
    """
    names = []
    for stem, suffix in zip(STEMS[part], ("safetensors", "bin"), strict=True):
        full = [f"{stem}.{suffix}", f"{stem}.{suffix}.index.json"]
        fp16 = [
            f"{stem}.fp16.{suffix}",
            f"{stem}.{suffix}.index.fp16.json",  # three habits of naming the index
            f"{stem}.{suffix}.fp16.index.json",
            f"{stem}.fp16.{suffix}.index.json",
        ]
        names += fp16 + full if half else full + fp16
    return names


def choose_weights(part: str, names: Collection[str], half: bool, where: str | Path) -> str:
    """The best of `names`, the files in a part's folder: a file of weights, or the index of several."""
    for name in weight_names(part, half):
        if name in names:
            return name
    safe, pickled = STEMS[part]
    raise CheckpointError(
        f"{where} has no weights in {part}/: expected {safe}.safetensors or {pickled}.bin; "
        "download the checkpoint again, or check the name"
    )


def shards(index: Path) -> list[Path]:
    """The files that an index names, each once; they lie beside it."""
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise CheckpointError(f"{index} has no weight_map of tensors to files; download it again")
    names = sorted(set(places.values()))
    for name in names:
        if Path(name).name != name or "\\" in name or not name.endswith((".safetensors", ".bin")):
            raise CheckpointError(
                f"{index} names the file {name!r}, which is not a weight file beside it; do not trust this checkpoint"
            )
    return [index.parent / name for name in names]


def weight_files(folder: Path, part: str, half: bool) -> list[Path]:
    """The files that hold a network's weights, all of them there."""
    inside = folder / part
    present = {path.name for path in inside.iterdir()} if inside.is_dir() else set()
    path = inside / choose_weights(part, present, half, folder)
    files = shards(path) if path.suffix == ".json" else [path]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise CheckpointError(f"{path} needs {', '.join(missing)} beside it; download what is missing")
    return files


def check_folder(folder: Path) -> None:
    """Raise unless every part of a checkpoint has its folder and its settings."""
    parts = sorted({name.split("/")[0] for name in REQUIRED})
    missing = [f"{part}/" for part in parts if not (folder / part).is_dir()]
    missing += [name for name in REQUIRED if (folder / name).parent.is_dir() and not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder} is not a whole checkpoint, {', '.join(missing)} missing: give the folder that holds "
            f"{', '.join(f'{part}/' for part in parts[:-1])} and {parts[-1]}/, or download it again"
        )


# What lies in them


@dataclass(frozen=True)
class Entry:
    """A tensor in a file; dtype in safetensors' spelling, such as F16."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class WeightFile:
    """One file of weights: what it holds, and reading it. `pickled`: its tensors, if it is a .bin."""

    path: Path
    entries: dict[str, Entry]
    pickled: dict[str, Tensor] | None = field(default=None, repr=False)

    def tensors(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """The named tensors, to be copied before the next is asked for: they are views of the file in memory."""
        if self.pickled is not None:
            for name in names:
                yield name, self.pickled[name]
            return
        for group in self._groups(names):
            with safe_open(self.path, "pt") as file:  # opened anew, so that pages already copied are given back
                for name in group:
                    yield name, file.get_tensor(name)

    def _groups(self, names: Iterable[str]) -> Iterator[list[str]]:
        group, size = [], 0
        for name in names:
            group.append(name)
            size += prod(self.entries[name].shape) * FLOATS[self.entries[name].dtype].itemsize
            if size >= CHUNK:
                yield group
                group, size = [], 0
        if group:
            yield group


def open_weights(path: Path) -> WeightFile:
    """Read what a .safetensors or .bin file holds, its tensors not yet."""
    return _open_safetensors(path) if path.suffix == ".safetensors" else _open_pickle(path)


def _open_safetensors(path: Path) -> WeightFile:
    try:
        with safe_open(path, "pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
            entries = {name: Entry(tuple(s.get_shape()), s.get_dtype()) for name, s in slices.items()}
    except (SafetensorError, OSError) as error:
        raise _damaged(path, "safetensors", error) from error
    return WeightFile(path, entries)


def _open_pickle(path: Path) -> WeightFile:
    """Through torch's restricted unpickler, which builds tensors and refuses everything else."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on pickle protocols; what cannot be read is an error below
            tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        if "global" in str(error).lower():
            raise CheckpointError(
                f"{path} is refused, since opening it would run code that it brings along: use safetensors instead"
            ) from error
        raise _damaged(path, "PyTorch", error) from error
    except Exception as error:  # what torch makes of a broken pickle has no common kind
        raise _damaged(path, "PyTorch", error) from error
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in tensors.items()
    ):
        raise CheckpointError(f"{path} holds something else than names and tensors; use the model's own weight file")
    if strange := [name for name, t in tensors.items() if t.layout != torch.strided or t.is_meta]:
        raise CheckpointError(f"{path} holds {strange[0]} as no plain tensor; use the model's own weight file")
    entries = {name: Entry(tuple(t.shape), CODES.get(t.dtype, str(t.dtype))) for name, t in tensors.items()}
    return WeightFile(path, entries, tensors)


def _damaged(path: Path, kind: str, error: Exception) -> CheckpointError:
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as refused:
        return CheckpointError(f"{path} cannot be read ({refused.strerror}); check its permissions")
    if start == b"version ":
        return CheckpointError(f"{path} is only Git LFS's pointer to the weights; run `git lfs pull` in its folder")
    reason = one_line(error).split(" In PyTorch 2.6")[0]  # the rest advises to run the file's code
    return CheckpointError(f"{path} is not a whole {kind} file ({reason}); download it again")
