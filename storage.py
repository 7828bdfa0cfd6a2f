"""Files that appear whole or not at all, and JSON that knows whether it is whole. Any room may use it; it uses none."""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LONGEST_NAME = 255 - len("-1000.unfinished")  # bytes that a file system allows, but for what a run adds to its name


@contextmanager
def appearing(path: str | Path) -> Iterator[Path]:
    """A temporary name beside `path` to write a file or a folder under; it becomes `path` at the end, or is removed.

    An OSError names `path`, which the caller knows, and not the temporary name.
    """
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")  # no process id: machines may share a folder
    try:
        yield unfinished
        unfinished.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        if unfinished.is_dir():
            shutil.rmtree(unfinished, ignore_errors=True)
        else:
            unfinished.unlink(missing_ok=True)


def check_folder(folder: Path) -> None:
    """Refuse a folder that could not be made or written to, before time is spent; --out is where it was named."""
    check_name(folder)
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"{existing} is not a folder that can be written to; name another with --out")


def check_name(path: Path) -> None:
    """Refuse a name that a file system has no room for, counting what is added to it meanwhile."""
    if len(os.fsencode(path.name)) > LONGEST_NAME:
        raise ValueError(f"--out has a name of {len(path.name)} letters, too long for a disk; name a shorter one")


def write_bytes(path: str | Path, content: bytes) -> None:
    """A file that appears whole or not at all."""
    with appearing(path) as unfinished:
        unfinished.write_bytes(content)


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """JSON with a checksum of its own."""
    sealed = {"checksum": _checksum(content), **content}
    write_bytes(path, (json.dumps(sealed, indent=1, allow_nan=False) + "\n").encode())


def read_sealed(path: Path) -> dict[str, Any] | None:
    """What `write_sealed` wrote; None where that is not there, or is not whole."""
    content = read_json(path)
    if content is None:
        return None
    checksum = content.pop("checksum", None)
    return content if checksum == _checksum(content) else None


def _checksum(content: Mapping[str, Any]) -> str:
    return sha256(json.dumps(content, sort_keys=True).encode())


def read_json(path: Path) -> dict[str, Any] | None:
    """An object; None where there is none."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def sha256(content: bytes) -> str:
    """In hexadecimal."""
    return hashlib.sha256(content).hexdigest()
