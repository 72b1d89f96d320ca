"""What a chapter's outputs depend on, and whether they still hold.

The executed notebook in `_build/executed/` carries a digest of everything
that went into it: the chapter, its reference outputs, every module of ours
that it imports, directly or through others, the pinned requirements, and the
version of Python. It is fresh while all of them are as they were. (The key of
jupyter-cache ignores modules and pins: it would replay stale pages.)

Nothing here imports a notebook library: to find nothing to do takes a moment.
"""

import ast
import hashlib
import json
import platform
import re
import shutil
from functools import cache
from pathlib import Path

import bookkit
from bookkit.book import Book, BookError, Chapter

# Raise it when executed notebooks are written differently than before.
LAYOUT = 2
# Only our own packages are followed; the rest is pinned by requirements.
PACKAGES = ("bookkit", "litformer")
PINS = ("requirements.txt", "requirements-weights.txt")

_FENCE = re.compile(
    r"^(`{3,})\{code-cell\}[^\n]*\n(.*?)^\1`*[ ]*$", re.M | re.S
)
_MAGIC = re.compile(r"^(\s*)[%!].*$", re.M)
_IMPORT = re.compile(r"^\s*(?:import|from)\s.+$", re.M)


def executed_path(chapter: Chapter) -> Path:
    """Where the executed notebook of a chapter goes."""
    return chapter.root / "_build" / "executed" / f"{chapter.name}.ipynb"


def reference_path(chapter: Chapter) -> Path:
    """Where the reference outputs of a chapter's `check-output` cells are."""
    return chapter.root / "tests" / "reference" / f"{chapter.name}.json"


def sanitize_path(root: Path) -> Path:
    """nbval's file of patterns, applied before outputs are compared."""
    return root / "tests" / "reference" / "sanitize.cfg"


def inputs(chapter: Chapter) -> dict[str, str]:
    """Everything that the outputs of a chapter depend on: name -> digest."""
    root = chapter.root
    found = {
        "Python": platform.python_version(),
        "bookkit's layout": str(LAYOUT),
        chapter.rel: _sha(chapter.text),
    }
    reference = reference_path(chapter)
    if reference.exists():
        for path in (reference, sanitize_path(root)):
            if path.exists():
                found[_label(path, root)] = _sha(path.read_text("utf-8"))
    for path in modules(chapter):
        found[_label(path, root)] = _sha(path.read_text("utf-8"))
    for name in PINS:
        if (root / name).exists():
            found[name] = _sha(_pins((root / name).read_text("utf-8")))
    return found


def key(inputs: dict[str, str]) -> str:
    """One digest of all inputs."""
    return _sha(json.dumps(inputs, sort_keys=True))


