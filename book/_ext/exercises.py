"""`{exercise}`, and its solution from `{solution-start}` to `{solution-end}`.

    {exercise} Repair the cat       a box with number, difficulty and time
    code cell tagged `starter`
    hints, in any form
    {solution-start} attention.repair-the-cat ... {solution-end}
    code cell tagged `check`

Code cells cannot stand inside a directive, so the solution is what stands
between two marks; a transform rolls it into a `<details>`, and the whole
exercise, from statement to check, into one group.
"""

from __future__ import annotations

import html
from typing import ClassVar

from blocks import (
    Block,
    BlockDirective,
    BlockError,
    add_node,
    is_cell,
    warn,
)
from blocks import setup as setup_blocks
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.transforms import SphinxTransform
from sphinx.util.nodes import clean_astext

LEVELS = 5


class exercise(Block):
    """The statement of an exercise."""


class solution(nodes.General, nodes.Element):
    """What stands between solution-start and solution-end."""


class exercise_group(nodes.General, nodes.Element):
    """An exercise from its statement to its check."""


class mark(nodes.Invisible, nodes.Element):
    """The place of a solution-start or a solution-end."""


class refused(nodes.Invisible, nodes.Element):
    """The place of an exercise that had a mistake: one warning is enough."""


class Exercise(BlockDirective):
    """The statement, with its number, difficulty and time."""

    kind = "exercise"
    required_arguments = 1
    final_argument_whitespace = True
    option_spec: ClassVar = {
        "label": directives.unchanged,
        "difficulty": directives.unchanged,
        "minutes": directives.unchanged,
    }

    def run(self) -> list[nodes.Node]:
        """The box, or a mark that here was to be one."""
        return super().run() or [refused()]

    def build(self) -> list[nodes.Node]:
        """Check the options and parse the statement."""
        label = self.take_id(self.options.get("label"), ":label:")
        node = exercise(
            names=[nodes.fully_normalize_name(label)],
            difficulty=self.number("difficulty", LEVELS),
            minutes=self.number("minutes", 600),
        )
        self.place(node, label)
        self.state.document.note_explicit_target(node, node)
        head = nodes.inline(classes=["exercise-title"])
        node += self.parse_line(self.arguments[0], head)
        node["title"] = clean_astext(head)
        if not self.content:
            raise BlockError("no statement.")
        self.parse_body(node)
        return [node]

    def number(self, name: str, most: int) -> int:
        """An option that must be a whole number from 1 to `most`."""
        value = self.options.get(name) or ""
        if not (value.isdecimal() and 1 <= int(value) <= most):
            raise BlockError(
                f":{name}: must be a whole number from 1 to {most}, got "
                f"{value or 'nothing'}."
            )
        return int(value)


class SolutionMark(BlockDirective):
    """Either end of a solution; the transform below does the work."""

    option_spec: ClassVar = {"class": directives.class_option}
    optional_arguments = 1

    def build(self) -> list[nodes.Node]:
        """A mark with the id of the exercise."""
        self.kind = self.name
        node = mark(end=self.name == "solution-end")
        if not node["end"]:
            node["of"] = self.take_id("".join(self.arguments), "exercise")
        self.set_source_info(node)
        return [node]


class RollUp(SphinxTransform):
    """Roll up solutions, then exercises; complain of what is missing."""

    default_priority = 250  # before targets and references are looked at

    def apply(self, **kwargs) -> None:
        """First the solutions, since an exercise holds its own."""
        while (node := next(self.document.findall(mark), None)) is not None:
            self.solution(node)
        for node in list(self.document.findall(exercise)):
            self.group(node)
        for node in list(self.document.findall(refused)):
            node.parent.remove(node)

    def warn(self, node: nodes.Element, name: str, message: str) -> None:
        """A warning at the line of a node."""
        warn(self.env.docname, node.line, "exercise", name, message)

    def solution(self, start: mark) -> None:
        """Everything up to the matching end goes into a `solution`."""
        parent = start.parent
        at = parent.index(start)
        if start["end"]:
            self.warn(start, "", "solution-end without a solution-start.")
            parent.remove(start)
            return
        name, inside = start["of"], []
        for node in parent[at + 1 :]:
            if isinstance(node, exercise) or (
                isinstance(node, mark) and not node["end"]
            ):
                break
            inside.append(node)
            if isinstance(node, mark):
                break
        if not inside or not isinstance(inside[-1], mark):
            self.warn(
                start, name,
                "the solution has no solution-end before the next exercise "
                "or heading.",
            )  # fmt: skip
            parent.remove(start)
            return
        before = [n for n in parent[:at] if isinstance(n, exercise | refused)]
        if not before or before[-1].get("block", name) != name:
            self.warn(
                start, name,
                "the solution does not follow its exercise. Put it between "
                "the exercise's starter and check cells.",
            )  # fmt: skip
        node = solution(of=name, of_id=nodes.make_id(name))
        node.line = start.line
        for child in inside:
            parent.remove(child)
        node += inside[:-1]
        parent.replace(start, node)

    def group(self, head: exercise) -> None:
        """The exercise's cells, in order, and one node around them all."""
        parent = head.parent
        at = parent.index(head)
        wanted, end = ["starter", "check"], at
        solved = False
        for i, node in enumerate(parent[at + 1 :], at + 1):
            if isinstance(node, exercise | refused) or not wanted:
                break
            solved |= isinstance(node, solution)
            if is_cell(node) and f"tag_{wanted[0]}" in node["classes"]:
                if wanted.pop(0) == "check":
                    end = i
                    self.same_id(head, node)
        if wanted:
            after = {
                "starter": "after the statement",
                "check": "after the solution",
            }
            self.warn(
                head, head["block"],
                f"no cell tagged {wanted[0]!r} {after[wanted[0]]}.",
            )  # fmt: skip
            return
        if not solved:
            self.warn(
                head, head["block"],
                "no solution between its starter and its check.",
            )  # fmt: skip
        node = exercise_group()
        node.line = head.line
        members = parent[at : end + 1]
        for child in members:
            parent.remove(child)
        node += members
        parent.insert(at, node)

    def same_id(self, head: exercise, cell: nodes.container) -> None:
        """A check cell pasted from another exercise checks the wrong one."""
        code = "".join(n.astext() for n in cell.findall(nodes.literal_block))
        if code and f'"{head["block"]}"' not in code.replace("'", '"'):
            self.warn(
                head, head["block"],
                f'its check cell does not call check("{head["block"]}").',
            )  # fmt: skip


