"""The command: what runs, what is kept, what is said."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from bookkit import cache, run
from bookkit.__main__ import main
from bookkit.book import BookError
from bookkit.live import Lane, Live, duration

SRC = Path(__file__).parents[2] / "src"


def start(book, *arguments) -> subprocess.Popen:
    """Begin `python -m bookkit run` on a book."""
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    environment["BOOK_ROOT"] = str(book.root)
    return subprocess.Popen(
        [sys.executable, "-m", "bookkit", "run", *arguments],
        cwd=book.root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process) -> str:
    """Wait for a run; all that it said."""
    text, _ = process.communicate(timeout=120)
    return text


def ran(text: str) -> set[str]:
    """The chapters that a run executed."""
    return set(re.findall(r"^(\S+) (?:passed|FAILED)", text, re.M))


def kernels(book) -> list[psutil.Process]:
    """The kernels, of any user of this machine, that work in this book."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(book.root / "chapters"):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def test_an_interruption_keeps_what_is_finished(tiny_book):
    """Four runs of one book: interrupted, resumed, idle, after an edit."""
    book, cell = tiny_book, tiny_book.cell
    book.write("src/litformer/one.py", "ONE = 1\n")
    book.write("src/litformer/both.py", "from litformer.one import ONE\n")
    book.chapter("quick", cell("import litformer.both"))
    wait = (
        "import time, pathlib\n"
        "while not pathlib.Path('../go').exists():\n    time.sleep(0.05)"
    )
    book.chapter("slow", cell("import litformer"), cell(wait))

    first = start(book)
    said = ""
    while "quick passed" not in said:
        line = first.stdout.readline()
        assert line, said
        said += line
    assert kernels(book)
    first.send_signal(signal.SIGINT)
    said += finish(first)
    assert first.returncode == 130
    assert "Interrupted. 1 of 2 chapters are finished and kept" in said
    deadline = time.monotonic() + 5  # a killed process takes a moment to go
    while kernels(book) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert kernels(book) == []
    executed = book.root / "_build" / "executed"
    assert [path.name for path in executed.iterdir()] == ["quick.ipynb"]

    book.write("go", "")
    second = start(book)
    said = finish(second)
    assert second.returncode == 0
    assert ran(said) == {"slow"}
    assert re.search(r"^  quick .* \(from an earlier run\)$", said, re.M)
    assert "1 chapter passed in " in said

    third = start(book)
    assert finish(third) == (
        "2 chapters up to date, none was run (--all runs them again).\n"
    )
    assert third.returncode == 0

    book.write("src/litformer/one.py", "ONE = 2 - 1\n")
    fourth = start(book)
    said = finish(fourth)
    assert ran(said) == {"quick"}
    assert "  quick: changed: src/litformer/one.py\n" in said
    assert fourth.returncode == 0


@pytest.fixture(scope="module")
def passed(module_book):
    """A book of one chapter with a reference that its run has written."""
    module_book.chapter(
        "alpha",
        module_book.cell("x = 2"),
        module_book.cell("print('a\\nb', x)\nx", "check-output"),
    )
    process = start(module_book, "--update-reference")
    module_book.said = finish(process)
    assert process.returncode == 0, module_book.said
    return module_book


def test_update_reference_writes_what_the_cells_print(passed):
    assert json.loads(passed.read("tests/reference/alpha.json")) == [
        {
            "source": ["print('a\\nb', x)", "x"],
            "outputs": [
                {
                    "output_type": "stream",
                    "name": "stdout",
                    "text": ["a\n", "b 2\n"],
                },
                {
                    "output_type": "execute_result",
                    "data": {"text/plain": ["2"]},
                },
            ],
        }
    ]


def test_after_an_update_the_chapter_is_fresh(passed):
    assert cache.why_stale(passed.book.chapter("alpha")) is None


def test_with_nothing_to_do_nothing_heavy_is_imported(passed):
    code = (
        "import sys; from bookkit.__main__ import main; main(['run']); "
        "print(*{'pytest', 'jupytext', 'nbformat', 'torch'} & {*sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={
            **os.environ,
            "PYTHONPATH": str(SRC),
            "BOOK_ROOT": str(passed.root),
        },
        capture_output=True,
        text=True,
    )
    assert done.stdout == (
        "1 chapter up to date, none was run (--all runs them again).\n\n"
    )


