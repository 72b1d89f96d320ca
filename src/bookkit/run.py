"""Execute the chapters that changed: one run, which is also the test.

nbval runs them (`bookkit.nbval_plugin`), two at a time with one thread each.
A chapter that passes is written to `_build/executed/` at once; the site and
the study notebooks are made from there, and nothing is ever run twice. An
interruption keeps what is finished.
"""

import contextlib
import io
import os
import signal
import tempfile
import time

import psutil

from bookkit.book import Book, BookError, Chapter
from bookkit.cache import fill_jupyter_cache, record, why_stale
from bookkit.live import Lane, Live, duration

__all__ = ["fill_jupyter_cache", "main", "run"]

WORKERS = 2
TIMEOUT = 300  # seconds that one cell may take, by the clock


def add_arguments(parser) -> None:
    """Options of `python -m bookkit run`."""
    parser.add_argument(
        "chapters", nargs="*", help="names of chapters; all, if none is given"
    )
    parser.add_argument(
        "--all", action="store_true", help="run fresh chapters too"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=WORKERS,
        help="chapters that run at the same time (%(default)s)",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=TIMEOUT,
        help="seconds that one cell may take (%(default)s)",
    )
    parser.add_argument(
        "--update-reference",
        action="store_true",
        help="run, and rewrite tests/reference/ from what cells print",
    )


def main(args) -> int:
    """Run what is stale; 0 if every chapter then has passed."""
    book = Book()
    chapters = [book.chapter(name) for name in args.chapters] or book.chapters
    always = args.all or args.update_reference
    reasons = {}
    for chapter in dict.fromkeys(chapters):
        reason = why_stale(chapter)
        if reason or always:
            reasons[chapter] = reason or "asked for"
    if not reasons:
        print(
            f"{_chapters(len(chapters))} up to date, none was run "
            "(--all runs them again)."
        )
        return 0
    return run(
        book,
        reasons,
        workers=max(1, args.workers),
        timeout=args.timeout,
        update_reference=args.update_reference,
    )


def run(
    book: Book,
    reasons: dict[Chapter, str],
    *,
    workers: int = WORKERS,
    timeout: float = TIMEOUT,
    update_reference: bool = False,
) -> int:
    """Run chapters, each for a reason; 0 if all passed, 1 if not."""
    for chapter in reasons:
        chapter.cells  # noqa: B018  one that cannot be read is told first
    lanes = {c.rel: _lane(c) for c in reasons}
    # the longest first, so that no worker waits for it at the end
    order = sorted(reasons, key=lambda c: -lanes[c.rel].left(time.monotonic()))
    workers = min(workers, len(order))
    with Live(lanes, workers) as live, _tidy():
        about = duration(live.eta())
        live.line(
            f"Running {len(order)} of {len(book.chapters)} chapters, "
            f"{workers} at a time, about {about}:"
        )
        for chapter in order:
            live.line(f"  {chapter.name}: {reasons[chapter]}")
        reporter = Reporter(live, {c.rel: c for c in order})
        started = time.monotonic()
        _pytest(book.root, order, reporter, workers, timeout, update_reference)
    seconds = time.monotonic() - started
    passed = reporter.passed
    if reporter.interrupted:
        print(
            f"Interrupted. {len(passed)} of {len(order)} chapters are "
            "finished and kept; the same command goes on with the rest."
        )
        return 130
    if costs := table(book, passed):
        print(costs)
    if len(passed) == len(order):
        print(f"{_chapters(len(order))} passed in {duration(seconds)}.")
        return 0
    names = ", ".join(c.name for c in order if c.rel not in passed)
    print(f"{len(order) - len(passed)} of {len(order)} failed: {names}.")
    return 1


def table(book: Book, ran) -> str:
    """What each chapter cost, slowest first, against its budget.

    `ran` holds the chapters (`chapters/masks.md`) whose cost is of this run.
    """
    costs = {c: record(c) for c in book.chapters}
    rows = [
        (
            chapter.name,
            f"{cost['cpu_seconds']:.1f}",
            f"{cost['budget']:g}",
            f"{cost['cpu_seconds'] / cost['budget']:.0%}",
            f"{cost['wall_seconds']:.1f}",
            "{}: {:.1f} s".format(*cost["dearest"]) if cost["dearest"] else "",
            "" if chapter.rel in ran else "(from an earlier run)",
        )
        for chapter, cost in sorted(
            costs.items(), key=lambda item: -item[1].get("cpu_seconds", 0)
        )
        if cost
    ]
    if not rows:
        return ""
    head = ("chapter", "CPU s", "budget", "used", "clock s", "dearest cell", "")
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return "\n".join(
        "  "
        + "  ".join(
            text.ljust(width) if at in (0, 5, 6) else text.rjust(width)
            for at, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, *rows)
    )


def _chapters(count: int) -> str:
    return "1 chapter" if count == 1 else f"{count} chapters"


