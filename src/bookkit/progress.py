"""Which exercises are solved: kept on the reader's machine, shown as a table.

The file lies in the user's data folder (the environment variable
`LITFORMER_PROGRESS` names another one), so that it survives a rebuild of the
book, `make clean` and a new clone. Nothing is ever sent anywhere.
"""

import contextlib
import json
import os
import tempfile
from datetime import date
from pathlib import Path

import platformdirs

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt


class ProgressError(Exception):
    """The record could not be read or written; the message says why."""


def path() -> Path:
    """Where progress is kept."""
    if os.environ.get("LITFORMER_PROGRESS"):
        return Path(os.environ["LITFORMER_PROGRESS"])
    folder = platformdirs.user_data_dir("litformer", appauthor=False)
    return Path(folder) / "progress.json"


def load() -> dict[str, dict]:
    """Every exercise that was tried: `{id: {attempts, solved, last}}`.

    `solved` is the day of the first success (ISO), or None.
    """
    return _read(path())


def solved() -> set[str]:
    """The ids of the solved exercises."""
    return {i for i, entry in load().items() if entry["solved"]}


def record(id: str, *, solved: bool, on: date | None = None) -> None:
    """Count one attempt at `id`, and the day of its first success."""
    today = (on or date.today()).isoformat()
    with _changing() as entries:
        entry = entries.setdefault(id, {"attempts": 0, "solved": None})
        if entry["solved"] is None:  # attempts: until it was solved
            entry["attempts"] += 1
            entry["solved"] = today if solved else None
        entry["last"] = today


def reset(id: str | None = None) -> int:
    """Forget one exercise, or all; how many were forgotten."""
    with _changing() as entries:
        gone = [i for i in entries if id in (None, i)]
        for i in gone:
            del entries[i]
    return len(gone)


@contextlib.contextmanager
def _changing():
    """The entries, locked against other kernels, written when it ends."""
    file = path()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with _lock(file.with_name(file.name + ".lock")):
            entries = _read(file)
            yield entries
            _write(file, entries)
    except OSError as error:
        raise ProgressError(
            f"{file}: {error.strerror or error}. Set LITFORMER_PROGRESS to a "
            "file that can be written."
        ) from error


@contextlib.contextmanager
def _lock(file: Path):
    with open(file, "a+b") as handle:
        if fcntl:
            fcntl.flock(handle, fcntl.LOCK_EX)
        else:
            handle.seek(0)
            msvcrt.locking(handle.fileno(), msvcrt.LK_LOCK, 1)
        try:
            yield
        finally:
            if not fcntl:
                handle.seek(0)
                msvcrt.locking(handle.fileno(), msvcrt.LK_UNLCK, 1)


def _read(file: Path) -> dict[str, dict]:
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError):
            raise ProgressError(f"{file}: {error.strerror}.") from error
        text = ""
    try:
        data = json.loads(text)["exercises"]
        return {
            str(i): {
                "attempts": int(entry["attempts"]),
                "solved": entry["solved"],
                "last": entry.get("last"),
            }
            for i, entry in data.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        aside = file.with_name(file.name + ".bad")
        file.replace(aside)
        raise ProgressError(
            f"{file}: not a record of progress. It was moved to {aside.name} "
            "beside it, and a new one begins with the next check."
        ) from None


def _write(file: Path, entries: dict) -> None:
    """All or nothing: a kernel that dies half-way leaves the old file."""
    text = json.dumps({"version": 1, "exercises": entries}, indent=1)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=file.name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text + "\n")
        os.replace(name, file)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