def test_the_jupyter_cache_holds_what_a_run_wrote(passed):
    from jupyter_cache import get_cache
    from myst_nb.core.read import read_myst_markdown_notebook

    folder = run.fill_jupyter_cache(passed.book)
    entries = get_cache(folder)
    chapter = passed.book.chapter("alpha")
    notebook = read_myst_markdown_notebook(chapter.text)
    _, merged = entries.merge_match_into_notebook(notebook)
    entries.db.dispose()
    outputs = merged.cells[-1].outputs
    assert [o.output_type for o in outputs] == ["stream", "execute_result"]
    assert outputs[0].text == "a\nb 2\n"


def test_a_full_disk_leaves_the_old_notebook(passed, monkeypatch, capsys):
    """The same chapter again, in this process, with no room to write."""
    monkeypatch.setenv("BOOK_ROOT", str(passed.root))
    path = cache.executed_path(passed.book.chapter("alpha"))
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", _full)
    assert main(["run", "--all"]) == 1
    monkeypatch.undo()
    said = capsys.readouterr().out
    assert (
        f"alpha FAILED\n  {path}: the disk is full; the old file is unchanged."
        in said
    )
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["alpha.ipynb"]
    assert kernels(passed) == []


def _full(_):
    raise OSError(28, "No space left on device")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_log_without_room_stops_no_run(tiny_book, capsys):
    tiny_book.chapter("alpha", tiny_book.cell("1"))
    (tiny_book.root / "_build").mkdir()
    (tiny_book.root / "_build" / "run.log").symlink_to("/dev/full")
    assert main(["run"]) == 0
    assert cache.executed_path(tiny_book.book.chapter("alpha")).exists()
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(28, "No space left", "/a/b"), r"/a/b: No space left\. Free"),
        (OSError(20, "Not a directory", "/a"), r"/a: Not a directory\. \(in"),
    ],
)
def test_what_the_system_refuses_is_one_line(monkeypatch, capsys, error, says):
    def refuse(_):
        raise error

    monkeypatch.setattr(run, "main", refuse)
    assert main(["run"]) == 2
    said = capsys.readouterr().err
    assert re.match(f"bookkit run: {says}.*test_run.py:\\d+\\)$", said)
    assert len(said.splitlines()) == 1


def test_what_cannot_be_read_is_told_before_anything_runs(tiny_book, capsys):
    tiny_book.chapter("alpha", tiny_book.cell("1"))
    tiny_book.chapter("gone", tiny_book.cell("1")).unlink()
    assert main(["run"]) == 2
    assert "chapters/gone.md: no such chapter" in capsys.readouterr().err
    path = tiny_book.chapter("gone")
    path.write_text("---\na: [\n---\n# Title\n")
    assert main(["run"]) == 2
    assert "chapters/gone.md: cannot be read as a MyST notebook" in (
        capsys.readouterr().err
    )
    assert main(["run", "alhpa"]) == 2
    assert "no chapter 'alhpa' in _toc.yml. There are: alpha, gone." in (
        capsys.readouterr().err
    )
    assert not (tiny_book.root / "_build").exists()


def test_where_nothing_can_be_written_it_says_so(tiny_book, capsys):
    tiny_book.chapter("alpha", tiny_book.cell("1"))
    tiny_book.write("_build", "a file, where a folder should be")
    assert main(["run"]) == 2
    assert re.search(
        r"_build/run\.log: cannot be written \(File exists\)",
        capsys.readouterr().err,
    )


def test_a_pytest_that_cannot_start_is_not_taken_for_a_pass(
    tiny_book, monkeypatch
):
    tiny_book.chapter("alpha", tiny_book.cell("1"))
    monkeypatch.setattr(run, "TIMEOUT", "no number")
    with pytest.raises(BookError, match=r"pytest stopped(.|\n)*no number"):
        run.run(
            tiny_book.book,
            dict.fromkeys(tiny_book.book.chapters, "a test"),
            timeout="no number",
        )


