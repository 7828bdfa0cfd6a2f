"""Files of a repository on the Hugging Face hub, brought into its cache: announced, resumed, and held against its list.

The hub's own client does the rest: it reads HF_ENDPOINT (a mirror), HF_HUB_OFFLINE, HF_HOME and HF_TOKEN from the
environment. Of late it begins a file anew that was broken off, so the large ones are fetched here, into the place
where it looks for them: what has arrived of a file stays beside that place until the rest has come.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from weights.files import CheckpointError, hash_file, one_line


@dataclass(frozen=True)
class Remote:
    """A file on the hub, in bytes; None where a mirror does not tell. sha256: of the large ones, those in git-lfs."""

    size: int | None
    sha256: str | None


@dataclass(frozen=True)
class Listing:
    """What the hub has of a repository: all its files by name, at the commit that the revision means today."""

    repo: str
    revision: str | None
    commit: str
    files: dict[str, Remote]


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


def cached_sizes(repo: str, revision: str | None) -> dict[str, int]:
    """Bytes of a repository's files, from the list that the client keeps beside a snapshot; {} where it kept none."""
    import huggingface_hub
    from huggingface_hub import errors

    read = getattr(huggingface_hub, "get_cached_repo_tree", None)  # older versions keep no list
    try:
        return {} if read is None else {file.path: file.size for file in read(repo, revision=revision)}
    except errors.CachedRepoTreeNotFoundError:
        return {}


def list_files(repo: str, revision: str | None) -> Listing:
    """All files of a repository on the hub."""
    import huggingface_hub

    try:  # once; the call that lists files alone tries for long
        found = huggingface_hub.HfApi().model_info(repo, revision=revision, files_metadata=True)
    except Exception as error:
        raise refused(repo, revision, error) from error
    if found.sha is None:
        raise CheckpointError(f"the hub names no commit of {repo}; try again, or name another mirror in HF_ENDPOINT")
    files = {f.rfilename: Remote(f.size, f.lfs.sha256 if f.lfs else None) for f in found.siblings or ()}
    return Listing(repo, revision, found.sha, files)


def download(listing: Listing, names: Collection[str]) -> Path:
    """The repository's snapshot with these files in it, all of the listed size. Those in the cache are not fetched."""
    import huggingface_hub

    if absent := [name for name in names if name not in listing.files]:
        raise CheckpointError(f"{listing.repo} on the hub lacks {absent[0]}, which its index names; take another")
    cache = cache_folder(listing.repo)
    missing = [name for name in names if not in_cache(listing, name)]
    announce(listing, missing, cache)
    try:
        for name in missing:
            if listing.files[name].sha256:
                fetch_large(listing, name, cache)
        folder = Path(
            huggingface_hub.snapshot_download(listing.repo, revision=listing.revision, allow_patterns=list(names))
        )
    except CheckpointError:
        raise
    except Exception as error:
        raise refused(listing.repo, listing.revision, error) from error
    for name in names:
        if not in_cache(listing, name):
            raise CheckpointError(
                f"{name} of {listing.repo} did not arrive with the {listing.files[name].size} bytes that the hub "
                "lists; start again, or name another mirror in HF_ENDPOINT"
            )
    return folder


def cache_folder(repo: str) -> Path:
    """Where the hub's client keeps a repository: blobs/ with the files, snapshots/ with links to them by name."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE).expanduser() / repo_folder_name(repo_id=repo, repo_type="model")


def in_cache(listing: Listing, name: str) -> bool:
    """Whether a file is on this machine and of the listed size; one of another size is removed."""
    path = cache_folder(listing.repo) / "snapshots" / listing.commit / name
    if not path.is_file():
        return False
    if listing.files[name].size in (None, path.stat().st_size):
        return True
    path.resolve().unlink()
    path.unlink(missing_ok=True)  # the link to it
    return False


def announce(listing: Listing, missing: Collection[str], cache: Path) -> None:
    """Say on stderr how much will be fetched, from where and to where; refuse where it has no room."""
    from huggingface_hub import constants

    if not missing:
        return
    wanted = sum(listing.files[name].size or 0 for name in missing)
    places = [place for name in missing for place in places_of(cache, listing.files[name].sha256)]
    here = sum(place.stat().st_size for place in places if place.is_file())
    free = shutil.disk_usage(next(folder for folder in (cache, *cache.parents) if folder.exists())).free
    if wanted - here > free:
        raise CheckpointError(
            f"{listing.repo} needs {spell(wanted - here)} in {cache}, where {spell(free)} are free; make room, or set "
            "HF_HOME to a folder that has it"
        )
    already = f", {spell(here)} of them here already," if here else ""
    files = f"{len(missing)} file{'s' if len(missing) > 1 else ''}"
    print(
        f"fetching {listing.repo}: {files} of together {spell(wanted)}{already} from {constants.ENDPOINT} to {cache}",
        file=sys.stderr,
        flush=True,
    )


def fetch_large(listing: Listing, name: str, cache: Path) -> None:
    """One file of git-lfs into the client's place for it, from where an earlier call was broken off.

    Several processes may ask at once: the first fetches, the others wait and find it there.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import WeakFileLock, build_hf_headers

    remote = listing.files[name]
    blob, part = places_of(cache, remote.sha256)
    lock = cache.parent / ".locks" / cache.name / f"{remote.sha256}.lock"  # the client's own
    for folder in (blob.parent, lock.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if blob.is_file() and blob.stat().st_size == remote.size:
            return
        with part.open("ab") as file:
            if file.tell() != remote.size:
                url = hf_hub_url(listing.repo, name, revision=listing.commit)
                http_get(url, file, resume_size=file.tell(), headers=build_hf_headers(), displayed_filename=name)
        found = part.stat().st_size
        if found != remote.size or hash_file(part) != remote.sha256:
            part.unlink()
            listed = f"{remote.size} bytes with SHA-256 {str(remote.sha256)[:12]}..."
            raise CheckpointError(
                f"{name} of {listing.repo} arrived as {found} bytes, which are not the {listed} that the hub lists; "
                "start again, or name another mirror in HF_ENDPOINT"
            )
        part.replace(blob)


def places_of(cache: Path, sha256: str | None) -> tuple[Path, Path]:
    """Where a large file lies when it is whole, and where its beginning waits for the rest."""
    return cache / "blobs" / str(sha256), cache / "blobs" / f"{sha256}.part"


def spell(size: float) -> str:
    """Bytes as a reader takes them in: 3.67 GB."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.2f} GB"


def refused(repo: str, revision: str | None, error: Exception) -> CheckpointError:
    """One sentence on why the hub did not give us a repository."""
    from huggingface_hub import constants, errors

    if isinstance(error, errors.GatedRepoError):
        return CheckpointError(f"{repo} asks for consent to its terms; accept them on the hub and log in")
    if isinstance(error, errors.RepositoryNotFoundError):
        return CheckpointError(f"{repo} is neither a folder here nor a public repository on the hub; check the name")
    if isinstance(error, errors.RevisionNotFoundError):
        return CheckpointError(f"{repo} on the hub has no revision {revision!r}; check what follows the @")
    if isinstance(error, errors.OfflineModeIsEnabled):
        return CheckpointError(
            f"{repo} is not a folder and not whole in the cache {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE forbids "
            "to fetch it; unset it, or set HF_HOME to where the repository was fetched"
        )
    return CheckpointError(
        f"{repo} is not a folder, not whole in the cache, and cannot be fetched from {constants.ENDPOINT} "
        f"({one_line(error)}); what has arrived is kept: check the network and start again, or give the folder of a "
        "downloaded checkpoint"
    )
