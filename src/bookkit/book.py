"""The book as data: chapters in the order of the table of contents.

Everything else in this package asks these classes where a cell stands, which
module it goes to and how it is tagged, so that every message can name the
chapter and the line to edit.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from bookkit.errors import BookError

if TYPE_CHECKING:
    import nbformat

# jupytext takes a second to import; a command that finds nothing to do needs
# the text of the chapters only, so the methods below import it themselves.


def find_root(start: Path | None = None) -> Path:
    """The folder that holds `_toc.yml` and `chapters/`, from here upwards.

    The environment variable `BOOK_ROOT` wins over the search.
    """
    if os.environ.get("BOOK_ROOT"):
        return Path(os.environ["BOOK_ROOT"]).resolve()
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "_toc.yml").exists() and (folder / "chapters").is_dir():
            return folder
    raise BookError(
        f"{start}: no book here or above (a folder with _toc.yml and "
        "chapters/). Change to the repository's top folder."
    )


@dataclass
class Cell:
    """One cell of a chapter, and where its source stands in the file."""

    chapter: Chapter = field(repr=False)
    node: nbformat.NotebookNode = field(repr=False)
    index: int  # among all cells of the notebook
    line: int  # 1-based line of the first line of `source`

    @property
    def is_code(self) -> bool:
        """True for a code cell."""
        return self.node.cell_type == "code"

    @property
    def source(self) -> str:
        """The text of the cell."""
        return self.node.source

    @property
    def tags(self) -> list[str]:
        """The cell's tags, in order."""
        return self.node.metadata.get("tags", [])

    def where(self, line: int = 1) -> str:
        """`chapters/attention.md:120` for line `line` of this cell."""
        return f"{self.chapter.rel}:{self.line + line - 1}"


class Chapter:
    """A jupytext MyST notebook: its cells, its tags, its front matter."""

    def __init__(self, path: Path, root: Path) -> None:
        self.path, self.root = path, root
        self.name = path.stem
        self.rel = path.relative_to(root).as_posix()

    def __repr__(self) -> str:
        return f"Chapter({self.rel})"

    @cached_property
    def text(self) -> str:
        """The source of the chapter."""
        try:
            return self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise BookError(
                f"{self.rel}: no such chapter, though _toc.yml names it."
            ) from None
        except UnicodeDecodeError as error:
            raise BookError(f"{self.rel}: not UTF-8 ({error}).") from error

    @cached_property
    def notebook(self) -> nbformat.NotebookNode:
        """A fresh notebook without outputs, as jupytext reads it."""
        import jupytext

        try:
            return jupytext.reads(self.text, fmt="md:myst")
        except Exception as error:  # jupytext and yaml raise many kinds
            raise BookError(
                f"{self.rel}: cannot be read as a MyST notebook: {error}"
            ) from error

    @cached_property
    def meta(self) -> dict:
        """The front matter."""
        return dict(self.notebook.metadata)

    @cached_property
    def title(self) -> str:
        """The text of the first heading."""
        found = re.search(r"^# (.+)$", self.text, re.M)
        if not found:
            raise BookError(f"{self.rel}: no title. Begin with '# Title'.")
        return found[1].strip()

    @cached_property
    def budget(self) -> float:
        """CPU seconds that one run may take (front matter `budget`)."""
        return float(self.meta.get("budget", 60))

    @cached_property
    def cells(self) -> list[Cell]:
        """All cells, with the line where each one's source begins."""
        from jupytext.myst import myst_to_notebook

        lines = self.text.splitlines()
        cells = self.notebook.cells  # first: it has the clear error
        starts = myst_to_notebook(
            self.text, add_source_map=True
        ).metadata.source_map
        return [
            Cell(self, node, i, _first_line(node, start, lines))
            for i, (node, start) in enumerate(zip(cells, starts, strict=True))
        ]


def _first_line(node, start: int, lines: list[str]) -> int:
    """The 1-based line where a cell's source begins, past its options."""
    want = node.source.splitlines()[:1]
    for i in range(start, len(lines)):
        if not want or lines[i].strip() == want[0].strip():
            return i + 1
    return start + 1


class Book:
    """The chapters, in the order of `_toc.yml`."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = find_root() if root is None else Path(root).resolve()

    @cached_property
    def pages(self) -> list[str]:
        """Every page of the table of contents, without ending, in order."""
        path = self.root / "_toc.yml"
        try:
            toc = yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise BookError(f"_toc.yml: not valid YAML: {error}") from error
        return list(_files(toc))

    @cached_property
    def chapters(self) -> list[Chapter]:
        """The executable chapters: the pages in `chapters/`."""
        return [
            Chapter(self.root / f"{page}.md", self.root)
            for page in self.pages
            if page.startswith("chapters/")
        ]

    def chapter(self, name: str) -> Chapter:
        """The chapter called `name` ("masks" or "chapters/masks.md")."""
        for chapter in self.chapters:
            if name in (chapter.name, chapter.rel):
                return chapter
        known = ", ".join(c.name for c in self.chapters)
        raise BookError(f"no chapter {name!r} in _toc.yml. There are: {known}.")


def _files(node):
    """Every page named below a node of the table of contents, in order."""
    if isinstance(node, dict):
        if "root" in node:
            yield node["root"]
        if "file" in node:
            yield node["file"]
        for key in ("parts", "chapters", "sections"):
            yield from _files(node.get(key) or [])
    elif isinstance(node, list):
        for item in node:
            yield from _files(item)
