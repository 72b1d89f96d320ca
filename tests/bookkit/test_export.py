"""The package is what the chapters say, and every refusal says where."""

import ast
import errno
import os
import subprocess
import sys

import pytest

from bookkit import export, modules
from bookkit.__main__ import main
from bookkit.book import BookError
from bookkit.modules import collect, tidy

DOCSTRING = '"""The idea."""'


@pytest.fixture
def exported(tiny_book):
    """A chapter `alpha` of exported cells (after a docstring) as text."""

    def write(*sources: str, doc: str = DOCSTRING) -> str:
        cells = [tiny_book.cell(s, "export") for s in (doc, *sources)]
        tiny_book.chapter("alpha", *cells, export_to="litformer.alpha")
        return collect(tiny_book.book)["litformer.alpha"].text

    return write


def refused(tiny_book, at: str, message: str) -> None:
    """The book is refused, at the line that holds `at`, with `message`."""
    with pytest.raises(BookError, match=message) as error:
        collect(tiny_book.book)
    assert f"{tiny_book.line('alpha', at)}: " in str(error.value)


GOLDEN = '''\
# Written in chapters/alpha.md; edit it there, then run make export.
"""Weighted averages.

Axes: B batch, T length.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from litformer.shapes import check_shape

__all__ = ["SHARP", "Temperature", "soften"]

# Below this temperature the weights are one-hot in fp32.
SHARP = 1e-3
_LOG2 = math.log(2)


class Temperature:
    """A number above zero."""

    def __init__(self, value: float) -> None:
        self.value = value * _LOG2  # in bits


# A function of its own: the chapter on decoding calls it too.
@torch.no_grad()
def soften(z: Tensor, *, by: float = 1.0) -> Tensor:
    """Softmax at a temperature."""
    check_shape("soften", "z", z, "B T")
    return F.softmax(z / by, dim=-1)  # the shift is in softmax
'''


def test_the_module_reads_as_if_written_by_hand(tiny_book):
    cell = tiny_book.cell
    tiny_book.write("src/litformer/shapes.py", "def check_shape(*a): ...\n")
    tiny_book.chapter(
        "alpha",
        cell("import torch\ntorch.manual_seed(0)", "setup", "hide-input"),
        cell(
            '"""Weighted averages.\n\nAxes: B batch, T length.\n"""', "export"
        ),
        cell(
            "from torch.nn import functional as F\nimport os\n"
            "import torch\nfrom torch import Tensor",
            "export",
        ),
        cell(
            "import math\n\n"
            "# Below this temperature the weights are one-hot in fp32.\n"
            "SHARP = 1e-3\n_LOG2 = math.log(2)",
            "export",
        ),
        cell("SHARP * 2"),
        cell(
            "class Temperature:\n"
            "    '''A number above zero.'''\n\n"
            "    def __init__(self, value: float) -> None:\n"
            "        self.value = value * _LOG2  # in bits",
            "export",
        ),
        "Prose stays in the chapter.",
        cell("print('exploring')"),
        cell(
            """
            from litformer.shapes import check_shape
            # A function of its own: the chapter on decoding calls it too.
            @torch.no_grad()
            def soften(z: Tensor, *, by: float = 1.0) -> Tensor:
                '''Softmax at a temperature.'''
                check_shape("soften", "z", z, "B T")
                return F.softmax(z / by, dim=-1)  # the shift is in softmax
            """,
            "export",
        ),
        export_to="litformer.alpha",
    )
    text = collect(tiny_book.book)["litformer.alpha"].text
    assert text == GOLDEN
    assert tidy(text, "src/litformer/alpha.py") == text
    done = modules.ruff(
        "check --isolated --select=E,F,B,UP,D1,RUF --ignore=D107 "
        "--config=line-length=80 --stdin-filename=alpha.py -".split(),
        input=text,
    )
    assert done.returncode == 0, done.stdout