def _lane(chapter: Chapter) -> Lane:
    """What a chapter is expected to take."""
    before = record(chapter)
    parts = before.get("cell_wall_seconds", [])
    if parts:  # the first test compiles, the last one judges and writes
        rest = before["wall_seconds"] - sum(parts)
        parts = [0.0, *parts, max(rest, 0.0)]
    count = 2 + sum(cell.is_code for cell in chapter.cells)
    return Lane(chapter.name, count, parts, guess=chapter.budget)


class Reporter:
    """A pytest plugin that tells `Live` what happens, chapter by chapter."""

    def __init__(self, live: Live, chapters: dict[str, Chapter]) -> None:
        self.live, self.chapters = live, chapters
        self.passed: dict[str, dict] = {}  # chapter -> what it cost
        self.problems: list[str] = []  # messages told so far
        self.interrupted = False

    def pytest_runtest_logstart(self, nodeid):
        """A test begins: the first of a chapter starts its clock."""
        self.live.start(self._rel(nodeid))

    def pytest_runtest_logreport(self, report):
        """A part of a chapter has passed or failed."""
        rel = self._rel(report.nodeid)
        lane = self.live.lanes[rel]
        if report.failed:
            lane.ended = True
            self._tell(f"{lane.name} FAILED", str(report.longrepr))
        elif report.when == "call":
            lane.step()
            if report.nodeid.endswith("::whole chapter") and report.passed:
                lane.ended = True
                cost = self.passed[rel] = dict(report.user_properties)
                self.live.line(
                    f"{lane.name} passed: {cost['cpu_seconds']:.1f} of "
                    f"{cost['budget']:g} CPU s, {cost['wall_seconds']:.1f} s"
                )

    def pytest_collectreport(self, report):
        """A chapter that could not even be collected."""
        if report.failed:
            self._tell("FAILED", str(report.longrepr))

    def pytest_keyboard_interrupt(self):
        """End workers and kernels at once: xdist would wait for their cells."""
        self.interrupted = True
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def _rel(self, nodeid: str) -> str:
        return nodeid.split("::")[0]

    def _tell(self, head: str, message: str) -> None:
        if message not in self.problems:  # each worker reports a collection
            self.problems.append(message)
            lines = message.strip().splitlines()
            self.live.line("\n".join([head, *(f"  {s}" for s in lines)]))


def _pytest(root, chapters, reporter, workers, timeout, update) -> None:
    """Run pytest in this process, quietly; its own output goes to a file."""
    import pytest

    arguments = [
        *("-p", "bookkit.nbval_plugin", "--nbval-lax"),
        # the repository's pytest settings are for its unit tests
        *("-c", os.devnull, "--rootdir", str(root)),
        *("-p", "no:cacheprovider", "--capture=sys", "--color=no"),
        f"--nbval-cell-timeout={timeout}",
        *(["--update-reference"] if update else []),
        *(str(c.path) for c in chapters),
    ]
    if workers > 1:
        # one kernel runs one chapter; a worker that dies is not replaced,
        # because a chapter cannot be continued in the middle
        arguments += ["-n", str(workers), "--dist", "loadfile"]
        arguments += ["--no-loadscope-reorder", "--max-worker-restart=0"]
    log = root / "_build" / "run.log"
    try:
        log.parent.mkdir(exist_ok=True)
        stream = _Log(log.open("wb"), encoding="utf-8")
    except OSError as error:
        raise BookError(
            f"{log}: cannot be written ({error.strerror})."
        ) from error
    with stream:
        with (
            contextlib.redirect_stdout(stream),
            contextlib.redirect_stderr(stream),
        ):
            code = pytest.main(arguments, plugins=[reporter])
    if code not in (0, 1, 2):
        tail = "\n".join(log.read_text("utf-8").splitlines()[-20:])
        raise BookError(f"pytest stopped (see {log}):\n{tail}")


class _Log(io.TextIOWrapper):
    """On a full disk the log ends early, and the run goes on without it.

    The executed notebook is what matters, and it says so if it has no room.
    """

    def write(self, text: str) -> int:
        """Write, if there is room."""
        with contextlib.suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, if there is room."""
        with contextlib.suppress(OSError):
            super().flush()

    def close(self) -> None:
        """Close; what had no room is dropped."""
        with contextlib.suppress(OSError):
            super().close()


@contextlib.contextmanager
def _tidy():
    """Leave nothing behind, however the run ends.

    `kill` ends it as Ctrl-C does. Temporary files, the chapters' own
    included, go to one folder, which is removed even if a kernel was killed.
    """

    def stop(*_):
        raise KeyboardInterrupt

    handler = signal.signal(signal.SIGTERM, stop)
    place = os.environ.get("TMPDIR")
    try:
        with tempfile.TemporaryDirectory(
            prefix="bookkit-", ignore_cleanup_errors=True
        ) as folder:
            os.environ["TMPDIR"] = tempfile.tempdir = folder
            yield
    finally:
        tempfile.tempdir = None
        os.environ.pop("TMPDIR")
        if place is not None:
            os.environ["TMPDIR"] = place
        signal.signal(signal.SIGTERM, handler)
