"""The rule of dependence: what makes a chapter stale, and what does not."""

import json
import re

import pytest

from bookkit import cache
from bookkit.book import BookError


@pytest.fixture
def shelf(tiny_book):
    """Four chapters; what each imports is told by its name.

    deep imports litformer.mixer in a function of its last cell, mixer imports
    litformer.base in a function of its own. checked uses an exercise.
    """
    book, cell = tiny_book, tiny_book.cell
    book.write("requirements.txt", "# the reader's code\ntorch==2.13.0\n")
    book.write("src/litformer/base.py", "ONE = 1\n")
    book.write(
        "src/litformer/mixer.py",
        "def two():\n    from .base import ONE\n    return ONE + 1\n",
    )
    book.write("src/litformer/lonely.py", "")
    book.chapter("plain", cell("x = 1"))
    book.chapter("based", cell("import litformer.base as b\nb.ONE"))
    book.chapter(
        "deep",
        cell("%time 1"),
        cell("def f():\n    from litformer import mixer\n    mixer.two()"),
    )
    book.chapter(
        "checked",
        cell("from bookkit.check import check", "setup"),
        cell('check("tiny.add-one")', "check"),
    )
    book.write("src/bookkit/check.py", "from bookkit import progress")
    book.write("src/bookkit/progress.py", "")
    book.write("src/bookkit/checks/__init__.py", "")
    book.write("src/bookkit/checks/tiny.py", "import litformer.lonely")
    book.write("src/bookkit/checks/other.py", "")
    return book


def run(book):
    """Leave what a passed run of all chapters leaves."""
    for chapter in book.book.chapters:
        inputs = cache.inputs(chapter)
        record = {"key": cache.key(inputs), "inputs": inputs}
        path = cache.executed_path(chapter)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"metadata": {"bookkit": record}}))


def stale(book) -> dict[str, str]:
    """The stale chapters, and why."""
    reasons = {c.name: cache.why_stale(c) for c in book.book.chapters}
    return {name: why for name, why in reasons.items() if why}


def test_what_never_ran_is_stale_and_what_ran_is_fresh(shelf):
    assert stale(shelf) == dict.fromkeys(
        ["plain", "based", "deep", "checked"], "never run"
    )
    run(shelf)
    assert stale(shelf) == {}
    assert not any(cache.why_stale(c) for c in shelf.book.chapters)


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("src/litformer/base.py", {"based", "deep"}),
        ("src/litformer/mixer.py", {"deep"}),
        ("src/litformer/lonely.py", {"checked"}),
        ("src/litformer/__init__.py", {"based", "deep", "checked"}),
        ("src/bookkit/check.py", {"checked"}),
        ("src/bookkit/progress.py", {"checked"}),
        ("src/bookkit/checks/tiny.py", {"checked"}),
        ("src/bookkit/checks/other.py", set()),
        ("chapters/plain.md", {"plain"}),
        ("requirements.txt", {"plain", "based", "deep", "checked"}),
    ],
)
def test_an_edit_makes_stale_what_depends_on_it_and_no_other(
    shelf, file, expected
):
    run(shelf)
    shelf.write(file, shelf.read(file) + "\nedited==1\n")
    assert stale(shelf) == dict.fromkeys(expected, f"changed: {file}")


def test_of_many_changes_the_first_are_named(shelf):
    run(shelf)
    for name in ("check", "progress", "checks/tiny", "checks/__init__"):
        shelf.write(f"src/bookkit/{name}.py", "# edited\n")
    shelf.chapter("checked", shelf.cell("from bookkit.check import check"))
    why = stale(shelf)["checked"]
    assert why.startswith("changed: chapters/checked.md, ")
    assert re.fullmatch(r"changed: ([\w/.]+, ){2}[\w/.]+ and \d more", why)


def test_a_comment_among_the_pins_changes_nothing(shelf):
    run(shelf)
    shelf.write("requirements.txt", "\ntorch==2.13.0  # as before\n")
    assert stale(shelf) == {}


