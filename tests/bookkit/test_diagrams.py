"""Diagrams: found with their line, drawn once, checked without a browser."""

import builtins
import sys

import pytest

from bookkit import diagrams
from bookkit.__main__ import main
from bookkit.book import BookError

PAGE = """# A page

```{mermaid}
:alt: a to b
:caption: A caption

flowchart LR
  a --> b
```

::::{mermaid}
:alt: the other way

flowchart LR
  b --> a
::::

```{mermaid}
:alt: the first again

flowchart LR
  a --> b
```
"""


@pytest.fixture
def root(tmp_path, monkeypatch):
    (tmp_path / "chapters").mkdir()
    (tmp_path / "book").mkdir()
    (tmp_path / "_toc.yml").write_text("root: book/intro\n")
    (tmp_path / "chapters" / "one.md").write_text(PAGE)
    monkeypatch.setenv("BOOK_ROOT", str(tmp_path))
    return tmp_path


def pretend_drawn(root, found):
    folder = root / diagrams.FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for diagram in found:
        for mode in diagrams.MODES:
            (folder / f"{diagram.key}-{mode}.svg").write_text("<svg/>")


def test_blocks_are_found_with_their_line(root):
    first, second = diagrams.find_diagrams(root)
    assert first.where == "chapters/one.md:3"
    assert first.code == "flowchart LR\n  a --> b"
    assert second.where == "chapters/one.md:11"


def test_the_directive_finds_the_same_name():
    """Sphinx sees the text without options; both must give one key."""
    assert diagrams.diagram_key("a --> b\n") == diagrams.diagram_key("a --> b")
    assert diagrams.diagram_key("a --> b") != diagrams.diagram_key("b --> a")


def test_check_names_what_is_missing_and_left_over(root, capsys):
    found = diagrams.find_diagrams(root)
    assert main(["diagrams", "--check"]) == 1
    said = capsys.readouterr().out
    assert "chapters/one.md:3: this diagram is not drawn" in said
    assert "python -m bookkit diagrams" in said
    pretend_drawn(root, found)
    assert main(["diagrams", "--check"]) == 0
    old = root / diagrams.FOLDER / "0123-light.svg"
    old.write_text("<svg/>")
    assert main(["diagrams", "--check"]) == 1
    assert "0123-light.svg: no diagram uses" in capsys.readouterr().out


def test_check_needs_neither_browser_nor_node(root, monkeypatch):
    pretend_drawn(root, diagrams.find_diagrams(root))
    monkeypatch.setenv("PATH", "")
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        assert not name.startswith("playwright")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert main(["diagrams", "--check"]) == 0


def test_left_over_drawings_are_deleted(root, capsys):
    pretend_drawn(root, diagrams.find_diagrams(root))
    old = root / diagrams.FOLDER / "0123-dark.svg"
    old.write_text("<svg/>")
    assert main(["diagrams"]) == 0
    assert not old.exists()
    assert "2 in all" in capsys.readouterr().out


def test_without_a_browser_the_message_says_how_to_get_one(
    root, monkeypatch, capsys
):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CHROMIUM", raising=False)
    assert main(["diagrams"]) == 2
    assert "apt-get install chromium" in capsys.readouterr().err


def test_a_wrong_path_to_the_browser_is_named(monkeypatch):
    monkeypatch.setenv("CHROMIUM", "/no/such/browser")
    with pytest.raises(BookError, match="no browser at CHROMIUM=/no/such"):
        diagrams.find_chromium()


def test_the_environment_chooses_the_browser(monkeypatch):
    monkeypatch.setenv("CHROMIUM", sys.executable)
    assert diagrams.find_chromium() == sys.executable
