"""Docstrings are written as they read best in the source: as plain Markdown.

autodoc expects reStructuredText. This turns one into the other, line by line:
`name` becomes a literal, a paragraph that ends with a colon introduces the
indented lines below it as code, and stray marks (* |) lose their meaning.
"""

import re

# sections that napoleon, which runs after this, turns into fields
_SECTIONS = ("Args:", "Raises:", "Returns:", "Yields:")
_CODE = re.compile(r"(`[^`\n]+`)")


def to_rst(lines: list[str]) -> list[str]:
    """The lines of a docstring as reStructuredText."""
    out: list[str] = []
    code_below = None  # the indent of the paragraph that introduced code
    for i, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if code_below is not None:
            if not line.strip() or indent > code_below:
                out.append(line)
                continue
            code_below = None
        text = _prose(line)
        follows = next((s for s in lines[i + 1 :] if s.strip()), "")
        deeper = len(follows) - len(follows.lstrip()) > indent
        blank = i + 1 < len(lines) and not lines[i + 1].strip()
        if line.endswith(":") and line.strip() not in _SECTIONS:
            if deeper and blank:
                text, code_below = text + ":", indent
        out.append(text)
    return out


def _prose(line: str) -> str:
    parts = _CODE.split(line)
    for i, part in enumerate(parts):
        # odd parts are code: `x` -> ``x``
        parts[i] = f"`{part}`" if i % 2 else re.sub(r"([*|])", r"\\\1", part)
    return "".join(parts)


def process(app, what, name, obj, options, lines) -> None:
    """Rewrite the docstring in place, before napoleon reads it."""
    lines[:] = to_rst(lines)


def setup(app) -> dict:
    """Register with Sphinx."""
    app.connect("autodoc-process-docstring", process, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
