"""The package as the chapters define it: which cell goes to which module.

`collect` reads every chapter in the order of the book, refuses what must not
be exported with the chapter and the line, and returns the modules; a module
renders itself to text that reads as if written by hand.
"""

import ast
import builtins
import re
import subprocess
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from bookkit.book import Book, BookError, Cell, Chapter
from bookkit.pieces import Piece, Problem, parse, split

PACKAGE = "litformer"
TRACE = re.compile(r"^# Written in (chapters/\S+\.md); edit ", re.M)
_TARGET = re.compile(rf"{PACKAGE}\.[a-z][a-z0-9_]*")
_BUILTIN = {*dir(builtins), "__name__", "__file__", "__doc__", "__package__"}
LINE_LENGTH = 80


@dataclass
class Module:
    """A generated module: the pieces of its exported cells, in book order."""

    name: str
    root: Path = field(repr=False)
    pieces: list[Piece] = field(default_factory=list, repr=False)

    @property
    def path(self) -> Path:
        """Where the module stands in the repository."""
        return self.root / "src" / (self.name.replace(".", "/") + ".py")

    @property
    def rel(self) -> str:
        """`src/litformer/attention.py`."""
        return self.path.relative_to(self.root).as_posix()

    @property
    def chapters(self) -> list[Chapter]:
        """The chapters that its cells stand in."""
        return list(dict.fromkeys(p.cell.chapter for p in self.pieces))

    def of_kind(self, kind: str) -> list[Piece]:
        """Its pieces of one kind, in order."""
        return [p for p in self.pieces if p.kind == kind]

    @cached_property
    def names(self) -> dict[str, Piece]:
        """The names it defines."""
        return {n: p for p in self.of_kind("definition") for n in p.names}

    @property
    def trace(self) -> str:
        """The one comment that says where the module is written."""
        stems = [c.name for c in self.chapters]
        joined = stems[0] if len(stems) == 1 else "{" + ",".join(stems) + "}"
        line = f"# Written in chapters/{joined}.md; edit it there"
        full = f"{line}, then run make export."
        return full if len(full) <= LINE_LENGTH else f"{line}."

    @cached_property
    def text(self) -> str:
        """The module's source."""
        public = [n for n in self.names if not n.startswith("_")]
        imports = dict.fromkeys(p.text for p in self.of_kind("import"))
        parts = [
            self.trace,
            *(p.text for p in self.of_kind("docstring")),
            "",
            *imports,
            "",
            f"__all__ = {public!r}",
        ]
        before = None
        for piece in self.of_kind("definition"):
            # constants that stand together in a cell stay together
            parts += [piece.text] if piece.follows(before) else ["", piece.text]
            before = piece
        return tidy("\n".join(parts) + "\n", self.rel)

    def locate(self, line: int) -> str:
        """The chapter and line that a line of `text` comes from."""
        return self.place(self.text, line) or self.pieces[0].where

    def place(self, text: str, line: int) -> str | None:
        """The chapter and line for a line of `text`, an edition of this file.

        The edition may have been edited by hand: a definition is found by its
        name, a line in it by its content.
        """
        here = text.split("\n")[line - 1].strip()
        for node in ast.parse(text).body:
            start = min(
                [node.lineno]
                + [d.lineno for d in getattr(node, "decorator_list", [])]
            )
            if start <= line <= node.end_lineno:
                piece = self._piece_of(node)
                if piece is None:
                    return None
                return _line_in(piece, here, line - start)
        return None

    def _piece_of(self, node: ast.stmt) -> Piece | None:
        if isinstance(node, ast.Expr):
            return next(iter(self.of_kind("docstring")), None)
        if isinstance(node, ast.Import | ast.ImportFrom):
            return next(iter(self.of_kind("import")), None)
        for part in ast.walk(node):
            name = getattr(part, "name", getattr(part, "id", None))
            if name in self.names:
                return self.names[name]
        return None


def _line_in(piece: Piece, text: str, offset: int) -> str:
    """The line of a piece that reads `text`, nearest to an offset."""
    lines = piece.text.split("\n")
    lead = piece.line - piece.first
    same = [i for i, line in enumerate(lines) if text and line.strip() == text]
    at = min(same, key=lambda i: abs(i - lead - offset), default=lead)
    return piece.cell.where(piece.first + at)


def ruff(arguments: list[str], **options) -> subprocess.CompletedProcess:
    """Run ruff, with one clear message if it is not installed."""
    try:
        from ruff import find_ruff_bin

        program = find_ruff_bin()
    except (ImportError, FileNotFoundError):
        raise BookError(
            "ruff is not installed. Run `pip install -r requirements.txt`."
        ) from None
    return subprocess.run(
        [program, *arguments], capture_output=True, text=True, **options
    )