def test_modules_from_several_chapters_are_in_book_order(tiny_book):
    cell = tiny_book.cell
    tiny_book.chapter(
        "zeta",
        cell(DOCSTRING, "export-to:litformer.shared"),
        cell("def first():\n    return 1", "export-to:litformer.shared"),
        cell('"""Own."""', "export"),
        cell("def own():\n    return 0", "export"),
        export_to="litformer.zeta",
    )
    tiny_book.chapter(
        "beta",
        cell("def second():\n    return 2", "export-to:litformer.shared"),
    )
    found = collect(tiny_book.book)
    text = found["litformer.shared"].text
    assert text.startswith("# Written in chapters/{zeta,beta}.md; edit it")
    assert text.index("def first") < text.index("def second")
    assert '__all__ = ["first", "second"]' in text
    assert "def own" in found["litformer.zeta"].text


def test_a_long_trace_line_keeps_to_the_line_length(tiny_book):
    name = "mixture_of_many_experts"
    doc = tiny_book.cell(DOCSTRING, "export")
    tiny_book.chapter(name, doc, export_to="litformer.moe")
    first = collect(tiny_book.book)["litformer.moe"].text.split("\n")[0]
    assert name in first
    assert len(first) <= 80


def test_private_names_stay_out_of_all(exported):
    text = exported("def _hidden():\n    return 1", "def shown():\n    ...")
    assert '__all__ = ["shown"]' in text
    assert "def _hidden" in text


def test_annotated_and_pure_constants_may_be_exported(exported):
    text = exported(
        'import re\nfrom typing import TypeVar\nT = TypeVar("T")\n'
        'SIZES: dict[str, int] = {"small": 2 * 64}\n'
        "NAMES = tuple(sorted(SIZES))\n"
        'WORD = re.compile(r"\\w+")\n'
        'NEGATIVE = float("-inf")\n'
        "LATER: int\n"
        'SIGN = {"up": lambda x: x, "down": lambda x: -x}\n'
    )
    assert "NEGATIVE = " in text
    assert "LATER: int" in text


# source of a cell, the line at fault, what the message says
BAD_CELLS = {
    "magic": ("%time f()", "%time", "a magic or shell line, `%time f"),
    "cell magic": ("%%time\nX = 1", "%%time", "a magic or shell line"),
    "shell": ("X = 1\n!ls", "!ls", "a magic or shell line, `!ls`"),
    "shell assigned": ("X = !ls", "X =", "a magic or shell line"),
    "help": ("print?", "print?", "a magic or shell line"),
    "syntax": ("X = 1\ndef f(:\n    pass", "def f(", "syntax error: .*Mend"),
    "call": ("X = 1\nprint(X)", "print", "side effects, `print.X.`.*move it"),
    "bare name": ("X = 1\nX  # here", "# here", "with side effects, `X`"),
    "loop": ("for i in []:\n    i", "for i", r"side effects \(for\)"),
    "if": ("if True:\n    X = 1", "if True", r"side effects \(if\)"),
    "try": ("try:\n    X = 1\nfinally:\n    Y = 2", "try:", r"\(try\)"),
    "with": ("with open('x') as f:\n    X = 1", "with", r"\(with\)"),
    "delete": ("X = 1\ndel X", "del X", r"\(delete\)"),
    "augmented": ("X = 1\nX += 1", "X +=", r"\(augassign\)"),
    "attribute": ("import os\nos.sep = 1", "os.sep", "side effects, `os.sep"),
    "item": ("X = {}\nX['a'] = 1", "X[", "side effects, `X\\["),
    "impure": ("X = open('x')", "X =", "calls `open` when .* imported"),
    "deep": ("X = [1, input()]", "X =", "calls `input` when"),
    "walrus": ("X = (Y := 1)", "X =", "a statement with side effects"),
    "all": ("__all__ = ['a']", "__all__", "`__all__` is made from"),
    "relative": ("from .x import y", "from .x", "a relative import.*in full"),
    "star": ("from math import *", "from math", "a star import.*Name what"),
    "bookkit": ("import bookkit.check", "import b", "imports bookkit"),
    "from bookkit": ("from bookkit import x", "from b", "imports bookkit"),
    "one line": ("X = 1; Y = 2", "X = 1", "two statements on one line"),
    "escape": ("X = '\\d'", "X =", "invalid escape sequence .*raw string"),
    "unbound": (
        "def f():\n    return math.pi",
        "math.pi",
        "`math` is neither imported nor defined .*Import it",
    ),
    "second docstring": ('"""Again."""', "Again", "a second docstring of"),
    "itself": (
        "from litformer.alpha import f\ndef f():\n    return 1",
        "from litformer",
        "modules import each other: litformer.alpha imports litformer.alpha",
    ),
}


