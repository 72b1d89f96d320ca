"""Which exercises are solved: kept on the reader's machine, shown as a table.

The file lies in the user's data folder (the environment variable
`LITFORMER_PROGRESS` names another one), so that it survives a rebuild of the
book, `make clean` and a new clone. Nothing is ever sent anywhere.
"""

import contextlib
import html
import json
import os
import pkgutil
import tempfile
from dataclasses import dataclass
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


# ------------------------------------------------------------------ the table


@dataclass(frozen=True)
class Row:
    """One exercise in the table; the book's facts are missing in a wheel."""

    chapter: str
    id: str
    title: str
    difficulty: int | None
    minutes: int | None
    solved: str | None
    attempts: int


class Table:
    """The progress table; rich in a notebook, plain elsewhere."""

    def __init__(self, rows: list[Row]) -> None:
        self.rows = rows

    @property
    def chapters(self) -> dict[str, list[Row]]:
        """Chapter -> its rows, in book order."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            found.setdefault(row.chapter, []).append(row)
        return found

    @staticmethod
    def total(rows: list[Row]) -> str:
        """`3 of 7 solved, about 45 minutes to go`."""
        done = sum(bool(r.solved) for r in rows)
        text = f"{done} of {len(rows)} solved"
        left = sum(r.minutes or 0 for r in rows if not r.solved)
        return f"{text}, about {left} minutes to go" if left else text

    def __repr__(self) -> str:
        if not self.rows:
            return "There are no exercises yet."
        lines = []
        wide = max(len(r.title) for r in self.rows)
        state = max(len(_state(r)) for r in self.rows)
        for chapter, rows in self.chapters.items():
            lines.append(f"{chapter}: {self.total(rows)}")
            for r in rows:
                mark = "✓" if r.solved else "·"
                minutes = f"{r.minutes:3d} min" if r.minutes else ""
                lines.append(
                    f"  {mark} {r.title:{wide}}  {_dots(r):5}  {minutes:7}  "
                    f"{_state(r):{state}}  {r.id}"
                )
        if len(self.chapters) > 1:
            lines.append(f"together: {self.total(self.rows)}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        cell = 'style="text-align:left;padding:.15em .8em .15em 0"'
        head = "".join(
            f'<th scope="col" {cell}>{name}</th>'
            for name in ("", "Exercise", "Difficulty", "Minutes", "State")
        )
        parts = []
        for chapter, rows in self.chapters.items():
            body = "".join(
                f"<tr><td {cell}>{'✓' if r.solved else '·'}</td>"
                f"<td {cell}>{html.escape(r.title)}</td>"
                f'<td {cell} title="{r.difficulty or "?"} of 5">{_dots(r)}</td>'
                f"<td {cell}>{r.minutes or ''}</td>"
                f"<td {cell}>{_state(r)}</td></tr>"
                for r in rows
            )
            parts.append(
                '<table style="border-collapse:collapse;margin:.5em 0">'
                '<caption style="text-align:left;white-space:nowrap"><strong>'
                f"{html.escape(chapter)}</strong>: {self.total(rows)}"
                f"</caption><thead><tr>{head}</tr></thead>"
                f"<tbody>{body}</tbody></table>"
            )
        if len(self.chapters) > 1:
            parts.append(f"<p>Together: {self.total(self.rows)}.</p>")
        return "".join(parts) or "<p>There are no exercises yet.</p>"


def _dots(row: Row) -> str:
    if row.difficulty is None:
        return ""
    return "●" * row.difficulty + "○" * (5 - row.difficulty)


def _state(row: Row) -> str:
    tries = f"{row.attempts} {'try' if row.attempts == 1 else 'tries'}"
    if row.solved:
        return f"solved {row.solved}, {tries}"
    return tries if row.attempts else ""


def progress() -> Table:
    """The table of all exercises; the last line of a notebook cell shows it."""
    entries = load()
    return Table(
        [
            Row(
                chapter,
                id,
                title,
                difficulty,
                minutes,
                entries.get(id, {}).get("solved"),
                entries.get(id, {}).get("attempts", 0),
            )
            for chapter, id, title, difficulty, minutes in _known()
        ]
    )


def _known():
    """(chapter, id, title, difficulty, minutes) of every exercise.

    From the chapters where the repository is; an installed package (Colab)
    has the checks only, and no difficulty or minutes.
    """
    try:
        from bookkit.book import Book, BookError
        from bookkit.exercises import all_exercises
    except ImportError:
        return _from_checks()
    try:
        book = Book()
        return [
            (e.chapter.title, e.id, e.title, e.difficulty, e.minutes)
            for e in all_exercises(book)
        ]
    except (BookError, OSError):
        return _from_checks()


def _from_checks():
    from bookkit import checks
    from bookkit.check import checks_of

    return [
        (name, e.id, e.id.split(".", 1)[1].replace("-", " "), None, None)
        for name in sorted(
            m.name for m in pkgutil.iter_modules(checks.__path__)
        )
        for e in checks_of(name)
    ]


# --------------------------------------------------------------- command line


def add_arguments(parser) -> None:
    """The options of `bookkit progress`."""
    parser.add_argument(
        "--reset",
        nargs="?",
        const="",
        metavar="ID",
        help="forget one exercise, or all of them (needs --yes)",
    )
    parser.add_argument(
        "--yes", action="store_true", help="really forget, with --reset"
    )


def main(args) -> int:
    """Print the table, or forget."""
    from bookkit.book import BookError

    try:
        if args.reset is None:
            print(progress())
            return 0
        what = args.reset or "all exercises"
        if args.reset and args.reset not in load():
            raise BookError(f"nothing is recorded for {args.reset!r}.")
        if not args.yes:
            raise BookError(
                f"this would forget {what}. Add --yes if you mean it."
            )
        print(f"progress: forgot {reset(args.reset or None)} exercises")
    except ProgressError as error:
        raise BookError(str(error)) from error
    return 0
