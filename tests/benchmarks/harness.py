"""Ours and a peer, measured against each other in one process.

What matters is the ratio. Both sides run in turn, in random order within each
round, so that a busy machine or a warm cache meets both alike; the ratio is
taken within each round, and its median is reported with its quartiles. Time is
CPU time of this process: other processes hardly change it.
"""

import ctypes
import gc
import hashlib
import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from bookkit.cache import imports

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RESULTS = HERE / "results"  # committed: the page of benchmarks is made of them


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


def publish(
    chapter: str,
    slug: str,
    *,
    title: str,
    what: str,
    cases: Mapping[str, Mapping[str, Timing | float]],
    goal: float | None = 1.05,
    unit: str = "CPU ms",
    ours: str = "ours",
    missed: str = "",
) -> Path:
    """Print a comparison, and keep it for the book's page of benchmarks.

    `cases` maps what was compared to its candidates: what `compare` timed, or
    plain numbers of a `unit` of which less is better. Every candidate but
    `ours` is a peer, under its own name. The goal is met where ours is at most
    `goal` times each peer; 1.05 is what two runs of the same code differ by,
    and None is for a comparison that shows something and has no goal. `missed`
    says why a goal is missed, if one is. The file also says on which machine,
    when, and with which state of our code.

    Raises:
        ValueError: a case without us or without a peer, or a goal that is
            missed without a word about why.
    """
    rows, over = {}, []
    for case, found in cases.items():
        if ours not in found or len(found) < 2:
            raise ValueError(
                f"{chapter}-{slug}: {case!r} needs {ours!r} and a peer, got "
                f"{', '.join(found) or 'nothing'}."
            )
        rows[case] = {
            name: {"value": _value(value), "ratio": _ratio(found[ours], value)}
            for name, value in found.items()
        }
        over += [
            f"{case} against {name}: {row['ratio']:.2f}"
            for name, row in rows[case].items()
            if goal is not None and row["ratio"] > max(goal, name == ours)
        ]
    print(f"\n{title} ({unit}; ours / theirs)")
    for case, row in rows.items():
        for name, entry in row.items():
            shown = "" if name == ours else f"{entry['ratio']:8.2f}"
            print(f"  {case:24} {name:28} {entry['value']:10.4g}{shown}")
    if over and not missed:
        raise ValueError(
            f"{chapter}-{slug}: over the goal of {goal:g}: {'; '.join(over)}. "
            "Make it faster, or give `missed=` the reason."
        )
    path = RESULTS / f"{chapter}-{slug}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    report = {
        "chapter": chapter,
        "title": title,
        "what": what,
        "unit": unit,
        "ours": ours,
        "goal": goal,
        "missed": missed if over else "",
        "cases": rows,
        "machine": machine(),
        "date": datetime.now(UTC).date().isoformat(),
        "sources": digests(chapter),
    }
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"  kept in {path.relative_to(ROOT)}")
    return path


def _value(value: Timing | float) -> float:
    return float(f"{getattr(value, 'ms', value):.4g}")


def _ratio(ours: Timing | float, theirs: Timing | float) -> float:
    """Ours to theirs; of timings, the ratio that was taken in each round."""
    if isinstance(ours, Timing):
        ours, theirs = ours.ratio, theirs.ratio
    return round(ours / theirs, 4)


def digests(chapter: str) -> dict[str, str]:
    """The state of our code that a benchmark ran: module -> digest."""
    found = {}
    wanted = set(imports((HERE / f"bench_{chapter}.py").read_text("utf-8")))
    while wanted:
        name = wanted.pop()
        path = ROOT / "src" / Path(*name.split(".")).with_suffix(".py")
        if not name.startswith("litformer.") or name in found:
            continue
        if path.is_file():
            text = path.read_text("utf-8")
            found[name] = hashlib.sha256(text.encode()).hexdigest()[:16]
            wanted |= imports(text, name.rpartition(".")[0])
    return dict(sorted(found.items()))
