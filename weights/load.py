"""From a name to a pipeline that is ready to sample: every file checked, every tensor in its place."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adaptation.letters import check_letters
from model.config import UNetConfig, VAEConfig
from model.text import TextEncoder
from model.unet import UNet3D
from model.vae import AutoencoderKL
from sampling.schedule import NoiseSchedule
from sampling.settings import SamplingSettings
from weights.files import (
    CODES,
    CONFIGS,
    RECOMMENDED,
    STEMS,
    CheckpointError,
    blame,
    check_folder,
    hash_file,
    one_line,
    open_weights,
    read_json,
    weight_files,
)
from weights.fill import fill, match
from weights.hub import NAMES, find_checkpoint, on_hub
from weights.text import build_text_model, read_tokenizer

BUILDERS = {
    "unet": lambda config: UNet3D(UNetConfig.from_dict(config)),
    "vae": lambda config: AutoencoderKL(VAEConfig.from_dict(config)),
    "text_encoder": build_text_model,
}


@dataclass(frozen=True)
class Defaults:
    """What a checkpoint recommends, from its train_free.json. Without that file: what suits its name, or Zeroscope."""

    frames: int = 24
    height: int = 320  # pixels
    width: int = 576
    fps: int | float = 8
    prompt: str | None = None  # an example of what the model knows
    settings: dict[str, Any] = field(default_factory=dict)  # fields of SamplingSettings

    def __post_init__(self) -> None:
        for name in ("frames", "height", "width"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 10_000:
                raise ValueError(f"{name} must be a whole number from 1 to 10000, got {value!r}")
        if isinstance(self.fps, bool) or not isinstance(self.fps, int | float) or not 0 < self.fps <= 1000:
            raise ValueError(f"fps must be a number above 0 and up to 1000, got {self.fps!r}")
        if self.prompt is not None and (not isinstance(self.prompt, str) or not self.prompt.strip()):
            raise ValueError(f"prompt must be text or null, got {self.prompt!r}")
        check_letters("prompt", self.prompt or "")
        if not isinstance(self.settings, dict):
            raise ValueError(f"settings must be an object, got {self.settings!r}")
        SamplingSettings.from_dict(self.settings)  # refuses names and values that cannot be used

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Defaults:
        """From the contents of a train_free.json; what it leaves out is Zeroscope's."""
        names = [f.name for f in fields(cls)]
        for key in raw:
            if key not in names:
                raise ValueError(f"the file has the unknown key {key!r}; known are {', '.join(names)}")
        return cls(**raw)


# Of hub repositories without a train_free.json: frames, height and width that their cards name, where not Zeroscope's.
BY_REPOSITORY = {
    "cerspense/zeroscope_v2_30x448x256": (30, 256, 448),
    "cerspense/zeroscope_v2_XL": (24, 576, 1024),  # made to enlarge the others' videos
    "ali-vilab/text-to-video-ms-1.7b": (16, 256, 256),
    "damo-vilab/text-to-video-ms-1.7b": (16, 256, 256),  # its former name
}


@dataclass(frozen=True, eq=False)
class Pipeline:
    """A checkpoint in memory: networks in eval mode, without gradients of their own, on one device in one dtype."""

    unet: UNet3D
    vae: AutoencoderKL
    text_encoder: TextEncoder
    schedule: NoiseSchedule
    defaults: Defaults
    name: str = ""  # as it was asked for
    folder: Path | None = None
    weights: tuple[str, ...] = ()  # the weight files that were read, relative to the folder

    @cached_property
    def fingerprint(self) -> str:
        """Which weights these are; reads the files again, some seconds for gigabytes."""
        return fingerprint(self.folder, self.weights) if self.folder else ""


