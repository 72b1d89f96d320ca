"""A learner's notebook of every chapter runs offline from a clean kernel.

Unsolved, every check says so in words; no cell fails that should not.

A notebook holds the cells of its chapter without the solutions, the tests and
the glue, and the chapter's own run has executed each of them. So what may go
wrong is that a cell needs a dropped one, or something that a learner's machine
has not. For every cell it is proved that each name in it comes from a cell of
the notebook. Then the notebook is executed on such a machine, short of what
takes long: a cell that took more than `DEAR` seconds in the chapter's run
(trainings, mostly), and the cells that read what it made. Setup, starters and
checks are never left out. With `--whole`, or for a chapter that was changed
since its run, every cell is executed.

What only `--whole` proves: that a cell which is left out fetches nothing,
imports nothing that a learner has not, and needs no object that a dropped cell
has *changed*. `bookkit test --all` gives it, which is what CI does.
"""

import ast
import os
import re
import subprocess
import symtable
import sys
from pathlib import Path

import nbclient
import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from bookkit.book import Book, find_root
from bookkit.cache import executed_path, record, why_stale
from bookkit.exercises import exercises
from bookkit.plain import Glue, Site
from bookkit.study import notebook

ROOT = find_root(Path(__file__).parent)
BOOK = Book(ROOT)
SITE = Site(BOOK)
# Only the package's own dependencies: what a learner on Colab has. (The
# reader of GGUF files, which is one of them, brings yaml.)
ABSENT = "jupytext sphinx myst_nb nbval pybtex docutils".split()
# Whatever reaches for the network fails at once, with a name in the error.
OFFLINE = """
import socket, sys
class Absent:
    # not None in sys.modules: some packages look whether sphinx is in there
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
_connect = socket.socket.connect
def connect(self, address):
    local = isinstance(address, (str, bytes)) or address[0] in (
        "127.0.0.1", "::1", "localhost")
    if not local:
        raise OSError(f"a notebook asks the network for {{address}}")
    return _connect(self, address)
socket.socket.connect = connect
"""


DEAR = 8  # seconds by the clock of the chapter's own run


class AnyGlue(Glue):
    """Stands in for the numbers where the chapters have not been run."""

    def text(self, key: str, spec: str = "s") -> str:
        return "0.5"


def study_notebook(chapter) -> nbformat.NotebookNode:
    executed = ROOT / "_build" / "executed" / f"{chapter.name}.ipynb"
    kind = Glue if executed.exists() else AnyGlue
    return notebook(chapter, SITE, kind(executed, chapter.name))


def is_code(cell) -> bool:
    return cell.cell_type == "code"


def dear_sources(chapter) -> set[str]:
    """The cells that took long in the chapter's run; none, if it is stale."""
    if why_stale(chapter):
        return set()
    executed = nbformat.read(executed_path(chapter), as_version=4)
    seconds = record(chapter)["cell_wall_seconds"]
    cells = filter(is_code, executed.cells)
    return {
        cell.source.strip()
        for cell, took in zip(cells, seconds, strict=True)
        if took > DEAR
    }


def python(source: str) -> str:
    """A cell without magics, as the kernel reads it."""
    return TransformerManager().transform_cell(source)


def names(source: str) -> tuple[set[str], set[str]]:
    """The names that a cell makes or changes, and all names in it."""
    table = symtable.symtable(python(source), "cell", "exec")
    made = {
        symbol.get_name()
        for symbol in table.get_symbols()
        if symbol.is_assigned() or symbol.is_imported()
    }
    nodes = list(ast.walk(ast.parse(python(source))))
    for node in nodes:
        store = isinstance(getattr(node, "ctx", None), ast.Store)
        if store and isinstance(node, ast.Attribute | ast.Subscript):
            made |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    return made, {n.id for n in nodes if isinstance(n, ast.Name)}