@pytest.mark.parametrize(
    ("source", "at", "message"), BAD_CELLS.values(), ids=BAD_CELLS
)
def test_what_must_not_be_exported(tiny_book, source, at, message):
    tiny_book.chapter(
        "alpha",
        tiny_book.cell(DOCSTRING, "export"),
        tiny_book.cell(source, "export"),
        export_to="litformer.alpha",
    )
    with pytest.raises(BookError, match=message) as error:
        collect(tiny_book.book)
    assert f"{tiny_book.line('alpha', at)}: " in str(error.value)


def test_the_same_in_a_cell_that_is_not_exported_is_fine(tiny_book):
    tiny_book.chapter(
        "alpha",
        tiny_book.cell(DOCSTRING, "export"),
        tiny_book.cell("%time print(1)\nfor i in []: i\n!ls"),
        tiny_book.cell("def f(:", "raises-exception"),
        export_to="litformer.alpha",
    )
    assert collect(tiny_book.book)["litformer.alpha"].names == {}


def test_several_problems_are_told_together(tiny_book):
    tiny_book.chapter(
        "alpha",
        tiny_book.cell("print(1)", "export"),
        tiny_book.cell("print(2)", "export"),
        export_to="litformer.alpha",
    )
    with pytest.raises(BookError, match="^2 problems:\n  chapters") as error:
        collect(tiny_book.book)
    assert "print(1)" in str(error.value)
    assert "print(2)" in str(error.value)


def test_a_name_has_one_exporter_in_the_whole_book(tiny_book):
    cell = tiny_book.cell
    for name, value in (("alpha", 1), ("beta", 2)):
        tiny_book.chapter(
            name,
            cell(DOCSTRING, "export"),
            cell(f"def f():\n    return {value}", "export"),
            export_to=f"litformer.{name}",
        )
    first = tiny_book.line("alpha", "def f")
    with pytest.raises(BookError, match="`f` is already exported at") as error:
        collect(tiny_book.book)
    assert f"exported at {first}. " in str(error.value)
    assert str(error.value).startswith(tiny_book.line("beta", "def f"))


def test_a_module_needs_a_docstring(tiny_book):
    source = tiny_book.cell("X = 1", "export")
    tiny_book.chapter("alpha", source, export_to="litformer.alpha")
    refused(tiny_book, "X = 1", "has no docstring. Let its first exported cell")


def test_the_docstring_comes_first(tiny_book):
    tiny_book.chapter(
        "alpha",
        tiny_book.cell("X = 1", "export"),
        tiny_book.cell(DOCSTRING, "export"),
        export_to="litformer.alpha",
    )
    refused(tiny_book, "The idea", "stands after a definition .*Move it before")


def test_export_needs_a_target(tiny_book):
    tiny_book.chapter("alpha", tiny_book.cell(DOCSTRING, "export"))
    refused(tiny_book, "The idea", "no `export_to`. Add `export_to: litformer")


@pytest.mark.parametrize("name", ["other.alpha", "litformer", "litformer.A b"])
def test_the_target_is_one_module_of_the_package(tiny_book, name):
    cell = tiny_book.cell(DOCSTRING, "export")
    tiny_book.chapter("alpha", cell, export_to=name)
    refused(tiny_book, "The idea", "cannot export to .*one module")


def test_a_hand_written_module_is_safe(tiny_book):
    tiny_book.write("src/litformer/viz.py", '"""By hand."""\n')
    cell = tiny_book.cell(DOCSTRING, "export")
    tiny_book.chapter("alpha", cell, export_to="litformer.viz")
    refused(tiny_book, "The idea", "written by hand; .*Choose another")
    assert main(["export"]) == 2
    assert tiny_book.read("src/litformer/viz.py") == '"""By hand."""\n'