def test_a_module_that_appears_or_goes_counts(shelf):
    run(shelf)
    shelf.chapter("plain", shelf.cell("x = 1\nimport litformer.coming"))
    run(shelf)
    shelf.write("src/litformer/coming.py", "")
    assert stale(shelf) == {"plain": "changed: src/litformer/coming.py"}
    run(shelf)
    (shelf.root / "src/litformer/coming.py").unlink()
    assert stale(shelf) == {"plain": "changed: src/litformer/coming.py"}


def test_references_and_their_sanitizer_count_where_there_are_some(shelf):
    shelf.write("tests/reference/plain.json", "[]")
    run(shelf)
    shelf.write("tests/reference/sanitize.cfg", "regex: a\nreplace: b\n")
    assert list(stale(shelf)) == ["plain"]
    run(shelf)
    shelf.write("tests/reference/plain.json", "[ ]")
    assert stale(shelf) == {"plain": "changed: tests/reference/plain.json"}


def test_another_python_or_layout_makes_everything_stale(shelf, monkeypatch):
    run(shelf)
    monkeypatch.setattr(cache.platform, "python_version", lambda: "3.99.0")
    assert set(stale(shelf).values()) == {"changed: Python"}
    monkeypatch.undo()
    monkeypatch.setenv("BOOK_ROOT", str(shelf.root))
    monkeypatch.setattr(cache, "LAYOUT", cache.LAYOUT + 1)
    assert set(stale(shelf).values()) == {"changed: bookkit's layout"}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"metadata": {}}'])
def test_a_broken_executed_notebook_counts_as_none(shelf, text):
    run(shelf)
    path = cache.executed_path(shelf.book.chapter("plain"))
    path.write_text(text)
    assert stale(shelf) == {"plain": "never run"}


def test_bookkit_itself_is_followed_where_the_book_has_no_copy(tiny_book):
    tiny_book.chapter("alpha", tiny_book.cell("import bookkit.book"))
    (chapter,) = tiny_book.book.chapters
    names = {path.name for path in cache.modules(chapter)}
    assert {"__init__.py", "book.py"} <= names
    assert {"bookkit/__init__.py", "bookkit/book.py"} <= {
        *cache.inputs(chapter)
    }


@pytest.mark.parametrize(
    ("source", "package", "expected"),
    [
        ("import a.b.c", "", {"a", "a.b", "a.b.c"}),
        ("from a import b", "", {"a", "a.b"}),
        ("from . import b", "a", {"a", "a.b"}),
        ("from .b import c", "a", {"a", "a.b", "a.b.c"}),
        ("from ..b import c", "a.x", {"a", "a.b", "a.b.c"}),
        ('import_module("a.b")', "", {"a", "a.b"}),
        ('importlib.import_module("a")', "", {"a"}),
        (":tags: [x]\n:mystnb:\n:  a: 1\n\nimport a", "", {"a"}),
        ("---\ntags: [x]\n---\nimport a", "", {"a"}),
        ("!pip list\n  %time 1\nimport a", "", {"a"}),
        ("import a\nthis is no Python\n  from b import c", "", {"a", "b"}),
        ("check(name)", "", set()),
    ],
)
def test_imports_are_found_in_any_form(source, package, expected):
    assert expected <= cache.imports(source, package)
    if not expected:
        assert cache.imports(source, package) == set()


def test_code_sees_every_cell_that_the_notebook_has(tiny_book):
    cell = tiny_book.cell
    tiny_book.chapter(
        "alpha",
        cell("a = 1", "setup", "hide-input"),
        "````{note}\n```python\nnot_a_cell\n```\n````",
        "````{code-cell} ipython3\nb = '''\n```\n'''\n````",
        cell(""),
        cell("c = 3"),
    )
    (chapter,) = tiny_book.book.chapters
    cells = [c.source for c in chapter.cells if c.is_code]
    seen = cache.code(chapter.text)
    assert len(seen) == len(cells) == 4
    for source, found in zip(cells, seen, strict=True):
        assert source in found


# ------------------------------------------------------ for Jupyter Book


