"""Draw the `{mermaid}` diagrams of the book, once, as SVG for the repository.

Only whoever edits a diagram needs a browser and mermaid. The drawings are
committed in `book/_static/diagrams`, named after the text that they draw, and
`--check` compares the names alone.
"""

import hashlib
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from bookkit.book import BookError, find_root

FOLDER = "book/_static/diagrams"
# colour scheme of the page -> mermaid's theme
MODES = {"light": "neutral", "dark": "dark"}

FENCE = re.compile(
    r"^(?P<fence>`{3,}|:{3,})\{mermaid\}[^\n]*\n(?P<body>.*?)^(?P=fence)\s*$",
    re.M | re.S,
)
OPTIONS = re.compile(r"\A(?::[\w-]+:[^\n]*\n)*\s*")

DRAW = """
async ([id, code, theme]) => {
  mermaid.initialize({
    startOnLoad: false, theme, htmlLabels: false,
    flowchart: {htmlLabels: false}, fontFamily: "sans-serif",
    deterministicIds: true, deterministicIDSeed: id,
  });
  return (await mermaid.render("m" + id, code)).svg;
}
"""

# the browser keeps quiet, and works as root in a container
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@dataclass(frozen=True)
class Diagram:
    """One `{mermaid}` block and where it stands."""

    key: str
    code: str
    where: str  # chapters/attention.md:120


def add_arguments(parser) -> None:
    """The options of `bookkit diagrams`."""
    parser.add_argument(
        "--check",
        action="store_true",
        help="only say which drawings are missing or left over",
    )


def main(args) -> int:
    """Draw what is missing and delete what nothing uses, or check."""
    root = find_root()
    found = find_diagrams(root)
    missing, unused = compare(root, found)
    if args.check:
        for diagram in missing:
            print(f"{diagram.where}: this diagram is not drawn")
        for path in unused:
            print(f"{path.relative_to(root)}: no diagram uses this file")
        if missing or unused:
            print("Run `python -m bookkit diagrams` and commit the result.")
            return 1
        print(f"diagrams: {len(found)} drawn, none missing")
        return 0
    if missing:
        draw(root, missing)
    for path in unused:
        path.unlink()
        print(f"deleted {path.relative_to(root)}")
    print(f"diagrams: {len(missing)} drawn now, {len(found)} in all")
    return 0


def diagram_key(code: str) -> str:
    """The name of a diagram's drawings: a hash of its text."""
    return hashlib.sha256(code.strip().encode()).hexdigest()[:16]


def find_diagrams(root: Path) -> list[Diagram]:
    """Every `{mermaid}` block of the chapters and the other pages."""
    found = {}
    for folder in ("book", "chapters"):
        for path in sorted((root / folder).glob("*.md")):
            text = path.read_text(encoding="utf-8")
            for match in FENCE.finditer(text):
                code = OPTIONS.sub("", match["body"]).strip()
                line = text.count("\n", 0, match.start()) + 1
                where = f"{path.relative_to(root).as_posix()}:{line}"
                key = diagram_key(code)
                found.setdefault(key, Diagram(key, code, where))
    return list(found.values())


def compare(
    root: Path, found: list[Diagram]
) -> tuple[list[Diagram], list[Path]]:
    """The diagrams without a drawing, and the drawings without a diagram."""
    folder = root / FOLDER
    missing = [
        diagram
        for diagram in found
        if not all((folder / f"{diagram.key}-{m}.svg").exists() for m in MODES)
    ]
    keys = {diagram.key for diagram in found}
    unused = [
        path
        for path in sorted(folder.glob("*.svg"))
        if path.stem.rsplit("-", 1)[0] not in keys
    ]
    return missing, unused


def find_chromium() -> str:
    """The browser: `$CHROMIUM`, or one of the usual names on the path."""
    asked = os.environ.get("CHROMIUM")
    if asked:
        if shutil.which(asked):
            return asked
        raise BookError(f"no browser at CHROMIUM={asked}. Correct the path.")
    for name in ("chromium", "chromium-browser", "google-chrome", "chrome"):
        if shutil.which(name):
            return shutil.which(name)
    raise BookError(
        "no Chromium found. Install it (Debian, Ubuntu: `apt-get install "
        "chromium`), or set CHROMIUM to the path of Chromium or Chrome."
    )


def draw(root: Path, diagrams: list[Diagram]) -> None:
    """Let mermaid draw each diagram in each colour scheme."""
    browser_path = find_chromium()  # a clear error before npm installs much
    from playwright.sync_api import Error, sync_playwright

    from bookkit.web import install

    script = install(root, dev=True) / "mermaid" / "dist" / "mermaid.min.js"
    (root / FOLDER).mkdir(parents=True, exist_ok=True)
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=browser_path, args=FLAGS)
        page = browser.new_page()
        page.set_content("<body></body>")
        page.add_script_tag(path=script)
        for diagram in diagrams:
            drawings = {}
            for mode, theme in MODES.items():
                try:
                    drawings[mode] = page.evaluate(
                        DRAW, [diagram.key, diagram.code, theme]
                    )
                except Error as error:
                    why = error.message.splitlines()[0]
                    raise BookError(
                        f"{diagram.where}: mermaid cannot draw this: {why}"
                    ) from None
            for mode, svg in drawings.items():
                path = root / FOLDER / f"{diagram.key}-{mode}.svg"
                path.write_text(svg + "\n", encoding="utf-8")
            print(f"drew {diagram.where}", file=sys.stderr)
        browser.close()