def tidy(text: str, name: str) -> str:
    """Imports sorted, unused ones dropped, formatted: ruff, twice."""
    first_party = f'lint.isort.known-first-party=["{PACKAGE}", "bookkit"]'
    fix = ["check", "--select=I,F401,RUF022", "--fix", "--quiet"]
    for command in (
        [*fix, "--config", first_party],
        ["format", "--quiet"],
    ):
        options = ["--isolated", f"--config=line-length={LINE_LENGTH}"]
        done = ruff(
            [*command, *options, "--stdin-filename", name, "-"], input=text
        )
        if done.returncode:
            raise BookError(f"{name}: ruff: {done.stderr or done.stdout}")
        text = done.stdout
    return text


def target(cell: Cell) -> str | None:
    """The module that a cell goes to, or None if it is not exported."""
    for tag in cell.tags:
        if tag.startswith("export-to:"):
            return tag.removeprefix("export-to:")
    if "export" in cell.tags:
        return cell.chapter.meta.get("export_to", "")
    return None


def is_generated(path: Path) -> bool:
    """True if a module says that a chapter wrote it."""
    return bool(TRACE.search(path.read_text(encoding="utf-8")[:500]))


def collect(book: Book) -> dict[str, Module]:
    """Every generated module of the book, by name.

    Raises:
        BookError: what must not be exported, each with chapter and line.
    """
    modules: dict[str, Module] = {}
    problems: list[Problem] = []
    for chapter in book.chapters:
        for cell in chapter.cells:
            name = target(cell) if cell.is_code else None
            if name is None:
                continue
            wrong = _wrong_target(book, cell, name)
            if wrong:
                problems.append(Problem(cell.where(), wrong))
                continue
            pieces, found = split(cell)
            problems += found
            module = modules.setdefault(name, Module(name, book.root))
            module.pieces += pieces
    if not problems:
        problems += _twice(modules)
        problems += _docstrings(modules)
        problems += _unreached(book, modules)
        problems += _unbound(modules)
        problems += _cycles(modules)
    if problems:
        raise BookError(_report(problems))
    return modules


def _report(problems: list[Problem]) -> str:
    if len(problems) == 1:
        return str(problems[0])
    lines = "".join(f"\n  {p}" for p in problems)
    return f"{len(problems)} problems:{lines}"


def _wrong_target(book: Book, cell: Cell, name: str) -> str | None:
    if not name:
        return (
            "a cell is tagged `export`, but the front matter has no "
            f"`export_to`. Add `export_to: {PACKAGE}.{cell.chapter.name}`."
        )
    if not _TARGET.fullmatch(str(name)):
        return (
            f"cannot export to {name!r}: a target is one module of the "
            f"package, such as {PACKAGE}.{cell.chapter.name}."
        )
    path = Module(name, book.root).path
    if path.exists() and not is_generated(path):
        return (
            f"{name} is written by hand; an export would overwrite it. "
            "Choose another module, or delete the file if the chapter is its "
            "source from now on."
        )
    return None


def _twice(modules: dict[str, Module]):
    """Each name has one exporting cell in the whole book."""
    seen: dict[str, Piece] = {}
    for module in modules.values():
        for piece in module.of_kind("definition"):
            for name in piece.names:
                if name in seen:
                    first, second = seen[name], piece
                    yield Problem(
                        second.where,
                        f"`{name}` is already exported at {first.where}. "
                        "A name has one exporting cell in the whole book: "
                        "rename one, or drop its tag `export`.",
                    )
                else:
                    seen[name] = piece


def _docstrings(modules: dict[str, Module]):
    """A module begins with a docstring, and has one."""
    for module in modules.values():
        found = module.of_kind("docstring")
        for extra in found[1:]:
            yield Problem(
                extra.where,
                f"a second docstring of {module.name}; the first stands at "
                f"{found[0].where}. Make it a comment or prose.",
            )
        first = next((p for p in module.pieces if p.kind == "definition"), None)
        if not found and module.pieces:
            yield Problem(
                module.pieces[0].where,
                f"{module.name} has no docstring. Let its first exported cell "
                "be one string: the idea and the axes.",
            )
        elif first and module.pieces.index(first) < module.pieces.index(
            found[0]
        ):
            yield Problem(
                found[0].where,
                f"the docstring of {module.name} stands after a definition "
                f"({first.where}). Move it before.",
            )


def _unbound(modules: dict[str, Module]):
    """Every name that a module reads, it imports or defines."""
    for module in modules.values():
        known = _BUILTIN | set(module.names)
        for piece in module.of_kind("import"):
            for alias in piece.node.names:
                known.add(alias.asname or alias.name.split(".")[0])
        for piece in module.of_kind("definition"):
            for name, line in sorted(piece.unbound(known).items()):
                yield Problem(
                    piece.cell.where(line),
                    f"`{name}` is neither imported nor defined by an exported "
                    f"cell of {module.name}. Import it in an exported cell "
                    "(the setup cell stays in the notebook).",
                )


