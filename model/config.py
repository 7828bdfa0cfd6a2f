"""Sizes of the networks, read from a checkpoint's own config.json files.

Nothing is guessed of U-Net and autoencoder: a key that this code does not know, or a value that would need code it does
not have, is an error that names the key. Keys of newer checkpoints are accepted where their value changes nothing.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

# Keys of other models of the family, with the only values that leave this model as it is.
UNET_NEUTRAL = {
    "downsample_padding": (1,),
    "mid_block_scale_factor": (1,),
    "act_fn": ("silu",),
    "num_attention_heads": (),
    "time_cond_proj_dim": (),
}
VAE_NEUTRAL = {
    "act_fn": ("silu",),
    "use_quant_conv": (True,),
    "use_post_quant_conv": (True,),
    "mid_block_add_attention": (True,),
    "shift_factor": (0.0,),
    "latents_mean": (),
    "latents_std": (),
    "force_upcast": (True, False),  # a pipeline's habit; here the attention softmax is always at least float32
}

# What a file may ask for, far above any model of this form: a slip, or malice, is to cost no memory and no time.
LARGEST = {"layers_per_block": 32, "num_hidden_layers": 100, "vocab_size": 10**6}
LARGEST_OTHER = 2**16
MOST_LEVELS = 10

DOWN_TYPES = {"CrossAttnDownBlock3D": True, "DownBlock3D": False}  # block type -> has attention
UP_TYPES = {"CrossAttnUpBlock3D": True, "UpBlock3D": False}


@dataclass(frozen=True)
class UNetConfig:
    """3-D U-Net. The defaults are Zeroscope v2 576w's."""

    in_channels: int = 4
    out_channels: int = 4
    down_block_types: tuple[str, ...] = ("CrossAttnDownBlock3D",) * 3 + ("DownBlock3D",)
    up_block_types: tuple[str, ...] = ("UpBlock3D",) + ("CrossAttnUpBlock3D",) * 3
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: int = 2
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    cross_attention_dim: int = 1024
    attention_head_dim: int = 64  # size of one head; a layer of C channels has C // attention_head_dim heads
    sample_size: int | None = None  # latent size used in training; only a default for callers

    def __post_init__(self) -> None:
        _check_blocks("down_block_types", self.down_block_types, DOWN_TYPES, self.block_out_channels)
        _check_blocks("up_block_types", self.up_block_types, UP_TYPES, self.block_out_channels)
        _check_groups(self.block_out_channels, self.norm_num_groups)
        if min(self.block_out_channels) < self.attention_head_dim:
            raise ValueError(
                f"attention_head_dim {self.attention_head_dim} is larger than the narrowest of block_out_channels "
                f"{list(self.block_out_channels)}: a layer needs at least one head"
            )
        if self.block_out_channels[0] % 2:
            raise ValueError(
                f"block_out_channels[0] is {self.block_out_channels[0]}; it must be even for the timestep embedding"
            )

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> UNetConfig:
        """Read a unet/config.json. Raises ValueError naming the key that is not supported."""
        return _read(cls, raw, UNET_NEUTRAL)


@dataclass(frozen=True)
class VAEConfig:
    """Image autoencoder with a KL-regularised latent. The defaults are Stable Diffusion's, which Zeroscope uses."""

    in_channels: int = 3
    out_channels: int = 3
    down_block_types: tuple[str, ...] = ("DownEncoderBlock2D",) * 4
    up_block_types: tuple[str, ...] = ("UpDecoderBlock2D",) * 4
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    latent_channels: int = 4
    norm_num_groups: int = 32
    scaling_factor: float = 0.18215
    sample_size: int | None = None

    def __post_init__(self) -> None:
        _check_blocks("down_block_types", self.down_block_types, {"DownEncoderBlock2D"}, self.block_out_channels)
        _check_blocks("up_block_types", self.up_block_types, {"UpDecoderBlock2D"}, self.block_out_channels)
        _check_groups(self.block_out_channels, self.norm_num_groups)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> VAEConfig:
        """Read a vae/config.json. Raises ValueError naming the key that is not supported."""
        return _read(cls, raw, VAE_NEUTRAL)

    @property
    def downscale(self) -> int:
        """Pixels per latent cell along each side: 8 for four levels."""
        return 2 ** (len(self.block_out_channels) - 1)


@dataclass(frozen=True)
class TextConfig:
    """The sizes of CLIP's text model. The defaults are those of transformers, whose files leave them out."""

    vocab_size: int = 49408
    hidden_size: int = 512
    intermediate_size: int = 2048
    projection_dim: int = 512
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    max_position_embeddings: int = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> TextConfig:
        """Read a text_encoder/config.json. Its other keys, for training and other heads, say nothing here."""
        return _read(cls, {f.name: raw[f.name] for f in fields(cls) if f.name in raw}, {})


def _read(cls: type, raw: Mapping[str, Any], neutral: Mapping[str, tuple]) -> Any:
    if not isinstance(raw, Mapping):
        raise ValueError(f"a config must be a JSON object, not {type(raw).__name__}")
    kinds = {f.name: str(f.type) for f in fields(cls)}
    values = {}
    for key, value in raw.items():
        if key.startswith("_") or value is None:
            continue
        if key in kinds:
            values[key] = _checked(key, value, kinds[key])
        elif key not in neutral:
            raise ValueError(f"config key {key!r} (= {value!r}) is not one that this model has")
        elif not any(value == v and type(value) in (type(v), int, float) for v in neutral[key]):
            only = " or ".join(repr(v) for v in neutral[key]) or "null"
            raise ValueError(f"config key {key!r} is {value!r}; only {only} is supported")
    return cls(**values)


def _checked(key: str, value: Any, kind: str) -> Any:
    """One config value as the type its field declares, or a ValueError that names it."""
    if kind.startswith("tuple"):
        item = "str" if "str" in kind else "int"
        if not isinstance(value, (list, tuple)) or not 1 <= len(value) <= MOST_LEVELS:
            shown = reprlib.repr(value)
            raise ValueError(
                f"config key {key!r} is {shown}; it must list an entry for each of 1 to {MOST_LEVELS} levels"
            )
        return tuple(_checked(key, v, item) for v in value)
    if kind == "str":
        if not isinstance(value, str):
            raise ValueError(f"config key {key!r} holds {value!r} where a name belongs")
        return value
    numeric = (int, float) if kind == "float" else int
    largest = LARGEST.get(key, LARGEST_OTHER)
    if isinstance(value, bool) or not isinstance(value, numeric) or not 0 < value <= largest:
        what = f"a {'number' if kind == 'float' else 'whole number'} above 0 and up to {largest}"
        raise ValueError(f"config key {key!r} holds {value!r} where {what} belongs")
    return float(value) if kind == "float" else value


def _check_blocks(key: str, types: tuple[str, ...], known: Any, channels: tuple[int, ...]) -> None:
    for name in types:
        if name not in known:
            raise ValueError(f"{key} holds {name!r}; supported are {' and '.join(known)}")
    if len(types) != len(channels):
        raise ValueError(f"{key} has {len(types)} entries but block_out_channels has {len(channels)}")


def _check_groups(channels: tuple[int, ...], groups: int) -> None:
    for c in channels:
        if c % groups:
            raise ValueError(f"block_out_channels holds {c}, which norm_num_groups {groups} does not divide")
