"""`{widget} name`: a small program in the page, fed by a cell of the chapter.

The chapter calls `bookkit.widget.export(name, ...)`; what it returns travels
in the executed notebook. From there this extension writes
`_static/widgets/<name>.data.js`, a plain script, so that the page works from
the file system too, and loads it with `runtime.js` and `<name>.js` on this
page only.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import ClassVar

from blocks import Block, BlockDirective, BlockError, add_node, element
from blocks import setup as setup_blocks
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx

MIME = "application/vnd.bookkit.widget+json"
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


class widget(Block):
    """A box that a script fills."""


class Widget(BlockDirective):
    """Looks for the data and the script while reading, to name the line."""

    kind = "widget"
    required_arguments = 1
    option_spec: ClassVar = {"chapter": directives.unchanged}

    def build(self) -> list[nodes.Node]:
        """The box, with the text of the body as its instructions."""
        name = self.block_id = self.arguments[0]
        if not NAME.fullmatch(name):
            raise BlockError("the name must be lower-case words with '-'.")
        chapter = self.options.get("chapter", self.chapter)
        notebook = executed(self.env.app, chapter)
        script = Path(self.env.srcdir) / "book/_static/widgets" / f"{name}.js"
        for path in (notebook, script):
            # a new run of the chapter must reach the page
            self.env.note_dependency(str(path))
        if not script.exists():
            raise BlockError(f"there is no book/_static/widgets/{name}.js.")
        if not notebook.exists():
            raise BlockError(
                f"{notebook.relative_to(self.env.srcdir)} is not there. Run "
                f"the chapter first: python -m bookkit run {chapter}"
            )
        if name not in payloads(notebook):
            raise BlockError(
                f"no cell of {chapter} exports it. Add a cell with "
                f'bookkit.widget.export("{name}", ...).'
            )
        node = widget(notebook=str(notebook))
        self.place(node, f"widget-{name}")
        caption = element("div", classes=["widget-caption"])
        node += self.parse_body(caption)
        return [node]


def executed(app: Sphinx, chapter: str) -> Path:
    """The notebook that the tests ran."""
    folder = Path(app.srcdir) / app.config.widget_notebooks
    return folder / f"{chapter}.ipynb"


def payloads(notebook: Path) -> dict[str, dict]:
    """What each widget's cell of an executed notebook handed over."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    found = (
        output.get("data", {}).get(MIME)
        for cell in cells
        for output in cell.get("outputs", ())
    )
    return {payload["name"]: payload for payload in found if payload}


def write_data(app: Sphinx, node: widget) -> None:
    """Write a widget's data as a script that hands it to the runtime."""
    name = node["block"]
    # it is there: a changed notebook has the page read again (dependency)
    payload = payloads(Path(node["notebook"]))[name]
    text = json.dumps(payload, separators=(",", ":"), ensure_ascii=False)
    path = Path(app.outdir) / "_static" / "widgets" / f"{name}.data.js"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"(window.bookWidgets ??= {{}})[{json.dumps(name)}] = {text};\n",
        encoding="utf-8",
    )


def load_scripts(app, pagename, templatename, context, doctree) -> None:
    """Data, runtime and program, on the pages that show a widget."""
    shown = list(doctree.findall(widget)) if doctree else []
    if shown:
        app.add_js_file("widgets/runtime.js", loading_method="defer")
    for name, node in {node["block"]: node for node in shown}.items():
        write_data(app, node)
        app.add_js_file(f"widgets/{name}.data.js", loading_method="defer")
        app.add_js_file(f"widgets/{name}.js", loading_method="defer")


def visit_widget(self, node: widget) -> None:
    """The box: instructions first, then the place for the program."""
    self.body.append(
        f'<div class="bk-widget" id="{node["ids"][0]}" role="group" '
        f'aria-label="Interactive figure {node["block"]}" '
        f'data-widget="{node["block"]}">\n'
    )


def depart_widget(self, node: widget) -> None:
    """What stands there until, or unless, a script fills it."""
    self.body.append(
        '<div class="widget-body"></div><noscript><p>This figure is a small '
        "program: it needs JavaScript. The cells around it show the same "
        "numbers.</p></noscript></div>\n"
    )


def setup(app: Sphinx) -> dict:
    """Register the directive."""
    meta = setup_blocks(app)
    app.add_config_value("widget_notebooks", "_build/executed", "env")
    app.add_directive("widget", Widget)
    add_node(app, widget, visit_widget, depart_widget)
    app.connect("html-page-context", load_scripts)
    return meta
