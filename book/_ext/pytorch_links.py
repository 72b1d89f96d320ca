"""Names in code cells become links, to our API page and to PyTorch's.

PyTorch's inventory cannot be fetched during a build, and a committed copy
would be four hundred kilobytes that go stale. But the names of PyTorch that
this book uses stand in its cells: each is looked up in the installed torch and
filed under the page where PyTorch's documentation keeps its kind.
"""

import ast
import inspect
import re
import zlib
from pathlib import Path

import torch
from docutils import nodes
from sphinx.ext.intersphinx import resolve_reference_detect_inventory
from sphinx_codeautolink.extension.block import CodeBlockAnalyser

from bookkit.book import Book

# modules whose names are documented on one common page, not one page each
COMMON = {
    "torch.distributed": "distributed.html",
    "torch.distributions": "distributions.html",
    "torch.profiler": "profiler.html",
    "torch.testing": "testing.html",
    "torch.utils.benchmark": "benchmark_utils.html",
    "torch.utils.checkpoint": "checkpoint.html",
    "torch.utils.data": "data.html",
}
# pages that do not follow any rule
ODD = {
    "torch.Tensor": "tensors.html#torch.Tensor",
    "torch.autograd.gradcheck": (
        "generated/torch.autograd.gradcheck.gradcheck.html"
        "#torch.autograd.gradcheck.gradcheck"
    ),
    "torch.dtype": "tensor_attributes.html#torch.dtype",
    "torch.device": "tensor_attributes.html#torch.device",
    "torch.nn.attention.SDPBackend": (
        "generated/torch.nn.attention.SDPBackend.html"
        "#torch.nn.attention.SDPBackend"
    ),
}
DOTTED = re.compile(r"\{py:\w+\}`~?(torch[\w.]+)`")


