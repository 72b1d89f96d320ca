"""`bookkit diagrams` with the real browser and the real mermaid."""

import pytest

from bookkit import diagrams, web
from bookkit.__main__ import main
from bookkit.book import find_root

pytestmark = pytest.mark.browser

GOOD = """# One

```{mermaid}
:alt: from a to b

flowchart LR
  a["the first"] --> b
```
"""


@pytest.fixture
def book(tmp_path, monkeypatch, browser):
    """A book with one diagram; `browser` skips where there is none."""
    modules = web.install(find_root(), dev=True)
    monkeypatch.setattr(web, "install", lambda root, *, dev=False: modules)
    (tmp_path / "chapters").mkdir()
    (tmp_path / "_toc.yml").write_text("root: book/intro\n")
    (tmp_path / "chapters" / "one.md").write_text(GOOD)
    monkeypatch.setenv("BOOK_ROOT", str(tmp_path))
    return tmp_path


def drawings(book) -> dict[str, str]:
    return {
        path.name: path.read_text(encoding="utf-8")
        for path in (book / diagrams.FOLDER).glob("*.svg")
    }


def run(*args) -> int:
    """In a thread of its own: the browser of the suite owns this one."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(main, ["diagrams", *args]).result()


def test_drawings_are_complete_and_the_same_each_time(book):
    assert run() == 0
    first = drawings(book)
    assert len(first) == len(diagrams.MODES)
    light, dark = first[min(first, key=len)], first[max(first, key=len)]
    assert light != dark
    for svg in first.values():
        assert ">the" in svg  # words are text, a line a span
        assert "<foreignObject" not in svg  # an image shows none of it
        assert "http" not in svg.replace("http://www.w3.org/", "")
    for path in (book / diagrams.FOLDER).iterdir():
        path.unlink()
    assert run() == 0
    assert drawings(book) == first
    assert run("--check") == 0


def test_a_diagram_that_cannot_be_drawn_is_named(book, capsys):
    (book / "chapters" / "one.md").write_text(GOOD.replace("-->", "--> -->"))
    assert run() == 2
    assert "chapters/one.md:3: mermaid cannot draw" in capsys.readouterr().err
    assert drawings(book) == {}
