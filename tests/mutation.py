"""Mutation testing, a command for developers: does a room's own test notice when a line of it says something else?

    pip install "mutmut==3.8.1"
    python -m tests.mutation sampling                       # every file of the room, or some files and lines:
    python -m tests.mutation sampling sampling/ddim.py sampling/sampler.py:154

One place of a file is changed at a time: by mutmut's operators (another operator, number, word or branch), by an
argument that is not handed on, and by two neighbouring arguments that change places. Left alone are errors with their
conditions and messages, annotations, decorators and imports, and a value that becomes None, which is noticed at once.
mutmut itself changes no constant and enters no decorated function, such as the sampler's loop: it lends its operators.

Everything happens in a copy of the repository. The room's tests are run once, to see which of them reaches which line.
Each mutant has a fork of this process, in which the functions are given their changed code or, where more than that
differs, the copy is imported afresh. Then the tests of the line run, the quick ones first, until one fails; all of the
room's tests if none runs the line, as with a constant. A mutant is killed if a test fails, if it cannot be imported, or
if it takes far longer than the tests do. Whatever else ends a fork is told, and counts as neither.
"""

import contextlib
import gc
import importlib
import inspect
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import types
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path

import libcst as cst
import libcst.matchers as m
import pytest
from _pytest.runner import runtestprotocol
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation import mutators

FILES = {  # of a room; its tests lie in the folder of tests that has its name
    "adaptation": ("adaptation/*.py",),
    "sampling": ("sampling/*.py",),
    "model": ("model/attention.py", "model/grouped_attention.py", "model/transformers.py"),
}
QUIET = (
    "-q",
    *(f"-pno:{name}" for name in ("cacheprovider", "hypothesispytest", "threadexception", "unraisableexception")),
)
NOT_IMPORTED = (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.USAGE_ERROR)  # by a file of tests, or by a conftest.py


# ---- Mutants -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mutant:
    line: int
    change: str
    source: str


def exchanged(call: cst.Call) -> Iterator[cst.Call]:
    """f(a, b, c) -> f(b, a, c), f(a, c, b)."""
    for i, (one, other) in enumerate(pairwise(call.args)):
        if not (one.keyword or other.keyword or one.star or other.star):
            swapped = one.with_changes(value=other.value), other.with_changes(value=one.value)
            yield call.with_changes(args=[*call.args[:i], *swapped, *call.args[i + 2 :]])


def not_handed_on(call: cst.Call) -> Iterator[cst.Call]:
    """f(a, b, c=d) -> f(a, b), and f(a, b) -> f(a)."""
    for i, arg in enumerate(call.args):
        if arg.keyword or arg is call.args[-1]:
            yield call.with_changes(args=[*call.args[:i], *call.args[i + 1 :]])


def another_text(string: cst.SimpleString) -> Iterator[cst.SimpleString]:
    """mutmut's first alone: the others differ from it in capitals."""
    yield from islice(mutators.operator_string(string), 1)


OPERATORS = (
    (cst.BaseNumber, mutators.operator_number),
    (cst.Name, mutators.operator_name),
    (cst.CSTNode, mutators.operator_swap_op),
    (cst.CSTNode, mutators.operator_keywords),
    (cst.UnaryOperation, mutators.operator_remove_unary_ops),
    (cst.AugAssign, mutators.operator_augmented_assignment),
    (cst.IfExp, mutators.operator_if_exp),
    (cst.SimpleString, another_text),
    (cst.Call, exchanged),
    (cst.Call, not_handed_on),
)
REFUSAL = m.If(body=m.IndentedBlock([m.SimpleStatementLine([m.Raise()])]))
TYPE = m.Assign([m.AssignTarget(m.Name(m.MatchRegex("[A-Z][a-z]\\w*")))])  # a name for annotations


class Places(cst.CSTVisitor):
    """Every node with what may stand in its place."""

    def __init__(self) -> None:
        self.found: list[tuple[cst.CSTNode, cst.CSTNode]] = []
        self.conditions: set[cst.CSTNode] = set()  # of errors

    def on_visit(self, node: cst.CSTNode) -> bool:
        silent = cst.Annotation | cst.Decorator | cst.Raise | cst.Import | cst.ImportFrom
        if isinstance(node, silent) or m.matches(node, TYPE) or node in self.conditions:
            return False
        if m.matches(node, REFUSAL):
            self.conditions.add(node.test)
        self.found += [
            (node, other) for kind, operator in OPERATORS if isinstance(node, kind) for other in operator(node)
        ]
        return True


