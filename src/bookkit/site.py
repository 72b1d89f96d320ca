"""Build the website from what the test run saw; nothing runs a second time.

Jupyter Book builds into `_build/sphinx`, always from nothing and with every
warning an error: an incremental build would not repeat the warnings of pages
that it leaves alone. Only a good site takes the place of the last good one in
`_build/html`. When no input has changed, nothing is built.
"""

import functools
import hashlib
import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from bookkit import web
from bookkit.book import Book, BookError
from bookkit.cache import fill_jupyter_cache
from bookkit.files import write_atomically

# what the pages are made of, besides the executed chapters
INPUTS = (
    "_config.yml",
    "_toc.yml",
    "requirements.txt",
    "book",
    "chapters",
    "src/litformer",
    "src/bookkit",
    "tests/benchmarks/results",
    "_build/executed",
)
STAMP = "_build/site.json"
STAGES = {
    "reading sources...": "reading",
    "writing output...": "writing",
    "copying images...": "copying",
}
STEP = re.compile(
    r"^(?P<stage>[a-z ]+\.\.\.)\s*\[\s*(?P<done>\d+)%\]\s*(?P<what>\S*)"
)
PROBLEM = re.compile(r"\b(WARNING|ERROR|CRITICAL|SEVERE)\b:? ")
COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def add_arguments(parser) -> None:
    """The options of `bookkit site`."""
    parser.add_argument(
        "--force", action="store_true", help="build even if nothing changed"
    )
    parser.add_argument(
        "--draft",
        action="store_true",
        help="build into _build/draft, and show warnings without failing",
    )
    parser.add_argument(
        "--serve",
        action="store_true",
        help="then serve the site on localhost, and rebuild on every save",
    )
    parser.add_argument("--port", type=int, default=8000)


def main(args) -> int:
    """Build if needed; say where the site is."""
    book = Book()
    if args.draft:
        draft(book)
        return 0
    build(book, force=args.force)
    if args.serve:
        serve(book, args.port)
    return 0


def build(book: Book, *, force: bool = False) -> Path:
    """The folder of a site that is up to date with all its inputs.

    Raises:
        BookError: if the build has a warning, or would execute a chapter.
    """
    root, started = book.root, time.perf_counter()
    web.install(root)
    site = root / "_build" / "html"
    if not force and not stale(root):
        _report(site, _read_stamp(root), "nothing changed")
        return site
    digest = inputs_digest(root)
    facts = {"inputs": digest} | _make(book, site)
    write_atomically(root / STAMP, json.dumps(facts))
    _report(site, facts, f"built in {time.perf_counter() - started:.0f} s")
    return site


def draft(book: Book) -> Path:
    """A site to look at while chapters are being written.

    It never takes the place of the real one, and its warnings are shown.
    """
    started = time.perf_counter()
    web.install(book.root)
    site = book.root / "_build" / "draft"
    facts = _make(book, site, strict=False)
    found = "\n".join(facts.pop("problems"))
    print(found or "no warnings", file=sys.stderr)
    _report(site, facts, f"a draft in {time.perf_counter() - started:.0f} s")
    return site


