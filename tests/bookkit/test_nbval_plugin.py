"""Notebooks that must fail, each with one message that names the line.

A run takes seconds, so one run serves all tests here: a book with one chapter
for each mistake.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bookkit.book import Book

SRC = Path(__file__).parents[2] / "src"
HANGING = ["hangs", "hangs-tame", "stubborn"]
TIMEOUT = 3  # seconds for each cell of these


def bookkit(root, *arguments, **env):
    """Run `python -m bookkit` on the book in `root`."""
    return subprocess.run(
        [sys.executable, "-m", "bookkit", *arguments],
        cwd=root,
        env={
            **os.environ,
            "BOOK_ROOT": str(root),
            "PYTHONPATH": str(SRC),
            **env,
        },
        capture_output=True,
        text=True,
        timeout=240,
    )


def write_chapters(book):
    """One chapter for each mistake, and a few that must pass."""
    cell = book.cell
    book.write(
        "src/litformer/broken.py",
        "def divide(a):\n    return a / 0\n",
    )
    book.chapter(
        "good",
        cell("import os, sys\nx = 1", "setup"),
        cell("x + 1;"),
        cell("x + 2"),
        "",
        cell("1 / 0", "raises-exception"),
        cell("!echo shell\n%timeit -n1 -r1 x"),
        cell("await __import__('asyncio').sleep(0)"),
        cell(""),
        cell("x = 10 # after an empty cell\nprint(x)", "check-output"),
        cell(
            "import os, sys, litformer\n"
            "assert os.environ['OMP_NUM_THREADS'] == '1'\n"
            "assert os.environ['PYTHONHASHSEED'] == '0'\n"
            "assert os.environ['BOOKKIT_STRICT'] == '1'\n"
            "assert os.environ['MPLBACKEND'].endswith('inline')\n"
            "assert os.path.basename(os.getcwd()) == 'chapters'\n"
            f"assert sys.executable == {sys.executable!r}\n"
            "assert 'secret' not in dir()",
            "test",
            "remove-cell",
        ),
        budget=30,
    )
    book.chapter("error", cell("a = 1"), cell("b = 2\n\nnothing"), cell("a"))
    book.chapter(
        "elsewhere",
        cell("def f(x):\n    y = 1 / x\n    return y"),
        cell("f(1)\nf(0)"),
    )
    book.chapter(
        "package",
        cell("from litformer.broken import divide\ndivide(1)"),
    )
    book.chapter("tame", cell("a = 1", "raises-exception"), cell("a"))
    book.chapter("changed", cell("'a b'.title()", "check-output"))
    book.chapter("stale", cell("a = 3"), cell("print(a)", "check-output"))
    book.chapter("left-over", cell("a = 3"))
    book.chapter("unreferenced", cell("print(5)", "check-output"))
    book.chapter("garbled", cell("print(5)", "check-output"))
    book.chapter(
        "dear",
        cell("quick = 1"),
        cell(
            "import time\nwhile time.process_time() < 1:\n    pass",
        ),
        cell("quick"),
        budget=0.8,
    )
    book.chapter(
        "parent",
        cell(
            "import subprocess, sys\n"
            "burn = 'import time\\nwhile time.process_time() < 1: pass'\n"
            "subprocess.run([sys.executable, '-c', burn])",
        ),
        budget=0.8,
    )
    book.chapter(
        "hangs",
        cell("import time\nwhile True:\n    time.sleep(0.05)"),
        cell("time"),
    )
    book.chapter(
        "hangs-tame",
        cell("import time\ntime.sleep(1000)", "raises-exception"),
    )
    book.chapter(
        "stubborn",
        cell(
            "import time\nwhile True:\n    try:\n        time.sleep(60)\n"
            "    except KeyboardInterrupt:\n        pass",
        ),
    )
    book.chapter(
        "dies",
        cell(
            "import os, sys\nsys.__stderr__.write('last words\\n')\n"
            "sys.__stderr__.flush()\nos._exit(7)",
        ),
        cell("'never'"),
    )
    book.chapter("killed", cell("import os, signal\nos.kill(os.getpid(), 9)"))
    book.chapter(
        "later",
        cell(
            "import os, threading\nthreading.Timer(0.5, os._exit, [0]).start()"
        ),
        cell("import time\ntime.sleep(60)"),
    )
    book.chapter(
        "syntax",
        cell("print('never')\nopen('ran', 'w')"),
        cell("a = 1\nb = = 2"),
    )
    write_references(book)


def write_references(book):
    """The reference of each chapter that needs one, right or wrong."""
    good = [
        {
            "source": ["x = 10 # after an empty cell", "print(x)"],
            "outputs": [
                {"output_type": "stream", "name": "stdout", "text": ["99\n"]}
            ],
        }
    ]
    changed = [
        {
            "source": ["'a b'.title()"],
            "outputs": [
                {
                    "output_type": "execute_result",
                    "data": {"text/plain": ["'A B C'"]},
                }
            ],
        }
    ]
    stale = [{"source": ["print(a, 1)"], "outputs": []}]
    for name, reference in [
        ("good", good),
        ("changed", changed),
        ("stale", stale),
        ("left-over", stale),
    ]:
        book.write(f"tests/reference/{name}.json", json.dumps(reference))
    book.write("tests/reference/garbled.json", "{")
    # 99 is what 10 reads like, once sanitized
    book.write(
        "tests/reference/sanitize.cfg",
        "regex: ^(10|99)$\nreplace: TEN\n",
    )


@pytest.fixture(scope="module")
def ran(module_book):
    """The runs, and the book after them.

    What hangs has a run of its own: a machine under load may need longer than
    its time limit for any honest cell.
    """
    write_chapters(module_book)
    root = module_book.root
    others = {c.name for c in Book(root).chapters} - set(HANGING)
    hung = bookkit(root, "run", f"--timeout={TIMEOUT}", *HANGING)
    done = bookkit(root, "run", *sorted(others))
    assert hung.returncode == 1, hung.stdout + hung.stderr
    done.hung, done.book = hung.stdout, module_book
    return done


def message(ran, name: str) -> str:
    """What the run said about a chapter that failed."""
    said = ran.hung + ran.stdout
    found = re.findall(rf"^{name} FAILED\n((?:  .*\n|\n)*)", said, re.M)
    assert len(found) == 1, said + ran.stderr
    return re.sub(r"^  ", "", found[0], flags=re.M)


def executed(ran, name: str):
    return ran.book.root / "_build" / "executed" / f"{name}.ipynb"


# (chapter, text that the named line holds, pattern of the message)
FAILURES = [
    ("error", "nothing", r"cell 2 of 3: NameError: name 'nothing' is not"),
    ("elsewhere", "y = 1 / x", r"cell 2 of 2: ZeroDivisionError: division"),
    (
        "package",
        "divide(1)",
        r"ZeroDivisionError: (.|\n)*It was raised in "
        r"src/litformer/broken\.py:2\.\nEdit",
    ),
    ("tame", "a = 1", r"cell 1 of 2: tagged raises-exception, but nothing"),
    (
        "changed",
        "title()",
        r"the output has changed:(.|\n)*\n    -'A B C'\n    \+'A B'\n"
        r"Look at what the cell prints; if it is right, run `python -m "
        r"bookkit run changed --update-reference`",
    ),
    (
        "stale",
        "print(a)",
        r"its source is not the one in tests/reference/stale\.json: the cell "
        r"is new or has changed\n(.|\n)*\nLook at .*--update-reference`\.\n",
    ),
    ("unreferenced", "print(5)", r"the cell is new or has changed"),
    (
        "hangs",
        "time.sleep(0.05)",
        r"cell 1 of 2: still running after 3 seconds",
    ),
    ("hangs-tame", "import time", r"cell 1 of 1: still running after 3"),
    ("stubborn", "import time", r"cell 1 of 1: still running after 3"),
    (
        "dies",
        "import os, sys",
        r"the kernel ended with exit code 7\n(.|\n)*stderr:\n *last words\n",
    ),
    ("killed", "import os, signal", r"the kernel was killed by SIGKILL \(out"),
    ("later", "import time", r"cell 2 of 2: the kernel ended with exit code 0"),
    ("syntax", "b = = 2", r"cell 2 of 2: SyntaxError: invalid syntax\n"),
]


@pytest.mark.parametrize(
    ("name", "text", "pattern"), FAILURES, ids=[f[0] for f in FAILURES]
)
def test_a_mistake_is_one_message_with_the_line_to_edit(
    ran, name, text, pattern
):
    said = message(ran, name)
    where = ran.book.line(name, text)
    number = where.rpartition(":")[2]
    assert said.startswith(f"{where}: cell "), said
    assert re.search(rf"^  > {number} \| .*{re.escape(text)}", said, re.M)
    assert re.search(pattern, said), said
    assert f"\nEdit {where}.\n" in said
    assert "\x1b" not in said
    assert not executed(ran, name).exists()


def test_frames_of_cells_are_shown_as_lines_of_the_chapter(ran):
    said = message(ran, "elsewhere")
    assert f"{ran.book.line('elsewhere', 'f(0)')} (cell 2)\n" in said
    assert f"{ran.book.line('elsewhere', '1 / x')} (cell 1), in f(x)" in said
    assert "Cell In[" not in said


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        (
            "left-over",
            r"^chapters/left-over\.md: tests/reference/left-over\.json holds "
            r"the output of a cell that the chapter no longer has \(it began "
            r"`print\(a, 1\)`\)\. Look",
        ),
        (
            "garbled",
            r"^tests/reference/garbled\.json: not a file of references \(.*\)"
            r"\. Look",
        ),
        (
            "dear",
            r"^chapters/dear\.md: the chapter took [12]\.\d CPU "
            r"seconds; its budget is 0\.8 \(front matter `budget`\)\. Its "
            r"dearest cells:\n    chapters/dear\.md:\d+: cell 2, [01]\.\d s\n",
        ),
        ("parent", r"took [12]\.\d CPU seconds; its budget is 0\.8 "),
    ],
)
def test_a_mistake_of_the_whole_chapter_is_one_message(ran, name, pattern):
    assert re.search(pattern, message(ran, name)), message(ran, name)
    assert not executed(ran, name).exists()


def test_a_syntax_error_is_found_before_anything_runs(ran):
    assert not (ran.book.root / "chapters" / "ran").exists()


def test_one_failure_makes_the_run_fail_and_all_are_counted(ran):
    assert ran.returncode == 1
    count = len(Book(ran.book.root).chapters) - len(HANGING)
    last = ran.stdout.strip().splitlines()[-1]
    assert last.startswith(f"{count - 1} of {count} failed: ")
    assert "good" not in last
    assert ran.stderr == ""


def test_a_chapter_without_mistakes_passes_and_is_written(ran):
    assert re.search(r"^good passed: \d\.\d of 30 CPU s", ran.stdout, re.M)
    notebook = json.loads(executed(ran, "good").read_text())
    cells = [c for c in notebook["cells"] if c["cell_type"] == "code"]
    assert [c["execution_count"] for c in cells] == list(range(1, 10))
    assert cells[1]["outputs"] == []  # the semicolon
    assert cells[2]["outputs"][0]["data"] == {"text/plain": ["3"]}
    assert cells[2]["outputs"][0]["execution_count"] == 3
    assert cells[3]["outputs"][0]["ename"] == "ZeroDivisionError"
    assert notebook["metadata"]["language_info"]["pygments_lexer"] == (
        "ipython3"
    )
    record = notebook["metadata"]["bookkit"]
    assert record["inputs"]["chapters/good.md"]
    assert record["inputs"]["src/litformer/__init__.py"]
    assert record["budget"] == 30
    assert 0 < record["cpu_seconds"] < 30
    assert record["wall_seconds"] > 0
    assert len(record["cell_wall_seconds"]) == len(cells)
    where, cost = record["dearest"]
    assert re.fullmatch(r"chapters/good\.md:\d+", where)
    assert 0 <= cost <= record["cpu_seconds"]


def test_no_machine_name_or_path_is_in_an_executed_notebook(ran):
    assert str(ran.book.root) not in executed(ran, "good").read_text()


def test_pytest_runs_a_chapter_and_skips_what_follows_a_failure(ran):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-rs", "-p"),
            *("bookkit.nbval_plugin", "--nbval-lax", "-p", "no:cacheprovider"),
            *("-W", "error", "chapters/error.md"),
        ],
        cwd=ran.book.root,
        env={**os.environ, "PYTHONPATH": str(SRC)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    where = ran.book.line("error", "b = 2")
    assert "1 failed, 2 passed, 2 skipped" in done.stdout, done.stdout
    assert f"not run: {where} (cell 2) failed" in done.stdout
    assert done.returncode == 1


def test_pytest_writes_nothing_when_only_some_cells_are_chosen(ran):
    before = executed(ran, "good").read_bytes()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-rs", "-p"),
            *("bookkit.nbval_plugin", "--nbval-lax", "-p", "no:cacheprovider"),
            *("-W", "error", "chapters/good.md", "-k", "source or whole"),
        ],
        cwd=ran.book.root,
        env={**os.environ, "PYTHONPATH": str(SRC)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "9 cells were not run" in done.stdout, done.stdout
    assert done.returncode == 0
    assert executed(ran, "good").read_bytes() == before