def mutants(code: str) -> list[Mutant]:
    wrapper = MetadataWrapper(cst.parse_module(code), unsafe_skip_copy=True)
    positions, module = wrapper.resolve(PositionProvider), wrapper.module
    places, made = Places(), {code: None}
    module.visit(places)
    for old, new in places.found:
        before, after = (module.code_for_node(node).strip() for node in (old, new))
        source = module.deep_replace(old, new).code
        made.setdefault(source, Mutant(positions[old].start.line, f"{before}  ->  {after}", source))
    return [mutant for mutant in made.values() if mutant]


# ---- Tests ---------------------------------------------------------------------------------------------------------


class Reach:
    """A pytest plugin: which lines of some files each test runs, its fixtures made for it alone, and its seconds."""

    def __init__(self, files: list[str]) -> None:
        self.files = {str(Path(file).resolve()): file for file in files}
        self.lines: dict[str, list[str]] = {}  # {test: ["file:line"]}
        self.seconds: dict[str, float] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool:
        lines, files = set(), self.files

        def trace(frame, event, _):
            if (file := files.get(frame.f_code.co_filename)) is None:
                return None
            lines.add(f"{file}:{frame.f_lineno}")
            return trace

        began = time.process_time()
        sys.settrace(trace)
        runtestprotocol(item, nextitem=None)
        sys.settrace(None)
        self.lines[item.nodeid], self.seconds[item.nodeid] = sorted(lines), time.process_time() - began
        return True


class Only:
    """A pytest plugin: these of the known tests alone, in this order, and any that a mutant has made."""

    def __init__(self, chosen: list[str], known: dict[str, float]) -> None:
        self.place, self.known = {test: i for i, test in enumerate(chosen)}, known

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        kept = [item for item in items if item.nodeid in self.place or item.nodeid not in self.known]
        items[:] = sorted(kept, key=lambda item: self.place.get(item.nodeid, len(self.place)))


def in_a_fork(work: Callable[[], int], cpu_seconds: int) -> int:
    """What work() returns, 99 where it raises, and minus the signal's number where one ended it."""
    if (child := os.fork()) == 0:
        status = 99
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 9))
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1), os.dup2(nowhere, 2)
            status = int(work())
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def survey(tests: str, files: list[str]) -> tuple[dict[str, list[str]], dict[str, float]]:
    """{"file:line": tests that reach it, quick ones first}, {test: seconds}; imports here what they need of others."""

    def work() -> int:
        reach = Reach(files)
        status = pytest.main([*QUIET, tests], plugins=[reach])
        Path("survey.json").write_text(json.dumps([reach.lines, reach.seconds, list(sys.modules)]))
        return status

    if status := in_a_fork(work, 3600):
        sys.exit(f"{tests} must pass without a mutant, but ended with {status}")
    lines, seconds, modules = json.loads(Path("survey.json").read_text())
    own = {path.stem for path in Path().iterdir()}
    for name in modules:
        if name.partition(".")[0] not in own:
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    tests_of: dict[str, list[str]] = {}
    for test in sorted(seconds, key=seconds.__getitem__):
        for line in lines[test]:
            tests_of.setdefault(line, []).append(test)
    return tests_of, seconds


# ---- Putting a mutant in the place of a file -------------------------------------------------------------------------


def bodies(code: types.CodeType) -> Iterator[types.CodeType]:
    """Of a module: itself and its classes, which are run when it is imported."""
    yield code
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType) and not inner.co_flags & inspect.CO_OPTIMIZED:
            yield from bodies(inner)


def functions(code: types.CodeType) -> list[types.CodeType]:
    """Of a module: its functions and methods; what stands inside them is theirs."""
    inner = (c for body in bodies(code) for c in body.co_consts if isinstance(c, types.CodeType))
    return [c for c in inner if c.co_flags & inspect.CO_OPTIMIZED]


def imported(code: types.CodeType) -> list[object]:
    """What a module says outside its functions."""
    return [
        (body.co_code, body.co_names, [repr(c) for c in body.co_consts if not isinstance(c, types.CodeType)])
        for body in bodies(code)
    ]


