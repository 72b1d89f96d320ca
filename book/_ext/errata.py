"""`{errata} id`: what cheat sheets say, what is true, the cell that shows it.

    title: Softmax of the raw scores
    claim: ...
    truth: ...
    proof: attention-cat-repaired

`{errata-book}` collects all of them in the order of the book.
"""

from __future__ import annotations

from blocks import (
    Block,
    BlockDirective,
    add_node,
    collection,
    proof_link,
)
from blocks import setup as setup_blocks
from docutils import nodes
from sphinx.application import Sphinx

PARTS = {"claim": "The claim", "truth": "What is true"}


class errata(Block):
    """A claim and its correction."""


class Errata(BlockDirective):
    """One claim."""

    kind = "errata"
    required_arguments = 1

    def build(self) -> list[nodes.Node]:
        """A box with claim, truth and proof."""
        self.take_id(self.arguments[0])
        data = self.fields()
        data.only("title", "claim", "truth", "proof")
        data.need("title", "claim", "truth", "proof")
        proof = str(data.text("proof"))
        node = errata()
        self.place(node, f"errata-{self.block_id}", proof=proof)
        title = nodes.paragraph(classes=["admonition-title"])
        node += self.parse_line(data.text("title"), title)
        for name, words in PARTS.items():
            part = nodes.container(classes=[f"errata-{name}"])
            part += nodes.paragraph("", words, classes=["errata-label"])
            node += self.parse(data.text(name), part)
        link = proof_link("", nodes.Text("The cell that shows it"))
        link["target"] = proof
        node += nodes.paragraph("", "", link, classes=["bk-links"])
        return [node]


class ErrataBook(BlockDirective):
    """All claims, in the order of the book."""

    kind = "errata-book"
    has_content = False

    def build(self) -> list[nodes.Node]:
        """An empty collection, filled when everything has been read."""
        return [collection(kind="errata", none="No claim is corrected yet.")]


def visit_errata(self, node: errata) -> None:
    """The box."""
    self.body.append(self.starttag(node, "div", CLASS="admonition errata"))


def depart_errata(self, node: errata) -> None:
    """Close it."""
    self.body.append("</div>\n")


def setup(app: Sphinx) -> dict:
    """Register both directives."""
    meta = setup_blocks(app)
    app.add_directive("errata", Errata)
    app.add_directive("errata-book", ErrataBook)
    add_node(app, errata, visit_errata, depart_errata)
    return meta
