"""The build of the site: when, from what, and what is left after a failure.

Jupyter Book itself is played by a small module that prints a given log.
"""

import json
import socket
import sys
import time
from types import SimpleNamespace

import pytest

from bookkit import site, web
from bookkit.__main__ import main
from bookkit.book import Book, BookError

# A stand-in for jupyter_book.cli.main: it does as the file `play.json` says.
PLAYER = """
import json, pathlib, subprocess, sys, time

def main():
    play = json.loads(pathlib.Path("play.json").read_text())
    pathlib.Path("argv.json").write_text(json.dumps(sys.argv[1:]))
    for line in play["log"]:
        print(line, flush=True)
    if play.get("child"):  # as a kernel does, it holds the output open
        child = subprocess.Popen([sys.executable, "-c",
                                  "import time; time.sleep(60)"])
        pathlib.Path("child.pid").write_text(str(child.pid))
        time.sleep(60)
    out = pathlib.Path(sys.argv[sys.argv.index("--path-output") + 1])
    made = out / "_build" / "html"
    made.mkdir(parents=True)
    (made / "index.html").write_text(play.get("html", "<html></html>"))
    (made / "a.css").write_text("a {}")
    sys.exit(play.get("code", 0))
"""


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A book whose Jupyter Book is the stand-in."""
    top = tmp_path / "top"
    for name in ("book", "chapters", "src/litformer"):
        (top / name).mkdir(parents=True)
    (top / "_toc.yml").write_text("root: book/intro\n")
    (top / "_config.yml").write_text("title: A book\n")
    (top / "book" / "intro.md").write_text("# Hello\n")
    fake = tmp_path / "fake" / "jupyter_book" / "cli"
    fake.mkdir(parents=True)
    (fake.parent / "__init__.py").write_text("")
    (fake / "__init__.py").write_text("")
    (fake / "main.py").write_text(PLAYER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fake"))
    monkeypatch.setenv("BOOK_ROOT", str(top))
    monkeypatch.setattr(web, "install", lambda root, dev=False: root)
    monkeypatch.setattr(site, "fill_jupyter_cache", lambda book: None)
    play(top)
    return top


def play(root, *log, **more) -> None:
    (root / "play.json").write_text(json.dumps({"log": log, **more}))


def index(root) -> str:
    return (root / "_build" / "html" / "index.html").read_text()


def test_builds_with_every_warning_an_error(root, capsys):
    play(root, "reading sources... [ 50%] book/intro", "done")
    assert main(["site"]) == 0
    said = capsys.readouterr()
    assert "1 pages, 0.0 MB" in said.out
    assert (root / "_build" / "html" / "index.html").as_uri() in said.out
    assert "reading pages" in said.err
    argv = json.loads((root / "argv.json").read_text())
    assert {"-W", "-n", "--keep-going"} <= set(argv)
    assert not (root / "_build" / "sphinx").exists()


def test_nothing_changed_is_quick(root, capsys):
    site.build(Book())
    (root / "argv.json").unlink()
    started = time.perf_counter()
    site.build(Book())
    assert time.perf_counter() - started < 1
    assert "nothing changed" in capsys.readouterr().out
    assert not (root / "argv.json").exists()
    site.build(Book(), force=True)
    assert (root / "argv.json").exists()


@pytest.mark.parametrize(
    "name",
    [
        "_config.yml",
        "book/intro.md",
        "chapters/one.md",
        "src/litformer/new.py",
        "_build/executed/one.ipynb",
    ],
)
def test_every_input_counts(root, name):
    site.build(Book())
    assert site.stale(root) is None
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("# changed\n")
    assert site.stale(root) == "The site is older than its sources."
    site.build(Book())
    assert site.stale(root) is None


def test_what_is_not_an_input_does_not_count(root):
    site.build(Book())
    (root / "README.md").write_text("hello")
    cache = root / "src" / "litformer" / "__pycache__"
    cache.mkdir()
    (cache / "a.pyc").write_bytes(b"1")
    assert site.stale(root) is None


def test_a_lost_file_is_noticed(root):
    assert site.stale(root) == "The site is not built."
    site.build(Book())
    (root / "_build" / "html" / "a.css").unlink()
    assert site.stale(root) == "Files of the site were added or lost."


def test_a_failure_shows_the_warnings_and_keeps_the_last_site(root):
    play(root, html="good")
    site.build(Book())
    (root / "book" / "intro.md").write_text("# Changed\n")
    play(
        root,
        "reading sources... [ 50%] book/intro",
        f"{root}/book/intro.md:3: WARNING: 'myst' reference target not found",
        f"\x1b[31m{root}/chapters/one.md:7: ERROR: bad formula\x1b[0m",
        "    the second line of it",
        f"{root}/book/intro.md:3: WARNING: 'myst' reference target not found",
        "build finished with problems",
        code=1,
    )
    with pytest.raises(BookError) as caught:
        site.build(Book())
    lines = str(caught.value).splitlines()
    assert lines == [
        "the site was not built: 2 problems.",
        "book/intro.md:3: WARNING: 'myst' reference target not found",
        "chapters/one.md:7: ERROR: bad formula",
        "    the second line of it",
        "Mend each at the place named (the whole log: _build/site.log).",
    ]
    assert index(root) == "good"
    assert site.stale(root)
    assert "bad formula" in (root / "_build" / "site.log").read_text()


def test_a_failure_without_warnings_shows_the_end_of_the_log(root):
    play(root, "Traceback", "SomethingError: at the end", code=2)
    with pytest.raises(BookError, match="SomethingError: at the end"):
        site.build(Book())


def test_an_execution_is_stopped_with_its_children(root):
    """Nothing runs twice; and a kernel must not outlive the refusal."""
    import os

    play(root, "chapters/one.md: Executing notebook using local CWD", child=1)
    started = time.perf_counter()
    with pytest.raises(BookError, match="began to execute a chapter.*one.md"):
        site.build(Book())
    assert time.perf_counter() - started < 20
    pid = root / "child.pid"
    if pid.exists():  # it had time to start one
        for _ in range(50):
            try:
                os.kill(int(pid.read_text()), 0)
            except ProcessLookupError:
                break
            time.sleep(0.1)
            if zombie(int(pid.read_text())):
                break
        else:
            pytest.fail("the child of the build still runs")


def zombie(pid: int) -> bool:
    """Ended, though nobody has asked for its exit status yet."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def test_a_full_disk_keeps_the_last_site(root, monkeypatch):
    play(root, html="good")
    site.build(Book())
    (root / "book" / "intro.md").write_text("# Changed\n")

    def full(made, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(site, "_swap", full)
    with pytest.raises(BookError, match="No space left.*last good site"):
        site.build(Book())
    assert index(root) == "good"
    assert not (root / "_build" / "sphinx").exists()


def test_an_unexecuted_chapter_is_refused(root, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("BOOK_ROOT", str(root))
    monkeypatch.setattr(web, "install", lambda root, dev=False: root)
    (root / "_toc.yml").write_text(
        "root: book/intro\nchapters: [{file: chapters/one}]\n"
    )
    (root / "chapters" / "one.md").write_text("# One\n")
    (root / "requirements.txt").write_text("")
    with pytest.raises(BookError, match=r"chapters/one\.md: .*bookkit run"):
        site.build(Book())


def test_a_draft_shows_its_warnings_and_is_apart(root, capsys):
    play(root, html="good")
    site.build(Book())
    play(root, f"{root}/a.md:1: WARNING: not yet", html="draft")
    assert main(["site", "--draft"]) == 0
    said = capsys.readouterr()
    assert "a.md:1: WARNING: not yet" in said.err
    assert "_build/draft/index.html" in said.out
    assert index(root) == "good"
    assert "-W" not in json.loads((root / "argv.json").read_text())


def test_progress_moves_on_a_terminal_only(monkeypatch, capsys):
    lines = [
        "reading sources... [ 50%] book/intro",
        "reading sources... [100%] book/end",
        "writing output... [100%] book/end",
        "copying static files... done",
    ]
    bar = site.Progress()
    bar.live = False
    for line in lines:
        bar.see(line)
    assert capsys.readouterr().err == (
        "site: reading pages\nsite: writing pages\n"
    )
    bar.live = True
    bar.see(lines[0])
    text = capsys.readouterr().err
    assert text.startswith("\rsite: reading")
    assert "[############............]" in text
    assert "\n" not in text
    bar.close()


def test_a_port_in_use_is_named(root):
    site.build(Book())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BookError, match=f"port {port} .*--port"):
            site.serve(Book(), port)


def test_serving_builds_after_a_save(root, monkeypatch, capsys):
    """It sees a saved source, and answers until it is interrupted."""
    site.build(Book())
    seen = []

    def rebuild(top):
        seen.append(top)
        raise KeyboardInterrupt

    def save(seconds):
        (root / "book" / "intro.md").write_text("# Saved\n")

    monkeypatch.setattr(site, "rebuild", rebuild)
    monkeypatch.setattr(site.time, "sleep", save)
    with pytest.raises(KeyboardInterrupt):
        site.serve(Book(), 0)
    assert seen == [root]
    assert "serving http://127.0.0.1:" in capsys.readouterr().out


def test_a_mistake_while_serving_waits_for_the_next_save(
    root, monkeypatch, capsys
):
    ran = []

    def run(command, **options):
        ran.append(command[3])
        return SimpleNamespace(returncode=int(command[3] == "run"))

    monkeypatch.setattr(site.subprocess, "run", run)
    site.rebuild(root)
    assert ran[-1] == "run"
    assert "site" not in ran
    assert "waiting for the next save" in capsys.readouterr().err


def test_python_counts_as_an_input(root, monkeypatch):
    before = site.inputs_digest(root)
    monkeypatch.setattr(sys, "version", "another")
    assert site.inputs_digest(root) != before


@pytest.mark.parametrize(
    "name",
    [
        "_toc.yml",
        "book/book.css",
        "chapters/attention.md",
        "src/litformer/attention.py",
        "tests/benchmarks/results/attention-time.json",
        "_build/executed/attention.ipynb",
    ],
)
def test_whatever_the_pages_show_counts_as_an_input(root, name):
    before, path = site.inputs_digest(root), root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"new " + (path.read_bytes() if path.exists() else b""))
    assert site.inputs_digest(root) != before
