"""The exercises of a chapter: statement, starter, hints, solution, check.

An exercise is written in one order, so that the site, the learner's notebook
and the tests cut it in the same places:

    {exercise} Title    with :label: :difficulty: :minutes: and the statement
    starter cell(s)
    {dropdown} Hint     one or more
    {solution-start} id ... text and solution cell(s) ... {solution-end}
    check cell          check("id"), last, so that it proves the solution
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from bookkit.book import Book, BookError, Cell, Chapter
from bookkit.myst import Directive, Text, Unclosed, blocks

_OPTIONS = {"label", "difficulty", "minutes", "class", "name", "nonumber"}
PARTS = ("starter", "solution", "check")


@dataclass
class Exercise:
    """One exercise, as the chapter's author wrote it."""

    chapter: Chapter = field(repr=False)
    id: str
    title: str
    difficulty: int  # 1 to 5
    minutes: int
    statement: str = field(repr=False)
    line: int
    starters: list[Cell] = field(default_factory=list, repr=False)
    hints: list[Directive] = field(default_factory=list, repr=False)
    solutions: list[Cell] = field(default_factory=list, repr=False)
    check: Cell | None = field(default=None, repr=False)
    gate: str = field(default="before", repr=False)  # before, inside, after

    @property
    def slug(self) -> str:
        """The id without the chapter."""
        return self.id.split(".", 1)[1]

    @property
    def where(self) -> str:
        """`chapters/attention.md:120`."""
        return f"{self.chapter.rel}:{self.line}"

    @property
    def starter(self) -> str:
        """What the learner begins with."""
        return "\n\n".join(cell.source for cell in self.starters)

    @property
    def solution(self) -> str:
        """The code of the solution."""
        return "\n\n".join(cell.source for cell in self.solutions)


@dataclass
class Part:
    """A piece of a chapter, and the exercise that it belongs to."""

    item: Text | Directive | Cell
    exercise: Exercise | None
    secret: bool  # of a solution: not for the learner's notebook


def exercises(chapter: Chapter) -> list[Exercise]:
    """The chapter's exercises, in order; BookError names what is malformed."""
    found: list[Exercise] = []
    for part in walk(chapter):
        if part.exercise and part.exercise not in found:
            found.append(part.exercise)
    return found


def all_exercises(book: Book) -> list[Exercise]:
    """The exercises of every chapter, in book order."""
    return [e for chapter in book.chapters for e in exercises(chapter)]


def walk(chapter: Chapter) -> Iterator[Part]:
    """Every block of prose and every code cell of a chapter, in order."""
    current: Exercise | None = None
    ids: set[str] = set()
    for cell in chapter.cells:
        if cell.node.cell_type == "raw":
            continue
        if cell.is_code:
            tags = [t for t in PARTS if t in cell.tags]
            if tags or (current and current.gate == "inside"):
                _place(current, cell, tags)
            inside = current is not None and current.gate == "inside"
            yield Part(cell, current if tags else None, inside)
            if "check" in tags:
                current = None
            continue
        for block in _blocks(chapter, cell):
            name = block.name if isinstance(block, Directive) else ""
            if name == "exercise":
                _finish(current)
                current = _begin(chapter, block, ids)
                yield Part(block, current, False)
            elif name == "solution-start":
                _open(chapter, current, block)
                yield Part(block, current, True)
            elif name == "solution-end":
                if current is None or current.gate != "inside":
                    raise _error(
                        chapter,
                        block.line,
                        "solution-end without a solution-start.",
                    )
                current.gate = "after"
                yield Part(block, current, True)
            else:
                inside = current is not None and current.gate == "inside"
                if current and name == "dropdown" and current.gate == "before":
                    _need(current, current.starters, "starter", block.line)
                    current.hints.append(block)
                    yield Part(block, current, False)
                else:
                    yield Part(block, None, inside)
    _finish(current)


def _error(chapter: Chapter, line: int, text: str) -> BookError:
    return BookError(f"{chapter.rel}:{line}: {text}")


def _blocks(chapter: Chapter, cell: Cell) -> list[Text | Directive]:
    try:
        return blocks(cell.source, cell.line)
    except Unclosed as error:
        raise _error(chapter, error.line, f"{error}.") from None


