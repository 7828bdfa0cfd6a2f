"""Bad input, in numbers: `python tests/fuzz/run.py --count 20000`.

Inputs of five kinds are drawn from a seed and given to the command. Each has to be accepted by everything that comes
before sampling, or to end in one sentence on stderr and exit code 2: never in a traceback, a hang, or a written file.
`--deep N` of those accepted are then sampled to the end, over a few small frames. Exit code 1 if there was any fault;
outputs/fuzz/report.json has the numbers, and outputs/fuzz/KIND-SEED-NUMBER/ each faulty input, with how to repeat it.
"""

import argparse
import json
import random
import re
import resource
import shlex
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import checkpoints
import flags
import prompts
import resumes
import trajectories
from attempt import ACCEPTED, FAULT, LIMIT, REFUSED, ROOT, Case, Outcome, attempt

KINDS: dict[str, tuple[Callable[[random.Random], Case], float]] = {  # how an input is drawn, and its share of them all
    "trajectory files": (trajectories.make, 0.3),
    "prompts": (prompts.make, 0.2),
    "flags": (flags.make, 0.25),
    "checkpoint folders": (checkpoints.make, 0.125),
    "unfinished runs": (resumes.make, 0.125),
}
OUTPUT = ROOT / "outputs" / "fuzz"
MEMORY = 12 * 2**30  # bytes of addresses that may be taken: what asks for more is told so, rather than being killed


@dataclass
class Tally:
    """What became of the inputs of one kind."""

    kind: str
    outcomes: Counter[str] = field(default_factory=Counter)
    sentences: Counter[str] = field(default_factory=Counter)
    accepted: list[int] = field(default_factory=list)  # numbers of the inputs
    faults: list[dict[str, Any]] = field(default_factory=list)
    slowest: float = 0.0

    def add(self, number: int, outcome: Outcome) -> None:
        self.outcomes[outcome.verdict] += 1
        self.slowest = max(self.slowest, outcome.seconds)
        if outcome.verdict == ACCEPTED:
            self.accepted.append(number)
        if outcome.verdict == REFUSED:
            self.sentences[pattern(outcome.told)] += 1


def draw(kind: str, seed: int, number: int) -> Case:
    """An input is a function of these three."""
    return KINDS[kind][0](random.Random(f"{kind} {seed} {number}"))


def fuzz(kind: str, seed: int, numbers: Iterable[int], limit: float = LIMIT, deep: bool = False) -> Tally:
    """Try these inputs; each that is faulty is kept, and its fault printed."""
    tally = Tally(kind)
    for number in numbers:
        case = draw(kind, seed, number)
        case = case.shortened() if deep else case
        outcome = attempt(case, limit, all_the_way=deep)
        tally.add(number, outcome)
        if outcome.verdict == FAULT:
            tally.faults.append(keep(case, outcome, kind, seed, number, deep))
    return tally


def keep(case: Case, outcome: Outcome, kind: str, seed: int, number: int, deep: bool) -> dict[str, Any]:
    """Write a faulty input, its files and fault.json, into a folder of its own."""
    folder = OUTPUT / f"{kind.replace(' ', '-')}-{seed}-{number}{'-deep' if deep else ''}"
    shutil.rmtree(folder, ignore_errors=True)
    case.write(folder)
    folder.mkdir(parents=True, exist_ok=True)
    repeat = ["--kind", kind, "--seed", str(seed), "--first", str(number), "--count", "1", *["--all-the-way"] * deep]
    fault = {
        "fault": outcome.told,
        "arguments": case.arguments,
        "repeat": f"python tests/fuzz/run.py {shlex.join(repeat)}",
        "seconds": outcome.seconds,
    }
    (folder / "fault.json").write_text(json.dumps(fault, indent=2) + "\n")
    print(f"fault in {folder}: {outcome.told.strip().splitlines()[-1][:300]}", file=sys.stderr)
    return {"kind": kind, "number": number, **fault}


def pattern(sentence: str) -> str:
    """A sentence without what differs from input to input."""
    return re.sub(r"'[^']*'|\"[^\"]*\"|/?[\w.-]+/[\w./-]+|\d[\d.e+-]*", "_", sentence)[:100]


def table(tallies: list[Tally]) -> str:
    """Markdown: a row for each kind, and one for them all."""
    rows = [("kind", "inputs", "accepted", "refused in a sentence", "faults", "slowest")]
    for tally in tallies:
        counts = (tally.outcomes.total(), *(tally.outcomes[verdict] for verdict in (ACCEPTED, REFUSED, FAULT)))
        rows.append((tally.kind, *(f"{count:,}" for count in counts), f"{tally.slowest:.1f} s"))
    rows.insert(1, ("---",) * 6)
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def total(tallies: list[Tally], name: str) -> Tally:
    outcomes = sum((tally.outcomes for tally in tallies), Counter())
    return Tally(name, outcomes, slowest=max(tally.slowest for tally in tallies))


def go_deep(tallies: list[Tally], seed: int, count: int, limit: float) -> Tally:
    """Sample `count` of the accepted inputs to the end, as many of each kind as there are."""
    deep = []
    for done, tally in enumerate(tallies):
        share = (count - sum(t.outcomes.total() for t in deep)) // (len(tallies) - done)
        numbers = [n for n in tally.accepted if "--draw" not in draw(tally.kind, seed, n).arguments]
        chosen = random.Random(seed).sample(numbers, min(share, len(numbers)))
        deep.append(fuzz(tally.kind, seed, sorted(chosen), limit, deep=True))
    whole = total(deep, "of those accepted, sampled to the end")
    whole.faults = [fault for tally in deep for fault in tally.faults]
    return whole


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000, help="inputs of all kinds together (20000)")
    parser.add_argument("--deep", type=int, default=0, help="how many of the accepted ones are sampled to the end (0)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=KINDS, help="all --count inputs of this kind")
    parser.add_argument("--first", type=int, default=0, help="number of the first input (0)")
    parser.add_argument("--all-the-way", action="store_true", help="sample every input to the end")
    parser.add_argument("--limit", type=float, default=LIMIT, help=f"seconds that an input may take ({LIMIT:g})")
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))

    attempt(Case([]), limit=600)  # imports everything, which must not be cut short
    began, tallies = time.perf_counter(), []
    for kind in [arguments.kind] if arguments.kind else KINDS:
        count = arguments.count if arguments.kind else round(arguments.count * KINDS[kind][1])
        numbers = range(arguments.first, arguments.first + count)
        tallies.append(fuzz(kind, arguments.seed, numbers, arguments.limit, arguments.all_the_way))
        print(f"{kind}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    shown = [*tallies, total(tallies, "all")]
    if arguments.deep:
        shown.append(go_deep(tallies, arguments.seed, arguments.deep, 10 * arguments.limit))
    print(table(shown))
    report = {
        "arguments": vars(arguments),
        "seconds": time.perf_counter() - began,
        "counts": {tally.kind: {**tally.outcomes, "slowest": tally.slowest} for tally in shown},
        "sentences": {tally.kind: dict(tally.sentences.most_common()) for tally in tallies},
        "faults": [fault for tally in shown for fault in tally.faults],
    }
    OUTPUT.mkdir(parents=True, exist_ok=True)
    (OUTPUT / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    return 1 if report["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
