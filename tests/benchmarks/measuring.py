"""What the benchmarks share: interleaved repeats, ratios within one run, the work a call does, and its floor.

The floor of a call is the larger of two times: its floating-point operations at the rate of a large matrix product,
and its bytes at the rate of a large copy; both rates are measured in the same rounds as the call.
    Operations are those of torch's own formulas for matrix products, convolutions and attention, and of the attention
    that is fused on CPUs, which torch's counter leaves out. Nothing else is counted: softmax, norms, activations,
    sorting, elementwise arithmetic.
    Bytes are what those same operations read and write, each operand once, as if all between them were free.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from storage import write_bytes

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
aten = torch.ops.aten
FLOPS = {
    **flop_registry,
    aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[aten._scaled_dot_product_flash_attention],
    aten._scaled_dot_product_flash_attention_for_cpu_backward: flop_registry[
        aten._scaled_dot_product_flash_attention_backward
    ],
}

Call = Callable[[], Any]


# ---- Work and its floor --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """Floating-point operations, and bytes read and written, of matrix products, convolutions and attention."""

    flops: int
    bytes: int

    def floor(self, rates: Rates) -> float:
        """Seconds that this work takes at the least."""
        return max(self.flops / rates.flops, self.bytes / rates.bytes)


@dataclass(frozen=True)
class Rates:
    """Of one machine, each second: operations of a large matrix product, bytes read and written by a large copy."""

    flops: float
    bytes: float

    @classmethod
    def measured(cls, sticks: dict[str, tuple[Call, Work]], seconds: dict[str, list[float]]) -> Rates:
        """From the yardsticks and the time they took."""
        product, copy = (float(np.median(seconds[name])) for name in ("matrix product", "copy"))
        return cls(sticks["matrix product"][1].flops / product, sticks["copy"][1].bytes / copy)


class Counter(TorchDispatchMode):
    """Adds up the work of everything that runs inside it."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        formula = FLOPS.get(function._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
            results = out if isinstance(out, tuple | list) else (out,)
            self.bytes += sum(x.nbytes for x in (*args, *results) if isinstance(x, torch.Tensor))
        return out


def work(call: Call) -> Work:
    """What one call does; it is run once."""
    with Counter() as counter:
        call()
    return Work(counter.flops, counter.bytes)


def peak_memory(call: Call, device: str) -> int | None:
    """The most bytes of a GPU's memory in use during one call, weights and all; None on a CPU."""
    if not device.startswith("cuda"):
        return None
    torch.cuda.reset_peak_memory_stats(device)
    call()
    return torch.cuda.max_memory_allocated(device)


def yardsticks(device: str, dtype: torch.dtype) -> dict[str, tuple[Call, Work]]:
    """A large matrix product and a large copy, to be timed in the same rounds as what they are a yardstick for."""
    n = 8192 if device.startswith("cuda") else 2048
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    source, target = (torch.zeros(2**26, device=device) for _ in range(2))
    return {
        "matrix product": (lambda: a @ b, Work(2 * n**3, 3 * a.nbytes)),
        "copy": (lambda: target.copy_(source), Work(0, 2 * source.nbytes)),
    }


# ---- Time ----------------------------------------------------------------------------------------------------------


def interleave(calls: dict[str, Call], repeats: int, wait: Call = lambda: None) -> dict[str, list[float]]:
    """Seconds of every call in each of `repeats` rounds, so that a slow minute of the machine meets all of them.

    Each call is run once before. Every round begins with another call. wait: until the device has done its work.
    """
    for call in calls.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for i in range(repeats):
        turn = i % len(names)
        for name in names[turn:] + names[:turn]:
            wait()
            began = time.perf_counter()
            calls[name]()
            wait()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def ratio(seconds: list[float], reference: list[float]) -> tuple[float, float, float]:
    """Median and both quartiles of the ratios within each round."""
    low, median, high = np.percentile(np.divide(seconds, reference), (25, 50, 75))
    return float(median), float(low), float(high)


