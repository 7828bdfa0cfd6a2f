"""Write a checkpoint's pickled weights as safetensors: `python -m weights.convert IN OUT`.

Names, shapes and types stay as they are, and settings and vocabulary are copied. A file that is in OUT already is kept
if it holds the same, so that an interrupted run can be repeated; otherwise the run stops and overwrites nothing.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from weights.files import (
    OPTIONAL,
    REQUIRED,
    STEMS,
    CheckpointError,
    check_folder,
    choose_weights,
    open_weights,
    read_json,
    weight_files,
)


def convert(source: Path, target: Path) -> Iterator[str]:
    """Convert a checkpoint folder; says what was done with each file."""
    if not source.is_dir():
        raise CheckpointError(f"{source} is not a folder; give the folder of a checkpoint")
    check_folder(source)
    for name in (*REQUIRED, *OPTIONAL):
        if (source / name).is_file():
            yield copy(source / name, target / name)
    for part in STEMS:
        files = weight_files(source, part, half=False)
        names = {path.name: safe_name(part, path.name) for path in files}
        for path in files:
            yield rewrite(path, target / part / names[path.name])
        chosen = choose_weights(part, {path.name for path in (source / part).iterdir()}, False, source)
        if chosen.endswith(".json"):
            yield rewrite_index(source / part / chosen, target / part / safe_name(part, chosen), names)


def safe_name(part: str, name: str) -> str:
    """pytorch_model-00001-of-00002.bin -> model-00001-of-00002.safetensors; safetensors keep their name."""
    safe, pickled = STEMS[part]
    if ".bin" not in name:
        return name
    return name.replace(pickled, safe, 1).replace(".bin", ".safetensors", 1)


def copy(path: Path, target: Path) -> str:
    """The same bytes."""
    if target.exists():
        return kept(target, filecmp.cmp(path, target, shallow=False))
    with whole(target, like=path) as part:
        shutil.copyfile(path, part)
    return f"copied {target}"


def rewrite(path: Path, target: Path) -> str:
    """The same tensors as safetensors."""
    if path.suffix == ".safetensors":
        return copy(path, target)
    file = open_weights(path)
    tensors = dict(file.tensors(file.entries))
    if target.exists():
        return kept(target, same_tensors(target, tensors))
    with whole(target, like=path) as part:
        save_file(unshared(tensors), part, metadata={"format": "pt"})
    return f"wrote {target}"


def rewrite_index(path: Path, target: Path, names: dict[str, str]) -> str:
    """The index of several files, under their new names."""
    index = read_json(path)
    index["weight_map"] = {tensor: names[file] for tensor, file in index["weight_map"].items()}
    text = json.dumps(index, indent=2) + "\n"
    if target.exists():
        return kept(target, target.read_text(encoding="utf-8") == text)
    with whole(target, like=path) as part:
        part.write_text(text, encoding="utf-8")
    return f"wrote {target}"


def kept(target: Path, same: bool) -> str:
    if not same:
        raise CheckpointError(f"{target} exists and holds something else; give an OUT folder that is new or empty")
    return f"kept {target}"


def unshared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that share memory, as a pickle allows, with memory of their own."""
    seen, own = set(), {}
    for name, tensor in tensors.items():
        memory = tensor.untyped_storage().data_ptr()
        own[name] = tensor.clone(memory_format=torch.contiguous_format) if memory in seen else tensor.contiguous()
        seen.add(memory)
    return own


def same_tensors(path: Path, tensors: dict[str, Tensor]) -> bool:
    """Whether a safetensors file holds exactly these."""
    try:
        with safe_open(path, "pt") as file:
            return set(file.keys()) == tensors.keys() and all(
                t.dtype == file.get_tensor(name).dtype and torch.equal(t, file.get_tensor(name))
                for name, t in tensors.items()
            )
    except (SafetensorError, OSError):
        return False


@contextmanager
def whole(target: Path, like: Path) -> Iterator[Path]:
    """A name to write to; the file takes its own name, and the permissions of `like`, when it is whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    try:
        yield part
        shutil.copymode(like, part)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def main(arguments: list[str] | None = None) -> int:
    """0: written; 2: something that the user can mend, said in one sentence."""
    parser = argparse.ArgumentParser(prog="python -m weights.convert", description=__doc__)
    parser.add_argument("source", type=Path, metavar="IN", help="a checkpoint folder of Zeroscope's form")
    parser.add_argument("target", type=Path, metavar="OUT", help="the folder to write")
    args = parser.parse_args(arguments)
    try:
        for done in convert(args.source, args.target):
            print(done, flush=True)
    except (CheckpointError, SafetensorError, OSError) as error:
        print(f"weights.convert: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
