"""`bookkit test`: everything that is proved, step by step, timed and counted.

All steps run, even when one fails, so that one look at the end shows all that
is wrong; only a step whose input could not be made is left out, and counts as
failed. The last line is `N passed, N failed, N skipped`.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from bookkit.book import Book, BookError


@dataclass(frozen=True)
class Step:
    """One command, and what it must have before it."""

    name: str
    what: str
    command: tuple[str, ...]  # after `python -m`
    needs: tuple[str, ...] = ()
    browser: bool = False


@dataclass
class Result:
    """What became of a step."""

    name: str
    seconds: float = 0.0
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    note: str = ""


def steps(workers: int, everything: bool) -> list[Step]:
    """What `make test` does; `everything` runs unchanged chapters too."""
    pytest = ("pytest", "-q", "--no-header")
    parallel = ("-n", str(workers)) if workers > 1 else ()
    run_all = ("--all",) if everything else ()
    whole = ("--whole",) if everything else ()
    # a step of their own, and no test at all
    apart = ("--ignore=tests/exercises", "--ignore=tests/benchmarks")
    return [
        Step(
            "export", "the package is fresh", ("bookkit", "export", "--check")
        ),
        Step("lint", "package, tools, chapters", ("bookkit", "lint")),
        Step(
            "diagrams",
            "the drawings are fresh",
            ("bookkit", "diagrams", "--check"),
        ),
        Step(
            "tests",
            "unit, parity and law tests",
            (
                *(*pytest, "tests", *apart, *parallel),
                *("-m", "not browser and not site"),
            ),
        ),
        Step("chapters", "every cell, by nbval", ("bookkit", "run", *run_all)),
        Step(
            "exercises",
            "checks against starters, solutions and mutants",
            (*pytest, "tests/exercises", *parallel, *whole),
        ),
        Step(
            "study",
            "the learner's notebooks",
            ("bookkit", "study"),
            ("chapters",),
        ),
        Step(
            "site",
            "the build, warnings are errors",
            ("bookkit", "site"),
            ("chapters", "study"),
        ),
        Step(
            "pages",
            "the built site, read as files",
            (*pytest, "tests/site", "-m", "site and not browser"),
            ("site",),
        ),
        Step(
            "web",
            "what the browser tests need",
            ("bookkit", "web", "--dev"),  # once, not by each worker
            browser=True,
        ),
        Step(
            "browser",
            "every page in a real browser",
            (*pytest, "tests/site", *parallel, "-m", "browser"),
            ("site", "web"),
            browser=True,
        ),
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bookkit test`."""
    parser.add_argument("steps", nargs="*", help="only these (default: all)")
    parser.add_argument(
        "--all",
        action="store_true",
        default=bool(os.environ.get("CI")),
        help="run unchanged chapters too, and learners' notebooks whole "
        "(set where CI is set)",
    )


def main(args: argparse.Namespace) -> int:
    """Run the steps, report, and return 1 if anything failed."""
    book = Book()
    todo = steps(workers=min(os.cpu_count() or 1, 4), everything=args.all)
    known = [step.name for step in todo]
    for name in args.steps:
        if name not in known:
            raise BookError(f"no step {name!r}. There are: {', '.join(known)}.")
    if args.steps:
        todo = [step for step in todo if step.name in args.steps]
    results = run_steps(todo, book.root)
    print(report(results, chapter_costs(book)))
    missing = [r for r in results if r.note == NO_BROWSER]
    if missing:
        print(box(ADVICE))
    print(summary(results))
    return 1 if any(r.failed for r in results) else 0


NO_BROWSER = "SKIPPED: no Chromium"
ADVICE = (
    "NO BROWSER: the pages of the site were NOT tested.",
    "Install Chromium and run `make test` again:",
    "    Debian, Ubuntu:  sudo apt-get install chromium",
    "    elsewhere:       set CHROMIUM=/path/to/chrome",
)


