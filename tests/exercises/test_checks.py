"""Every exercise of every chapter is proved: no check can be fooled or fail.

The starter fails in words, the solution passes, and at least three named
mistakes are rejected with a message that names the mistake.
"""

import importlib.util
import linecache
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bookkit import check as checker
from bookkit.book import Book, find_root
from bookkit.exercises import exercises

ROOT = find_root(Path(__file__).parent)
CHAPTERS = Book(ROOT).chapters
EXERCISES = [e for chapter in CHAPTERS for e in exercises(chapter)]


def mutants(chapter: str) -> dict[str, dict[str, tuple[str, str]]]:
    """The wrong answers in tests/exercises/<chapter>.py."""
    path = Path(__file__).parent / f"{chapter}.py"
    assert path.exists(), f"tests/exercises/{chapter}.py: no mutants"
    spec = importlib.util.spec_from_file_location(f"_mutants_{chapter}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.MUTANTS


MUTANTS = {
    id: wrong
    for chapter in CHAPTERS
    if exercises(chapter)
    for id, wrong in mutants(chapter.name).items()
}
WRONG = [
    (id, name, *answer)
    for id, wrong in MUTANTS.items()
    for name, answer in wrong.items()
]


def setup_code(chapter) -> str:
    return "\n".join(c.source for c in chapter.cells if "setup" in c.tags)


@pytest.fixture(scope="session")
def chapter_namespace():
    """The names after the setup cell of a chapter, made once each."""
    made = {}

    def fresh(chapter) -> dict:
        if chapter.name not in made:
            made[chapter.name] = {"__name__": "__main__"}
            run(setup_code(chapter), made[chapter.name], "setup")
        return dict(made[chapter.name])

    return fresh


def run(code: str, namespace: dict, name: str) -> None:
    """Execute as a notebook would, so that a message can quote the line."""
    file = f"<{name}>"
    linecache.cache[file] = (len(code), None, code.splitlines(True), file)
    exec(compile(code, file, "exec"), namespace)


def ids(exercise) -> str:
    return exercise.id


@pytest.mark.parametrize("exercise", EXERCISES, ids=ids)
def test_starter_fails_in_words(exercise, chapter_namespace):
    namespace = chapter_namespace(exercise.chapter)
    run(exercise.starter, namespace, "starter")
    result = checker.examine(exercise.id, namespace)
    assert result.status in ("unwritten", "wrong"), result.text
    assert "Traceback" not in result.text


@pytest.mark.parametrize("exercise", EXERCISES, ids=ids)
def test_solution_passes(exercise, chapter_namespace):
    namespace = chapter_namespace(exercise.chapter)
    run(exercise.solution, namespace, "solution")
    state = torch.get_rng_state()
    result = checker.examine(exercise.id, namespace)
    assert result.solved, result.text
    assert not {"Note", "Warned"} & set(result.details), result.text
    assert torch.equal(torch.get_rng_state(), state)
    again = checker.examine(exercise.id, namespace)
    assert again.text == result.text, "a check must say the same every time"


@pytest.mark.parametrize(
    ("id", "name", "code", "says"), WRONG, ids=[f"{w[0]}-{w[1]}" for w in WRONG]
)
def test_mistake_is_named(id, name, code, says, chapter_namespace):
    exercise = next(e for e in EXERCISES if e.id == id)
    namespace = chapter_namespace(exercise.chapter)
    run(code, namespace, f"{id} {name}")
    result = checker.examine(id, namespace)
    assert not result.solved, f"the mistake {name!r} is taken for right"
    assert result.status in ("wrong", "error", "timeout"), result.text
    assert re.search(says, result.text), (
        f"the message does not match {says!r}:\n{result.text}"
    )
    assert len(result.text.splitlines()) <= 60


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda c: c.name)
def test_chapter_has_six_to_eight_exercises(chapter):
    found = exercises(chapter)
    assert 6 <= len(found) <= 8, [e.id for e in found]
    assert len({e.difficulty for e in found}) >= 3, "all of one difficulty"


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda c: c.name)
def test_checks_exercises_and_mutants_agree(chapter):
    written = {e.id for e in exercises(chapter)}
    assert {e.id for e in checker.checks_of(chapter.name)} == written
    wrong = mutants(chapter.name)
    assert set(wrong) == written
    few = {i: list(w) for i, w in wrong.items() if len(w) < 3}
    assert not few, f"fewer than three mistakes: {few}"


def test_checks_need_no_tool_of_the_book():
    """A learner's machine has the package's dependencies, not the book's."""
    code = """
import sys
for tool in ("jupytext", "nbformat", "yaml", "sphinx", "IPython"):
    sys.modules[tool] = None
from bookkit.check import checks_of
assert all(checks_of(name) for name in sys.argv[1:])
"""
    names = [c.name for c in CHAPTERS if exercises(c)]
    subprocess.run(
        [sys.executable, "-c", code, *names],
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        timeout=120,
    )
