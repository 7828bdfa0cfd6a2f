"""Where a checkpoint is: the embedded one, a folder, or a name on the Hugging Face hub, fetched once."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from weights.download import Listing, cached_sizes, cached_snapshot, download, list_files
from weights.files import (
    OPTIONAL,
    REQUIRED,
    STEMS,
    CheckpointError,
    check_folder,
    choose_weights,
    shards,
    weight_files,
)

TINY = Path(__file__).parent / "tiny"
# Zeroscope's main branch has only pickles; this commit of the hub's own pull request has them converted to safetensors.
NAMES = {
    "zeroscope": "cerspense/zeroscope_v2_576w@1f35e3dc3350d649f342bb7618fe34ac8fae5c9e",
    "zeroscope-448x256": "cerspense/zeroscope_v2_30x448x256",
    "zeroscope-xl": "cerspense/zeroscope_v2_XL",
    "modelscope": "ali-vilab/text-to-video-ms-1.7b",
}
HUB_NAME = re.compile(r"(?P<repo>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>[\w./-]+))?")


def find_checkpoint(name_or_path: str | Path, dtype: torch.dtype | None = torch.float32) -> Path:
    """The folder of a checkpoint. A name that is neither "tiny" nor in NAMES nor a folder is looked up on the hub.

    dtype: what the weights are wanted for; None = they are not, so that only the small files are fetched.
    """
    if name_or_path == "tiny":
        return TINY
    path = as_path(name_or_path)
    if path.is_dir():
        return path
    if path.exists():
        raise CheckpointError(f"{path} is a file; give the checkpoint's folder")
    hub = on_hub(name_or_path)
    if hub is None:
        raise CheckpointError(
            f"there is no folder {path}; give a checkpoint's folder, 'tiny', "
            f"{', '.join(map(repr, NAMES))} or a hub name such as owner/name"
        )
    repo, revision = hub
    return fetch_settings(repo, revision) if dtype is None else fetch(repo, revision, half=dtype == torch.float16)


def as_path(name_or_path: str | Path) -> Path:
    """Where the folder would be that a name means, were it one."""
    name = NAMES.get(name_or_path, name_or_path) if isinstance(name_or_path, str) else name_or_path
    return Path(os.path.expanduser(name))  # unlike Path.expanduser, no error where ~name is no user


def on_hub(name_or_path: str | Path) -> tuple[str, str | None] | None:
    """The hub's repository and revision that a name means; None for a folder, and what cannot be a hub's name."""
    if not isinstance(name_or_path, str) or as_path(name_or_path).exists():
        return None
    hub = HUB_NAME.fullmatch(NAMES.get(name_or_path, name_or_path))
    return None if hub is None else (hub["repo"], hub["revision"])


def fetch_settings(repo: str, revision: str | None) -> Path:
    """The snapshot of a hub repository with configs and vocabulary alone. A cached one needs no network."""
    cached = cached_snapshot(repo, revision)
    if cached is not None and all((cached / name).is_file() for name in REQUIRED):
        return cached
    listing = list_files(repo, revision)
    return download(listing, settings_of(listing))


def fetch(repo: str, revision: str | None, half: bool) -> Path:
    """The snapshot of a hub repository, only with the files that are read here. A cached one needs no network."""
    cached = cached_snapshot(repo, revision)
    if cached is not None and is_whole(cached, half, cached_sizes(repo, revision)):
        return cached
    listing = list_files(repo, revision)
    settings = settings_of(listing)
    weights = [f"{part}/{choose_weights(part, inside(part, listing.files), half, repo)}" for part in STEMS]
    indices = [name for name in weights if name.endswith(".json")]
    if indices:  # only then is it known which files they name
        folder = download(listing, settings + indices)
        weights += [f"{Path(index).parent}/{shard.name}" for index in indices for shard in shards(folder / index)]
    return download(listing, settings + weights)


def settings_of(listing: Listing) -> list[str]:
    """Names of a repository's configs and vocabulary."""
    absent = [name for name in REQUIRED if name not in listing.files]
    if absent:
        raise CheckpointError(
            f"{listing.repo} on the hub is no checkpoint of this form, it has no {absent[0]}; take another"
        )
    return [name for name in (*REQUIRED, *OPTIONAL) if name in listing.files]


def inside(part: str, names: Iterable[str]) -> set[str]:
    """Names of the files directly in a part's folder."""
    return {name.removeprefix(f"{part}/") for name in names if name.startswith(f"{part}/")}


def is_whole(folder: Path, half: bool, sizes: Mapping[str, int]) -> bool:
    """Whether nothing is missing from a snapshot, whose download may have been interrupted, and nothing cut short.

    sizes: bytes of all files of the repository, where they are known. Then the weights that suit best are wanted, so
    that it does not depend on what was fetched before which ones are read.
    """
    try:
        check_folder(folder)
        files = [folder / name for name in REQUIRED]
        files += [path for part in STEMS for path in weight_files(folder, part, half)]
        best = [f"{part}/{choose_weights(part, inside(part, sizes), half, folder)}" for part in STEMS if sizes]
    except CheckpointError:
        return False
    whole = all(sizes.get(p.relative_to(folder).as_posix(), p.stat().st_size) == p.stat().st_size for p in files)
    return whole and all((folder / name).is_file() for name in best)
