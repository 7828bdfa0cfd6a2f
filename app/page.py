"""HTML pages of one file each: they ask no network, and open from anywhere. Their parts lie in `pages/`."""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

MARKER = re.compile(r"\{\{(\w+)\}\}")


def read_parts(*names: str) -> str:
    """Files of `pages/`, one after the other."""
    folder = files("app") / "pages"
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)


def fill(template: str, parts: Mapping[str, str]) -> str:
    """The template with each {{name}} replaced by that part; what a part holds is not looked into again."""
    wanted = set(MARKER.findall(template))
    if wanted != set(parts):
        raise ValueError(f"the page has places for {', '.join(sorted(wanted))}, but was given {', '.join(parts)}")
    return MARKER.sub(lambda marker: parts[marker[1]], template)


def script_json(value: Any) -> str:
    """JSON that cannot end the <script> element in which it stands."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")


def data_uri(path: Path, media_type: str) -> str:
    """A file as an address that holds all of it."""
    return f"data:{media_type};base64,{base64.b64encode(path.read_bytes()).decode()}"


def drop_flags(arguments: Sequence[str], *flags: str) -> list[str]:
    """Command line arguments without these flags and their values, which never begin with a dash."""
    kept, dropping = [], False
    for argument in arguments:
        if argument.startswith("-"):
            dropping = argument.partition("=")[0] in flags
        if not dropping:
            kept.append(argument)
    return kept
