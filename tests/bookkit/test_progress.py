"""Progress is never lost, half-written or silently thrown away."""

import json
import os
import re
import stat
import subprocess
import sys
from datetime import date
from pathlib import Path

import platformdirs
import pytest

from bookkit import __main__ as cli
from bookkit import progress
from bookkit.progress import ProgressError, Row, Table

SOURCE = Path(progress.__file__).parents[1]


@pytest.fixture(autouse=True)
def file(tmp_path, monkeypatch):
    path = tmp_path / "data" / "progress.json"
    monkeypatch.setenv("LITFORMER_PROGRESS", str(path))
    return path


def test_default_place_is_the_users_data_folder(monkeypatch):
    monkeypatch.delenv("LITFORMER_PROGRESS")
    folder = platformdirs.user_data_dir("litformer", appauthor=False)
    assert progress.path() == Path(folder) / "progress.json"


def test_record_counts_tries_until_the_first_success(file):
    assert progress.load() == {}
    progress.record("a.x", solved=False, on=date(2026, 1, 2))
    progress.record("a.x", solved=True, on=date(2026, 1, 3))
    progress.record("a.x", solved=False, on=date(2026, 1, 4))
    progress.record("a.y", solved=False, on=date(2026, 1, 4))
    assert progress.load() == {
        "a.x": {"attempts": 2, "solved": "2026-01-03", "last": "2026-01-04"},
        "a.y": {"attempts": 1, "solved": None, "last": "2026-01-04"},
    }
    assert progress.solved() == {"a.x"}
    left = {p.name for p in file.parent.iterdir()}
    assert left == {"progress.json", "progress.json.lock"}


def test_reset_one_and_all():
    for id in ("a.x", "a.y", "a.z"):
        progress.record(id, solved=True)
    assert progress.reset("a.x") == 1
    assert progress.solved() == {"a.y", "a.z"}
    assert progress.reset() == 2
    assert progress.load() == {}


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"exercises": {"a.x": {}}}', '{"exercises": 3}', ""]
)
def test_a_corrupt_file_is_kept_aside(file, text):
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(ProgressError, match=r"moved to progress\.json\.bad"):
        progress.load()
    assert file.with_name("progress.json.bad").read_text() == text
    progress.record("a.x", solved=True)
    assert progress.solved() == {"a.x"}


def test_bytes_that_are_no_text(file):
    file.parent.mkdir()
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ProgressError, match="not a record of progress"):
        progress.record("a.x", solved=True)
    assert file.with_name("progress.json.bad").exists()


def test_a_place_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "progress.json"
    monkeypatch.setenv("LITFORMER_PROGRESS", str(path))
    with pytest.raises(ProgressError, match="Set LITFORMER_PROGRESS"):
        progress.record("a.x", solved=True)


def test_a_failed_write_leaves_the_old_file(file, monkeypatch):
    progress.record("a.x", solved=True)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ProgressError, match="No space left on device"):
        progress.record("a.y", solved=True)
    assert progress.solved() == {"a.x"}
    assert len(list(file.parent.iterdir())) == 2  # and no litter


def test_two_kernels_at_once(file):
    """Forty attempts from four processes, none lost."""
    code = (
        "import sys; from bookkit import progress\n"
        "for i in range(10): progress.record(f'a.{i}', solved=False)"
    )
    env = {**os.environ, "PYTHONPATH": str(SOURCE)}
    running = [
        subprocess.Popen([sys.executable, "-c", code], env=env)
        for _ in range(4)
    ]
    assert [p.wait(timeout=60) for p in running] == [0] * 4
    attempts = [e["attempts"] for e in progress.load().values()]
    assert attempts == [4] * 10
    assert json.loads(file.read_text())["version"] == 1
    assert stat.S_ISREG(file.stat().st_mode)


# ------------------------------------------------------------------ the table

ROWS = [
    Row("One", "one.a", "First <b>", 2, 10, "2026-01-03", 1),
    Row("One", "one.b", "Second", 5, 30, None, 3),
    Row("Two", "two.a", "Third", None, None, None, 0),
]


def test_table_as_text():
    lines = repr(Table(ROWS)).splitlines()
    assert lines[0] == "One: 1 of 2 solved, about 30 minutes to go"
    assert re.match(
        r"  ✓ First <b>  ●●○○○   10 min  solved 2026-01-03, 1 try  one\.a",
        lines[1],
    )
    assert re.match(
        r"  · Second     ●●●●●   30 min  3 tries .* one\.b", lines[2]
    )
    assert lines[3] == "Two: 0 of 1 solved"
    assert lines[-1] == "together: 1 of 3 solved, about 30 minutes to go"
    assert repr(Table([])) == "There are no exercises yet."


def test_table_as_html():
    page = Table(ROWS)._repr_html_()
    assert "First &lt;b&gt;" in page
    assert page.count("<table") == page.count("</table>") == 2
    assert "solved 2026-01-03, 1 try" in page
    assert "Together: 1 of 3 solved" in page
    assert "There are no exercises" in Table([])._repr_html_()


EXERCISE = """`````{exercise} Double it
:label: alpha.double-it
:difficulty: 2
:minutes: 10

Write it.
`````"""


@pytest.fixture
def book(tiny_book):
    cell = tiny_book.cell
    tiny_book.chapter(
        "alpha",
        EXERCISE,
        cell("f = ...", "starter"),
        ":::{dropdown} Hint\nx\n:::",
        "````{solution-start} alpha.double-it\n````",
        cell("f = 1", "solution"),
        "````{solution-end}\n````",
        cell('check("alpha.double-it")', "check"),
    )
    return tiny_book


def test_progress_knows_the_book(book):
    progress.record("alpha.double-it", solved=True, on=date(2026, 1, 3))
    (row,) = progress.progress().rows
    assert row == Row(
        "Alpha", "alpha.double-it", "Double it", 2, 10, "2026-01-03", 1
    )


def test_progress_without_the_repository(tmp_path, monkeypatch):
    """An installed package has the checks only."""
    from bookkit import checks

    (tmp_path / "gamma.py").write_text(
        "from bookkit.check import exercise\n"
        "@exercise('gamma.see-it')\ndef see(x):\n    '''See.'''\n"
    )
    monkeypatch.setattr(checks, "__path__", [str(tmp_path)])
    monkeypatch.setenv("BOOK_ROOT", str(tmp_path / "nowhere"))
    (row,) = progress.progress().rows
    assert (row.id, row.title, row.difficulty) == (
        "gamma.see-it",
        "see it",
        None,
    )
    assert "see it" in repr(progress.progress())


def test_command_line(book, capsys):
    assert cli.main(["progress"]) == 0
    assert "0 of 1 solved, about 10 minutes to go" in capsys.readouterr().out
    progress.record("alpha.double-it", solved=True)
    assert cli.main(["progress", "--reset"]) == 2
    assert "forget all exercises. Add --yes" in capsys.readouterr().err
    assert cli.main(["progress", "--reset", "alpha.nope", "--yes"]) == 2
    assert "nothing is recorded for 'alpha.nope'" in capsys.readouterr().err
    assert progress.solved() == {"alpha.double-it"}
    assert cli.main(["progress", "--reset", "alpha.double-it", "--yes"]) == 0
    assert progress.load() == {}
    progress.path().write_text("{")
    assert cli.main(["progress"]) == 2
    assert "not a record of progress" in capsys.readouterr().err