def swap(living: list[types.FunctionType], old_source: str, new_source: str, path: str) -> bool:
    """Gives the functions of an imported file their code in another source; False where more than that differs."""
    old, new = compile(old_source, path, "exec"), compile(new_source, path, "exec")
    pairs = zip(functions(old), functions(new), strict=True)
    changed = {a: b for a, b in pairs if a != b}
    found = [function for function in living if function.__code__ in changed]
    if imported(old) != imported(new) or {function.__code__ for function in found} != changed.keys():
        return False
    for function in found:
        function.__code__ = changed[function.__code__]
    return True


class Judge:
    """A pytest plugin: has the collected tests judge the mutants, in the place of running them."""

    def __init__(self, places: tuple[str, ...], tests_of: dict[str, list[str]], seconds: dict[str, float]) -> None:
        self.places, self.tests_of, self.seconds = places, tests_of, seconds

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self.items = {item.nodeid: item for item in session.items}
        self.living = [x for x in gc.get_objects() if type(x) is types.FunctionType]
        gc.freeze()
        every = sorted(self.seconds, key=self.seconds.__getitem__)
        files = sorted({place.partition(":")[0] for place in self.places})
        for nothing in ("", "\nNOTHING = None\n"):  # of the functions, and of what is imported
            verdict = self.verdict(Path(files[0]), Path(files[0]).read_text() + nothing, every)
            if verdict != "survives":
                pytest.exit(f"without a mutant, the quick tests first: {verdict}")
        for file in files:
            verdicts = Counter()
            for mutant in mutants(Path(file).read_text()):
                if {file, f"{file}:{mutant.line}"}.isdisjoint(self.places):
                    continue
                verdict = self.verdict(Path(file), mutant.source, self.tests_of.get(f"{file}:{mutant.line}", every))
                verdicts[verdict] += 1
                if verdict != "killed":
                    print(f"{file}:{mutant.line}: {mutant.change}: {verdict}", flush=True)
            print(f"{file}: {verdicts.total()} mutants, {verdicts['killed']} killed", flush=True)
        return True

    def verdict(self, path: Path, source: str, tests: list[str]) -> str:
        """What becomes of a file with another source: "killed", "survives", or what else ended the tests."""
        code = path.read_text()
        path.write_text(source)
        cpu_seconds = int(5 + 3 * sum(self.seconds[test] for test in tests))
        status = in_a_fork(lambda: self.run(swap(self.living, code, source, str(path.resolve())), tests), cpu_seconds)
        path.write_text(code)
        if status in (pytest.ExitCode.TESTS_FAILED, *NOT_IMPORTED, -signal.SIGXCPU):
            return "killed"
        return "survives" if status == pytest.ExitCode.OK else f"not judged, the tests ended with {status}"

    def run(self, swapped: bool, tests: list[str]) -> int:
        if swapped:
            items = [self.items[test] for test in tests]
            for item, following in zip(items, [*items[1:], None], strict=True):
                if any(report.failed for report in runtestprotocol(item, nextitem=following, log=False)):
                    return pytest.ExitCode.TESTS_FAILED
            return pytest.ExitCode.OK
        own = {entry.stem for entry in Path().iterdir()}  # everything that lies in the copy is imported again
        for name in [name for name in sys.modules if name.partition(".")[0] in own]:
            del sys.modules[name]
        files = sorted({test.partition("::")[0] for test in tests})
        return pytest.main([*QUIET, "-x", *files], plugins=[Only(tests, self.seconds)])


def main(room: str, *places: str) -> None:
    places = places or tuple(sorted(str(path) for pattern in FILES[room] for path in Path().glob(pattern)))
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(".", copy, ignore=shutil.ignore_patterns(".git", "__pycache__"), dirs_exist_ok=True)
        os.chdir(copy)
        sys.path.insert(0, copy)
        del sys.modules["tests"]  # the one that this file lies in
        os.environ["PYTHONPATH"], sys.dont_write_bytecode = copy, False
        tests_of, seconds = survey(f"tests/{room}", sorted({place.partition(":")[0] for place in places}))
        # Two mutants of one size within a second would look the same to whoever reads bytecode.
        shutil.rmtree(Path(room, "__pycache__"))
        sys.dont_write_bytecode, os.environ["PYTHONDONTWRITEBYTECODE"] = True, "1"
        sys.exit(pytest.main([*QUIET, f"tests/{room}"], plugins=[Judge(places, tests_of, seconds)]))


if __name__ == "__main__":
    main(*sys.argv[1:])