def two_chapters(tiny_book, *cells: str) -> None:
    """`alpha` (with more cells) before `beta`, which exports `later`."""
    cell = tiny_book.cell
    tiny_book.chapter(
        "alpha",
        cell(DOCSTRING, "export"),
        cell("def early():\n    return 1", "export"),
        *cells,
        export_to="litformer.alpha",
    )
    tiny_book.chapter(
        "beta",
        cell(DOCSTRING, "export"),
        cell("def later():\n    return 2", "export"),
        cell("from litformer.alpha import early\nearly()"),
        export_to="litformer.beta",
    )


@pytest.mark.parametrize(
    "source",
    [
        "from litformer.beta import later",
        "import litformer.beta",
        "from litformer import beta",
        "def f():\n    from litformer.beta import later\n    return later",
        "%time 1\nfrom litformer.beta import later",
    ],
)
def test_a_chapter_imports_only_what_the_book_has_reached(tiny_book, source):
    two_chapters(tiny_book, tiny_book.cell(source))
    at = "from litformer" if "from" in source else "import litformer"
    refused(
        tiny_book, at, "has not reached yet: chapters/beta.md:.*after alpha"
    )


def test_an_exported_cell_imports_only_what_the_book_has_reached(tiny_book):
    source = "from litformer.beta import later\nX = {1: later}"
    two_chapters(tiny_book, tiny_book.cell(source, "export"))
    refused(tiny_book, "import later", "`later` of litformer.beta, which the")


def test_reach_is_by_name_not_by_module(tiny_book):
    """A later chapter may add to a module; the addition is not there yet."""
    cell = tiny_book.cell
    two_chapters(tiny_book)
    tiny_book.chapter(
        "gamma",
        cell("def added():\n    return 3", "export-to:litformer.beta"),
        cell("from litformer.beta import added, later"),
    )
    assert "litformer.beta" in collect(tiny_book.book)
    tiny_book.chapter(
        "beta",
        cell(DOCSTRING, "export"),
        cell("def later():\n    return 2", "export"),
        cell("from litformer.beta import later\nlater()"),
        cell("from litformer import beta as b\nb.added()"),
        export_to="litformer.beta",
    )
    with pytest.raises(BookError, match="`added` of litformer.beta") as error:
        collect(tiny_book.book)
    assert tiny_book.line("beta", "b.added") in str(error.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("from litformer.alpha import nothing", "no chapter exports it there"),
        ("from litformer.nowhere import x", "there is no such module"),
        ("from litformer import nowhere", "there is no such module"),
        ("from litformer.alpha import *", "a star import from litformer"),
    ],
)
def test_an_import_that_nothing_satisfies(tiny_book, source, message):
    two_chapters(tiny_book, tiny_book.cell(source))
    refused(tiny_book, source, message)


def test_a_module_that_is_missing_is_told_once(tiny_book):
    source = "from litformer import nowhere\nnowhere.a\nnowhere.b"
    two_chapters(tiny_book, *[tiny_book.cell(source)] * 2)
    with pytest.raises(BookError, match="^chapters/alpha") as error:
        collect(tiny_book.book)
    assert str(error.value).count("there is no such module") == 1


@pytest.mark.parametrize("path", ["viz.py", "viz/__init__.py"])
def test_hand_written_modules_can_be_imported_anywhere(tiny_book, path):
    tiny_book.write(f"src/litformer/{path}", "def show(): ...\n")
    two_chapters(
        tiny_book,
        tiny_book.cell("import litformer\nfrom litformer import viz"),
        tiny_book.cell("from litformer.viz import show\nviz.show"),
        tiny_book.cell("from litformer import __version__"),
    )
    assert set(collect(tiny_book.book)) == {"litformer.alpha", "litformer.beta"}


