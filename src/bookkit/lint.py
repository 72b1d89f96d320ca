"""`bookkit lint`: the package, the tools and every cell of the chapters.

ruff reads notebooks, not Markdown (on `.md` files it checks nothing and says
that all is well), so each chapter's cells go through a notebook, and what ruff
says comes back with the chapter and the line.
"""

import argparse
import json
from pathlib import Path
from statistics import median

import nbformat

from bookkit.book import Book, BookError, Cell, Chapter
from bookkit.files import write_atomically
from bookkit.modules import Module, collect, is_generated, ruff
from bookkit.pieces import Problem, parse
from bookkit.rules import RULES, code_cells, sentence_lengths

FOLDERS = ("src", "tests", "book/_ext")
MEND = "Run `bookkit lint --fix`."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bookkit lint`."""
    parser.add_argument(
        "--fix",
        action="store_true",
        help="mend what ruff can mend, in the chapters' cells too",
    )


def main(args: argparse.Namespace) -> int:
    """Print every problem with file and line; 1 if there is one."""
    book = Book()
    folders = [f for f in FOLDERS if (book.root / f).is_dir()]
    if args.fix:
        ruff(["check", "--fix", "--quiet", *folders], cwd=book.root)
        ruff(["format", "--quiet", *folders], cwd=book.root)
        for chapter in book.chapters:
            changed = fix_chapter(chapter)
            if changed:
                print(f"{chapter.rel}: rewrote {count(changed, 'cell')}")
        book = Book(book.root)
    problems = lint_folders(book, folders)
    for chapter in book.chapters:
        problems += lint_chapter(chapter)
    problems += outside_the_book(book)
    for problem in sorted(problems, key=_place):
        print(problem)
    for chapter in book.chapters:
        print(measure(chapter))
    cells = sum(len(code_cells(c)) for c in book.chapters)
    files = sum(len(list((book.root / f).rglob("*.py"))) for f in folders)
    print(
        f"lint: {count(len(problems), 'problem')} in {count(files, 'file')}, "
        f"{count(cells, 'cell')} of {count(len(book.chapters), 'chapter')}."
    )
    return 1 if problems else 0


def count(number: int, noun: str) -> str:
    """`1 problem`, `2 problems`."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _place(problem: Problem) -> tuple[str, int]:
    name, _, line = problem.where.rpartition(":")
    return name, int(line) if line.isdigit() else 0


def lint_folders(book: Book, folders: list[str]) -> list[Problem]:
    """What ruff says of hand-written and generated files."""
    if not folders:
        return []
    problems = []
    found = check(folders, book.root)
    found += unformatted(folders, book.root)
    for item in found:
        path = Path(item["filename"])
        where = f"{path.relative_to(book.root).as_posix()}:{item['row']}"
        source = _source(book, path, item["row"])
        text = item["text"] + (f" (written at {source})" if source else "")
        problems.append(Problem(where, text))
    return problems


def _source(book: Book, path: Path, line: int) -> str | None:
    """The line of the chapter that a line of a generated file comes from."""
    if not is_generated(path):
        return None
    try:
        modules = collect(book)
    except BookError:  # told by export
        return None
    for module in modules.values():
        if module.path == path:
            return _locate(module, path, line)
    return None


def _locate(module: Module, path: Path, line: int) -> str | None:
    try:
        return module.place(path.read_text(encoding="utf-8"), line)
    except SyntaxError:
        return None


def lint_chapter(chapter: Chapter) -> list[Problem]:
    """What ruff and our own rules say of one chapter."""
    return [
        *lint_cells(chapter),
        *(problem for rule in RULES for problem in rule(chapter)),
    ]


def lint_cells(chapter: Chapter) -> list[Problem]:
    """What ruff says of a chapter's code cells, exploratory ones included."""
    cells = code_cells(chapter)
    path = write_notebook(chapter)
    problems = []
    for found in check([str(path)], chapter.root):
        cell = cells[found["cell"] - 1]
        problems.append(Problem(cell.where(found["row"]), found["text"]))
    for cell, text in formatted(chapter, path):
        before, after = cell.source.split("\n"), text.split("\n")
        same = sum(1 for _ in _common(before, after))
        line = min(same + 1, len(before))
        problems.append(
            Problem(
                cell.where(line),
                f"not formatted as ruff does at 80 columns. {MEND}",
            )
        )
    return problems


def _common(one: list[str], other: list[str]):
    """The lines at the beginning that two texts share."""
    for a, b in zip(one, other, strict=False):
        if a != b:
            return
        yield a


def write_notebook(chapter: Chapter) -> Path:
    """The code cells as `_build/lint/<chapter>.ipynb`, for ruff.

    A cell that must raise and is not Python is left empty: it is wrong on
    purpose.
    """
    notebook = nbformat.v4.new_notebook()
    notebook.metadata["language_info"] = {"name": "python"}
    for i, cell in enumerate(code_cells(chapter)):
        new = nbformat.v4.new_code_cell("" if _wrong(cell) else cell.source)
        new["id"] = f"cell-{i}"  # not random: the file stays the same
        notebook.cells.append(new)
    path = chapter.root / "_build" / "lint" / f"{chapter.name}.ipynb"
    write_atomically(path, nbformat.writes(notebook) + "\n")
    return path


def _wrong(cell: Cell) -> bool:
    return "raises-exception" in cell.tags and parse(cell)[0] is None


def check(paths: list[str], root: Path) -> list[dict]:
    """`ruff check` as dictionaries: filename, cell, row, text.

    Raises:
        BookError: ruff failed, or would have read none of the files.
    """
    seen = ruff(["check", "--show-files", *paths], cwd=root).stdout.split()
    if not seen:
        raise BookError(
            f"ruff finds nothing to check in {', '.join(paths)}. Look at "
            "`exclude` in pyproject.toml."
        )
    return _findings(["check", *paths], root)


def unformatted(paths: list[str], root: Path) -> list[dict]:
    """`ruff format --check` in the same form; syntax errors are `check`'s."""
    found = _findings(["format", "--check", *paths], root)
    return [
        {**item, "text": f"not formatted. {MEND}"}
        for item in found
        if item["text"].startswith("unformatted")
    ]


def _findings(arguments: list[str], root: Path) -> list[dict]:
    done = ruff([*arguments, "--output-format=json"], cwd=root)
    try:
        found = json.loads(done.stdout)
    except ValueError:
        raise BookError(f"ruff: {done.stderr.strip()}") from None
    return [
        {
            "filename": item["filename"],
            "cell": item.get("cell"),
            "row": item["location"]["row"],
            "text": f"{item['code'] or 'E999'} {item['message']}",
        }
        for item in found
    ]


def formatted(chapter: Chapter, path: Path) -> list[tuple[Cell, str]]:
    """The cells that ruff would write otherwise, and how."""
    done = ruff(["format", "--quiet", str(path)], cwd=chapter.root)
    if done.returncode:
        return []  # a syntax error: `check` has told it
    return changes(chapter, path)


def changes(chapter: Chapter, path: Path) -> list[tuple[Cell, str]]:
    """The cells whose text in the notebook is not the chapter's any more."""
    notebook = nbformat.read(path, as_version=4)
    pairs = zip(code_cells(chapter), notebook.cells, strict=True)
    return [
        (cell, new.source)
        for cell, new in pairs
        if cell.source != new.source and not _wrong(cell)
    ]


def fix_chapter(chapter: Chapter) -> int:
    """Let ruff mend the cells, in place; how many cells changed.

    Only the bodies of code cells are rewritten, so prose, options and blank
    lines stay as the author wrote them.
    """
    path = write_notebook(chapter)
    ruff(["check", "--fix", "--quiet", str(path)], cwd=chapter.root)
    ruff(["format", "--quiet", str(path)], cwd=chapter.root)
    lines = chapter.text.split("\n")
    changed = changes(chapter, path)
    for cell, text in reversed(changed):
        old = cell.source.split("\n")
        start = cell.line - 1
        if lines[start : start + len(old)] != old:
            raise BookError(
                f"{cell.where()}: cannot be rewritten in place (the fence is "
                "indented?). Format the cell by hand."
            )
        lines[start : start + len(old)] = text.split("\n") if text else []
    if changed:
        write_atomically(chapter.path, "\n".join(lines))
    return len(changed)


def outside_the_book(book: Book) -> list[Problem]:
    """Chapters that the table of contents forgot."""
    known = {chapter.path for chapter in book.chapters}
    return [
        Problem(
            f"{path.relative_to(book.root).as_posix()}:1",
            "this chapter is not in _toc.yml. Add it, or delete it.",
        )
        for path in sorted((book.root / "chapters").glob("*.md"))
        if path not in known
    ]


def measure(chapter: Chapter) -> str:
    """The length of the chapter's sentences, for its author."""
    lengths = [n for _, n in sentence_lengths(chapter)]
    if not lengths:
        return f"{chapter.rel}: no prose."
    return (
        f"{chapter.rel}: {count(len(lengths), 'sentence')}, median "
        f"{median(lengths):g} words, longest {max(lengths)}."
    )