def measure(
    calls: dict[str, Call],
    reference: str,
    args: argparse.Namespace,
    title: str,
    facts: dict[str, Any] | None = None,
    uncounted: Collection[str] = (),
) -> None:
    """Time the calls beside the yardsticks, count their work, print the table and write the JSON.

    uncounted: calls that a counter cannot look into, for they are compiled
    """
    counted = {name: work(call) for name, call in calls.items() if name not in uncounted}
    sticks = yardsticks(args.device, DTYPES[args.dtype])
    everything = {**calls, **{name: call for name, (call, _) in sticks.items()}}
    seconds = interleave(everything, args.repeats, waiter(args.device))
    rates = Rates.measured(sticks, seconds)
    rows = [row(name, seconds[name], seconds[reference], counted.get(name), rates) for name in calls]
    for r in rows:
        r["peak_bytes"] = peak_memory(calls[r["name"]], args.device)
    report(rows, reference, args, title, rates, facts)


def device_name(device: str) -> str:
    """The GPU's name, or the processor's."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")  # Linux; elsewhere Python knows it
    names = re.findall(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else []
    return names[0] if names else platform.processor()


def waiter(device: str) -> Call:
    """What waits for the device: a CPU has always finished."""
    return torch.cuda.synchronize if device.startswith("cuda") else lambda: None


# ---- The table -----------------------------------------------------------------------------------------------------


def row(
    name: str, seconds: list[float], reference: list[float], done: Work | None = None, rates: Rates | None = None
) -> dict[str, Any]:
    """One line of the table, as it stands in the JSON file."""
    median, low, high = ratio(seconds, reference)
    line = {"name": name, "ratio": median, "quartiles": [low, high], "seconds": seconds}
    if done is not None and rates is not None:
        floor = done.floor(rates)
        over = float(np.median(seconds)) / floor if floor else None
        line |= {"flops": done.flops, "bytes": done.bytes, "floor_seconds": floor, "over_floor": over}
    return line


def table(rows: Iterable[dict[str, Any]], reference: str) -> str:
    """Rows as text: the ratio to the reference with its quartiles, median seconds, work, floor, and time over floor."""
    columns = f"{'GFLOP':>9} {'GB':>7} {'floor s':>9} {'x floor':>7} {'peak GB':>7}"
    lines = [f"{'':38} {'ratio':>6}  {'quartiles':>13} {'seconds':>9} {columns}"]
    for r in rows:
        low, high = r["quartiles"]
        name = r["name"] + (" = 1" if r["name"] == reference else "")
        line = f"{name:38} {r['ratio']:6.3f}  {low:6.3f}-{high:6.3f} {np.median(r['seconds']):9.4f}"
        if r.get("over_floor"):
            line += f" {r['flops'] / 1e9:9.2f} {r['bytes'] / 1e9:7.3f} {r['floor_seconds']:9.4f} {r['over_floor']:7.2f}"
        if r.get("peak_bytes"):
            line += f" {r['peak_bytes'] / 1e9:7.2f}"
        lines.append(line)
    return "\n".join(lines)


def report(
    rows: list[dict[str, Any]],
    reference: str,
    args: argparse.Namespace,
    title: str,
    rates: Rates,
    facts: dict[str, Any] | None = None,
) -> None:
    """Print the table and write everything in it, with the machine it was measured on, as JSON."""
    about = {
        "what": title,
        "size": args.size,
        "device": device_name(args.device),
        "dtype": args.dtype,
        "threads": torch.get_num_threads(),
        "repeats": args.repeats,
        "torch": torch.__version__,
        "flops_per_second": rates.flops,
        "bytes_per_second": rates.bytes,
        **(facts or {}),
    }
    print(f"{title}, {args.size}, {args.device} {args.dtype}, {about['threads']} threads, {args.repeats} rounds")
    print(f"matrix product {rates.flops / 1e9:.1f} GFLOP/s, copy {rates.bytes / 1e9:.1f} GB/s (read and written)")
    print(table(rows, reference))
    path = args.json or Path("outputs") / "benchmarks" / f"{title.replace(' ', '-')}-{args.size}-{args.device}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, (json.dumps({**about, "reference": reference, "rows": rows}, indent=2) + "\n").encode())
    print(path)


def arguments(description: str | None, sizes: Iterable[str]) -> argparse.ArgumentParser:
    """The flags that every benchmark has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=tuple(sizes), default="tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--threads", type=int, help="of the CPU; default: torch's own choice")
    parser.add_argument("--repeats", type=int, default=7, help="rounds that count")
    parser.add_argument("--json", type=Path, help="default: outputs/benchmarks/<what>-<size>-<device>.json")
    return parser


def prepare(args: argparse.Namespace) -> None:
    if args.repeats < 1:
        raise SystemExit(f"--repeats must be at least 1, not {args.repeats}")
    if args.threads is not None:
        torch.set_num_threads(args.threads)