def number_of(self, anchor: str) -> str:
    """`2.3`, or nothing on a page that the book does not number."""
    found = self.builder.fignumbers
    if self.builder.name == "singlehtml":
        found = found.get(f"{self.docnames[-1]}/exercise", {})
    else:
        found = found.get("exercise", {})
    return ".".join(map(str, found.get(anchor, ())))


def visit_exercise(self, node: exercise) -> None:
    """The box, its title and its facts."""
    number = number_of(self, node["ids"][0])
    self.body.append(
        self.starttag(node, "div", CLASS="admonition exercise")
        + '<p class="admonition-title"><span class="caption-number">'
        + f"Exercise {number}".strip()
        + " </span>"
    )
    node[0].walkabout(self)
    self.add_permalink_ref(node, "Link to this exercise")
    hard, minutes = node["difficulty"], node["minutes"]
    dots = "".join(
        f'<i class="{"on" if i < hard else "off"}"></i>' for i in range(LEVELS)
    )
    plural = "s" if minutes > 1 else ""
    self.body.append(
        '</p><p class="exercise-facts">'
        f'<span class="dots" role="img" aria-label="difficulty {hard} of '
        f'{LEVELS}">{dots}</span>'
        f'<span class="minutes">about {minutes} minute{plural}</span>'
        f'<code class="exercise-id">{html.escape(node["block"])}</code></p>'
    )
    for child in node.children[1:]:
        child.walkabout(self)
    self.body.append("</div>\n")
    raise nodes.SkipNode


def visit_solution(self, node: solution) -> None:
    """A closed `<details>`, which needs no script."""
    name = f"Exercise {number_of(self, node['of_id'])}".strip()
    self.body.append(
        self.starttag(node, "details", CLASS="bk-details bk-solution")
        + f"<summary>Solution to {name}</summary>"
        '<div class="bk-details-body">\n'
    )


def depart_solution(self, node: solution) -> None:
    """Close it."""
    self.body.append("</div></details>\n")


def visit_group(self, node: exercise_group) -> None:
    """One box from statement to check."""
    self.body.append(self.starttag(node, "div", CLASS="exercise-group"))


def depart_group(self, node: exercise_group) -> None:
    """Close it."""
    self.body.append("</div>\n")


def add_format(app: Sphinx, config: Config) -> None:
    """What {numref} writes for an exercise."""
    config.numfig_format.setdefault("exercise", "Exercise %s")


def setup(app: Sphinx) -> dict:
    """Register the directives, nodes and the transform."""
    meta = setup_blocks(app)
    app.add_directive("exercise", Exercise)
    app.add_directive("solution-start", SolutionMark)
    app.add_directive("solution-end", SolutionMark)
    app.add_enumerable_node(
        exercise,
        "exercise",
        lambda node: node["title"],
        html=(visit_exercise, None),
        latex=(_pass, _pass),
        text=(_pass, _pass),
    )
    add_node(app, solution, visit_solution, depart_solution)
    add_node(app, exercise_group, visit_group, depart_group)
    add_node(app, mark)
    add_node(app, refused)
    app.add_transform(RollUp)
    app.connect("config-inited", add_format)
    return meta


def _pass(self, node: nodes.Node) -> None:
    """Nothing around the children."""
