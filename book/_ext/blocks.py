"""What the directives of the book share.

YAML inside a directive with the line of every value, nested MyST, one form of
warning, `<details>` that need no script, and the `book` domain: which blocks
stand on which page, which labels stand on a code cell, and whether every
proof that a block names exists.
"""

from __future__ import annotations

import re
from typing import ClassVar, NamedTuple

import yaml
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.domains import Domain
from sphinx.environment import BuildEnvironment
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import docname_join, logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

log = logging.getLogger(__name__)
ID = re.compile(r"[a-z][a-z0-9_]*\.[a-z0-9]+(-[a-z0-9]+)*")


# --- YAML with line numbers --------------------------------------------------
class BlockError(Exception):
    """A mistake in a directive, with the line of the file where it stands."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


class Text(str):
    """A scalar of a YAML body, and the line where its text begins."""

    line: int

    def __new__(cls, value: str, line: int) -> Text:
        self = super().__new__(cls, value)
        self.line = line
        return self


class Fields(dict):
    """A mapping of a YAML body, and the line where it begins."""

    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line

    def need(self, *names: str) -> None:
        """Refuse a missing or empty field."""
        for name in names:
            if not self.get(name):
                raise BlockError(f"{name!r} is missing or empty.", self.line)

    def only(self, *names: str) -> None:
        """Refuse a field that nobody reads: it is a slip of the pen."""
        for name in self:
            if name not in names:
                raise BlockError(
                    f"unknown field {str(name)!r}. There are: "
                    f"{', '.join(names)}.",
                    name.line,
                )

    def text(self, name: str) -> Text | None:
        """The field as text; None where it is not given."""
        value = self.get(name)
        if value is not None and not isinstance(value, Text):
            line = getattr(value, "line", self.line)
            raise BlockError(f"{name!r} must be a text.", line)
        return value

    def flag(self, name: str) -> bool:
        """The field as true or false; False where it is not given."""
        value = self.text(name)
        if value not in (None, "true", "false"):
            raise BlockError(
                f"{name!r} must be true or false, got {str(value)!r}.",
                value.line,
            )
        return value == "true"


def read_yaml(text: str, line: int) -> Fields:
    """The mapping in `text`, whose first line is line `line` of its file.

    Every scalar stays a string: `answer: 1e-9` and `answer: yes` are prose.
    """
    try:
        root = yaml.compose(text, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise BlockError(
            f"not valid YAML: {error.problem or error.context}. A text with "
            "': ', ' #' or a leading `, {, [, *, & or % needs quotes or '|'.",
            line + (mark.line if mark else 0),
        ) from None
    except yaml.YAMLError as error:  # a character that YAML does not allow
        raise BlockError(f"not valid YAML: {error}", line) from None
    if not isinstance(root, yaml.MappingNode):
        raise BlockError("expected YAML fields, `name: value`.", line)
    return _value(root, line)


def _value(node: yaml.Node, first: int) -> Fields | Text | list:
    line = first + node.start_mark.line
    if isinstance(node, yaml.ScalarNode):
        # a block scalar's text begins on the line after its "|"
        return Text(node.value.strip(), line + (node.style in ("|", ">")))
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, first) for item in node.value]
    fields = Fields(line)
    for key, value in node.value:
        name = Text(str(key.value), first + key.start_mark.line)
        if name in fields:
            raise BlockError(f"{str(name)!r} is given twice.", name.line)
        fields[name] = _value(value, first)
    return fields


# --- directives --------------------------------------------------------------
class BlockDirective(SphinxDirective):
    """A directive that names its block and its line in every complaint."""

    kind = ""
    has_content = True

    def run(self) -> list[nodes.Node]:
        """The nodes of `build`, or a warning and nothing."""
        self.block_id = ""
        try:
            return self.build()
        except BlockError as error:
            self.warn(str(error), error.line)
            return []

    def build(self) -> list[nodes.Node]:
        """The nodes of this directive."""
        raise NotImplementedError

    def warn(self, message: str, line: int | None = None) -> None:
        """One warning in the form `file:line: kind id: what is wrong`."""
        warn(
            self.env.docname, line or self.lineno, self.kind, self.block_id,
            message,
        )  # fmt: skip

    def take_id(self, value: str | None, option: str = "") -> str:
        """Check an id, `<chapter>.<slug>`, and remember it for messages."""
        if not value:
            raise BlockError(
                f"no {option or 'id'}. Give it one, like "
                f"{self.chapter}.a-short-name."
            )
        self.block_id = value
        if not ID.fullmatch(value) or value.split(".")[0] != self.chapter:
            raise BlockError(
                f"the id must be the chapter's name, a dot and a slug of "
                f"a-z, 0-9 and -, like {self.chapter}.a-short-name."
            )
        return value

    @property
    def chapter(self) -> str:
        """The name of this page's file, which begins every id on it."""
        return self.env.docname.rsplit("/", 1)[-1]

    @property
    def body_line(self) -> int:
        """The line of the file where the body begins."""
        return self.lineno + self.content_offset + 1

    def fields(self) -> Fields:
        """The body, read as YAML."""
        return read_yaml("\n".join(self.content), self.body_line)

    def parse(self, text: Text, into: nodes.Element) -> nodes.Element:
        """Parse MyST blocks into a node and return it."""
        source = StringList(
            text.splitlines(), self.env.doc2path(self.env.docname)
        )
        self.state.nested_parse(source, text.line - self.lineno - 1, into)
        return into

    def parse_body(self, into: nodes.Element) -> nodes.Element:
        """Parse the whole body into a node and return it."""
        self.state.nested_parse(self.content, self.content_offset, into)
        return into

    def parse_line(self, text: str, into: nodes.Element) -> nodes.Element:
        """Parse inline MyST, like a title, into a node and return it."""
        children, messages = self.state.inline_text(text, self.lineno)
        into += [*children, *messages]
        return into

    def place(self, node: Block, anchor: str, **attributes) -> Block:
        """Give a block its identity, its anchor and its line."""
        node["block"], node["kind"] = self.block_id, self.kind
        node.update_basic_atts({"ids": [nodes.make_id(anchor)]})
        for name, value in attributes.items():
            node[name] = value
        self.set_source_info(node)
        return node


