"""Exercises are read from a chapter, and a malformed one is named."""

import re

import pytest

from bookkit.book import BookError
from bookkit.exercises import all_exercises, exercises
from bookkit.myst import Directive, Text, Unclosed, blocks

STATEMENT = """`````{exercise} Double it
:label: alpha.double-it
:difficulty: 2
:minutes: 10

Write `double`.

```python
double(2)
```
`````"""
STARTER = "def double(x):\n    raise NotImplementedError"
HINT = ":::{dropdown} Hint\nTwice.\n:::"
START = "````{solution-start} alpha.double-it\n:class: dropdown\n````"
END = "````{solution-end}\n````"


@pytest.fixture
def parts(tiny_book):
    """The parts of a good exercise, for a test to spoil one."""
    cell = tiny_book.cell
    return {
        "statement": STATEMENT,
        "starter": cell(STARTER, "starter"),
        "hint": HINT,
        "start": START,
        "text": "Add it to itself.",
        "solution": cell("def double(x):\n    return x + x", "solution"),
        "end": END,
        "check": cell('check("alpha.double-it")', "check"),
    }  # fmt: skip


def read(tiny_book, parts: dict) -> list:
    tiny_book.chapter("alpha", *filter(None, parts.values()), "The end.")
    return exercises(tiny_book.book.chapters[0])


def test_a_good_exercise(tiny_book, parts):
    (found,) = read(tiny_book, parts)
    assert found.id == "alpha.double-it"
    assert found.slug == "double-it"
    assert (found.title, found.difficulty, found.minutes) == (
        "Double it",
        2,
        10,
    )
    assert found.statement.startswith("Write `double`.")
    assert found.statement.endswith("```")
    assert found.starter == "def double(x):\n    raise NotImplementedError"
    assert found.solution == "def double(x):\n    return x + x"
    assert [h.body for h in found.hints] == ["Twice."]
    assert found.check.source == 'check("alpha.double-it")'
    assert found.where == tiny_book.line("alpha", "{exercise}")
    assert all_exercises(tiny_book.book)[0].id == found.id


SPOILED = [
    ({"statement": STATEMENT.replace("alpha.", "beta.")},
     r"\{exercise\}", r"must be 'alpha\.<words-with-hyphens>', got 'beta"),
    ({"statement": STATEMENT.replace(":label: alpha.double-it\n", "")},
     r"\{exercise\}", "got ''"),
    ({"statement": STATEMENT.replace(" Double it", "")},
     r"\{exercise\}", "no title"),
    ({"statement": STATEMENT.replace("culty: 2", "culty: 6")},
     r"\{exercise\}", ":difficulty: must be a whole number from 1 to 5, got 6"),
    ({"statement": STATEMENT.replace(":minutes: 10\n", "")},
     r"\{exercise\}", ":minutes: must be .* got nothing"),
    ({"statement": STATEMENT.replace(":minutes:", ":points: 3\n:minutes:")},
     r"\{exercise\}", "unknown option :points:"),
    ({"statement": STATEMENT.split("\n\n")[0] + "\n`````"},
     r"\{exercise\}", "has no statement"),
    ({"statement": STATEMENT[:-5]}, r"\{exercise\}", "never closed"),
    ({"starter": None}, r"\{dropdown\}", "no cell tagged starter"),
    ({"hint": None}, r"\{solution-start\}", "has no hint"),
    ({"solution": None}, "check", "no cell tagged solution before"),
    ({"start": START.replace("double-it", "halve-it")},
     r"\{solution-start\}", "'alpha.halve-it' follows exercise"),
    ({"start": None}, "def double", "must stand between"),
    ({"end": None}, "check\\(", "must be tagged solution"),
    ({"end": None, "check": None}, r"\{exercise\}", "has no solution-end"),
    ({"check": None}, r"\{exercise\}", "has no check"),
    ({"start": None, "solution": None, "end": None, "check": None},
     r"\{exercise\}", "has no solution"),
    ({"statement": None}, "def double", "a starter cell outside an exercise"),
    ({"end": END + "\n\n" + END}, None, "solution-end without"),
    ({"start": START + "\n\nx\n\n" + START}, None, "second solution-start"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "at", "says"), SPOILED)
def test_malformed(tiny_book, parts, change, at, says):
    with pytest.raises(BookError, match=says) as caught:
        read(tiny_book, {**parts, **change})
    where = str(caught.value).split(": ")[0]
    assert where.startswith("chapters/alpha.md:")
    if at:
        lines = tiny_book.read("chapters/alpha.md").splitlines()
        line = lines[int(where.rsplit(":", 1)[1]) - 1]
        assert re.search(at, line), (where, line)


def test_malformed_cells(tiny_book, parts):
    cell = tiny_book.cell
    for source, says in {
        'check("alpha.other")': r'must be: check\("alpha.double-it"\)',
        'check("alpha.double-it"); print()': "must be: check",
    }.items():
        with pytest.raises(BookError, match=says):
            read(tiny_book, {**parts, "check": cell(source, "check")})
    with pytest.raises(BookError, match="cannot be both starter and check"):
        read(tiny_book, {**parts, "starter": cell("1", "starter", "check")})
    with pytest.raises(BookError, match="starter .* before its hints"):
        read(tiny_book, {**parts, "hint": HINT + "\n\n" + parts["starter"]})
    with pytest.raises(BookError, match="check .* after its solution-end"):
        read(tiny_book, {**parts, "start": parts["check"] + "\n\n" + START})
    with pytest.raises(BookError, match="is used twice"):
        read(tiny_book, {**parts, "again": STATEMENT})


def test_a_second_exercise_must_wait(tiny_book, parts):
    other = STATEMENT.replace("double-it", "other")
    with pytest.raises(BookError, match="alpha.double-it has no check"):
        read(tiny_book, {**parts, "check": None, "other": other})


# ------------------------------------------------------------------ blocks()


def test_blocks_take_text_apart():
    text = "\n".join(
        [
            "Before `:::{note}` in code.",  # 10
            "",
            "````{note} A title",  # 12
            ":class: x",
            ":name: y",
            "",
            "Inside.",  # 16
            "```{tip}",
            "Deeper.",
            "```",
            "````",
            "```python",
            ":::{note}",  # only shown
            ":::",
            "```",
            "- item",
            "  :::{hint}",  # 26
            "  Indented.",
            "  :::",
            "After.",
        ]
    )
    found = blocks(text, 10)
    kinds = [type(b) for b in found]
    assert kinds == [Text, Directive, Text, Directive, Text]
    note, hint = found[1], found[3]
    assert (note.name, note.argument, note.line) == ("note", "A title", 12)
    assert note.options == {"class": "x", "name": "y"}
    assert note.body == "Inside.\n```{tip}\nDeeper.\n```"
    assert note.body_line == 16
    assert (hint.body, hint.indent, hint.line) == ("Indented.", "  ", 26)
    assert ":::{note}" in found[2].text
    assert found[4].line == 29
    (tip,) = [b for b in blocks(note.body, 16) if isinstance(b, Directive)]
    assert tip.line == 17


def test_blocks_folded_options_and_stray_fences():
    (figure,) = blocks(
        ":::{figure} a.png\n:alt: one\n  two\n:name: n\nCaption.\n:::"
    )
    assert figure.options == {"alt": "one two", "name": "n"}
    assert figure.body == "Caption."
    assert blocks(":::")[0].text == ":::"
    assert blocks("```a``` is code")[0].text == "```a``` is code"
    with pytest.raises(Unclosed, match="```` is never closed"):
        blocks("x\n````{note}\n```")