def record(chapter: Chapter) -> dict:
    """What the last passed run left: key, inputs, CPU and wall seconds.

    Empty if there was none, or its notebook cannot be read.
    """
    try:
        text = executed_path(chapter).read_text(encoding="utf-8")
        return json.loads(text)["metadata"]["bookkit"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def why_stale(chapter: Chapter) -> str | None:
    """Why a chapter must run again, in words; None if it is fresh."""
    before, now = record(chapter), inputs(chapter)
    if not before:
        return "never run"
    if before.get("key") == key(now):
        return None
    old = before.get("inputs", {})
    changed = [n for n in {**now, **old} if old.get(n) != now.get(n)]
    shown, more = changed[:3], len(changed) - 3
    return "changed: " + ", ".join(shown) + (f" and {more} more" * (more > 0))


# ------------------------------------------------- which modules it imports


def modules(chapter: Chapter) -> list[Path]:
    """The files of our packages that a chapter imports, transitively."""
    roots = [chapter.root / "src", Path(bookkit.__file__).parent.parent]
    wanted: set[str] = set()
    for source in code(chapter.text):
        wanted |= imports(source)
    found: dict[str, Path] = {}
    while wanted:
        name = wanted.pop()
        if name in found or name.split(".")[0] not in PACKAGES:
            continue
        path = _find(name, roots)
        if path is None:  # `from litformer.masks import causal_mask`
            continue
        found[name] = path
        package = name if path.stem == "__init__" else name.rpartition(".")[0]
        wanted |= imports(path.read_text("utf-8"), package)
    return [found[name] for name in sorted(found)]


def code(text: str) -> list[str]:
    """The sources of a chapter's code cells, options and all.

    A plain search, not a parse: it may see a cell too many (one that is shown
    inside another fence), never one too few.
    """
    return [body for _, body in _FENCE.findall(text)]


@cache
def imports(source: str, package: str = "") -> frozenset[str]:
    """Every module that a source may import, at any depth.

    Imports in functions count, so do the packages above a module, and the
    module of checks behind `check("attention.repair-the-cat")`.
    """
    found: set[str] = set()
    for node in ast.walk(_tree(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: 1 - node.level or None]
                base = ".".join([*above, *filter(None, [base])])
            found.add(base)
            # each name may be a module of its own
            found.update(f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            first = node.args[0]
            if not isinstance(first, ast.Constant):
                continue
            called = ast.unparse(node.func).rpartition(".")[2]
            if called in ("import_module", "__import__"):
                found.add(str(first.value))
            elif called == "check":
                exercise = str(first.value).partition(".")[0]
                found.add(f"bookkit.checks.{exercise}")
    for name in list(found):
        parts = name.split(".")
        found.update(".".join(parts[:n]) for n in range(1, len(parts)))
    return frozenset(found)


def _tree(source: str) -> ast.AST:
    """The tree of a cell: options and magics blanked, or its imports only."""
    source = re.sub(r"\A(?::.*\n|---\n[\s\S]*?^---\n)+", "", source, flags=re.M)
    try:
        return ast.parse(_MAGIC.sub(r"\1pass", source))
    except (SyntaxError, ValueError):
        # A cell that cannot run still says what the rest was run with.
        tree = ast.Module([], [])
        for line in _IMPORT.findall(source):
            try:
                tree.body += ast.parse(line.strip()).body
            except SyntaxError:
                continue
        return tree


def _find(name: str, roots: list[Path]) -> Path | None:
    for root in roots:
        path = root.joinpath(*name.split("."))
        for candidate in (path / "__init__.py", path.with_suffix(".py")):
            if candidate.is_file():
                return candidate
    return None


def _label(path: Path, root: Path) -> str:
    if path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    return path.relative_to(Path(bookkit.__file__).parent.parent).as_posix()


def _pins(text: str) -> str:
    """Requirements without comments and blank lines."""
    lines = (
        re.sub(r"(^|\s)#.*", "", line).strip() for line in text.split("\n")
    )
    return "\n".join(line for line in lines if line)


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# ----------------------------------------------- what the site builds from


def fill_jupyter_cache(book: Book) -> Path:
    """Put the executed notebooks into the cache that Jupyter Book reads.

    The cache is made anew each time: its own key holds no module and no pin,
    so that an entry which survived could be stale.

    Raises:
        BookError: a chapter was not run as it is now.
    """
    for chapter in book.chapters:
        reason = why_stale(chapter)
        if reason:
            raise BookError(
                f"{chapter.rel}: {reason}; the site shows only what a run saw. "
                f"Run `python -m bookkit run {chapter.name}` first."
            )
    import nbformat
    from jupyter_cache import get_cache
    from jupyter_cache.base import CacheBundleIn
    from sqlalchemy.exc import SQLAlchemyError

    folder = book.root / "_build" / ".jupyter_cache"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        cache = get_cache(folder)
        for chapter in book.chapters:
            notebook = nbformat.read(executed_path(chapter), as_version=4)
            seconds = notebook.metadata.pop("bookkit")["wall_seconds"]
            bundle = CacheBundleIn(
                notebook,
                str(chapter.path),
                data={"execution_seconds": seconds},
            )
            cache.cache_notebook_bundle(bundle, overwrite=True)
    except (OSError, SQLAlchemyError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise BookError(
            f"{folder}: cannot be written ({error}). The executed notebooks "
            "are unchanged."
        ) from error
    return folder
