"""Checkpoint folders: a small one of random weights, spoilt in one place or two."""

import functools
import io
import json
import random
from collections.abc import Callable
from typing import Any

import torch
from attempt import Case
from safetensors.torch import load as read_tensors
from safetensors.torch import save as write_tensors
from values import NUMBERS, any_json, any_text, spoil_bytes, spoil_value, to_json

from weights.files import CONFIGS, RECOMMENDED, STEMS
from weights.hub import TINY
from weights.load import BUILDERS

Folder = dict[str, bytes | None]

SMALLER = {  # than the tiny checkpoint's
    "unet": {
        "block_out_channels": [8, 16],
        "attention_head_dim": 4,
        "cross_attention_dim": 8,
        "down_block_types": ["CrossAttnDownBlock3D", "DownBlock3D"],
        "up_block_types": ["UpBlock3D", "CrossAttnUpBlock3D"],
    },
    "vae": {
        "block_out_channels": [8, 8],
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
    },
    "text_encoder": {"hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1},
}
RECOMMENDATION = {"frames": 2, "height": 16, "width": 16, "fps": 8, "prompt": "a red ball", "settings": {"steps": 2}}
BALL = ["--prompt", "a red ball", "--subject", "red ball", "--box-from", "0.1,0.2,0.6,0.7"]
OTHER_TYPES = [torch.float64, torch.bfloat16, torch.int8, torch.int64, torch.bool, torch.float8_e4m3fn, torch.complex64]


@functools.cache
def small_checkpoint() -> Folder:
    """{name: content} in Zeroscope's folder form; the tokenizer and the schedule are the tiny checkpoint's."""
    folder = {f"tokenizer/{path.name}": path.read_bytes() for path in (TINY / "tokenizer").iterdir()}
    folder[CONFIGS["scheduler"]] = (TINY / CONFIGS["scheduler"]).read_bytes()
    folder[RECOMMENDED] = to_json(RECOMMENDATION)
    for seed, (part, changes) in enumerate(SMALLER.items()):
        config = json.loads((TINY / CONFIGS[part]).read_bytes()) | changes
        state = BUILDERS[part](config).state_dict()
        draw = torch.Generator().manual_seed(seed)
        tensors = {name: (0.1 * torch.randn(p.shape, generator=draw)).half() for name, p in state.items()}
        folder |= {CONFIGS[part]: to_json(config), weights(part): write_tensors(tensors)}
    return folder


def weights(part: str) -> str:
    return f"{part}/{STEMS[part][0]}.safetensors"


def make(rng: random.Random) -> Case:
    folder = dict(small_checkpoint())
    for _ in range(rng.choice([1, 1, 1, 2])):
        rng.choices(list(WAYS), list(WAYS.values()))[0](rng, folder)
    arguments = ["--model", "model", *rng.choice([[], [], BALL])]
    if rng.random() < 0.1:
        arguments += ["--dtype", rng.choice(["float16", "bfloat16", "float64"])]
    if rng.random() < 0.05:
        arguments += ["--draw", "--static", "--no-browser"]
    return Case(arguments, {f"model/{name}": content for name, content in folder.items()})


# ---- Ways to spoil a folder, in place --------------------------------------------------------------------------------


def spoil_files(rng: random.Random, folder: Folder) -> None:
    """A file, or a whole part, that is missing, empty, a folder, another's, cut off or damaged anywhere."""
    name = rng.choice(list(folder))
    draw = rng.randrange(8)
    if draw == 0:
        del folder[name]
    elif draw == 1:
        for inside in [other for other in folder if other.startswith(name.split("/")[0])]:
            del folder[inside]
    elif draw == 2:
        folder[name] = rng.choice([None, b"", b"<!doctype html>", b"version https://git-lfs.github.com/spec/v1\n"])
    elif draw == 3:
        folder[name] = folder[rng.choice(list(folder))]
    elif folder[name]:
        folder[name] = spoil_bytes(rng, folder[name])


def spoil_header(rng: random.Random, folder: Folder) -> None:
    """The first bytes of a weight file: its header's length, or the names, types, shapes and places in the header."""
    name = weights(rng.choice(list(STEMS)))
    if content := folder.get(name):
        header = 8 + int.from_bytes(content[:8], "little")
        folder[name] = spoil_bytes(rng, content, rng.choice([8, header]))


def spoil_json(rng: random.Random, folder: Folder) -> None:
    """A config with a field that is wrong, missing, spelt otherwise, or one too many."""
    name = rng.choice([*CONFIGS.values(), *CONFIGS.values(), RECOMMENDED, "tokenizer/tokenizer_config.json"])
    if rng.random() < 0.1:
        name = rng.choice(["tokenizer/vocab.json", "tokenizer/special_tokens_map.json", "tokenizer/added_tokens.json"])
    values = parse(folder.get(name))
    if not isinstance(values, dict) or rng.random() < 0.5:
        folder[name] = to_json(spoil_value(rng, values))
        return
    key = rng.choice([*values, *EXTRA])
    values[key] = rng.choice([any_json(rng), any_text(rng), rng.choice(NUMBERS), 10 ** rng.randrange(19)])
    folder[name] = to_json(values)


EXTRA = ["return_dict", "torchscript", "attn_implementation", "pruned_heads", "is_decoder", "auto_map", "dtype"]
EXTRA += ["quantization_config", "output_attentions", "added_tokens_decoder", "model_input_names", "padding_side"]


def parse(content: bytes | None) -> Any:
    try:
        return json.loads(content or b"{}")
    except ValueError:
        return {}


def spoil_tensors(rng: random.Random, folder: Folder) -> None:
    """Tensors of another type or shape, under another name, too many, too few, or not finite."""
    name = weights(rng.choice(list(STEMS)))
    try:
        tensors = read_tensors(folder[name])
    except Exception:  # is spoilt already
        return
    for key in rng.sample(list(tensors), rng.choice([1, 1, 3])):
        change_tensor(rng, tensors, key)
    folder[name] = write_tensors({key: tensor.contiguous() for key, tensor in tensors.items()})


def change_tensor(rng: random.Random, tensors: dict[str, torch.Tensor], key: str) -> None:
    tensor = tensors[key]
    draw = rng.randrange(6)
    if draw == 0:
        tensors[key] = tensor.to(rng.choice(OTHER_TYPES))
    elif draw == 1:
        tensors[key] = rng.choice([tensor[None], tensor.flatten(), torch.cat([tensor, tensor]), tensor[:0]])
    elif draw == 2:
        tensors[rng.choice(["extra", "", "model." + key, "\x1b[31m\n", "x" * 5000])] = tensors.pop(key)
    elif draw == 3:
        tensors[rng.choice(["extra", key + "2", "é\n"])] = tensor.clone()
    elif draw == 4:
        del tensors[key]
    else:
        tensors[key] = torch.full_like(tensor, rng.choice([float("nan"), float("inf"), 0.0, 6e4]))


def split(rng: random.Random, folder: Folder) -> None:
    """Weights in two files with an index, which may name files elsewhere, missing ones, or none."""
    part = rng.choice(list(STEMS))
    content = folder.pop(weights(part), None)
    if not content:
        return
    folder[f"{part}/a.safetensors"] = content
    places = ["a.safetensors", "../unet/a.safetensors", "/etc/x.safetensors", "b.safetensors", "", ".", "a.bin"]
    index = {"metadata": {}, "weight_map": {"x": rng.choice(places)}}
    folder[f"{weights(part)}.index.json"] = to_json(index if rng.random() < 0.6 else spoil_value(rng, index))


def pickled(rng: random.Random, folder: Folder) -> None:
    """Weights as a pickle: whole, damaged, of strange tensors, of something else, or one that runs code."""
    part = rng.choice(list(STEMS))
    content = folder.get(weights(part))
    try:
        tensors = read_tensors(content)
    except Exception:  # is missing, or spoilt already
        return
    del folder[weights(part)]
    key = rng.choice(list(tensors))
    strange: list[Callable[[], Any]] = [
        lambda: tensors,
        lambda: tensors | {key: tensors[key].float().to_sparse()},
        lambda: tensors | {key: tensors[key].to("meta")},
        lambda: tensors | {key: torch.zeros(1).half().expand(tensors[key].shape)},
        lambda: tensors | {key: torch.nn.Parameter(tensors[key])},
        lambda: tensors | {key: tensors[key].tolist()},
        lambda: tensors | {rng.choice([0, None, ("a",)]): tensors[key]},
        lambda: {"state_dict": tensors},
        lambda: list(tensors.values()),
        lambda: tensors | {key: Bomb()},
        lambda: Bomb(),
    ]
    buffer = io.BytesIO()
    torch.save(rng.choice(strange)(), buffer, _use_new_zipfile_serialization=rng.random() < 0.7)
    whole = buffer.getvalue()
    folder[f"{part}/{STEMS[part][1]}.bin"] = whole if rng.random() < 0.6 else spoil_bytes(rng, whole)


class Bomb:
    """Writes a file when it is unpickled by anything that runs what a pickle asks for."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open, ("exploded", "w")


def extra_files(rng: random.Random, folder: Folder) -> None:
    """Files that nobody asked for, some with names that mean something."""
    part = rng.choice(list(STEMS))
    stem = STEMS[part][0]
    names = [f"{part}/{stem}.fp16.safetensors", f"{part}/{stem}.bin", f"{part}/.cache", "unet.safetensors", "setup.py"]
    content = folder.get(weights(part)) or b""
    folder[rng.choice(names)] = rng.choice([b"", content, content[:100], rng.randbytes(50), None])


WAYS = {spoil_files: 4, spoil_header: 3, spoil_json: 8, spoil_tensors: 4, split: 1, pickled: 2, extra_files: 1}