def test_signals_and_temporary_files_are_given_back(monkeypatch):
    monkeypatch.setenv("TMPDIR", "/somewhere")
    before = signal.getsignal(signal.SIGTERM)
    with run._tidy():
        folder = Path(os.environ["TMPDIR"])
        (folder / "litter").write_text("")
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert not folder.exists()
    assert os.environ["TMPDIR"] == "/somewhere"
    assert signal.getsignal(signal.SIGTERM) is before


# ------------------------------------------------------- what a person sees


def test_the_table_puts_the_slowest_first(tiny_book):
    for name, cpu, dearest in [
        ("a", 2.0, []),
        ("bcd", 12.5, ["chapters/bcd.md:20", 9]),
        ("never", None, None),
    ]:
        tiny_book.chapter(name, tiny_book.cell("1"))
        cost = {
            "cpu_seconds": cpu,
            "budget": 50,
            "wall_seconds": 3,
            "dearest": dearest,
        }
        text = json.dumps({"metadata": {"bookkit": cost}})
        if cpu:
            tiny_book.write(f"_build/executed/{name}.ipynb", text)
    table = run.table(tiny_book.book, ran={"chapters/bcd.md"})
    assert table.split("\n") == [
        "  chapter  CPU s  budget  used  clock s  dearest cell",
        "  bcd       12.5      50   25%      3.0  chapters/bcd.md:20: 9.0 s",
        "  a          2.0      50    4%      3.0  "
        "                           (from an earlier run)",
    ]


def test_without_any_run_there_is_no_table(tiny_book):
    tiny_book.chapter("a", tiny_book.cell("1"))
    assert run.table(tiny_book.book, ran={}) == ""


def test_time_left_comes_from_an_earlier_run():
    lane = Lane("known", 4, [0.5, 20.0, 9.5, 1.0], guess=60)
    now = time.monotonic()
    assert lane.left(now) == 31
    lane.started, lane.latest, lane.done = now - 25, now - 5, 2
    assert lane.left(now) == pytest.approx(4.5 + 1)
    lane.started = now - 46  # 41 s for what took 20.5: half as fast
    assert lane.left(now) == pytest.approx(2 * 9.5 - 5 + 2 * 1)
    lane.latest = now - 40  # a cell that takes longer than it should
    lane.started = now - 60
    assert lane.left(now) == pytest.approx(1)
    lane.done = 4
    assert lane.left(now) == 0


def test_time_left_of_an_unknown_chapter_is_its_budget_or_its_pace():
    lane = Lane("new", 10, [1.0], guess=60)
    now = time.monotonic()
    assert lane.left(now) == 60
    lane.started, lane.latest, lane.done = now - 40, now - 10, 3
    assert lane.left(now) == pytest.approx(10 * 7)
    lane.started, lane.latest = now - 20, now - 17
    assert lane.left(now) == pytest.approx(40)
    lane.ended = True
    assert lane.left(now) == 0


def test_time_left_of_all_is_that_of_the_longest_or_of_the_queue():
    lanes = {n: Lane(n, 2, [], guess=g) for n, g in [("a", 60), ("b", 20)]}
    live = Live(lanes, workers=2)
    assert live.eta() == 60
    live.workers = 1
    assert live.eta() == 80


def test_on_a_terminal_one_line_moves_under_the_lines_that_stay():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen = Terminal()
    lanes = {"a": Lane("masks", 2, [2.0, 4.0], guess=60)}
    with Live(lanes, workers=1, stream=screen) as live:
        live.start("a")
        time.sleep(1.5)
        live.line("something happened")
    *_, moving, blank, stays = re.split(r"\r", screen.getvalue())
    assert moving == "  masks 0/2 1 s | 0 of 1 done | about 5 s left"
    assert blank == " " * len(moving)
    assert stays == "something happened\n"


def test_in_a_log_a_line_comes_now_and_then():
    log = io.StringIO()
    lanes = {"a": Lane("masks", 9, [], guess=60)}
    with Live(lanes, workers=1, stream=log, pause=0.2) as live:
        live.start("a")
        time.sleep(0.5)
    assert log.getvalue().startswith(
        "  masks 0/9 0 s | 0 of 1 done | about 60 s left\n"
    )
    assert "\r" not in log.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (99, "99 s"), (150, "2 min")]
)
def test_durations_are_short(seconds, text):
    assert duration(seconds) == text
