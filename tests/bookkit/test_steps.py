"""`make test` runs every step, counts honestly, and cannot look green."""

import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

from bookkit import __main__, steps
from bookkit.book import BookError
from bookkit.steps import Result, Step

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def commands(tiny_book, monkeypatch):
    """A book whose steps are small Python modules that the test writes."""
    monkeypatch.setenv("PYTHONPATH", str(tiny_book.root))
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    # the small test runs below need none of the plugins that are installed
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    tiny_book.write("_toc.yml", "format: jb-book\nroot: book/intro\n")

    def command(name: str, source: str, **options) -> Step:
        tiny_book.write(f"{name}.py", source)
        return Step(name, f"does {name}", (name,), **options)

    command.root = tiny_book.root
    command.write = tiny_book.write
    return command


def test_a_command_counts_as_one(commands):
    todo = [commands("good", "pass"), commands("bad", "raise SystemExit(3)")]
    good, bad = steps.run_steps(todo, commands.root)
    assert (good.passed, good.failed) == (1, 0)
    assert (bad.passed, bad.failed) == (0, 1)
    assert bad.note == "exit status 3"
    assert good.seconds > 0


TESTS = """
import pytest

def test_one(): pass
def test_two(): pass
def test_bad(): assert False
def test_skip(): pytest.skip("why")
"""


def test_the_tests_of_pytest_are_counted(commands):
    commands.write("test_x.py", TESTS)
    step = Step("x", "", ("pytest", "-q", "test_x.py"))
    (result,) = steps.run_steps([step], commands.root)
    assert (result.passed, result.failed, result.skipped) == (2, 1, 1)


def test_the_pytest_inside_a_command_is_counted_too(commands):
    commands.write("test_x.py", "def test_one(): pass\ndef test_two(): pass")
    inside = "import pytest, sys; sys.exit(pytest.main(['-q', 'test_x.py']))"
    (result,) = steps.run_steps([commands("x", inside)], commands.root)
    assert (result.passed, result.failed) == (2, 0)


def test_a_broken_test_file_is_a_failure(commands):
    commands.write("test_x.py", "import nothing_of_this_name")
    step = Step("x", "", ("pytest", "-q", "test_x.py"))
    (result,) = steps.run_steps([step], commands.root)
    assert (result.passed, result.failed) == (0, 1)


def test_a_step_without_a_test_is_a_failure(commands):
    commands.write("test_x.py", "")
    step = Step("x", "", ("pytest", "-q", "test_x.py"))
    (result,) = steps.run_steps([step], commands.root)
    assert result.failed == 1
    assert result.note == "no test was found"


def test_a_crash_after_passing_tests_is_a_failure(commands):
    commands.write("test_x.py", "def test_one(): pass")
    inside = "import pytest, sys; pytest.main(['test_x.py']); sys.exit(9)"
    (result,) = steps.run_steps([commands("x", inside)], commands.root)
    assert (result.passed, result.failed) == (1, 1)
    assert result.note == "exit status 9"


def test_counts_of_an_earlier_run_are_not_taken(commands):
    commands.write("test_x.py", "def test_one(): pass\ndef test_two(): pass")
    step = Step("x", "", ("pytest", "-q", "test_x.py"))
    steps.run_steps([step], commands.root)
    (result,) = steps.run_steps(
        [commands("x", "raise SystemExit(1)")], commands.root
    )
    assert (result.passed, result.failed) == (0, 1)


def test_a_step_without_its_input_is_not_run_and_fails(commands):
    todo = [
        commands("bad", "raise SystemExit(1)"),
        commands("after", "open('ran', 'w')", needs=("bad",)),
        commands("beside", "pass", needs=("elsewhere",)),
    ]
    _, after, beside = steps.run_steps(todo, commands.root)
    assert after.failed == 1
    assert after.note == "not run: bad failed"
    assert not (commands.root / "ran").exists()
    assert beside.failed == 0


def test_an_interruption_ends_the_run(commands):
    with pytest.raises(KeyboardInterrupt):
        steps.run_steps([commands("x", "raise SystemExit(130)")], commands.root)


def test_one_thread_for_each_worker(commands):
    source = "import os; assert os.environ['OMP_NUM_THREADS'] == '1'"
    (result,) = steps.run_steps([commands("x", source)], commands.root)
    assert result.passed == 1


# --- the command ---------------------------------------------------------


@pytest.fixture
def test_command(commands, monkeypatch, capfd):
    """Run `bookkit test` with these steps; its exit status and its text."""

    def run(*todo: Step, arguments=()):
        monkeypatch.setattr(steps, "steps", lambda **_: list(todo))
        monkeypatch.setattr(steps, "chapter_costs", lambda book: "COSTS")
        code = __main__.main(["test", *arguments])
        return code, capfd.readouterr().out

    return run


def test_all_is_well(commands, test_command):
    code, out = test_command(commands("good", "print('said')"))
    assert code == 0
    assert "== good: does good\nsaid\n" in out
    assert re.search(r"^  good +0:0\d +1 +0$", out, re.M)
    assert "COSTS" in out
    assert out.splitlines()[-1] == "1 passed, 0 failed, 0 skipped"


