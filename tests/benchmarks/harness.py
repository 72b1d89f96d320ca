"""Ours and a peer, measured against each other in one process.

What matters is the ratio. Both sides run in turn, in random order within each
round, so that a busy machine or a warm cache meets both alike; the ratio is
taken within each round, and its median is reported with its quartiles. Time is
CPU time of this process: other processes hardly change it.
"""

import ctypes
import gc
import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Timing:
    """One candidate: CPU milliseconds, and ratios to the first candidate."""

    ms: float
    ratio: float
    ratio_low: float  # lower quartile over the rounds
    ratio_high: float  # upper quartile
    rounds: int


def compare(
    candidates: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 11,
    least_ms: float = 20.0,
) -> dict[str, Timing]:
    """Time the candidates in turn; the first is what the others relate to.

    A call shorter than `least_ms` is repeated within a round until it is not,
    since a clock cannot measure microseconds.
    """
    repeats = {}
    for name, call in candidates.items():
        call()  # the first call pays for caches and kernels
        once = _cpu_ms(call, 1)
        repeats[name] = max(1, round(least_ms / max(once, 1e-3)))
    order = list(candidates)
    shuffle = random.Random(0).shuffle
    spent = {name: [] for name in candidates}
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            ms = _cpu_ms(candidates[name], repeats[name]) / repeats[name]
            spent[name].append(ms)
    first = spent[next(iter(candidates))]
    found = {}
    for name, times in spent.items():
        ratios = [a / b for a, b in zip(times, first, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        found[name] = Timing(
            statistics.median(times), middle, low, high, rounds
        )
    return found


def _cpu_ms(call: Callable[[], object], times: int) -> float:
    gc.collect()
    gc.disable()
    try:
        start = time.process_time_ns()
        for _ in range(times):
            call()
        return (time.process_time_ns() - start) / 1e6
    finally:
        gc.enable()


def peak_mib(call: Callable[[], object]) -> float | None:
    """The most memory that one call needs beside what is there, in MiB.

    Linux only (None elsewhere): the kernel's own high-water mark, reset just
    before the call, after the allocator has given back what it kept.
    """
    status = Path("/proc/self/status")
    try:
        call()  # so that code and caches are loaded already
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        before = _kib(status, "VmRSS")
        result = call()
        after = _kib(status, "VmHWM")
    except OSError:
        return None
    del result
    return max(0.0, (after - before) / 1024)


def _kib(status: Path, field: str) -> int:
    for line in status.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise OSError(f"{status} has no {field}")


def machine() -> dict[str, object]:
    """What the numbers were measured on; without it they mean nothing."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.system(),
    }


def table(title: str, columns: list[str], rows: list[list]) -> str:
    """Aligned text: the first column to the left, numbers to the right."""
    cells = [columns, *([_text(x) for x in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    lines = [title]
    for row in cells:
        first, *rest = zip(row, widths, strict=True)
        lines.append(
            "  "
            + first[0].ljust(first[1])
            + "".join(x.rjust(w + 2) for x, w in rest)
        )
    return "\n".join(lines)


def _text(value) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return str(value)


def save(name: str, report: dict) -> Path:
    """Write `_build/benchmarks/<name>.json`, the machine included."""
    path = ROOT / "_build" / "benchmarks" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    old = json.loads(path.read_text()) if path.exists() else {}
    report = {**old, **report, "machine": machine()}
    text = json.dumps(report, indent=2, default=asdict)
    path.write_text(text + "\n")
    return path