def _make(book: Book, site: Path, *, strict: bool = True) -> dict:
    """Build from nothing, then swap the result in; facts about it."""
    fill_jupyter_cache(book)
    work = book.root / "_build" / "sphinx"
    shutil.rmtree(work, ignore_errors=True)
    try:
        work.mkdir(parents=True)
        found = _jupyter_book(book.root, work, strict=strict)
        made = work / "_build" / "html"
        files = [f for f in made.rglob("*") if f.is_file()]
        facts = {
            "pages": sum(f.suffix == ".html" for f in files),
            "files": len(files),
            "bytes": sum(f.stat().st_size for f in files),
        }
        _swap(made, site)
    except OSError as error:
        raise BookError(
            f"the site could not be written: {error.strerror or error}. The "
            "last good site is untouched; mend this and build again."
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return facts if strict else facts | {"problems": found}


def stale(root: Path) -> str | None:
    """Why the site must be built (again); None if it need not."""
    site, facts = root / "_build" / "html", _read_stamp(root)
    if not (site / "index.html").exists() or not facts:
        return "The site is not built."
    if facts["files"] != sum(1 for f in site.rglob("*") if f.is_file()):
        return "Files of the site were added or lost."
    if facts["inputs"] != inputs_digest(root):
        return "The site is older than its sources."
    return None


def inputs_digest(root: Path) -> str:
    """One hash over everything that the site is made of."""
    digest = hashlib.sha256(sys.version.encode())
    for name in INPUTS:
        top = root / name
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(path.relative_to(root).as_posix().encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()


def _jupyter_book(root: Path, work: Path, *, strict: bool) -> list[str]:
    """Run it, show how far it is, and give the problems of its log.

    Raises:
        BookError: it would execute a chapter; it fails; or, when `strict`,
            it has a warning.
    """
    start = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", start]
    command += ["build", ".", "--path-output", str(work)]
    command += ["-n", "--keep-going", *(["-W"] if strict else [])]
    src = os.pathsep.join(
        p for p in (str(root / "src"), os.environ.get("PYTHONPATH")) if p
    )
    environment = {
        **os.environ,
        "PYTHONPATH": src,
        "BOOK_ROOT": str(root),
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONHASHSEED": "0",
        "NO_COLOR": "1",
        "MPLBACKEND": "agg",
    }
    log_path = root / "_build" / "site.log"
    bar, lines = Progress(), []
    with (
        subprocess.Popen(
            command,
            cwd=root,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process,
        log_path.open("w", encoding="utf-8", buffering=1) as log,
    ):
        try:
            for raw in process.stdout:
                line = COLOUR.sub("", raw).rstrip().split("\r")[-1]
                log.write(line + "\n")
                lines.append(line)
                bar.see(line)
                if "Executing notebook" in line:
                    break
            else:
                process.wait()
        finally:  # also on an interrupt: leave nothing running
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    bar.close()
    executed = [line for line in lines if "Executing notebook" in line]
    if executed:
        raise BookError(
            "the site began to execute a chapter, which only the test run "
            f"does ({executed[0].strip()}). Run `python -m bookkit run`."
        )
    found = problems(lines, root)
    if process.returncode:
        shown = "\n".join(found) or "\n".join(lines[-15:])
        count = f"{len(found)} problem{'s' * (len(found) != 1)}"
        raise BookError(
            f"the site was not built: {count}.\n{shown}\n"
            "Mend each at the place named (the whole log: _build/site.log)."
        )
    return found


def problems(lines: list[str], root: Path) -> list[str]:
    """The warnings and errors of a log, once each, with short paths.

    A message that goes over several lines keeps those that are indented.
    """
    found, taking = [], False
    for line in lines:
        if PROBLEM.search(line):
            found.append(line.replace(f"{root}/", "").strip())
            taking = True
        elif taking and line.startswith((" ", "\t")) and line.strip():
            found[-1] += "\n    " + line.strip()
        else:
            taking = False
    return list(dict.fromkeys(found))


class Progress:
    """One line that moves on a terminal; a line per stage elsewhere."""

    def __init__(self) -> None:
        self.live, self.stage = sys.stderr.isatty(), None
        self.started = time.perf_counter()

    def see(self, line: str) -> None:
        """Take one line of Sphinx's log."""
        match = STEP.match(line)
        name = match and STAGES.get(match["stage"].strip())
        if not name:
            return
        if self.live:
            seconds = time.perf_counter() - self.started
            width = 24 * int(match["done"]) // 100
            bar = "#" * width + "." * (24 - width)
            text = f"site: {name:8} [{bar}] {seconds:3.0f} s {match['what']}"
            print(f"\r{text:78.78}", end="", file=sys.stderr, flush=True)
        elif name != self.stage:
            print(f"site: {name} pages", file=sys.stderr)
        self.stage = name

    def close(self) -> None:
        """Leave the line."""
        if self.live and self.stage:
            print("\r" + " " * 78 + "\r", end="", file=sys.stderr)


def _swap(made: Path, site: Path) -> None:
    """Put the new site in the place of the old one."""
    old = site.with_name(f"{site.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if site.exists():
        site.rename(old)
    made.rename(site)
    shutil.rmtree(old, ignore_errors=True)


def _read_stamp(root: Path) -> dict:
    try:
        return json.loads((root / STAMP).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def _report(site: Path, facts: dict, how: str) -> None:
    index = site / "index.html"
    megabytes = facts["bytes"] / 1e6
    print(
        f"site: {facts['pages']} pages, {megabytes:.1f} MB, {how}\n"
        f"  {index}\n  {index.as_uri()}"
    )


# --- serving, with a rebuild on every save -----------------------------------


def serve(book: Book, port: int) -> None:
    """Serve the site on localhost until interrupted; rebuild on a save."""
    site = book.root / "_build" / "html"
    handler = functools.partial(QuietHandler, directory=site)
    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError as error:
        raise BookError(
            f"port {port} on localhost cannot be used: {error.strerror}. "
            "Choose another with --port."
        ) from error
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"serving http://127.0.0.1:{server.server_port} (Ctrl-C ends)")
    seen = _newest(book.root)
    try:
        while True:
            time.sleep(0.5)
            now = _newest(book.root)
            if now == seen:
                continue
            seen = now
            rebuild(book.root)
    finally:
        server.shutdown()
        server.server_close()


def rebuild(root: Path) -> None:
    """Run what changed and build; after a mistake the old site stays."""
    for command in ("export", "run", "study", "site"):
        done = subprocess.run(
            [sys.executable, "-m", "bookkit", command], cwd=root, check=False
        )
        if done.returncode:
            print("waiting for the next save", file=sys.stderr)
            return


def _newest(root: Path) -> float:
    """When the youngest source file was written."""
    sources = (root / name for name in INPUTS if not name.startswith("_build"))
    return max(
        path.stat().st_mtime
        for top in sources
        for path in ([top] if top.is_file() else top.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    )


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files without a line in the terminal for each."""

    def log_message(self, *args) -> None:
        """Say nothing."""

    def end_headers(self) -> None:
        """Let the browser ask again, since a page changes on every save."""
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()
