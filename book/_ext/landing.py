"""The landing page: the map of the book, and a piece of the code it builds.

The map is `book/map.yml`. What is written is a link, what is planned is said
to be; the two are told apart by `_toc.yml`, not by hand.
"""

import html
import importlib
import inspect
import re
from pathlib import Path

import yaml
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from sphinx.util import logging

from bookkit.book import Book, BookError

log = logging.getLogger(__name__)

# the code that stands on the landing page, when its chapter is written
SHOWN = ("litformer.attention", "attention")


def read_map(root: Path) -> list[dict]:
    """The parts of the map; each chapter with its title and `written`.

    Raises:
        BookError: if the map and `_toc.yml` disagree.
    """
    book = Book(root)
    titles = {f"chapters/{c.name}": c.title for c in book.chapters}
    parts = yaml.safe_load((root / "book" / "map.yml").read_text("utf-8"))
    seen = []
    for chapter in (c for part in parts for c in part["chapters"]):
        chapter["written"] = chapter["file"] in titles
        if chapter["written"]:
            chapter["title"] = titles[chapter["file"]]
            seen.append(chapter["file"])
        elif "title" not in chapter:
            raise BookError(
                f"book/map.yml: {chapter['file']} is not in _toc.yml and has "
                "no title. Add `title:` to it, or the chapter to _toc.yml."
            )
    for part in parts:
        part["written"] = any(c["written"] for c in part["chapters"])
    if seen != list(titles):
        raise BookError(
            "book/map.yml: its written chapters are "
            f"{', '.join(seen)}, but _toc.yml has {', '.join(titles)}. "
            "Give both the same chapters in the same order."
        )
    return parts


def shown_code() -> str | None:
    """The source of the function on the landing page, as HTML."""
    module, name = SHOWN
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        return None
    source = inspect.getsource(function)
    # the docstring is for the API page; here the code speaks
    source = re.sub(r'\n    """.*?"""', "", source, count=1, flags=re.S)
    return highlight(source, PythonLexer(), HtmlFormatter(nowrap=True))


def fill(app, pagename, templatename, context, doctree) -> None:
    """Give the template its data."""
    if templatename != "landing.html":
        return
    root = Path(app.srcdir)
    try:
        parts = read_map(root)
    except BookError as error:
        log.warning("%s", error, location="book/map.yml")
        parts = []
    every = [c for part in parts for c in part["chapters"]]
    context["map"] = parts
    context["written"] = sum(c["written"] for c in every)
    context["planned"] = len(every)
    context["first"] = next((c["file"] for c in every if c["written"]), None)
    context["code"] = shown_code()
    context["code_name"] = ".".join(SHOWN)
    context["code_page"] = next(
        (c["file"] for c in every if c["file"].endswith("/attention")), None
    )
    context["title"] = html.escape(app.config.project)


def setup(app):
    """Fill the page when it is rendered."""
    app.connect("html-page-context", fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