def _cycles(modules: dict[str, Module]):
    """Modules import each other in one direction only."""
    needs: dict[str, dict[str, Piece]] = {m: {} for m in modules}
    for module in modules.values():
        for piece in module.of_kind("import"):
            for name in _imported(piece.node):
                if name in modules:
                    needs[module.name].setdefault(name, piece)
    for start in modules:
        for name, piece in needs[start].items():
            path = _way(needs, name, start)
            if path:
                chain = " imports ".join([start, *path])
                yield Problem(
                    piece.where,
                    f"modules import each other: {chain}. Move the definition "
                    "that needs the import to another module "
                    "(tag `export-to:...`).",
                )
                return


def _way(needs: dict[str, dict[str, Piece]], start: str, goal: str):
    """The shortest chain of imports from one module to another."""
    paths, seen = [[start]], set()
    for path in paths:
        if path[-1] == goal:
            return path
        if path[-1] not in seen:
            seen.add(path[-1])
            paths += [[*path, step] for step in needs[path[-1]]]
    return None


def _imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    """The modules of the package that an import statement names."""
    if isinstance(node, ast.Import):
        return [".".join(a.name.split(".")[:2]) for a in node.names]
    if node.module == PACKAGE:
        return [f"{PACKAGE}.{a.name}" for a in node.names]
    return [".".join((node.module or "").split(".")[:2])]


def _unreached(book: Book, modules: dict[str, Module]):
    """A chapter imports only what this or an earlier chapter exports."""
    order = {chapter: i for i, chapter in enumerate(book.chapters)}
    for chapter in book.chapters:
        aliases: dict[str, str] = {}
        told: set[str] = set()  # each mistake once a chapter, where it begins
        for cell in chapter.cells:
            tree = _readable(cell) if cell.is_code else None
            for node in ast.walk(tree) if tree else ():
                for name, member in _mentions(node, aliases):
                    problem = _reach(
                        book, modules, name, member, order, chapter
                    )
                    if problem and problem not in told:
                        told.add(problem)
                        yield Problem(cell.where(node.lineno), problem)


def _readable(cell: Cell) -> ast.Module | None:
    """The tree of any cell, magics blanked out; None if it has none.

    What is wrong with a cell that is not exported is told by the linter.
    """
    tree, _ = parse(cell)
    if tree is None:
        blank = re.sub(r"(?m)^(\s*)[%!].*$", r"\1pass", cell.source)
        try:
            tree = ast.parse(blank)
        except SyntaxError:
            return None
    return tree


def _mentions(node: ast.AST, aliases: dict[str, str]):
    """(module, name or None) for what a node takes from the package."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.name.startswith(f"{PACKAGE}."):
                aliases[alias.asname or alias.name] = alias.name
                yield alias.name, None
    elif isinstance(node, ast.ImportFrom) and not node.level:
        for alias in node.names:
            if node.module == PACKAGE:
                aliases[alias.asname or alias.name] = f"{PACKAGE}.{alias.name}"
                yield f"{PACKAGE}.{alias.name}", None
            elif node.module.startswith(f"{PACKAGE}."):
                yield node.module, alias.name
    elif isinstance(node, ast.Attribute):
        module = aliases.get(ast.unparse(node.value))
        if module:
            yield module, node.attr


def _reach(book, modules, name, member, order, chapter) -> str | None:
    """Why a chapter cannot take `member` from module `name` yet."""
    module = modules.get(name)
    if module is None:
        path = Module(name, book.root).path
        if path.with_suffix("").is_dir():  # a package written by hand
            path = path.with_suffix("") / "__init__.py"
        package = book.root / "src" / PACKAGE / "__init__.py"
        if (path.exists() and not is_generated(path)) or path == package:
            return None
        if (path.with_suffix("") / "__init__.py").exists():
            return None  # written by hand: chapters export modules only
        short = name.removeprefix(f"{PACKAGE}.")
        if package.exists() and re.search(
            rf"^{re.escape(short)}\b", package.read_text("utf-8"), re.M
        ):
            return None
        return (
            f"imports {name}, but no chapter exports to it and there is no "
            "such module. Check the spelling and _toc.yml."
        )
    if member is None:
        first = min(module.pieces, key=lambda p: order[p.cell.chapter])
    elif member == "*":
        return f"a star import from {name}. Name what the cell needs."
    elif member in module.names:
        first = module.names[member]
    else:
        if member.startswith("__"):
            return None
        return (
            f"takes `{member}` from {name}, but no chapter exports it there. "
            "Check the spelling."
        )
    if order[first.cell.chapter] <= order[chapter]:
        return None
    what = f"`{member}` of {name}" if member else name
    return (
        f"imports {what}, which the book has not reached yet: "
        f"{first.where} exports it, and {first.cell.chapter.name} comes after "
        f"{chapter.name} in _toc.yml. Use it there, or change the order."
    )
