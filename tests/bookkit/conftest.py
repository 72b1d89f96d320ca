"""Tiny books on disk, for the tests of everything that reads a book."""

import textwrap
from pathlib import Path

import pytest
import yaml

from bookkit.book import Book


class TinyBook:
    """A book that a test writes cell by cell.

    tiny_book.chapter(
        "alpha",
        tiny_book.cell('"The idea."', "export"),
        "Prose between the cells.",
        tiny_book.cell("def one():\\n    return 1", "export"),
        export_to="litformer.alpha",
    )
    tiny_book.book            # a fresh Book
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.names: list[str] = []
        (root / "chapters").mkdir()
        (root / "src" / "litformer").mkdir(parents=True)
        package = ['"""Tiny."""', "", '__version__ = "0.1.0"', ""]
        self.write("src/litformer/__init__.py", "\n".join(package))

    @property
    def book(self) -> Book:
        """The book as it stands on disk now."""
        return Book(self.root)

    def write(self, rel: str, text: str) -> Path:
        """Write a file of the repository."""
        path = self.root / rel
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    def read(self, rel: str) -> str:
        """The text of a file of the repository."""
        return (self.root / rel).read_text(encoding="utf-8")

    def cell(self, source: str, *tags: str) -> str:
        """The text of a code cell."""
        source = textwrap.dedent(source).strip("\n")
        options = f":tags: [{', '.join(tags)}]\n" if tags else ""
        return f"```{{code-cell}} ipython3\n{options}{source}\n```"

    def chapter(self, name: str, *parts: str, **meta) -> Path:
        """Write a chapter and put it into the table of contents."""
        meta = {
            "jupytext": {
                "text_representation": {
                    "extension": ".md",
                    "format_name": "myst",
                }
            },
            "kernelspec": {
                "display_name": "Python 3",
                "language": "python",
                "name": "python3",
            },
            **meta,
        }
        front = yaml.safe_dump(meta, sort_keys=False)
        text = "\n\n".join([f"---\n{front}---", f"# {name.title()}", *parts])
        path = self.write(f"chapters/{name}.md", "")
        path.write_text(text + "\n", encoding="utf-8")
        if name not in self.names:
            self.names.append(name)
            self._toc()
        return path

    def drop(self, name: str) -> None:
        """Take a chapter out of the table of contents."""
        self.names.remove(name)
        self._toc()

    def _toc(self) -> None:
        pages = [{"file": f"chapters/{name}"} for name in self.names]
        toc = {"format": "jb-book", "root": "book/intro", "chapters": pages}
        self.write("_toc.yml", yaml.safe_dump(toc, sort_keys=False))

    def line(self, name: str, text: str) -> str:
        """`chapters/alpha.md:LINE` of the first line that holds `text`."""
        rel = f"chapters/{name}.md"
        for number, line in enumerate(self.read(rel).splitlines(), 1):
            if text in line:
                return f"{rel}:{number}"
        raise AssertionError(f"{text!r} is not in {rel}")


@pytest.fixture
def tiny_book(tmp_path, monkeypatch) -> TinyBook:
    """An empty book in a temporary folder, found by every command."""
    monkeypatch.setenv("BOOK_ROOT", str(tmp_path))
    return TinyBook(tmp_path)


@pytest.fixture(scope="module")
def module_book(tmp_path_factory, request) -> TinyBook:
    """A tiny book that the tests of a module share: running it takes time."""
    return TinyBook(tmp_path_factory.mktemp(request.module.__name__))