def warn(docname: str, line: int, kind: str, name: str, message: str) -> None:
    """One warning of a block, with file and line."""
    log.warning(
        "%s: %s", f"{kind} {name}".strip(), message,
        location=(docname, line), type="book", subtype=kind,
    )  # fmt: skip


def inline(node: nodes.Element) -> None:
    """Take a single paragraph out of its wrapping: what is left is phrasing."""
    if len(node) == 1 and isinstance(node[0], nodes.paragraph):
        node[:] = node[0].children


# --- nodes -------------------------------------------------------------------
class Block(nodes.General, nodes.Element):
    """A block with an id; the domain knows where it stands."""


class box(nodes.General, nodes.Element):
    """Any HTML element: `tag`, `attributes`, and what classes and ids say."""


class proof_link(nodes.General, nodes.Element):
    """A link to the cell with the label `target`, resolved at the end."""


class collection(nodes.General, nodes.Element):
    """The place where all blocks of one kind (and level) are collected."""


def element(tag: str, *children: nodes.Node, classes=(), **attributes) -> box:
    """A `box`; an attribute's trailing underscore is dropped (`for_`)."""
    node = box(tag=tag, classes=list(classes))
    node["attributes"] = {
        name.rstrip("_").replace("_", "-"): value
        for name, value in attributes.items()
    }
    node += [
        nodes.Text(child) if isinstance(child, str) else child
        for child in children
    ]
    return node


def visit_box(self, node: box) -> None:
    """Open the element."""
    self.body.append(self.starttag(node, node["tag"], "", **node["attributes"]))


def depart_box(self, node: box) -> None:
    """Close the element, if it is of a kind that has an end."""
    if node["tag"] != "input":
        self.body.append(f"</{node['tag']}>")


def add_node(app: Sphinx, node: type, visit=None, depart=None) -> None:
    """Register a node: its HTML, and plain passage in every other format."""
    passing = (_pass, _pass)
    html = (visit or _pass, depart or _pass)
    app.add_node(
        node, html=html, latex=passing, text=passing, man=passing,
        texinfo=passing,
    )  # fmt: skip


def _pass(self, node: nodes.Node) -> None:
    """Nothing around the children."""


