"""One exported cell taken apart: its imports, its docstring, its definitions.

A cell may hold only what can stand in a module that a careful engineer wrote
by hand. `split` copies the text of each part, comments included, and says in
words what must not be exported.
"""

import ast
import re
import symtable
import warnings
from dataclasses import dataclass, field

from bookkit.book import Cell

# Calls without side effects that a constant may be made with.
PURE_CALLS = frozenset(
    "bool bytes complex dict float frozenset int len list max min pow range "
    "round set slice sorted str sum tuple "
    "math.sqrt math.log math.log2 math.log10 math.exp math.pow "
    "NamedTuple NewType ParamSpec TypeVar TypeVarTuple namedtuple "
    "collections.namedtuple typing.NamedTuple typing.NewType typing.TypeVar "
    "MappingProxyType types.MappingProxyType functools.partial partial "
    "re.compile torch.finfo torch.device".split()
)
_PURE = (
    ast.Constant | ast.Name | ast.Attribute | ast.Subscript | ast.Slice
    | ast.Tuple | ast.List | ast.Set | ast.Dict | ast.Starred
    | ast.BinOp | ast.UnaryOp | ast.BoolOp | ast.Compare | ast.IfExp
    | ast.JoinedStr | ast.FormattedValue | ast.keyword
    | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
    | ast.comprehension | ast.expr_context | ast.operator | ast.unaryop
    | ast.boolop | ast.cmpop | ast.Lambda | ast.arguments | ast.arg
)  # fmt: skip
_MAGIC = re.compile(
    r"^\s*(%{1,2}[A-Za-z]|!|\?{1,2}\w)"  # %time, %%time, !ls, ?torch
    r"|^\s*[\w.]+\?{1,2}\s*$"  # torch?
    r"|=\s*(!|%[A-Za-z])"  # files = !ls
)
_ONLY = (
    "An exported cell holds whole definitions only (def, class, constants, "
    "imports): move it to a cell without the tag `export`."
)


@dataclass(frozen=True)
class Problem:
    """What is wrong with a line of a cell, and how to mend it."""

    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


@dataclass(frozen=True)
class Piece:
    """A stretch of an exported cell that goes to a module as it stands."""

    kind: str  # "docstring", "import" or "definition"
    cell: Cell
    first: int  # line of the cell where `text` begins (comments included)
    line: int  # line of the cell where the statement itself begins
    text: str
    names: tuple[str, ...] = ()
    node: ast.stmt | None = field(default=None, compare=False)

    @property
    def where(self) -> str:
        """The chapter and the line of the statement."""
        return self.cell.where(self.line)

    def follows(self, other: "Piece | None") -> bool:
        """True if it stands on the next line of the same cell."""
        return (
            other is not None
            and other.cell is self.cell
            and other.first + other.text.count("\n") + 1 == self.first
        )

    def unbound(self, known: set[str]) -> dict[str, int]:
        """Names the text reads but `known` lacks -> line of the cell."""
        missing = _globals(symtable.symtable(self.text, "cell", "exec"))
        missing -= known
        lines: dict[str, int] = {}
        for node in ast.walk(ast.parse(self.text)):
            if isinstance(node, ast.Name) and node.id in missing:
                here = self.first + node.lineno - 1
                lines[node.id] = min(here, lines.get(node.id, here))
        return lines


