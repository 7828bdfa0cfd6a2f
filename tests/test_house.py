"""The house: which room may import which, no circles, folders that can be taken in at a glance, rooms that say what
they are. Every rule is a function from the sources, by the modules' names, to what is wrong, so that it can be shown
to find something.
"""

import ast
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MOST_FILES = 12  # of code in one folder

NETWORKS = ("adaptation", "model", "sampling", "weights")
MAY_IMPORT: dict[str, tuple[str, ...]] = {  # a room and the rooms below it that it may use, itself aside
    "storage": (),
    "ending": (),
    "waiting": (),
    "adaptation": ("storage",),
    "model": ("adaptation",),
    "sampling": ("adaptation",),
    "weights": ("model", "sampling", "adaptation", "storage", "ending", "waiting"),
    "evaluation.figures": (*NETWORKS, "storage"),
    "evaluation.metrics": (*NETWORKS, "storage"),
    "evaluation.benchmarks": (*NETWORKS, "storage"),
    "evaluation.extractors": (*NETWORKS, "storage", "evaluation.figures"),
    "evaluation.tables": (
        *NETWORKS,
        "storage",
        *(f"evaluation.{name}" for name in ("benchmarks", "extractors", "figures", "metrics")),
    ),
    "evaluation.walkthrough": (*NETWORKS, "storage", "ending", "waiting", "evaluation.figures"),
    "app": (*NETWORKS, "storage", "ending", "evaluation.figures"),
    "evaluation": (*NETWORKS, "storage", "ending", "waiting"),  # its commands; its own folders are itself
    "train_free": ("app", "ending", "waiting"),
}
ROOMS = sorted({room.partition(".")[0] for room in MAY_IMPORT})


# ---- What the sources say --------------------------------------------------------------------------------------------


def read_sources() -> dict[str, str]:
    """The text of every module of the program by its name; a folder's __init__.py has the folder's."""
    paths = [path for room in ROOMS for path in (ROOT / f"{room}.py", *sorted((ROOT / room).rglob("*.py")))]
    sources = {}
    for path in filter(Path.exists, paths):
        parts = path.relative_to(ROOT).with_suffix("").parts
        sources[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text(encoding="utf-8")
    return sources


def imported(source: str) -> Iterator[str]:
    """Every module that is imported anywhere in a source, and every name that may be one."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "imports are absolute"
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))


def uses(sources: dict[str, str]) -> dict[str, set[str]]:
    """The modules of the program that each of its modules imports.

    `from folder import file` is of the file alone; `from folder import name` is of the folder's __init__.py.
    """
    found = {}
    for name, source in sources.items():
        known = {module for module in imported(source) if module in sources}
        files = {module for module in known if any(other.startswith(f"{module}.") for other in known)}
        found[name] = known - files - {name}
    return found


def room_of(module: str) -> str:
    """The innermost room of MAY_IMPORT in which a module lies."""
    rooms = [room for room in MAY_IMPORT if is_in(module, room)]
    assert rooms, f"{module} lies in no room of MAY_IMPORT"
    return max(rooms, key=len)


def is_in(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


# ---- The rules -------------------------------------------------------------------------------------------------------


def arrows_upward(sources: dict[str, str]) -> list[str]:
    """Imports of a room that the importing room may not use."""
    return [
        f"{name} imports {other}"
        for name, others in uses(sources).items()
        for other in sorted(others)
        if not any(is_in(other, room) for room in (room_of(name), *MAY_IMPORT[room_of(name)]))
    ]


def circles(sources: dict[str, str]) -> list[str]:
    """Modules that import themselves by way of others."""
    direct = uses(sources)

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        todo = [start]
        while todo:
            new = direct[todo.pop()] - seen
            seen |= new
            todo += new
        return seen

    return [name for name in sources if name in reached(name)]


def full_folders(sources: dict[str, str]) -> list[str]:
    """Folders of more files of code than a reader takes in, __init__.py aside."""
    folders = {name for name in sources if any(is_in(other, name) for other in sources if other != name)}
    held = Counter(name.rpartition(".")[0] for name in sources if name not in folders)
    return [f"{folder} holds {count} files" for folder, count in held.items() if folder and count > MOST_FILES]


def silent_rooms(sources: dict[str, str]) -> list[str]:
    """Folders that do not say what lies in them, or have no __init__.py at all."""
    folders = {name.rpartition(".")[0] for name in sources} - {""}
    return sorted(folder for folder in folders if not ast.get_docstring(ast.parse(sources.get(folder, ""))))


def classes_twice(sources: dict[str, str]) -> list[str]:
    """Public classes that two modules of one room define."""
    found = defaultdict(list)
    for name, source in sources.items():
        for node in ast.parse(source).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[name.partition(".")[0], node.name].append(name)
    return [f"{name} is defined in {', '.join(modules)}" for (_, name), modules in found.items() if len(modules) > 1]


RULES = (arrows_upward, circles, full_folders, silent_rooms, classes_twice)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_is_in_order(rule):
    sources = read_sources()
    assert {"train_free", "storage", "ending", "app.running", "evaluation.__main__", "model.unet"} <= set(sources)
    assert rule(sources) == []


HOUSE = {"app": '"""The command."""', "app.job": "", "model": '"""Networks."""', "model.unet": "", "storage": ""}


@pytest.mark.parametrize(
    ("rule", "changed", "found"),
    [
        (arrows_upward, {"model.unet": "from app.job import Job"}, ["model.unet imports app.job"]),
        (arrows_upward, {"model.unet": "def f():\n    from app import job"}, ["model.unet imports app.job"]),
        (arrows_upward, {"storage": "import model.unet"}, ["storage imports model.unet"]),
        (arrows_upward, {"app.job": "from app import x\nfrom model import unet\nimport storage"}, []),
        (
            arrows_upward,
            {"evaluation.tables.a": "", "app.job": "from evaluation.tables import a"},
            ["app.job imports evaluation.tables.a"],
        ),
        (circles, {"app.job": "from app import run", "app.run": "from app.job import Job"}, ["app.job", "app.run"]),
        (circles, {"app.job": "from app import run", "app.run": "from model import unet"}, []),
        (full_folders, {f"app.x{i}": "" for i in range(12)}, ["app holds 13 files"]),
        (full_folders, {f"app.x{i}": "" for i in range(11)}, []),
        (silent_rooms, {"app": "# nothing", "model.small.a": ""}, ["app", "model.small"]),
        (
            classes_twice,
            {"app.job": "class Job: ...", "app.run": "class Job: ...", "model.unet": "class Job: ..."},
            ["Job is defined in app.job, app.run"],
        ),
    ],
)
def test_what_is_out_of_order_is_found(rule, changed, found):
    assert rule(HOUSE) == []
    assert rule({**HOUSE, **changed}) == found
