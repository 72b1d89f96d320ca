"""The last touch on every page: accessibility, weight, icons.

The theme is good but not perfect: axe-core finds a few wrong attributes, the
whole search index is loaded on every page, and 270 KB of icon fonts carry the
thirty icons that are used.
"""

import io
import logging
import re
from pathlib import Path

from docutils import nodes
from fontTools import subset
from fontTools.ttLib import TTFont

# What axe-core reports on this theme, in one table: the tags, the attribute,
# and its new value (None takes it away). The order of attributes differs from
# page to page, since sphinx-codeautolink writes some pages again.
ATTRIBUTES = [
    # a summary has text of its own; another name on top hides it from voice
    (r"<summary\b[^>]*>", "aria-label", None),
    # the same for the search button, whose visible text says more
    (r"<button\b[^>]*search-button-field[^>]*>", "aria-label", None),
    (r"<button\b[^>]*theme-switch-button[^>]*>", "aria-label", "Colour scheme"),
    # a list may hold only list items; biblioentry is not allowed on a div
    (r'<div\b[^>]*class="citation"[^>]*>', "role", "listitem"),
    (r'<span\b[^>]*class="label"[^>]*>', "role", None),
    # the logo and the contents stand in a landmark
    (r'<div\b[^>]*id="pst-primary-sidebar"[^>]*>', "role", "complementary"),
    (r'<div\b[^>]*id="pst-primary-sidebar"[^>]*>', "aria-label", "Book"),
]
ATTRIBUTES = [(re.compile(tag), *rest) for tag, *rest in ATTRIBUTES]

# markup that is wrong as such; applying it twice changes nothing
MARKUP = [
    # an empty corner of a table is no heading
    (r'<th class="head([^"]*)">\s*(?:<p>\s*</p>)?\s*</th>', r"<td></td>"),
    # a signature over several lines: a list of <dd> without any <dt>
    (r"<dl>\s*((?:<dd>(?:(?!</dl>).)*?</dd>\s*)+)</dl>", None),
]
MARKUP = [(re.compile(old, re.S), new) for old, new in MARKUP]


# the name of an object that a link leads to, in one piece
NAME = re.compile(
    r'(<a\b[^>]*><code\b[^>]*>)<span class="pre">([\w.]+(?:\(\))?)</span>'
)
# a number and what belongs to it stay on one line: 15 %, 10 000, 8 × 8
HELD = re.compile(
    r"(?:\A|(?<=\d)) (?=%)|(?<=\d) (?=×|\d{3}(?!\d))|(?<=×) (?=\d)"
)


def breakable(match: re.Match) -> str:
    """A name that may be broken after its dots and low lines, on a phone."""
    name = re.sub(r"(?<=[._])(?=\w)", "<wbr>", match[2])
    return f'{match[1]}<span class="pre">{name}</span>'


def hold_numbers(app, doctree, docname) -> None:
    """Let no line end between a number and its unit."""
    if app.builder.format != "html":
        return
    apart = (nodes.FixedTextElement, nodes.literal, nodes.raw, nodes.math)
    for text in list(doctree.findall(nodes.Text)):
        inside = text.parent
        while inside is not None and not isinstance(inside, apart):
            inside = inside.parent
        held = HELD.sub("\u00a0", text)
        if inside is None and held != text:
            text.parent.replace(text, nodes.Text(held))


def set_attribute(tag: str, name: str, value: str | None) -> str:
    """An HTML tag with one attribute set, or without it."""
    tag = re.sub(rf'\s{name}="[^"]*"', "", tag)
    return tag if value is None else f'{tag[:-1]} {name}="{value}">'


def signature_lines(match: re.Match) -> str:
    """Each parameter of a long signature on a line of its own."""
    inner = match[1].replace("<dd>", '<span class="sig-line">')
    return f'<span class="sig-lines">{inner.replace("</dd>", "</span>")}</span>'


# only the search page needs the index
SEARCH = re.compile(
    r'\s*<script src="[^"]*'
    r'(?:searchtools|language_data|searchindex)\.js[^"]*"></script>'
)


