"""`{mermaid}`: a diagram as two committed SVG files, light and dark.

`python -m bookkit diagrams` draws them; the build only looks them up, so it
needs neither a browser nor Node.js. The text of the diagram is its key: an
edited diagram without a new drawing is a warning, which stops the build.
"""

import html
import re
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from bookkit.diagrams import FOLDER, MODES, diagram_key

log = logging.getLogger(__name__)
SIZE = re.compile(r'viewBox="[-\d.]+ [-\d.]+ ([\d.]+) ([\d.]+)"')


class diagram(nodes.General, nodes.Element):
    """One diagram: its key and its text alternative."""


class Mermaid(SphinxDirective):
    """The directive."""

    has_content = True
    option_spec = {  # noqa: RUF012  docutils' style
        "alt": directives.unchanged_required,
        "caption": directives.unchanged_required,
        "name": directives.unchanged_required,
    }

    def run(self) -> list[nodes.Node]:
        """A figure when there is a caption, otherwise the pictures alone."""
        if not self.options.get("alt"):
            raise self.error(
                "mermaid: :alt: is missing. Say in a sentence what the "
                "diagram shows, for those who do not see it."
            )
        code = "\n".join(self.content)
        node = diagram(key=diagram_key(code), alt=self.options["alt"])
        self.set_source_info(node)
        if "caption" not in self.options:
            return [node]
        figure = nodes.figure("", node, classes=["diagram"])
        text, messages = self.state.inline_text(
            self.options["caption"], self.lineno
        )
        figure += nodes.caption(self.options["caption"], "", *text)
        self.set_source_info(figure)
        self.add_name(figure)
        return [figure, *messages]


def visit_html(self, node: diagram) -> None:
    """Two images; the style sheet shows the one of the colour scheme."""
    root = Path(self.builder.srcdir)
    up = "../" * self.builder.current_docname.count("/")
    for mode in MODES:
        name = f"{node['key']}-{mode}.svg"
        path = root / FOLDER / name
        if not path.exists():
            log.warning(
                "mermaid: this diagram is not drawn (%s is missing). Run "
                "`python -m bookkit diagrams` and commit the result.",
                f"{FOLDER}/{name}",
                location=node,
            )
            raise nodes.SkipNode
        size = SIZE.search(path.read_text(encoding="utf-8"))
        width, height = (round(float(x)) for x in size.groups())
        # not the theme's only-light: its CSS hides the caption beside it
        self.body.append(
            f'<img class="bk-{mode} diagram" loading="lazy" width="{width}" '
            f'height="{height}" src="{up}_static/diagrams/{name}" '
            f'alt="{html.escape(node["alt"])}">'
        )
    raise nodes.SkipNode


def skip(self, node) -> None:
    """Other builders leave the diagram out."""
    raise nodes.SkipNode


def setup(app):
    """Register the directive."""
    app.add_node(
        diagram, html=(visit_html, None), text=(skip, None), latex=(skip, None)
    )
    app.add_directive("mermaid", Mermaid)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
