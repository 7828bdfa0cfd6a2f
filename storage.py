"""Files that appear whole or not at all, and JSON that knows whether it is whole. Any room may use it; it uses none."""

import hashlib
import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write under a temporary name, then rename: the file appears whole or not at all."""
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")  # no process id: machines may share a folder
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


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