# --- the domain --------------------------------------------------------------
class Entry(NamedTuple):
    """A block on a page."""

    kind: str
    name: str
    line: int
    anchor: str
    proof: str  # a label, "" if the block needs none
    level: str


class BookDomain(Domain):
    """Where the blocks and the labelled cells stand, page by page.

    Keyed by page, so that an incremental build forgets exactly what a changed
    page held, and a parallel one merges by page.
    """

    name = "book"
    label = "Book"
    data_version = 1
    initial_data: ClassVar = {"blocks": {}, "cells": {}, "collections": {}}

    def clear_doc(self, docname: str) -> None:
        """Forget a page."""
        for part in ("blocks", "cells", "collections"):
            self.data[part].pop(docname, None)

    def merge_domaindata(self, docnames: list[str], otherdata: dict) -> None:
        """Take over the pages that another process read."""
        for part in ("blocks", "cells", "collections"):
            for docname in docnames:
                if docname in otherdata[part]:
                    self.data[part][docname] = otherdata[part][docname]

    def process_doc(
        self, env: BuildEnvironment, docname: str, document: nodes.document
    ) -> None:
        """Note what a page holds."""
        self.data["blocks"][docname] = [
            Entry(
                node["kind"], node["block"], node.line, node["ids"][0],
                node.get("proof", ""), node.get("level", ""),
            )
            for node in document.findall(Block)
            if "block" in node
        ]  # fmt: skip
        self.data["cells"][docname] = {
            name
            for cell in document.findall(is_cell)
            for part in cell.findall(nodes.Element)
            for name in part["ids"]
        }
        if any(document.findall(collection)):
            self.data["collections"][docname] = True

    def blocks(self, kind: str) -> list[tuple[str, Entry]]:
        """(page, block) of one kind, in the order of the book."""
        return [
            (docname, entry)
            for docname in reading_order(self.env)
            for entry in self.data["blocks"].get(docname, ())
            if entry.kind == kind
        ]

    def cell(self, label: str) -> tuple[str, str] | None:
        """(page, anchor) of the code cell with a label, if it is one."""
        std = self.env.get_domain("std")
        docname, anchor = std.anonlabels.get(label, ("", ""))
        known = anchor in self.data["cells"].get(docname, ())
        return (docname, anchor) if known else None

    def resolve_any_xref(
        self, env, fromdocname, builder, target, node, contnode
    ) -> list:
        """Nothing: labels are in the standard domain, not in this one."""
        return []

    def check_consistency(self) -> None:
        """Warn of an id given twice and of a proof that is not a cell."""
        seen: dict[tuple[str, str], str] = {}
        for docname, entries in sorted(self.data["blocks"].items()):
            for entry in entries:
                where = f"{self.env.doc2path(docname, False)}:{entry.line}"
                other = seen.setdefault((entry.kind, entry.name), where)
                # a widget may be shown on several pages
                if other is not where and entry.kind != "widget":
                    warn(
                        docname, entry.line, entry.kind, entry.name,
                        f"the id is taken by {other}. Choose another.",
                    )  # fmt: skip
                if entry.proof and self.cell(entry.proof) is None:
                    warn(
                        docname, entry.line, entry.kind, entry.name,
                        f"no code cell is labelled {entry.proof!r}. Put "
                        f"({entry.proof})= on the line before the fence of "
                        "the cell that proves it.",
                    )  # fmt: skip


def is_cell(node: nodes.Node) -> bool:
    """True for a code cell of a notebook."""
    return isinstance(node, nodes.container) and (
        node.get("nb_element") == "cell_code"
    )


def reading_order(env: BuildEnvironment) -> list[str]:
    """Every page, in the order of the table of contents; the rest after."""
    order: dict[str, None] = {}

    def follow(docname: str) -> None:
        if docname not in order:
            order[docname] = None
            for child in env.toctree_includes.get(docname, ()):
                follow(child)

    follow(env.config.root_doc)
    return [*order, *sorted(env.found_docs - order.keys())]