def executed(book, name, text):
    """Write an executed notebook with one output; as fresh as it can be."""
    import nbformat

    chapter = book.book.chapter(name)
    notebook = chapter.notebook
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        if cell.cell_type == "code":
            cell.execution_count = 1
            cell.outputs = [
                nbformat.v4.new_output("stream", name="stdout", text=text)
            ]
    inputs = cache.inputs(chapter)
    notebook.metadata.bookkit = {
        "key": cache.key(inputs),
        "inputs": inputs,
        "wall_seconds": 1.5,
    }
    path = cache.executed_path(chapter)
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)


def cached(book) -> dict[str, str]:
    """What Jupyter Book would show for each chapter, "" if it would run it.

    Read with its own reader, which is not jupytext's.
    """
    from jupyter_cache import get_cache
    from myst_nb.core.read import read_myst_markdown_notebook

    entries = get_cache(book.root / "_build" / ".jupyter_cache")
    shown = {}
    for chapter in book.book.chapters:
        notebook = read_myst_markdown_notebook(chapter.text)
        try:
            _, merged = entries.merge_match_into_notebook(notebook)
        except KeyError:
            shown[chapter.name] = ""
            continue
        shown[chapter.name] = "".join(
            output.text
            for cell in merged.cells
            if cell.cell_type == "code"
            for output in cell.outputs
        )
    entries.db.dispose()
    return shown


def test_jupyter_book_finds_what_the_run_saw(tiny_book):
    tiny_book.chapter("alpha", tiny_book.cell("print(1)", "hide-input"))
    options = ":mystnb:\n:  figure:\n:    caption: |\n:      A _plot_."
    tiny_book.chapter(
        "beta", f"```{{code-cell}} ipython3\n{options}\nprint(2)\n```"
    )
    executed(tiny_book, "alpha", "1")
    executed(tiny_book, "beta", "2")
    folder = cache.fill_jupyter_cache(tiny_book.book)
    assert folder == tiny_book.root / "_build" / ".jupyter_cache"
    assert cached(tiny_book) == {"alpha": "1", "beta": "2"}


def test_an_old_entry_does_not_survive(tiny_book):
    tiny_book.chapter("alpha", tiny_book.cell("print(1)"))
    executed(tiny_book, "alpha", "old")
    cache.fill_jupyter_cache(tiny_book.book)
    executed(tiny_book, "alpha", "new")
    cache.fill_jupyter_cache(tiny_book.book)
    assert cached(tiny_book) == {"alpha": "new"}
    before = tiny_book.read("chapters/alpha.md")
    tiny_book.chapter("alpha", tiny_book.cell("print(3)"))
    executed(tiny_book, "alpha", "3")
    cache.fill_jupyter_cache(tiny_book.book)
    tiny_book.write("chapters/alpha.md", before)
    assert cached(tiny_book) == {"alpha": ""}


def test_a_stale_chapter_does_not_reach_the_site(tiny_book):
    tiny_book.chapter("alpha", tiny_book.cell("print(1)"))
    executed(tiny_book, "alpha", "1")
    tiny_book.chapter("alpha", tiny_book.cell("print(2)"))
    with pytest.raises(
        BookError,
        match=r"chapters/alpha\.md: changed: chapters/alpha\.md; the site "
        r"shows only what a run saw\. Run `python -m bookkit run alpha` first",
    ):
        cache.fill_jupyter_cache(tiny_book.book)


def test_two_chapters_with_the_same_code_share_an_entry(tiny_book):
    for name in ("alpha", "beta"):
        tiny_book.chapter(name, tiny_book.cell("print(1)"))
        executed(tiny_book, name, "1")
    cache.fill_jupyter_cache(tiny_book.book)
    assert cached(tiny_book) == {"alpha": "1", "beta": "1"}


def test_a_full_disk_leaves_no_half_cache(tiny_book, monkeypatch):
    tiny_book.chapter("alpha", tiny_book.cell("print(1)"))
    executed(tiny_book, "alpha", "1")
    import jupyter_cache.cache.main as main

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(main.JupyterCacheBase, "cache_notebook_bundle", full)
    with pytest.raises(
        BookError, match=r"written \(.*No space left on device\)"
    ):
        cache.fill_jupyter_cache(tiny_book.book)
    assert not (tiny_book.root / "_build" / ".jupyter_cache").exists()