def parse(cell: Cell) -> tuple[ast.Module | None, list[Problem]]:
    """The syntax tree of a cell, or what keeps Python from reading it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            tree = ast.parse(cell.source)
        except SyntaxError as error:
            return None, [_unreadable(cell, error)]
    # an invalid escape ("\sqrt") is an error to come, and never what is meant
    return tree, [
        Problem(
            cell.where(w.lineno), f"{w.message}. Write a raw string, r'...'."
        )
        for w in caught
        if issubclass(w.category, DeprecationWarning | SyntaxWarning)
    ]


def split(cell: Cell) -> tuple[list[Piece], list[Problem]]:
    """The pieces of an exported cell, in order, and what is wrong with it."""
    tree, problems = parse(cell)
    if tree is None:
        return [], problems
    lines = cell.source.split("\n")
    pieces: list[Piece] = []
    done = 0  # lines of the cell that already belong to a piece
    for i, node in enumerate(tree.body):
        start = min(
            [node.lineno, *(d.lineno for d in _decorators(node))],
        )
        if start <= done:
            text = "two statements on one line. Give each its own line."
            problems.append(Problem(cell.where(start), text))
            continue
        # what follows the last statement (a closing comment) belongs to it
        end = node.end_lineno if i + 1 < len(tree.body) else len(lines)
        problem = _refusal(node)
        if problem:
            problems.append(Problem(cell.where(start), problem))
        else:
            first, text = _strip(lines, done, end)
            kind = _kind(node)
            names = tuple(_bound(node)) if kind == "definition" else ()
            pieces.append(Piece(kind, cell, first, start, text, names, node))
        done = end
    return pieces, problems


def _strip(lines: list[str], start: int, end: int) -> tuple[int, str]:
    """Lines without blank ones around them, and the number of the first."""
    while not lines[start].strip():
        start += 1
    while not lines[end - 1].strip():
        end -= 1
    return start + 1, "\n".join(lines[start:end])


def _decorators(node: ast.stmt) -> list[ast.expr]:
    return getattr(node, "decorator_list", [])


def _kind(node: ast.stmt) -> str:
    if isinstance(node, ast.Import | ast.ImportFrom):
        return "import"
    return "docstring" if isinstance(node, ast.Expr) else "definition"


def _bound(node: ast.stmt):
    """The names that a definition binds."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        for target in getattr(node, "targets", None) or [node.target]:
            for part in ast.walk(target):
                if isinstance(part, ast.Name):
                    yield part.id


def _refusal(node: ast.stmt) -> str | None:
    """Why a top-level statement must not be exported; None if it may."""
    shown = f"`{_first_line(node)}`"
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return None
        case ast.Import(names=names):
            bad = [n.name for n in names if n.name.split(".")[0] == "bookkit"]
            return _NO_BOOKKIT if bad else None
        case ast.ImportFrom(level=level) if level:
            return f"a relative import, {shown}. Name the module in full."
        case ast.ImportFrom(names=[ast.alias(name="*")]):
            return f"a star import, {shown}. Name what the module needs."
        case ast.ImportFrom(module=module):
            return _NO_BOOKKIT if module.split(".")[0] == "bookkit" else None
        case ast.Expr(value=ast.Constant(value=str())):
            return None
        case ast.Assign() | ast.AnnAssign():
            return _impure_constant(node, shown)
        case ast.Expr():
            return f"a statement with side effects, {shown}. {_ONLY}"
        case _:
            name = type(node).__name__.lower()
            return f"a statement with side effects ({name}), {shown}. {_ONLY}"


_NO_BOOKKIT = (
    "an exported cell imports bookkit, which makes the book and is no part of "
    "the package. Import it in a cell without the tag `export`."
)


def _impure_constant(node: ast.Assign | ast.AnnAssign, shown: str):
    targets = getattr(node, "targets", None) or [node.target]
    for target in targets:
        for part in ast.walk(target):
            if isinstance(part, ast.Attribute | ast.Subscript):
                return f"a statement with side effects, {shown}. {_ONLY}"
    if "__all__" in _bound(node):
        return "`__all__` is made from the exported names: delete this line."
    for part in ast.walk(node.value) if node.value else ():
        if isinstance(part, ast.Call):
            called = ast.unparse(part.func)
            if called not in PURE_CALLS:
                return (
                    f"a statement with side effects: {shown} calls `{called}` "
                    "when the module is imported. Write a literal, or compute "
                    "it inside a function."
                )
        elif not isinstance(part, _PURE):
            return f"a statement with side effects, {shown}. {_ONLY}"
    return None


def _first_line(node: ast.stmt) -> str:
    text = ast.unparse(node).split("\n")[0]
    return text if len(text) <= 60 else text[:57] + "..."


def _unreadable(cell: Cell, error: SyntaxError) -> Problem:
    lines = cell.source.split("\n")
    for number in (error.lineno or 1, 1):
        line = lines[min(number, len(lines)) - 1]
        if _MAGIC.search(line):
            text = (
                f"a magic or shell line, `{line.strip()}`: it is not Python. "
                "Move it to a cell without the tag `export`."
            )
            return Problem(cell.where(number), text)
    text = f"syntax error: {error.msg}. Mend this line."
    return Problem(cell.where(error.lineno or 1), text)


def _globals(table: symtable.SymbolTable) -> set[str]:
    """Names that any scope of a table reads from the module."""
    top = table.get_type() == "module"
    names = {
        s.get_name()
        for s in table.get_symbols()
        if s.is_referenced() and (top or s.is_global())
    }
    return names.union(*(_globals(child) for child in table.get_children()))
