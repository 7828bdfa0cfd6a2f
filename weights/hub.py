"""Where a checkpoint is: the embedded one, a folder, or a name on the Hugging Face hub, fetched once."""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch

from weights.files import (
    OPTIONAL,
    REQUIRED,
    STEMS,
    CheckpointError,
    check_folder,
    choose_weights,
    one_line,
    shards,
    weight_files,
)

TINY = Path(__file__).parent / "tiny"
# Zeroscope's main branch has only pickles; this commit of a pull request to it has the same weights as safetensors.
NAMES = {"zeroscope": "cerspense/zeroscope_v2_576w@1f35e3dc3350d649f342bb7618fe34ac8fae5c9e"}
HUB_NAME = re.compile(r"(?P<repo>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>[\w./-]+))?")


def find_checkpoint(name_or_path: str | Path, dtype: torch.dtype | None = torch.float32) -> Path:
    """The folder of a checkpoint. A name that is neither "tiny" nor in NAMES nor a folder is looked up on the hub.

    dtype: what the weights are wanted for; None = they are not, so that only the small files are fetched.
    """
    if name_or_path == "tiny":
        return TINY
    name = NAMES.get(name_or_path, name_or_path) if isinstance(name_or_path, str) else name_or_path
    path = Path(os.path.expanduser(name))  # unlike Path.expanduser, no error where ~name is no user
    if path.is_dir():
        return path
    if path.exists():
        raise CheckpointError(f"{path} is a file; give the checkpoint's folder")
    hub = HUB_NAME.fullmatch(name) if isinstance(name, str) else None
    if hub is None:
        raise CheckpointError(
            f"there is no folder {path}; give a checkpoint's folder, 'tiny', "
            f"{', '.join(map(repr, NAMES))} or a hub name such as owner/name"
        )
    repo, revision = hub["repo"], hub["revision"]
    return fetch_settings(repo, revision) if dtype is None else fetch(repo, revision, half=dtype == torch.float16)


def fetch_settings(repo: str, revision: str | None) -> Path:
    """The snapshot of a hub repository with configs and vocabulary alone. A cached one needs no network."""
    cached = cached_snapshot(repo, revision)
    if cached is not None and all((cached / name).is_file() for name in REQUIRED):
        return cached
    return download(repo, revision, [*REQUIRED, *OPTIONAL])


def fetch(repo: str, revision: str | None, half: bool) -> Path:
    """The snapshot of a hub repository, only with the files that are read here. A cached one needs no network."""
    cached = cached_snapshot(repo, revision)
    if cached is not None and is_whole(cached, half):
        return cached
    names = list_files(repo, revision)
    absent = [name for name in REQUIRED if name not in names]
    if absent:
        raise CheckpointError(f"{repo} on the hub is no checkpoint of this form, it has no {absent[0]}; take another")
    settings = [name for name in (*REQUIRED, *OPTIONAL) if name in names]
    weights = [f"{part}/{choose_weights(part, inside(part, names), half, repo)}" for part in STEMS]
    indices = [name for name in weights if name.endswith(".json")]
    folder = download(repo, revision, settings + indices)
    for index in indices:  # only now it is known which files it names
        weights += [f"{Path(index).parent}/{shard.name}" for shard in shards(folder / index)]
    return download(repo, revision, settings + weights)


def inside(part: str, names: list[str]) -> set[str]:
    """Names of the files directly in a part's folder."""
    return {name.removeprefix(f"{part}/") for name in names if name.startswith(f"{part}/")}


def is_whole(folder: Path, half: bool) -> bool:
    """Whether nothing is missing from a snapshot, whose download may have been interrupted."""
    try:
        check_folder(folder)
        return all(weight_files(folder, part, half) for part in STEMS)
    except CheckpointError:
        return False


def cached_snapshot(repo: str, revision: str | None) -> Path | None:
    """What is on this machine of a repository, or None. Asks no network."""
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(huggingface_hub.snapshot_download(repo, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError as error:
        # Newer versions report that files of the repository are missing; most of them are not for us.
        return Path(error.snapshot_path) if hasattr(error, "snapshot_path") else None
    except Exception as error:  # the hub's library and the network below it have no common kind of error
        raise refused(repo, revision, error) from error


def list_files(repo: str, revision: str | None) -> list[str]:
    """All files of a repository on the hub."""
    import huggingface_hub

    try:
        found = huggingface_hub.HfApi().model_info(repo, revision=revision)  # tries once; listing files tries for long
        return [file.rfilename for file in found.siblings]
    except Exception as error:
        raise refused(repo, revision, error) from error


def download(repo: str, revision: str | None, names: list[str]) -> Path:
    """These files of a repository, from the cache where they are in it."""
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=names))
    except Exception as error:
        raise refused(repo, revision, error) from error


def refused(repo: str, revision: str | None, error: Exception) -> CheckpointError:
    """One sentence on why the hub did not give us a repository."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return CheckpointError(f"{repo} asks for consent to its terms; accept them on the hub and log in")
    if isinstance(error, errors.RepositoryNotFoundError):
        return CheckpointError(f"{repo} is neither a folder here nor a public repository on the hub; check the name")
    if isinstance(error, errors.RevisionNotFoundError):
        return CheckpointError(f"{repo} on the hub has no revision {revision!r}; check what follows the @")
    return CheckpointError(
        f"{repo} is not a folder, not whole in the cache, and cannot be fetched from the hub ({one_line(error)}); "
        "check the network, or give the folder of a downloaded checkpoint"
    )
