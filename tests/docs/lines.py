"""Where in a file a function stands, as docs/study.md says it: `file.py:12-34` | `name`.

`python tests/docs/lines.py` brings the numbers in docs/study.md up to date.
"""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "docs/study.md"
PLACE = re.compile(r"`(?P<file>[\w/]+\.py):\d+-\d+` \| `(?P<name>[\w.]+)`")


def place(file: str, name: str) -> tuple[int, int]:
    """First and last line of a function or class, decorators included; name: `function` or `Class.function`."""
    found: ast.AST = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    for part in name.split("."):
        (found,) = [node for node in found.body if getattr(node, "name", None) == part]
    return min([found.lineno, *(decorator.lineno for decorator in found.decorator_list)]), found.end_lineno


def mended(text: str) -> str:
    """The page with the line numbers that are right today."""

    def mend(match: re.Match[str]) -> str:
        first, last = place(match["file"], match["name"])
        return f"`{match['file']}:{first}-{last}` | `{match['name']}`"

    return PLACE.sub(mend, text)


if __name__ == "__main__":
    STUDY.write_text(mended(STUDY.read_text(encoding="utf-8")), encoding="utf-8")
