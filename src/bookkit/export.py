"""`bookkit export`: the package from the cells tagged `export`.

The chapters are the only source. `--check` shows how the files differ from
them and where to edit; it writes nothing.
"""

import argparse
import ast
import difflib
import hashlib
import json
from pathlib import Path

from bookkit.book import Book, BookError
from bookkit.files import write_atomically
from bookkit.modules import PACKAGE, TRACE, Module, collect, is_generated


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bookkit export`."""
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing; show what differs and where to edit it",
    )


def main(args: argparse.Namespace) -> int:
    """Write the modules, or check them."""
    book = Book()
    modules = collect(book)
    lost = orphans(book, modules)
    if args.check:
        return check(modules, lost)
    return write(book, modules, lost)


def check(modules: dict[str, Module], lost: list[str]) -> int:
    """Print what is stale; 1 if anything is."""
    stale = [m for m in modules.values() if on_disk(m) != m.text]
    for module in stale:
        print(difference(module))
        for line in advice(module):
            print(line)
        print()
    for message in lost:
        print(message)
    if stale or lost:
        print(f"export: {len(stale) + len(lost)} of {PACKAGE} not fresh.")
        return 1
    print(f"export: {len(modules)} modules are what the chapters say.")
    return 0


def write(book: Book, modules: dict[str, Module], lost: list[str]) -> int:
    """Write the modules that changed; keep what a person typed into them."""
    stamps = _Stamps(book.root)
    for module in modules.values():
        old = on_disk(module)
        if old != module.text:
            if old is not None and not stamps.ours(module, old):
                kept = keep(book, module, old)
                print(
                    f"{module.rel}: was not what the last export wrote; "
                    f"its text is kept in {kept}."
                )
                for line in advice(module):
                    print(line)
            write_atomically(module.path, module.text)
            print(f"wrote {module.rel}")
        stamps.put(module)
    stamps.save()
    if lost:
        raise BookError("\n".join(lost))
    return 0


def on_disk(module: Module) -> str | None:
    """The file as it stands, or None."""
    try:
        return module.path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def orphans(book: Book, modules: dict[str, Module]) -> list[str]:
    """A message for each generated file that no chapter exports to."""
    messages = []
    for path in sorted((book.root / "src" / PACKAGE).rglob("*.py")):
        name = f"{PACKAGE}.{path.stem}"
        if name in modules and modules[name].path == path:
            continue
        if is_generated(path):
            wrote = TRACE.search(path.read_text(encoding="utf-8"))[1]
            rel = path.relative_to(book.root).as_posix()
            messages.append(
                f"{rel}: an orphan: {wrote} wrote it, but no chapter of "
                "_toc.yml exports to it now. Delete the file, or bring the "
                "chapter back."
            )
    return messages


def difference(module: Module) -> str:
    """The unified difference from the file to what the chapters say."""
    old = (on_disk(module) or "").splitlines(True)
    new = module.text.splitlines(True)
    return "".join(
        difflib.unified_diff(
            old, new, module.rel, f"{module.rel} (as the chapters say)"
        )
    )


def advice(module: Module) -> list[str]:
    """One line for each part of the file that differs: where to edit it."""
    old = on_disk(module)
    if old is None:
        return [f"{module.rel}: missing. Run make export."]
    try:
        before, after = _parts(old), _parts(module.text)
    except SyntaxError as error:
        return [
            f"{module.rel}:{error.lineno}: the file is not Python any more "
            f"({error.msg}). Run make export to write it anew."
        ]
    lines = []
    for name in dict.fromkeys([*before, *after]):
        mine, theirs = before.get(name), after.get(name)
        if mine and theirs and mine[1] == theirs[1]:
            continue
        if theirs is None:
            end = module.pieces[-1]
            lines.append(
                f"{module.rel}:{mine[0]}: {name} stands only in the file. "
                f"Move it to an exported cell of {end.cell.chapter.rel} "
                f"(the last one is at {end.where})."
            )
        elif mine is None:
            where = module.locate(theirs[0])
            lines.append(
                f"{where}: {name} is not in {module.rel} yet. Run make export."
            )
        else:
            at = _first_change(mine[1], theirs[1])
            where = module.locate(theirs[0] + at)
            lines.append(
                f"{module.rel}:{mine[0] + at}: {name} differs from {where}. "
                "Make the change there, then run make export."
            )
    return lines or [f"{module.rel}: run make export to write it anew."]


def _parts(text: str) -> dict[str, tuple[int, list[str]]]:
    """What a module consists of: label -> (first line, lines)."""
    parts: dict[str, tuple[int, list[str]]] = {}
    lines, done = text.split("\n"), 0
    for node in ast.parse(text).body:
        here = lines[done : node.end_lineno]
        first = done + 1
        while here and not here[0].strip():
            here, first = here[1:], first + 1
        label = _label(node)
        if label in parts:  # the imports are one part
            first, here = parts[label][0], parts[label][1] + here
        parts[label] = first, here
        done = node.end_lineno
    return parts


def _label(node: ast.stmt) -> str:
    if isinstance(node, ast.Import | ast.ImportFrom):
        return "the list of imports"
    if hasattr(node, "name"):
        return f"`{node.name}`"
    if isinstance(node, ast.Expr):
        return "the docstring"
    target = getattr(node, "targets", [getattr(node, "target", node)])[0]
    return f"`{ast.unparse(target)}`"


def _first_change(before: list[str], after: list[str]) -> int:
    """The index of the first line of `after` that differs, kept inside it."""
    same = 0
    for one, other in zip(before, after, strict=False):
        if one != other:
            break
        same += 1
    return min(same, len(after) - 1, len(before) - 1)


def keep(book: Book, module: Module, text: str) -> str:
    """Save a replaced text; its name says what it holds, so none is lost."""
    digest = _digest(text)[:8]
    path = book.root / "_build" / "replaced" / f"{module.name}-{digest}.py"
    write_atomically(path, text)
    return path.relative_to(book.root).as_posix()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class _Stamps:
    """What export wrote last on this machine: tells an edit by hand."""

    def __init__(self, root: Path) -> None:
        self.path = root / "_build" / "exported.json"
        try:
            self.digests = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self.digests = {}
        self.saved = dict(self.digests)

    def ours(self, module: Module, text: str) -> bool:
        return self.digests.get(module.name) == _digest(text)

    def put(self, module: Module) -> None:
        self.digests[module.name] = _digest(module.text)

    def save(self) -> None:
        if self.digests != self.saved:
            write_atomically(self.path, json.dumps(self.digests, indent=1))