# --- links to cells, and collected blocks ------------------------------------
class ResolveProofs(SphinxPostTransform):
    """Point every `proof_link` at its cell."""

    default_priority = 9

    def run(self, **kwargs) -> None:
        """Replace the placeholders; the domain has warned of bad ones."""
        domain = self.env.get_domain("book")
        for node in list(self.document.findall(proof_link)):
            found = domain.cell(node["target"])
            new = nodes.inline("", "", *node.children)
            if found:
                new = make_refnode(
                    self.app.builder, self.env.docname, *found,
                    node.children, None,
                )  # fmt: skip
            new["classes"].append("bk-proof")
            node.replace_self(new)


class Collect(SphinxPostTransform):
    """Fill every `collection` with copies of the blocks of its kind.

    It runs before references are resolved, so that the links in a copy are
    made for the page that shows it.
    """

    default_priority = 5

    def run(self, **kwargs) -> None:
        """Replace each placeholder."""
        for place in list(self.document.findall(collection)):
            level = place.get("level")
            found = [
                copied
                for docname, entry in self.env.get_domain("book").blocks(
                    place["kind"]
                )
                if level in (None, entry.level)
                for copied in self.copies(docname, entry)
            ]
            none = nodes.paragraph("", place["none"], classes=["bk-none"])
            place.replace_self(found or [none])

    def copies(self, docname: str, entry: Entry) -> list[nodes.Node]:
        """The block, made fit for this page, with a link to where it was."""
        for node in self.env.get_doctree(docname).findall(Block):
            if node.get("block") == entry.name and node["kind"] == entry.kind:
                break
        else:
            return []
        copy = node.deepcopy()
        title = self.env.titles[docname].deepcopy()
        back = make_refnode(
            self.app.builder, self.env.docname, docname, entry.anchor,
            title.children, None,
        )  # fmt: skip
        back["classes"].append("bk-back")
        for slot in list(copy.findall(lambda n: "bk-links" in _classes(n))):
            origin = nodes.inline("", "", nodes.Text("From "), back)
            slot.insert(0, [origin, nodes.Text(" ")])
        self.move(copy, docname)
        copy["ids"] = [entry.anchor]
        return [copy]

    def move(self, copy: nodes.Element, docname: str) -> None:
        """Make ids, links and equation numbers right on another page."""
        builder, here = self.app.builder, self.env.docname
        for node in copy.findall(nodes.Element):
            if not isinstance(node, Block):
                node["ids"], node["names"] = [], []
            if isinstance(node, nodes.math_block):
                node["number"] = node["label"] = None
            if "refid" in node and isinstance(node, nodes.reference):
                uri = builder.get_relative_uri(here, docname)
                node["refuri"] = f"{uri}#{node['refid']}"
                del node["refid"]
            if "reftarget" in node:
                if node.get("reftype") == "doc":
                    target = docname_join(docname, node["reftarget"])
                    node["reftarget"] = f"/{target}"
                node["refdoc"] = here


def _classes(node: nodes.Node) -> list[str]:
    return node["classes"] if isinstance(node, nodes.Element) else []


class AnchorCells(SphinxTransform):
    """Let `(label)=` before a code cell point at the cell itself.

    docutils moves a target to the next node; a comment or a removed cell
    between the two would leave it on the wrong one, so it is done here, and
    only where the next node is the cell.
    """

    default_priority = 255  # just before docutils' PropagateTargets

    def apply(self, **kwargs) -> None:
        """Move the ids of each target that stands before a cell."""
        for target in list(self.document.findall(nodes.target)):
            cell = target.next_node(descend=False, siblings=True)
            if cell is None or not is_cell(cell) or not target["ids"]:
                continue
            for part in ("ids", "names"):
                cell[part].extend(target[part])
            for name in target["ids"]:
                self.document.ids[name] = cell
            target.parent.remove(target)


def collected_pages(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Write a page that collects blocks again whenever any page changed."""
    return list(env.get_domain("book").data["collections"])


def setup(app: Sphinx) -> dict:
    """Register what the directives need; safe to call more than once."""
    if "book" not in app.registry.domains:
        app.add_domain(BookDomain)
        add_node(app, box, visit_box, depart_box)
        add_node(app, proof_link)
        add_node(app, collection)
        app.add_transform(AnchorCells)
        app.add_post_transform(Collect)
        app.add_post_transform(ResolveProofs)
        app.connect("env-updated", collected_pages)
        app.add_css_file("blocks.css")
        app.add_js_file("blocks.js", loading_method="defer")
    return {
        "version": "1",
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