def run_steps(todo: Iterable[Step], root: Path) -> list[Result]:
    """Run each step whose needs have passed."""
    results: dict[str, Result] = {}
    for step in todo:
        lacking = [n for n in step.needs if n in results and results[n].failed]
        if lacking:
            note = f"not run: {lacking[0]} failed"
            results[step.name] = Result(step.name, failed=1, note=note)
        elif step.browser and not has_browser():
            results[step.name] = Result(step.name, skipped=1, note=NO_BROWSER)
        else:
            results[step.name] = run_step(step, root)
    return list(results.values())


def run_step(step: Step, root: Path) -> Result:
    """Run one step; what it says goes straight to the terminal."""
    print(f"\n== {step.name}: {step.what}", flush=True)
    junit = root / "_build" / "test" / f"{step.name}.xml"
    junit.parent.mkdir(parents=True, exist_ok=True)
    junit.unlink(missing_ok=True)
    options = os.environ.get("PYTEST_ADDOPTS", "")
    environment = {
        **os.environ,
        # also for the pytest that a bookkit command starts
        "PYTEST_ADDOPTS": f"{options} --junit-xml='{junit}'".strip(),
        # one thread each: several workers share few cores, and sums have
        # the same rounding whatever the number of cores
        "OMP_NUM_THREADS": "1",
    }
    started = time.monotonic()
    code = subprocess.run(
        [sys.executable, "-m", *step.command], cwd=root, env=environment
    ).returncode
    if code in (130, -2):
        raise KeyboardInterrupt
    result = counted(step.name, junit, code)
    result.seconds = time.monotonic() - started
    return result


def counted(name: str, junit: Path, code: int) -> Result:
    """The counts of a step: from pytest's file, or one for the command."""
    result = Result(name)
    if junit.exists():
        for suite in ElementTree.parse(junit).getroot().iter("testsuite"):
            bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            skipped = int(suite.get("skipped", 0))
            result.failed += bad
            result.skipped += skipped
            result.passed += int(suite.get("tests", 0)) - bad - skipped
    else:
        result.passed = int(code == 0)
    if code and not result.failed:
        result.failed = 1
        result.note = (
            "no test was found" if code == 5 else f"exit status {code}"
        )
    return result


def has_browser() -> bool:
    """True if the browser tests can run."""
    from bookkit.diagrams import find_chromium

    try:
        return bool(find_chromium())
    except BookError:
        return False


def chapter_costs(book: Book) -> str:
    """What each chapter's last run took, slowest first."""
    from bookkit.run import table

    return table(book, [chapter.rel for chapter in book.chapters])


def report(results: list[Result], costs: str = "") -> str:
    """The table at the end: the time and the counts of every step."""
    lines = ["", f"  {'step':10} {'time':>6} {'passed':>7} {'failed':>7}"]
    for r in results:
        mark = "!" if r.failed else " "
        lines.append(
            f"{mark} {r.name:10} {_clock(r.seconds):>6} {r.passed:7} "
            f"{r.failed:7}  {r.note}".rstrip()
        )
    total = sum(r.seconds for r in results)
    lines.append(f"  {'all':10} {_clock(total):>6}")
    return "\n".join([*lines, "", costs]).rstrip() + "\n"


def summary(results: list[Result]) -> str:
    """The line that a person and a machine read."""
    passed, failed, skipped = (
        sum(getattr(r, key) for r in results)
        for key in ("passed", "failed", "skipped")
    )
    return f"{passed} passed, {failed} failed, {skipped} skipped"


def box(lines: Iterable[str]) -> str:
    """Lines in a frame that nobody overlooks."""
    lines = list(lines)
    width = max(len(line) for line in lines)
    edge = "#" * (width + 6)
    inner = [f"## {line:{width}} ##" for line in lines]
    return "\n".join([edge, *inner, edge, ""])


def _clock(seconds: float) -> str:
    return "{}:{:02}".format(*divmod(round(seconds), 60))