def test_modules_do_not_import_each_other(tiny_book):
    two_chapters(tiny_book)
    cell = tiny_book.cell
    tiny_book.chapter(
        "beta",
        cell(DOCSTRING, "export"),
        cell(
            "from litformer.alpha import early\n"
            "def later():\n    return early()",
            "export",
        ),
        export_to="litformer.beta",
    )
    tiny_book.chapter(
        "gamma",
        cell(
            "from litformer.beta import later\n"
            "def third():\n    return later()",
            "export-to:litformer.alpha",
        ),
    )
    chain = (
        "litformer.alpha imports litformer.beta imports litformer.alpha. Move"
    )
    with pytest.raises(BookError, match=chain) as error:
        collect(tiny_book.book)
    assert tiny_book.line("gamma", "import later") in str(error.value)


# --- the command ---------------------------------------------------------


@pytest.fixture
def written(tiny_book, capsys):
    """A book of two chapters, exported."""
    two_chapters(tiny_book)
    assert main(["export"]) == 0
    assert capsys.readouterr().out == (
        "wrote src/litformer/alpha.py\nwrote src/litformer/beta.py\n"
    )
    return tiny_book


def test_export_is_idempotent_and_touches_nothing_fresh(written, capsys):
    path = written.root / "src/litformer/alpha.py"
    before = path.stat().st_mtime_ns
    assert main(["export"]) == 0
    assert main(["export", "--check"]) == 0
    assert path.stat().st_mtime_ns == before
    assert "2 modules are what the chapters say" in capsys.readouterr().out


def test_the_package_can_be_imported(written):
    code = "from litformer.beta import later; print(later())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(written.root / "src")},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "2\n", done.stderr


def test_check_shows_a_stale_module_and_writes_nothing(written, capsys):
    path = written.root / "src/litformer/alpha.py"
    before = path.read_text()
    two_chapters(written, written.cell("def more():\n    return 5", "export"))
    assert main(["export", "--check"]) == 1
    out = capsys.readouterr().out
    assert "+def more():" in out
    where = written.line("alpha", "def more")
    assert f"{where}: `more` is not in src/litformer/alpha.py yet." in out
    assert path.read_text() == before


def edit(book, old: str, new: str) -> str:
    path = book.root / "src/litformer/alpha.py"
    text = path.read_text().replace(old, new)
    path.write_text(text)
    return text


def test_check_says_where_a_hand_edit_belongs(written, capsys):
    edit(written, "return 1", "return 11")
    assert main(["export", "--check"]) == 1
    out = capsys.readouterr().out
    assert "-    return 11\n+    return 1\n" in out
    line = (
        written.read("src/litformer/alpha.py")
        .split("\n")
        .index("    return 11")
    )
    where = written.line("alpha", "return 1")
    assert (
        f"src/litformer/alpha.py:{line + 1}: `early` differs from {where}. "
        "Make the change there, then run make export." in out
    )


def test_check_says_where_a_definition_typed_by_hand_belongs(written, capsys):
    path = written.root / "src/litformer/alpha.py"
    path.write_text(path.read_text() + "\n\ndef stray():\n    return 9\n")
    assert main(["export", "--check"]) == 1
    out = capsys.readouterr().out
    assert "`stray` stands only in the file. Move it to an exported cell" in out
    assert f"the last one is at {written.line('alpha', 'def early')}" in out


def test_check_says_where_a_hand_edit_of_docstring_or_imports_belongs(
    written, capsys
):
    edit(written, "The idea.", "An idea.")
    edit(written, "__all__", "import os\n\n__all__")
    assert main(["export", "--check"]) == 1
    out = capsys.readouterr().out
    where = written.line("alpha", "The idea")
    assert f"the docstring differs from {where}" in out
    assert "the list of imports stands only in the file" in out


def test_check_of_a_file_that_is_not_python_any_more(written, capsys):
    edit(written, "def early():", "def early(:")
    assert main(["export", "--check"]) == 1
    assert "the file is not Python any more" in capsys.readouterr().out


def test_check_of_a_missing_file(written, capsys):
    (written.root / "src/litformer/alpha.py").unlink()
    assert main(["export", "--check"]) == 1
    assert "alpha.py: missing. Run make export." in capsys.readouterr().out