def fix(text: str, *, keep_search: bool = False) -> str:
    """One page of HTML, mended."""
    for pattern, name, value in ATTRIBUTES:
        text = pattern.sub(
            lambda m, n=name, v=value: set_attribute(m[0], n, v), text
        )
    for pattern, new in MARKUP:
        text = pattern.sub(new or signature_lines, text)
    text = NAME.sub(breakable, text)
    return text if keep_search else SEARCH.sub("", text)


def icons_used(pages: list[str]) -> set[str]:
    """The Font Awesome class names that occur in the pages."""
    return set(re.findall(r"\bfa-[a-z0-9-]+", " ".join(pages)))


def subset_icons(static: Path, used: set[str]) -> None:
    """Keep the glyphs of the icons that the pages use, and no other."""
    sheets = [*(static / "styles").glob("*.css"), *static.glob("*.css")]
    every = {s: s.read_text(encoding="utf-8") for s in sheets}
    codes = {0x20}
    for text in every.values():
        # .fa-house{--fa:"\f015"} counts if a page has the class; a theme's
        # own content:"\f078", or the character itself, always
        for names, body in re.findall(r"([^{}]*)\{([^{}]*)\}", text):
            classes = set(re.findall(r"\.(fa-[a-z0-9-]+)", names))
            if not classes or classes & used:
                codes |= {
                    int(c, 16) for c in re.findall(r'"\\([0-9a-f]{2,5})', body)
                }
                codes |= {ord(c) for c in re.findall("[\ue000-\uf8ff]", body)}
    logging.getLogger("fontTools").setLevel(logging.WARNING)
    fonts = static / "vendor" / "fontawesome" / "webfonts"
    for ttf in fonts.glob("*.ttf"):
        font = TTFont(ttf)
        options = subset.Options(layout_features=[], notdef_outline=True)
        subsetter = subset.Subsetter(options)
        subsetter.populate(unicodes=codes)
        subsetter.subset(font)
        font.flavor = "woff"
        buffer = io.BytesIO()
        font.save(buffer)
        ttf.with_suffix(".woff").write_bytes(buffer.getvalue())
        ttf.unlink()
        ttf.with_suffix(".woff2").unlink(missing_ok=True)
    for sheet, text in every.items():
        new = re.sub(
            r'url\(([^)]*?)\.woff2\)\s*format\("woff2"\),\s*'
            r'url\([^)]*?\.ttf\)\s*format\("truetype"\)',
            r'url(\1.woff) format("woff")',
            text,
        )
        if new != text:
            sheet.write_text(new, encoding="utf-8")


def finish(app, error) -> None:
    """Mend every page, then drop what no page loads."""
    if error or app.builder.format != "html":
        return
    out = Path(app.outdir)
    texts = []
    for page in out.rglob("*.html"):
        old = page.read_text(encoding="utf-8")
        new = fix(old, keep_search=page.name == "search.html")
        texts.append(new)
        if new != old:
            page.write_text(new, encoding="utf-8")
    static = out / "_static"
    script = (static / "scripts" / "pydata-sphinx-theme.js").read_text()
    subset_icons(static, icons_used([*texts, script]))
    for unused in [
        *static.rglob("*.map"),
        static / "scripts" / "fontawesome.js",
        *(static / "locales").rglob("*.*o"),
    ]:
        unused.unlink(missing_ok=True)
    # a comment that names a file which is gone is an error in the console
    for script in [*static.rglob("*.js"), *static.rglob("*.css")]:
        text = script.read_text(encoding="utf-8")
        new = re.sub(
            r"\n?(?://[#@] sourceMappingURL=\S+|/\*# sourceMappingURL=.*?\*/)",
            "",
            text,
        )
        if new != text:
            script.write_text(new, encoding="utf-8")


def setup(app):
    """Run after everything else has written."""
    app.connect("doctree-resolved", hold_numbers)
    app.connect("build-finished", finish, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