def load_pipeline(
    name_or_path: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> Pipeline:
    """Find, check and load a checkpoint.

    name_or_path: "tiny", a name of `hub.NAMES` such as "zeroscope", a folder of Zeroscope's form, or a hub name
        `owner/name[@revision]`. A folder or a cached snapshot needs no network.
    Raises CheckpointError, in one sentence, before any tensor is read if a file is missing, a config is not supported
    or a tensor does not fit.
    """
    device = _check_target(device, dtype)
    folder = find_checkpoint(name_or_path, dtype)
    check_folder(folder)
    networks = _build_networks(folder)
    with blame(folder / CONFIGS["scheduler"]):
        schedule = NoiseSchedule.from_config(read_json(folder / CONFIGS["scheduler"]))
    with blame(folder / "tokenizer"):
        tokenizer = read_tokenizer(folder / "tokenizer")
    _check_agreement(folder, networks, tokenizer)
    defaults = _read_defaults(folder, networks["vae"].config.downscale, schedule, _by_name(name_or_path))
    files = {part: weight_files(folder, part, half=dtype == torch.float16) for part in STEMS}
    _fill_networks(folder, networks, files, device, dtype)
    if any(path.suffix == ".bin" for paths in files.values() for path in paths):
        hint = f"`python -m weights.convert {folder} OUT` writes safetensors, which are safer and need less memory"
        warnings.warn(f"{folder} holds pickled weights (.bin); {hint}", stacklevel=2)
    return Pipeline(
        networks["unet"],
        networks["vae"],
        TextEncoder(networks["text_encoder"], tokenizer),
        schedule,
        defaults,
        name=str(name_or_path),
        folder=folder,
        weights=tuple(path.relative_to(folder).as_posix() for paths in files.values() for path in paths),
    )


def fingerprint(folder: Path, weights: Iterable[str]) -> str:
    """SHA-256 that identifies weight files, given by their names in a folder. In a shell, inside that folder:
    `sha256sum NAMES... | sha256sum`, the names sorted."""
    lines = hashlib.sha256()
    for name in sorted(weights):
        lines.update(f"{hash_file(Path(folder) / name)}  {name}\n".encode())
    return lines.hexdigest()


def _check_target(device: str | torch.device, dtype: torch.dtype) -> torch.device:
    if dtype not in CODES:
        raise CheckpointError(f"dtype must be one of {', '.join(map(str, CODES))}, got {dtype!r}")
    if str(device).startswith("meta"):
        raise CheckpointError("device 'meta' holds no numbers, so that nothing can be computed on it; try 'cpu'")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError, ImportError) as error:  # an import: of the device's own package
        raise CheckpointError(f"device {str(device)!r} cannot be used here ({one_line(error)}); try 'cpu'") from error


def _build_networks(folder: Path) -> dict[str, Any]:
    """The three networks that the configs describe, on meta: shapes only, the memory comes with the weights."""
    networks = {}
    for part, build in BUILDERS.items():
        config = read_json(folder / CONFIGS[part])
        with blame(folder / CONFIGS[part]), torch.device("meta"):
            networks[part] = build(config)
    return networks


def _fill_networks(
    folder: Path, networks: dict[str, nn.Module], files: dict[str, list[Path]], device: torch.device, dtype: torch.dtype
) -> None:
    """Compare all weights with all networks, and only then read them."""
    found = {part: match(part, networks[part], [open_weights(path) for path in files[part]]) for part in networks}
    problems = [f"{part}: {', '.join(m.problems)}" for part, m in found.items() if m.problems]
    if problems:
        raise CheckpointError(
            f"{folder}: the weights do not fit the config.json beside them, {'; '.join(problems)}; "
            "take both from the same checkpoint"
        )
    for m in found.values():
        fill(m, device, dtype)


def _check_agreement(folder: Path, networks: dict[str, Any], tokenizer: Any) -> None:
    """What one part hands to the next has to have the size that the next expects."""
    unet, vae, text = networks["unet"].config, networks["vae"].config, networks["text_encoder"].config
    for what, one, other in (
        ("the U-Net's in_channels and the VAE's latent_channels", unet.in_channels, vae.latent_channels),
        ("the U-Net's in_channels and its out_channels", unet.in_channels, unet.out_channels),
        ("the U-Net's cross_attention_dim and CLIP's hidden_size", unet.cross_attention_dim, text.hidden_size),
    ):
        if one != other:
            raise CheckpointError(f"{folder}: {what} are {one} and {other}; they must be equal")
    words = max(tokenizer.get_vocab().values()) + 1
    if words > text.vocab_size:
        raise CheckpointError(
            f"{folder / 'tokenizer'} numbers {words} words, but {CONFIGS['text_encoder']} has a vocab_size of "
            f"{text.vocab_size}; take both from the same checkpoint"
        )


def recommended_defaults(name_or_path: str | Path) -> Defaults:
    """What a checkpoint recommends, without loading it; the named ones need not even be asked."""
    hub = on_hub(name_or_path)
    if name_or_path in NAMES or (hub is not None and hub[0] in BY_REPOSITORY):
        return _by_name(name_or_path)
    path = find_checkpoint(name_or_path, dtype=None) / RECOMMENDED
    if not path.exists():
        return Defaults()
    with blame(path):
        return Defaults.from_dict(read_json(path))


def _by_name(name_or_path: str | Path) -> Defaults:
    """What is recommended where the files themselves say nothing."""
    hub = on_hub(name_or_path)
    return Defaults(*BY_REPOSITORY.get(hub[0], ())) if hub else Defaults()


def _read_defaults(folder: Path, downscale: int, schedule: NoiseSchedule, otherwise: Defaults) -> Defaults:
    path = folder / RECOMMENDED
    if not path.exists():
        return otherwise
    with blame(path):
        defaults = Defaults.from_dict(read_json(path))
        for name in ("height", "width"):
            if getattr(defaults, name) % downscale:
                raise ValueError(f"{name} must be a multiple of the VAE's {downscale}, got {getattr(defaults, name)}")
        if "steps" in defaults.settings:
            schedule.timesteps(defaults.settings["steps"])
    return defaults
