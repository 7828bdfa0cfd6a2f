"""From the tensors in files to a network: old spellings, what does not fit, and filling a network built on meta."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from weights.files import FLOATS, Entry, WeightFile

# Names as older files and other versions spell them, rewritten in this order; None = no longer stored.
SPELLINGS: dict[str, tuple[tuple[str, str | None], ...]] = {
    "unet": (),
    "vae": (
        (r"(attentions\.\d+)\.query\.", r"\1.to_q."),
        (r"(attentions\.\d+)\.key\.", r"\1.to_k."),
        (r"(attentions\.\d+)\.value\.", r"\1.to_v."),
        (r"(attentions\.\d+)\.proj_attn\.", r"\1.to_out.0."),
    ),
    "text_encoder": (
        (r"^text_model\.", ""),  # transformers has it up to version 4 and leaves it out from version 5 on
        (r"^embeddings\.position_ids$", None),  # 0, 1, 2, ..., made when the model is built
    ),
}
LISTED = 8  # names, or groups of them, in an error message


@dataclass(frozen=True)
class Match:
    """Where the tensors of a network lie: {name in the network: (file, name in the file)}, and what does not fit."""

    network: nn.Module
    places: dict[str, tuple[WeightFile, str]]
    problems: list[str]


def respell(part: str, name: str) -> str | None:
    """The name as it is spelt today; None where the tensor is no longer stored."""
    for pattern, replacement in SPELLINGS[part]:
        if re.search(pattern, name):
            if replacement is None:
                return None
            name = re.sub(pattern, replacement, name)
    return name


def match(part: str, network: nn.Module, files: Sequence[WeightFile]) -> Match:
    """Compare every name, shape and type in the files with the network's, both ways."""
    wanted = {
        today: (name, tuple(p.shape))
        for name, p in network.state_dict().items()
        if (today := respell(part, name)) is not None
    }
    stored: dict[str, tuple[WeightFile, str]] = {}
    twice = []
    for file in files:
        for old in file.entries:
            name = respell(part, old)
            if name is not None:
                twice += [old] if name in stored else []
                stored[name] = file, old

    reshaped, types = {}, {}
    for name in wanted.keys() & stored.keys():
        file, old = stored[name]
        entry, shape = file.entries[old], wanted[name][1]
        if not fits(entry, shape):
            reshaped[name] = f"is {entry.shape} instead of {shape}"
        if entry.dtype not in FLOATS:
            types[name] = f"is stored as {entry.dtype} instead of one of {', '.join(FLOATS)}"
    problems = [
        f"{len(names)} {what} ({shorten(names)})"
        for what, names in (
            ("missing", wanted.keys() - stored.keys()),
            ("that the model does not have", stored.keys() - wanted.keys()),
            ("stored twice", twice),
        )
        if names
    ]
    problems += [
        f"{len(found)} {what} ({explain(found)})"
        for what, found in (("of another shape", reshaped), ("of another type", types))
        if found
    ]
    places = {wanted[name][0]: place for name, place in stored.items() if name in wanted}
    return Match(network, places, problems)


def fits(entry: Entry, shape: tuple[int, ...]) -> bool:
    """Whether a stored tensor has a shape, or had it when linear layers were written as convolutions of kernel 1x1."""
    return entry.shape == shape or (len(shape) == 2 and entry.shape == (*shape, 1, 1))


def shorten(names: Collection[str]) -> str:
    """All names if they are few, else groups with a common beginning: `down_blocks.0.* (340)`."""
    paths = [name.split(".") for name in sorted(names)]
    for depth in range(max(map(len, paths)), 0, -1):
        groups: dict[str, list[str]] = {}
        for path in paths:
            groups.setdefault(".".join(path[:depth]), []).append(".".join(path))
        if len(groups) <= LISTED:
            break
    shown = [
        members[0] if len(members) == 1 else f"{group}.* ({len(members)})"
        for group, members in list(groups.items())[:LISTED]
    ]
    rest = len(groups) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")


def explain(faults: dict[str, str]) -> str:
    """What is wrong with each name; with many names, what is wrong with the first of them."""
    if len(faults) <= LISTED:
        return ", ".join(f"{name} {faults[name]}" for name in sorted(faults))
    return f"{shorten(faults)}; {min(faults)} {faults[min(faults)]}"


def fill(found: Match, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Read the tensors one by one, each cast and moved before the next, into a network that was built on meta."""
    shapes = {name: p.shape for name, p in found.network.state_dict().items()}
    state = {}
    for file in {id(file): file for file, _ in found.places.values()}.values():
        names = {old: name for name, (holder, old) in found.places.items() if holder is file}
        for old, tensor in file.tensors(names):
            copy = tensor.to(device=device, dtype=dtype, copy=True, memory_format=torch.contiguous_format)
            state[names[old]] = copy.reshape(shapes[names[old]])
    found.network.load_state_dict(state, strict=True, assign=True)
    return found.network.to(device).eval().requires_grad_(False)