def shorten(made: nbformat.NotebookNode, dear: set[str]) -> None:
    """Leave out what is dear, and what reads a name from there."""
    lost: set[str] = set()
    cells = []
    for cell in made.cells:
        if is_code(cell):
            makes, reads = names(cell.source)
            tags = set(cell.metadata.get("tags", []))
            needed = tags & {"setup", "starter", "check"}
            if not needed and (cell.source.strip() in dear or reads & lost):
                lost |= makes
                continue
            lost -= makes
        cells.append(cell)
    made.cells = cells


@pytest.fixture
def learner(tmp_path, monkeypatch):
    """A learner's machine: no tool of the book, no network, no progress."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        OFFLINE.format(absent=ABSENT)
    )
    (tmp_path / "home").mkdir()
    path = os.pathsep.join([str(tmp_path / "site"), str(ROOT / "src")])
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv("LITFORMER_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("BOOKKIT_STRICT", raising=False)
    monkeypatch.delenv("BOOK_ROOT", raising=False)
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path


@pytest.mark.parametrize("chapter", BOOK.chapters, ids=lambda c: c.name)
def test_notebook_hides_every_solution(chapter):
    made = study_notebook(chapter)
    nbformat.validate(made)
    text = "\n".join(c.source for c in made.cells)
    for exercise in exercises(chapter):
        assert exercise.starter in text
        assert exercise.solution not in text
        assert f'check("{exercise.id}")' in text
    sources = [c.source for c in made.cells]
    for cell in chapter.cells:
        if cell.is_code and {"test", "glue", "solution"} & set(cell.tags):
            assert cell.source not in sources
    assert all(not c.get("outputs") for c in made.cells)


@pytest.mark.parametrize("chapter", BOOK.chapters, ids=lambda c: c.name)
def test_starters_and_checks_need_only_the_setup_cell(chapter, learner):
    cells = [
        c.source
        for c in study_notebook(chapter).cells
        if {"setup", "starter", "check"} & set(c.metadata.get("tags", []))
    ]
    code = "\n".join(
        f"print(repr({s}))" if s.startswith("check(") else s for s in cells
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for exercise in exercises(chapter):
        said = re.search(rf"(.*): {re.escape(exercise.id)}$", done.stdout, re.M)
        assert said, exercise.id
        assert "Solved" not in said[1]
        assert "stopped with an error" not in said[1]
    assert "0 of " in done.stdout


@pytest.mark.parametrize("chapter", BOOK.chapters, ids=lambda c: c.name)
def test_no_name_comes_from_a_dropped_cell(chapter):
    """In the order of the cells: what is used was made before."""
    cells = filter(is_code, study_notebook(chapter).cells)
    code = "\n\n".join(python(cell.source) for cell in cells)
    # a shape of one axis, such as "B", would be read as a name
    code = re.sub(r'"[A-Z][A-Za-z0-9]?"', '"..."', code)
    rules = "F821,F822,F823"  # undefined names
    done = subprocess.run(
        [
            *(sys.executable, "-m", "ruff", "check", "--isolated", "--quiet"),
            *("--ignore-noqa", "--select", rules),
            *("--stdin-filename", f"{chapter.name}.py", "-"),
        ],
        input=code.replace("get_ipython()", "str"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("chapter", BOOK.chapters, ids=lambda c: c.name)
def test_notebook_runs_from_a_clean_kernel(chapter, learner, pytestconfig):
    made = study_notebook(chapter)
    if not pytestconfig.getoption("whole"):
        shorten(made, dear_sources(chapter))
    client = nbclient.NotebookClient(
        made,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(learner / "home")}},
    )
    client.execute()  # raises at the first cell that fails
    checks = 0
    for cell in made.cells:
        if cell.cell_type != "code":
            continue
        tags = cell.metadata.get("tags", [])
        kinds = {o.output_type for o in cell.outputs}
        assert ("error" in kinds) == ("raises-exception" in tags), cell.source
        if "check" in tags:
            checks += 1
            page = cell.outputs[0]["data"]["text/html"]
            status = re.search(r'data-status="(\w+)"', page)[1]
            assert status in ("unwritten", "wrong"), cell.outputs[0]["data"]
    assert checks == len(exercises(chapter))
    table = made.cells[-1].outputs[0]["data"]["text/plain"]
    assert f"0 of {checks} solved" in table