def test_one_failure_fails_all_and_all_steps_run(commands, test_command):
    code, out = test_command(
        commands("bad", "raise SystemExit(1)"), commands("good", "pass")
    )
    assert code == 1
    assert re.search(r"^! bad +0:0\d +0 +1  exit status 1$", out, re.M)
    assert out.splitlines()[-1] == "1 passed, 1 failed, 0 skipped"


def test_one_step_can_be_asked_for(commands, test_command):
    todo = [commands("a", "pass"), commands("b", "pass", needs=("a",))]
    code, out = test_command(*todo, arguments=["b"])
    assert code == 0
    assert "== a" not in out
    assert out.splitlines()[-1] == "1 passed, 0 failed, 0 skipped"


def test_an_unknown_step_is_named(commands, test_command, capfd):
    code, _ = test_command(commands("a", "pass"), arguments=["zz"])
    assert code == 2
    args = types.SimpleNamespace(steps=["zz"], all=False)
    with pytest.raises(BookError, match="no step 'zz'. There are: a"):
        steps.main(args)


def browser(monkeypatch, find) -> None:
    """Let `find` answer where Chromium is."""
    module = types.SimpleNamespace(find_chromium=find)
    monkeypatch.setitem(sys.modules, "bookkit.diagrams", module)


def test_a_missing_browser_is_told_in_a_box(
    commands, test_command, monkeypatch
):
    def nothing():
        raise BookError("no Chromium found.")

    browser(monkeypatch, nothing)
    code, out = test_command(
        commands("good", "pass"), commands("x", "1/0", browser=True)
    )
    assert code == 0
    assert "#\n## NO BROWSER: the pages of the site were NOT tested." in out
    assert "apt-get install chromium" in out
    assert re.search(r"x .*SKIPPED: no Chromium", out)
    assert out.splitlines()[-1] == "1 passed, 0 failed, 1 skipped"


def test_a_browser_that_is_there_is_used(commands, monkeypatch):
    browser(monkeypatch, lambda: sys.executable)
    step = commands("x", "pass", browser=True)
    (result,) = steps.run_steps([step], commands.root)
    assert (result.passed, result.skipped) == (1, 0)


def test_the_box_is_a_box():
    lines = steps.box(["a", "longer"]).splitlines()
    assert len({len(line) for line in lines}) == 1


def test_the_report_adds_the_times():
    results = [Result("a", 61, 1), Result("b", 59, 0, 2, 3)]
    assert "  all          2:00" in steps.report(results)
    assert steps.summary(results) == "1 passed, 2 failed, 3 skipped"


def test_every_step_is_a_command_that_exists():
    """A renamed command or folder must not turn a step into nothing."""
    for step in steps.steps(workers=2, everything=True):
        if step.command[0] == "bookkit":
            assert step.command[1] in __main__.COMMANDS
        else:
            assert step.command[0] == "pytest"
        names = [s.name for s in steps.steps(workers=2, everything=True)]
        before = names[: names.index(step.name)]
        assert set(step.needs) <= set(before)


def test_what_reads_the_site_runs_after_it_is_built(monkeypatch):
    """In a fresh clone there is no site when the unit tests run."""
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)

    def collected(name: str) -> str:
        todo = steps.steps(workers=1, everything=True)
        (command,) = (s.command for s in todo if s.name == name)
        arguments = ["tests/site" if a == "tests" else a for a in command[1:]]
        arguments += ["--collect-only", "-p", "no:cacheprovider"]
        return subprocess.run(
            [sys.executable, "-m", "pytest", *arguments],
            capture_output=True,
            text=True,
            cwd=REPOSITORY,
        ).stdout

    reads_the_site = "test_site.py::test_page_weight"
    assert reads_the_site not in collected("tests")
    assert "test_directives.py::" in collected("tests")
    assert reads_the_site in collected("pages")
    assert "test_drawing.py::" not in collected("pages")
    assert "test_drawing.py::" in collected("browser")


def test_unchanged_chapters_run_again_where_ci_is_set(monkeypatch):
    def chapters(everything):
        todo = steps.steps(workers=1, everything=everything)
        return next(s.command for s in todo if s.name == "chapters")

    assert chapters(everything=True) == ("bookkit", "run", "--all")
    assert chapters(everything=False) == ("bookkit", "run")
    for value, expected in (("true", True), ("", False)):
        monkeypatch.setenv("CI", value)
        parser = steps.argparse.ArgumentParser()
        steps.add_arguments(parser)
        assert parser.parse_args([]).all is expected


@pytest.mark.parametrize("everything", [True, False])
def test_everything_is_whole(everything):
    """With --all nothing is taken from an earlier run, nothing left out."""
    found = {s.name: s.command for s in steps.steps(1, everything)}
    assert ("--all" in found["chapters"]) == everything
    assert ("--whole" in found["exercises"]) == everything
