"""What a chapter's page adds to the theme: downloads, launch links, badges.

The version of the site is the package's.
"""

import ast
import html
from pathlib import Path

import jupytext
import nbformat
from docutils import nodes
from sphinx.util import logging

import litformer
from bookkit import study
from bookkit.book import Book
from bookkit.plain import Site

log = logging.getLogger(__name__)
BRANCH = "notebooks"  # holds the learner's notebooks, see "How to contribute"


def set_version(app, config) -> None:
    """One version for the package and the site."""
    config.version = config.release = litformer.__version__
    config.html_theme_options["extra_footer"] = (
        f"litformer {litformer.__version__}. The text is under CC BY-SA 4.0, "
        "the code under the MIT licence."
    )


def chapters(app) -> dict:
    """`chapters/attention` -> its `Chapter`."""
    book = Book(Path(app.srcdir))
    return {f"chapters/{c.name}": c for c in book.chapters}


# --- downloads and launch links ----------------------------------------------


def write_downloads(app, pagename) -> list[tuple[str, str, str, str]]:
    """Write the chapter's files below `_sources`; (name, text, icon, tip)."""
    book = Book(Path(app.srcdir))
    name = pagename.split("/")[-1]
    out = Path(app.outdir) / "_sources" / "chapters"
    out.mkdir(parents=True, exist_ok=True)
    # made anew: what lies in `_build/study` holds a reader's own answers
    made = study.notebook(book.chapter(name), Site(book))
    nbformat.write(made, out / f"{name}-study.ipynb")
    executed = book.root / "_build" / "executed" / f"{name}.ipynb"
    (out / f"{name}.ipynb").write_bytes(executed.read_bytes())
    script = jupytext.writes(nbformat.read(executed, 4), fmt="py:percent")
    (out / f"{name}.py").write_text(script, encoding="utf-8")
    return [
        (
            f"{name}-study.ipynb",
            "Study notebook",
            "fas fa-pen",
            "The chapter with the exercises open, to work in",
        ),
        (
            f"{name}.ipynb",
            "Executed notebook",
            "fas fa-code",
            "Every cell with the output that this page shows (.ipynb)",
        ),
        (
            f"{name}.py",
            "Python script",
            "fas fa-file-code",
            "The cells as one script (.py)",
        ),
    ]


def link(url: str, text: str, icon: str, tooltip: str) -> dict:
    """A button as the theme's macros want it."""
    return {
        "type": "link",
        "url": url,
        "text": text,
        "icon": icon,
        "tooltip": tooltip,
    }


def set_buttons(app, pagename, templatename, context, doctree) -> None:
    """Replace the theme's launch and download groups by ones that work.

    Its launch links point to the `.md`, which Colab cannot open, and its
    download is the notebook without the learner's one.
    """
    groups = context.get("header_buttons", [])
    for group in groups:
        if group.get("label") == "source-buttons":
            group["tooltip"] = "Source of this page"
    if pagename not in chapters(app):
        return
    name = pagename.split("/")[-1]
    options = app.config.html_theme_options
    repository = options["repository_url"].split("github.com/")[-1]
    colab = options["launch_buttons"]["colab_url"]
    binder = options["launch_buttons"]["binderhub_url"]
    folder = context["pathto"]("_sources/chapters", 1)
    for group in groups:
        if group.get("label") == "launch-buttons":
            group["tooltip"] = "Work on this chapter online"
            group["buttons"] = [
                link(
                    f"{colab}/github/{repository}/blob/{BRANCH}/{name}.ipynb",
                    "Colab",
                    "_static/images/logo_colab.png",
                    "Open the study notebook in Colab",
                ),
                link(
                    f"{binder}/v2/gh/{repository}/{BRANCH}"
                    f"?urlpath=lab/tree/{name}.ipynb",
                    "Binder",
                    "_static/images/logo_binder.svg",
                    "Open the study notebook in Binder",
                ),
            ]
        if group.get("label") == "download-buttons":
            kept = [
                {**b, "text": "Source", "tooltip": "MyST Markdown (.md)"}
                if b.get("label") == "download-source-button"
                else {**b, "text": "Print", "tooltip": "Print, or save as PDF"}
                for b in group["buttons"]
                if b.get("label") != "download-notebook-button"
            ]
            group["buttons"] = [
                link(f"{folder}/{file}", text, icon, tip)
                for file, text, icon, tip in write_downloads(app, pagename)
            ] + kept


# --- exported cells say where they go ----------------------------------------


def target_module(cell: nodes.container, chapter) -> str:
    """The module that an exported cell goes to."""
    for tag in cell.get("cell_metadata", {}).get("tags", []):
        if tag.startswith("export-to:"):
            return tag.removeprefix("export-to:")
    return chapter.meta.get("export_to", "")


def first_name(source: str) -> str | None:
    """The first public name that a cell defines."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return None
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            return None if node.name.startswith("_") else node.name
    return None


def mark_exported(app, doctree) -> None:
    """Note on each exported cell the module that it goes to."""
    chapter = chapters(app).get(app.env.docname)
    if chapter is None:
        return
    for cell in doctree.findall(nodes.container):
        if cell.get("nb_element") != "cell_code":
            continue
        tags = cell.get("cell_metadata", {}).get("tags", [])
        if any(tag.split("-to:")[0] == "export" for tag in tags):
            cell["exported_to"] = target_module(cell, chapter)
            cell["classes"].append("exported")


def add_badges(app, doctree, docname) -> None:
    """Put "in litformer.attention", linked to the source, on exported cells."""
    if app.builder.format != "html":
        return
    known = getattr(app.env, "_viewcode_modules", {})
    for cell in doctree.findall(nodes.container):
        module = cell.get("exported_to")
        if not module:
            continue
        block = cell.next_node(nodes.literal_block)
        label = f"in <code>{html.escape(module)}</code>"
        entry = known.get(module)
        if entry:
            page = f"_modules/{module.replace('.', '/')}"
            anchor = first_name(block.astext()) if block else None
            anchor = anchor if anchor in entry[2] else None
            url = app.builder.get_relative_uri(docname, page)
            url += f"#{anchor}" if anchor else ""
            label = f'<a href="{url}">{label}</a>'
        badge = f'<p class="export-badge">{label}</p>'
        cell.insert(0, nodes.raw("", badge, format="html"))


def setup(app):
    """Connect everything."""
    # Jupyter Book sets it, though the extension that owns it is left out
    app.add_config_value("comments_config", {}, "env")
    app.connect("config-inited", set_version)
    app.connect("html-page-context", set_buttons, priority=600)
    # before sphinx-codeautolink reads the cells
    app.connect("doctree-read", mark_exported, priority=100)
    app.connect("doctree-resolved", add_badges)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
