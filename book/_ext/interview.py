"""`{interview} question`: an interview question at the end of its chapter.

It unfolds to its answer and to a link to the cell that proves the answer.
`{interview-book}` collects all of them by level.
"""

from __future__ import annotations

from typing import ClassVar

from blocks import (
    Block,
    BlockDirective,
    BlockError,
    add_node,
    collection,
    element,
    proof_link,
)
from blocks import setup as setup_blocks
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx

LEVELS = ("basic", "intermediate", "advanced")


class interview(Block):
    """A question, its answer and its proof."""


class Interview(BlockDirective):
    """One question."""

    kind = "interview"
    required_arguments = 1
    final_argument_whitespace = True
    option_spec: ClassVar = {
        "id": directives.unchanged,
        "level": directives.unchanged,
        "proof": directives.unchanged,
    }

    def build(self) -> list[nodes.Node]:
        """A `<details>`: level and question, answer, proof."""
        self.take_id(self.options.get("id"), ":id:")
        level = self.options.get("level")
        if level not in LEVELS:
            raise BlockError(
                f":level: must be one of {', '.join(LEVELS)}, got "
                f"{level or 'nothing'}."
            )
        proof = self.options.get("proof")
        if not proof:
            raise BlockError(
                "no :proof:. Name the label of the cell that proves the answer."
            )
        if not self.content:
            raise BlockError("no answer.")
        node = interview()
        anchor = f"interview-{self.block_id}"
        self.place(node, anchor, level=level, proof=proof)
        question = element("span", classes=["interview-question"])
        node += element(
            "summary",
            element("span", level, classes=["bk-level", f"bk-level-{level}"]),
            self.parse_line(self.arguments[0], question),
        )
        body = element("div", classes=["bk-details-body"])
        node += self.parse_body(body)
        body += links(proof)
        return [node]


def links(proof: str) -> nodes.paragraph:
    """The line that leads to the proof; a collected copy adds its origin."""
    link = proof_link("", nodes.Text("The cell that proves it"), target=proof)
    return nodes.paragraph("", "", link, classes=["bk-links"])


class InterviewBook(BlockDirective):
    """All questions, one section per level.

    The sections are made while reading, so that the page's own table of
    contents lists them; they are filled when everything has been read.
    """

    kind = "interview-book"
    has_content = False

    def build(self) -> list[nodes.Node]:
        """A section with an empty collection for each level."""
        return [self.section(level) for level in LEVELS]

    def section(self, level: str) -> nodes.section:
        """The section of one level."""
        node = nodes.section(names=[level])
        node += nodes.title("", level.capitalize())
        node += collection(
            kind="interview",
            level=level,
            none="No question of this level yet.",
        )
        self.state.document.note_implicit_target(node, node)
        return node


def visit_interview(self, node: interview) -> None:
    """A closed `<details>`."""
    self.body.append(
        self.starttag(node, "details", CLASS="bk-details bk-interview")
    )


def depart_interview(self, node: interview) -> None:
    """Close it."""
    self.body.append("</details>\n")


def setup(app: Sphinx) -> dict:
    """Register both directives."""
    meta = setup_blocks(app)
    app.add_directive("interview", Interview)
    app.add_directive("interview-book", InterviewBook)
    add_node(app, interview, visit_interview, depart_interview)
    return meta
