"""Maths as KaTeX's HTML and MathML at build time, without Node.js.

KaTeX runs inside QuickJS (the pip package `quickjs-ng`), so a page needs a
style sheet and fonts, but no script. A formula that KaTeX refuses is a Sphinx
warning with its file and line, which stops the build.
"""

import json
import re
from functools import cache
from pathlib import Path

import quickjs
from docutils import nodes
from sphinx.locale import _
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number

from bookkit.web import install

log = logging.getLogger(__name__)

SHORT = 40  # letters of TeX; a longer formula may break over a line
AFTER = re.compile(r"^(?:-\w+)?[,.;:!?)\]’”\"]*")
BEFORE = re.compile(r"[(\[‘“\"]*$")

RENDER = """
render = (tex, options) => {
  try { return JSON.stringify({html: katex.renderToString(tex, options)}) }
  catch (error) { return JSON.stringify({error: String(error.message)}) }
}; 0
"""


@cache
def engine(root: Path) -> quickjs.Context:
    """KaTeX, loaded once a build."""
    context = quickjs.Context()
    script = install(root) / "katex" / "dist" / "katex.min.js"
    context.eval(script.read_text(encoding="utf-8") + ";0")
    context.eval(RENDER)
    return context


@cache
def render(root: Path, tex: str, display: bool, macros: str) -> dict:
    """Give `{"html": ...}`, or `{"error": ...}` for a bad formula."""
    options = {
        "displayMode": display,
        "throwOnError": True,
        "strict": "error",
        "output": "htmlAndMathml",
        "macros": json.loads(macros),
    }
    call = f"render({json.dumps(tex)}, {json.dumps(options)})"
    return json.loads(engine(root).eval(call))


def formula(self, node: nodes.Element, *, display: bool) -> str:
    """The HTML of one formula."""
    tex = node.astext().strip()
    if display and r"\\" in tex and r"\begin{" not in tex:
        tex = rf"\begin{{aligned}}{tex}\end{{aligned}}"
    macros = json.dumps(self.config.katex_macros, sort_keys=True)
    done = render(Path(self.builder.srcdir), tex, display, macros)
    if "error" in done:
        log.warning("maths: %s", done["error"], location=node, type="katex")
        return f"<code>{self.encode(tex)}</code>"
    return done["html"]


def visit_inline(self, node: nodes.Element) -> None:
    """A formula inside a sentence."""
    start = self.starttag(
        node, "span", "", CLASS="math notranslate nohighlight"
    )
    html = start + formula(self, node, display=False) + "</span>"
    head, tail = node.get("head", ""), node.get("tail", "")
    if head or tail:
        head, tail = self.encode(head), self.encode(tail)
        html = f'<span class="unbroken">{head}{html}{tail}</span>'
    self.body.append(html)
    raise nodes.SkipNode


def visit_block(self, node: nodes.Element) -> None:
    """A formula on its own line, with its number if it has one."""
    self.body.append(self.starttag(node, "div", CLASS="math nohighlight"))
    self.body.append(formula(self, node, display=True))
    if node["number"]:
        number = get_node_equation_number(self, node)
        self.body.append(f'<span class="eqno">({number})')
        self.add_permalink_ref(node, _("Link to this equation"))
        self.body.append("</span>")
    self.body.append("</div>\n")
    raise nodes.SkipNode


def hold_punctuation(app, doctree, docname) -> None:
    """Keep a comma on the line of the short formula before it.

    To a browser a formula is a picture, and a line may end after a picture.
    """
    if app.builder.format != "html":
        return
    for node in list(doctree.findall(nodes.math)):
        if len(node.astext()) > SHORT or not node.parent:
            continue
        parent, at = node.parent, node.parent.index(node)
        after = parent[at + 1] if at + 1 < len(parent) else None
        if isinstance(after, nodes.Text):
            node["tail"] = AFTER.match(after)[0]
            parent[at + 1] = nodes.Text(after[len(node["tail"]) :])
        before = parent[at - 1] if at else None
        if isinstance(before, nodes.Text):
            node["head"] = BEFORE.search(before)[0]
            parent[at - 1] = nodes.Text(
                before[: len(before) - len(node["head"])]
            )


def add_css(app, pagename, templatename, context, doctree) -> None:
    """Load the style sheet only where there is a formula."""
    if doctree is not None and (
        doctree.next_node(nodes.math) or doctree.next_node(nodes.math_block)
    ):
        app.add_css_file("katex/katex.min.css")


def setup(app):
    """Register the renderer."""
    app.add_html_math_renderer(
        "katex_static", (visit_inline, None), (visit_block, None)
    )
    app.add_config_value("katex_macros", {}, "env")
    app.connect("doctree-resolved", hold_punctuation)
    app.connect("html-page-context", add_css)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
