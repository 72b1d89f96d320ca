"""A description and a social card for every page, made offline.

A chapter says its description in the front matter; another page is described
by its first sentences. The card is a picture of 1200 by 630 pixels.
"""

import hashlib
import html
import re
import shutil
import textwrap
from pathlib import Path
from urllib.parse import urljoin

from docutils import nodes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

INK, PAPER, FAINT, ACCENT = "#f2f7f8", "#0f2733", "#a9c3cc", "#7fd1c7"
WARM = "#ffc46b"
LENGTH = 160  # characters that a search engine shows

# pages that no document makes
OTHER = {
    "index": "An executable book: build every part of the Transformer family, "
    "prove that each part is right, load real weights, and explain it.",
    "search": "Search the book; it works offline.",
    "genindex": "Every function, class and term of the book, from A to Z.",
    "py-modindex": "The modules of the package litformer.",
}


def shorten(text: str) -> str:
    """The first sentences that fit, or as many words as fit."""
    text = " ".join(text.split())
    if len(text) <= LENGTH:
        return text
    end = max(text.rfind(mark, 0, LENGTH) for mark in (". ", "? ", "! "))
    if end > LENGTH // 2:
        return text[: end + 1]
    return textwrap.shorten(text, LENGTH, placeholder=" …")


def first_paragraph(doctree: nodes.document) -> str:
    """The first paragraph of running text, without formulas."""
    for node in doctree.findall(nodes.paragraph):
        if not isinstance(node.parent, nodes.section):
            continue
        copy = node.deepcopy()
        for part in list(copy.findall(nodes.math)):
            part.parent.replace(part, nodes.Text(part.astext()))
        text = copy.astext().strip()
        if len(text) > 40:
            return text
    return ""


def describe(app, pagename: str, title: str, doctree) -> str:
    """One or two sentences about a page."""
    meta = app.env.metadata.get(pagename, {})
    if meta.get("description"):
        return str(meta["description"])
    text = first_paragraph(doctree) if doctree is not None else ""
    if not text and pagename.startswith("_modules/"):
        text = f"The source of {title}, generated from the book's chapters."
    return shorten(
        text or OTHER.get(pagename) or f"{title}: {app.config.project}."
    )


def draw_card(path: Path, book: str, title: str, text: str, url: str) -> None:
    """The picture: the book, the page, its description."""
    figure = Figure(figsize=(12, 6.3), dpi=100, facecolor=PAPER)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 1200), ylim=(0, 630))
    axes.axis("off")
    # a causal mask: the picture that the whole family shares
    size, gap, left, top = 34, 9, 880, 560
    for row in range(6):
        for column in range(row + 1):
            colour = WARM if row == column == 5 else ACCENT
            axes.add_patch(
                FancyBboxPatch(
                    (left + column * (size + gap), top - row * (size + gap)),
                    size,
                    size,
                    boxstyle="round,pad=0,rounding_size=7",
                    facecolor=colour,
                    alpha=1 if row == column else 0.2 + 0.1 * column,
                    linewidth=0,
                )
            )
    font = {"family": "DejaVu Sans"}  # matplotlib brings it
    axes.text(70, 545, book, color=ACCENT, size=22, weight="bold", **font)
    lines = textwrap.wrap(title, 24)[:3]
    axes.text(
        70,
        480,
        "\n".join(lines),
        color=INK,
        size=40,
        weight="bold",
        va="top",
        linespacing=1.25,
        **font,
    )
    axes.text(
        70,
        100,
        "\n".join(textwrap.wrap(text, 72)[:3]),
        color=FAINT,
        size=18,
        va="bottom",
        linespacing=1.5,
        **font,
    )
    axes.text(70, 48, url, color=ACCENT, size=15, **font)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, facecolor=PAPER, pil_kwargs={"optimize": True})


def card(app, title: str, text: str) -> str:
    """The card's address below the site; drawn once for its words."""
    site = app.config.html_baseurl
    key = [app.config.project, title, text, site, Path(__file__).read_text()]
    name = hashlib.sha256("\0".join(key).encode()).hexdigest()[:16] + ".png"
    store = Path(app.srcdir) / "_build" / "cards" / name
    if not store.exists():
        url = site.split("://")[-1].rstrip("/")
        part = store.with_suffix(".part.png")
        draw_card(part, app.config.project, title, text, url)
        part.rename(store)
    out = Path(app.outdir) / "_static" / "cards" / name
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(store, out)
    return f"_static/cards/{name}"


def add_tags(app, pagename, templatename, context, doctree) -> None:
    """Description, OpenGraph and Twitter tags."""
    if app.builder.format != "html":
        return
    title = html.unescape(re.sub(r"<[^>]+>", "", context.get("title") or ""))
    title = title or app.config.project
    text = describe(app, pagename, title, doctree)
    site = app.config.html_baseurl
    tags = {"name": {"description": text}, "property": {}}
    tags["property"] = {
        "og:title": title,
        "og:type": "website" if pagename == "index" else "article",
        "og:url": urljoin(site, app.builder.get_target_uri(pagename)),
        "og:site_name": app.config.project,
        "og:description": text,
    }
    if not pagename.startswith("_modules"):
        tags["property"] |= {
            "og:image": urljoin(site, card(app, title, text)),
            "og:image:width": "1200",
            "og:image:height": "630",
            "og:image:alt": f"{app.config.project}: {title}",
        }
        tags["name"]["twitter:card"] = "summary_large_image"
    context["metatags"] = context.get("metatags", "") + "".join(
        f'<meta {kind}="{key}" content="{html.escape(value)}" />\n'
        for kind, pairs in tags.items()
        for key, value in pairs.items()
    )


def setup(app):
    """Add the tags to every page."""
    app.connect("html-page-context", add_tags, priority=550)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