def _begin(chapter: Chapter, block: Directive, ids: set[str]) -> Exercise:
    def bad(text: str) -> BookError:
        return _error(chapter, block.line, f"exercise: {text}")

    label = block.options.get("label", "")
    pattern = rf"{re.escape(chapter.name)}\.[a-z0-9]+(-[a-z0-9]+)*"
    if not re.fullmatch(pattern, label):
        raise bad(
            f":label: must be '{chapter.name}.<words-with-hyphens>', got "
            f"{label!r}."
        )
    if label in ids:
        raise bad(f"the label {label!r} is used twice. Rename one.")
    ids.add(label)
    if not block.argument:
        raise bad(f"{label} has no title. Write it after {{exercise}}.")
    if unknown := set(block.options) - _OPTIONS:
        raise bad(
            f"{label} has an unknown option :{min(unknown)}:. There are "
            ":label:, :difficulty: and :minutes:."
        )
    numbers = {}
    for key, most in (("difficulty", 5), ("minutes", 600)):
        value = block.options.get(key, "")
        if not re.fullmatch(r"\d+", value) or not 1 <= int(value) <= most:
            raise bad(
                f"{label}: :{key}: must be a whole number from 1 to {most}, "
                f"got {value or 'nothing'}."
            )
        numbers[key] = int(value)
    if not block.body.strip():
        raise bad(f"{label} has no statement.")
    return Exercise(
        chapter=chapter,
        id=label,
        title=block.argument,
        statement=block.body.strip(),
        line=block.line,
        **numbers,
    )


def _open(chapter: Chapter, current: Exercise | None, block: Directive):
    if current is None or block.argument != current.id:
        after = f"exercise {current.id!r}" if current else "no exercise"
        raise _error(
            chapter,
            block.line,
            f"solution-start {block.argument!r} follows {after}. It must name "
            "the exercise above it, whose check has not come yet.",
        )
    if current.gate != "before":
        raise _error(
            chapter, block.line, f"{current.id} has a second solution-start."
        )
    _need(current, current.starters, "starter", block.line)
    if not current.hints:
        raise _error(
            chapter,
            block.line,
            f"{current.id} has no hint. Write a {{dropdown}} between starter "
            "and solution.",
        )
    current.gate = "inside"


def _place(current: Exercise | None, cell: Cell, tags: list[str]) -> None:
    """Give a tagged cell to its exercise, or say why it cannot stand here."""

    def bad(text: str) -> BookError:
        return BookError(f"{cell.where()}: {text}")

    if len(tags) > 1:
        raise bad(f"a cell cannot be both {tags[0]} and {tags[1]}.")
    if current is None:
        raise bad(f"a {tags[0]} cell outside an exercise.")
    tag = tags[0] if tags else ""
    if current.gate == "inside" and tag != "solution":
        raise bad(
            f"a cell between solution-start and solution-end of {current.id} "
            "must be tagged solution, or a learner's notebook would show it."
        )
    if tag == "starter":
        if current.hints or current.gate != "before":
            raise bad(
                f"the starter of {current.id} must come before its hints."
            )
        current.starters.append(cell)
    elif tag == "solution":
        if current.gate != "inside":
            raise bad(
                f"the solution of {current.id} must stand between "
                "solution-start and solution-end."
            )
        current.solutions.append(cell)
    else:
        if current.gate != "after":
            raise bad(
                f"the check of {current.id} must come after its solution-end."
            )
        if not re.fullmatch(
            rf"check\((['\"]){re.escape(current.id)}\1\)", cell.source.strip()
        ):
            raise bad(f'the check cell must be: check("{current.id}")')
        _need(current, current.solutions, "solution", cell.line)
        current.check = cell


def _need(exercise: Exercise, cells: list[Cell], tag: str, line: int) -> None:
    if not cells:
        raise _error(
            exercise.chapter,
            line,
            f"{exercise.id} has no cell tagged {tag} before this line.",
        )


def _finish(exercise: Exercise | None) -> None:
    """Called where another exercise or the chapter's end comes."""
    if exercise is None or exercise.check:
        return
    if exercise.gate == "inside":
        raise BookError(
            f"{exercise.where}: the solution of {exercise.id} has no "
            "solution-end."
        )
    missing = "check" if exercise.gate == "after" else "solution"
    if not exercise.starters:
        missing = "starter"
    raise BookError(
        f"{exercise.where}: {exercise.id} has no {missing}. An exercise is: "
        "{exercise}, starter cell, {dropdown} hints, {solution-start}, "
        "solution cell, {solution-end}, check cell."
    )
