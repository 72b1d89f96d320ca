"""`{quiz} id`: multiple choice from YAML.

    question: What does $q_i \\cdot k_j$ say?
    choices:
      - answer: How well key $j$ fits query $i$.
        correct: true
        why: The scores compare what is asked for with what is offered.
      - answer: How often token $j$ occurs.
        why: Nothing is counted here.

Without a script it is a list of answers, each with its explanation in a
`<details>`; `quiz.js` makes it a form. Every part is an ordinary node, so
that maths, references and citations inside are resolved like elsewhere.
"""

from __future__ import annotations

import hashlib

from blocks import (
    Block,
    BlockDirective,
    BlockError,
    Fields,
    element,
    inline,
)
from blocks import add_node as add_block_node
from blocks import setup as setup_blocks
from docutils import nodes
from sphinx.application import Sphinx


class quiz(Block):
    """A question and its choices."""


class Quiz(BlockDirective):
    """Reads the YAML and refuses a question that cannot be answered."""

    kind = "quiz"
    required_arguments = 1

    def build(self) -> list[nodes.Node]:
        """The question, then one row per choice."""
        self.take_id(self.arguments[0])
        data = self.fields()
        data.only("question", "choices", "multiple")
        data.need("question", "choices")
        many = data.flag("multiple")
        choices = self.choices(data, many)
        anchor = nodes.make_id(f"quiz-{self.block_id}")
        node = quiz(many=many, digest=digest(data))
        self.place(node, anchor)
        question = element("div", classes=["quiz-question"])
        question["ids"] = [f"{anchor}-question"]
        node += self.parse(data.text("question"), question)
        for i, choice in enumerate(sorted(choices, key=lot)):
            node += self.row(choice, f"{anchor}-{i}", anchor, many)
        return [node]

    def choices(self, data: Fields, many: bool) -> list[Fields]:
        """The choices, each with an answer and an explanation."""
        choices = data["choices"]
        if not isinstance(choices, list) or len(choices) < 2:
            raise BlockError("'choices' must list at least two.", data.line)
        for choice in choices:
            if not isinstance(choice, Fields):
                raise BlockError(
                    "each choice needs 'answer:' and 'why:'.",
                    getattr(choice, "line", data.line),
                )
            choice.only("answer", "correct", "why")
            choice.need("answer", "why")
        answers = [choice.text("answer") for choice in choices]
        for i, answer in enumerate(answers):
            if answer in answers[:i]:
                raise BlockError(
                    f"the answer {str(answer)!r} stands there twice.",
                    answer.line,
                )
        right = sum(choice.flag("correct") for choice in choices)
        if right == 0:
            raise BlockError("no choice is `correct: true`.", data.line)
        if right > 1 and not many:
            raise BlockError(
                f"{right} choices are correct. Leave one, or say "
                "`multiple: true`.",
                data.line,
            )
        if right == len(choices):
            raise BlockError("every choice is correct.", data.line)
        return choices

    def row(self, choice: Fields, anchor: str, group: str, many: bool):
        """A choice: its control and label, then its explanation."""
        right = choice.flag("correct")
        answer = element("span", classes=["quiz-answer"])
        inline(self.parse(choice.text("answer"), answer))
        why = element("div", classes=["quiz-why"])
        self.parse(choice.text("why"), why)
        control = element(
            "input",
            type="checkbox" if many else "radio",
            name=group,
            value=anchor.rsplit("-", 1)[1],
            data_correct=str(int(right)),
        )
        control["ids"] = [anchor]
        return element(
            "div",
            control,
            element("label", answer, for_=anchor),
            element(
                "details",
                element("summary", "Right: why?" if right else "Wrong: why?"),
                why,
                classes=["quiz-reason"],
            ),
            classes=["quiz-row"],
        )


def lot(choice: Fields) -> bytes:
    """Deals the choices in an order that is always the same and tells nothing.

    Who writes a question tends to write its answer first.
    """
    return hashlib.sha256(choice["answer"].encode()).digest()


def digest(data: Fields) -> str:
    """Changes with the question: a stored answer is then forgotten."""
    return hashlib.sha256(repr(data).encode()).hexdigest()[:12]


def number(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Say "question 2 of 5" in the page itself, for readers of any kind."""
    found = list(doctree.findall(quiz))
    for i, node in enumerate(found, 1):
        node["place"] = f"Question {i} of {len(found)}"


def visit_quiz(self, node: quiz) -> None:
    """The form and its group, named by the question."""
    anchor = node["ids"][0]
    role = "group" if node["many"] else "radiogroup"
    several = (
        '<span class="quiz-many">several answers are right</span>'
        if node["many"]
        else ""
    )
    self.body.append(
        f'<form class="bk-quiz" id="{anchor}" data-quiz="{node["block"]}" '
        f'data-digest="{node["digest"]}">'
        f'<p class="quiz-head"><span>{node.get("place", "Question")}</span>'
        f'{several}</p><div role="{role}" '
        f'aria-labelledby="{anchor}-question">\n'
    )


def depart_quiz(self, node: quiz) -> None:
    """The button, the verdict and the count of right answers."""
    self.body.append(
        '</div><div class="quiz-foot">'
        '<button type="submit" class="quiz-check" hidden>Check answer</button>'
        '<button type="reset" class="quiz-again" hidden>Try again</button>'
        '<p class="quiz-verdict" role="status" aria-live="polite"></p>'
        '<p class="quiz-progress" hidden></p></div></form>\n'
    )


def load_script(app, pagename, templatename, context, doctree) -> None:
    """The script, on the pages that hold a quiz."""
    if doctree and next(doctree.findall(quiz), None):
        app.add_js_file("quiz.js", loading_method="defer")


def setup(app: Sphinx) -> dict:
    """Register the directive and its script."""
    meta = setup_blocks(app)
    app.add_directive("quiz", Quiz)
    add_block_node(app, quiz, visit_quiz, depart_quiz)
    app.connect("doctree-resolved", number)
    app.connect("html-page-context", load_script)
    return meta