def test_check_of_other_blank_lines(written, capsys):
    path = written.root / "src/litformer/alpha.py"
    path.write_text(path.read_text() + "\n")
    assert main(["export", "--check"]) == 1
    assert "run make export to write it anew" in capsys.readouterr().out


def test_export_keeps_the_text_of_a_hand_edit(written, capsys):
    kept = edit(written, "return 1", "return 11")
    assert main(["export"]) == 0
    out = capsys.readouterr().out
    assert "its text is kept in _build/replaced/litformer.alpha-" in out
    assert "`early` differs from" in out
    copies = list((written.root / "_build/replaced").iterdir())
    assert [c.read_text() for c in copies] == [kept]
    assert "return 11" not in written.read("src/litformer/alpha.py")
    edit(written, "return 1", "return 12")  # a second edit is kept beside it
    assert main(["export"]) == 0
    assert len(list((written.root / "_build/replaced").iterdir())) == 2


def test_export_keeps_nothing_when_only_the_chapter_changed(written, capsys):
    two_chapters(written, written.cell("def more():\n    return 5", "export"))
    assert main(["export"]) == 0
    assert capsys.readouterr().out == "wrote src/litformer/alpha.py\n"
    assert not (written.root / "_build/replaced").exists()


def test_an_orphan_is_an_error(written, capsys):
    written.drop("beta")
    assert main(["export", "--check"]) == 1
    message = "src/litformer/beta.py: an orphan: chapters/beta.md wrote it"
    assert message in capsys.readouterr().out
    assert main(["export"]) == 2
    assert message in capsys.readouterr().err
    (written.root / "src/litformer/beta.py").unlink()
    assert main(["export", "--check"]) == 0


def test_a_bad_chapter_leaves_the_files_as_they_were(written, capsys):
    before = written.read("src/litformer/alpha.py")
    two_chapters(written, written.cell("def f(:", "export"))
    assert main(["export"]) == 2
    err = capsys.readouterr().err
    assert f"{written.line('alpha', 'def f(')}: syntax error" in err
    assert written.read("src/litformer/alpha.py") == before


def test_a_missing_chapter_is_named(written, capsys):
    (written.root / "chapters/beta.md").unlink()
    assert main(["export"]) == 2
    assert "chapters/beta.md: no such chapter" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, "the disk is full; the old file is unchanged"),
        (errno.EACCES, "cannot be written .*the old file is unchanged"),
    ],
)
def test_a_full_disk_loses_nothing(written, monkeypatch, code, message):
    path = written.root / "src/litformer/alpha.py"
    before = path.read_text()
    two_chapters(written, written.cell("def more():\n    return 5", "export"))

    def fsync(handle):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fsync)
    args = export.argparse.Namespace(check=False)
    with pytest.raises(BookError, match=message):
        export.main(args)
    assert path.read_text() == before
    assert sorted(p.name for p in path.parent.iterdir() if p.is_file()) == [
        "__init__.py",
        "alpha.py",
        "beta.py",
    ]


def test_an_interruption_leaves_no_litter(written, monkeypatch):
    two_chapters(written, written.cell("def more():\n    return 5", "export"))

    def fsync(handle):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", fsync)
    assert main(["export"]) == 130
    assert not list((written.root / "src/litformer").glob(".alpha*"))


def test_ruff_is_asked_for_by_name(exported, monkeypatch):
    monkeypatch.setitem(sys.modules, "ruff", None)
    with pytest.raises(BookError, match="ruff is not installed. Run `pip"):
        exported("X = 1")


def test_lines_of_a_module_are_found_in_the_chapter(tiny_book, exported):
    text = exported(
        "import math",
        "# lead\ndef f(x):\n    '''F.'''\n    y = x\n    return y + math.pi",
    )
    module = collect(tiny_book.book)["litformer.alpha"]
    for shown in ("import math", "def f", "y = x", "return y", "The idea"):
        number = next(
            i for i, line in enumerate(text.split("\n"), 1) if shown in line
        )
        assert module.locate(number) == tiny_book.line("alpha", shown)
    assert ast.parse(text)