class Names(ast.NodeVisitor):
    """Collects the dotted names of torch that a piece of code mentions."""

    def __init__(self) -> None:
        self.alias: dict[str, str] = {}
        self.found: set[str] = set()

    def visit_Import(self, node: ast.Import) -> None:
        for item in node.names:
            if item.name.split(".")[0] == "torch":
                bound = item.asname or "torch"
                self.alias[bound] = item.name if item.asname else "torch"
                self.found.add(item.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if (node.module or "").split(".")[0] == "torch":
            for item in node.names:
                full = f"{node.module}.{item.name}"
                self.alias[item.asname or item.name] = full
                self.found.add(full)

    def visit_Name(self, node: ast.Name) -> None:
        if node.id in self.alias:
            self.found.add(self.alias[node.id])

    def visit_Attribute(self, node: ast.Attribute) -> None:
        parts = []
        inner = node
        while isinstance(inner, ast.Attribute):
            parts.append(inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name) and inner.id in self.alias:
            name = self.alias[inner.id]
            self.found.add(name)
            for part in reversed(parts):
                name += f".{part}"
                self.found.add(name)
        self.generic_visit(node)


def names_in(sources: list[str]) -> set[str]:
    """The dotted torch names in pieces of code that share a namespace."""
    visitor = Names()
    for source in sources:
        try:
            visitor.visit(ast.parse(source))
        except SyntaxError:  # a magic, or an error on purpose
            continue
    return visitor.found


def lookup(name: str) -> object | None:
    """The object behind a dotted name, or None."""
    thing: object = torch
    for part in name.split(".")[1:]:
        try:
            thing = getattr(thing, part)
        except AttributeError:
            return None
    return thing


def entry(name: str) -> tuple[str, str] | None:
    """`(role, address below the documentation's root)` of a torch name."""
    thing = lookup(name)
    if thing is None:
        return None
    if name in ODD:
        role = "py:class" if inspect.isclass(thing) else "py:function"
        return role, ODD[name]
    if inspect.ismodule(thing):
        page = name.removeprefix("torch.") if name != "torch" else name
        return "py:module", f"{page}.html#module-{name}"
    if isinstance(thing, torch.dtype):
        return "py:attribute", "tensor_attributes.html#torch.dtype"
    if not callable(thing):
        return None
    parent, leaf = name.rsplit(".", 1)
    if leaf.startswith("_"):
        return None
    role = "py:class" if inspect.isclass(thing) else "py:function"
    owner = lookup(parent)
    if inspect.isclass(owner):
        role = "py:method"
        if parent != "torch.Tensor":  # a method stands on its class's page
            return role, f"generated/{parent}.html#{name}"
    for module, page in COMMON.items():
        if parent == module or parent.startswith(f"{module}."):
            return role, f"{page}#{name}"
    return role, f"generated/{name}.html#{name}"


def inventory(names: set[str]) -> bytes:
    """A Sphinx inventory (version 2) of these names."""
    head = (
        "# Sphinx inventory version 2\n# Project: PyTorch\n"
        f"# Version: {torch.__version__.split('+')[0]}\n"
        "# The remainder of this file is compressed using zlib.\n"
    )
    lines = []
    for name in sorted(names):
        found = entry(name)
        if found:
            role, address = found
            lines.append(f"{name} {role} 1 {address} -\n")
    return head.encode() + zlib.compress("".join(lines).encode(), 9)


def write_inventory(app, config) -> None:
    """Before intersphinx reads it: every torch name of book and package."""
    root = Path(app.srcdir)
    names = {"torch", "torch.Tensor", "torch.dtype", "torch.device"}
    for chapter in Book(root).chapters:
        names |= names_in([c.source for c in chapter.cells if c.is_code])
        names |= set(DOTTED.findall(chapter.text))
    for page in (root / "book").glob("*.md"):
        names |= set(DOTTED.findall(page.read_text(encoding="utf-8")))
    for module in (root / "src" / "litformer").rglob("*.py"):
        names |= names_in([module.read_text(encoding="utf-8")])
    path = root / "_build" / "torch.inv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(inventory(names))


def resolve_annotation(app, env, node, contnode):
    """Make sense of `Float[Tensor, "B H T Dh"]` in a signature.

    `Tensor` is torch's; the axis letters are words, not a class.
    """
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py":
        return None
    if target.startswith(("'", '"')):
        return contnode
    if target == "Tensor":
        node["reftarget"] = "torch.Tensor"
        return resolve_reference_detect_inventory(env, node, contnode)
    return None


# --- sphinx-codeautolink, made to fit this book ------------------------------

parse_source = CodeBlockAnalyser.parse_source


def visit_section(self, node) -> None:
    """An exercise makes a section without a title, which 0.19 cannot take."""
    if node["ids"]:
        self.current_refid = node["ids"][0]
    if not (node.children and isinstance(node[0], nodes.title)):
        self.title_stack.append(
            self.title_stack[-1] if self.title_stack else ""
        )


def parse_cell(self, node, language) -> None:
    """Link what is named, not what is computed; know exported definitions.

    A variable is not a link to the function that made it. And later cells see
    an exported definition as an import of it, so that its uses link to the
    API page, though the chapter itself defines the name.
    """
    if "language" not in node:  # not code: MyST keeps front matter like this
        return
    before = len(self.source_transforms)
    parse_source(self, node, language)
    for transform in self.source_transforms[before:]:
        transform.names = [
            name
            for name in transform.names
            if name.code_str.split(".")[-1] == name.import_components[-1]
        ]
    cell = node.parent.parent if node.parent else None
    module = (
        cell.get("exported_to") if isinstance(cell, nodes.Element) else None
    )
    if module and self.concat_sources:
        try:
            tree = ast.parse(node.astext())
        except SyntaxError:
            return
        defined = [
            item.name
            for item in tree.body
            if isinstance(item, ast.FunctionDef | ast.ClassDef)
        ]
        if defined:
            line = f"from {module} import {', '.join(defined)}"
            self.concat_sources.append(line)


def setup(app):
    """Write the inventory early, and patch the analyser."""
    CodeBlockAnalyser.visit_section = visit_section
    CodeBlockAnalyser.parse_source = parse_cell
    app.connect("config-inited", write_inventory, priority=100)
    app.connect("missing-reference", resolve_annotation, priority=300)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
