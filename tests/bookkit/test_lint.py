"""Every rule of the linter, shown by a chapter that breaks it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bookkit import lint, rules
from bookkit.__main__ import main
from bookkit.book import BookError

REPOSITORY = Path(__file__).resolve().parents[2]
META = {
    "description": "A chapter.",
    "budget": 60,
    "export_to": "litformer.alpha",
}
SETUP = "```{code-cell} ipython3\n:tags: [setup, hide-input]\nimport math\n```"
# made of pieces, so that this file does not name such a folder itself
HOME = "/" + "home/someone"


@pytest.fixture
def chapter(tiny_book):
    """Write the chapter `alpha`, after a setup cell."""
    shutil.copy(REPOSITORY / "pyproject.toml", tiny_book.root)

    def write(*parts: str, setup: str = SETUP, **meta):
        tiny_book.chapter("alpha", setup, *parts, **{**META, **meta})
        return tiny_book.book.chapter("alpha")

    return write


def cell(source: str, *tags: str) -> str:
    options = f":tags: [{', '.join(tags)}]\n" if tags else ""
    return f"```{{code-cell}} ipython3\n{options}{source}\n```"


def lines(number: int) -> str:
    return "\n".join(f"x{i} = math.pi" for i in range(number))


def a_class(number: int, *, words: int) -> str:
    """One line for its name, `number` of code, a docstring of `words`."""
    doc = ['"""The idea.', *["More of it."] * words, '"""']
    body = [f"x{i} = math.pi" for i in range(number)]
    return "\n    ".join(["class A:", *doc, *body])


DEF = 'def {0}():\n    """Do {0}."""\n    return math.pi'
DOC = cell('"""The idea."""\n\nimport math', "export")
EXERCISE = """\
`````{exercise} Try
:label: alpha.try
:difficulty: 2
:minutes: 10

Do it.
`````"""

CLEAN = [
    DOC,
    cell(DEF.format("one"), "export"),
    "We run it. It works.",
    cell("one()"),
    cell(DEF.format("two"), "export"),
    cell("assert two() > 3", "test", "remove-cell"),
    cell(a_class(59, words=30), "export"),  # words are no code
    "It is long, and it may be.",
    cell(lines(15)),
    cell(lines(25), "hide-input"),
    cell(lines(60), "remove-cell"),
    cell(lines(60), "test", "remove-cell"),
    cell("from litformer import viz\n\nviz.show(1, alt='A line going up')"),
    EXERCISE,
    cell(lines(40), "starter"),
    ":::{dropdown} Hint\nThink.\n:::",
    "````{solution-start} alpha.try\n:class: dropdown\n````",
    cell(lines(40), "solution"),
    "````{solution-end}\n````",
    cell('check("alpha.try")', "check"),
]

# rule -> cases of (parts, text of the line at fault, message)
BROKEN = {
    "known_tags": [
        ([cell("x = 1", "exprot")], "x = 1", "`exprot`. Is it `export`"),
        ([cell("x = 1", "zzz")], "x = 1", "`zzz`. There are: check,"),
    ],
    "hidden_tests": [
        ([cell("assert math", "test")], "assert", "`test` shows in the book"),
        ([cell("glue = 1", "glue")], "glue = 1", "`glue` shows .*remove-cell"),
    ],
    "one_setup": [
        (
            [cell("more = 1", "setup", "hide-input")],
            "more = 1",
            "a second setup cell; the first is at chapters/alpha.md",
        )
    ],
    "cell_length": [
        ([cell(lines(16))], "x0 =", "exploratory cell of 16 lines .*is 15"),
        ([cell(lines(26), "hide-input")], "x0 =", "plot cell of 26 .*is 25"),
        ([cell(lines(41), "export")], "x0 =", "exported cell of 41 .*is 40"),
        (
            [cell(a_class(60, words=0), "export")],
            "class A:",
            "exported class cell of 61 .*is 60",
        ),
    ],
    "run_between_exports": [
        (
            [cell(DEF.format("a"), "export"), cell(DEF.format("b"), "export")],
            "def b",
            "two exported cells in a row; the other is at chapters/alpha.md",
        ),
        (
            [
                cell(DEF.format("a"), "export"),
                "Prose does not run.",
                cell("B = 1", "export-to:litformer.other"),
            ],
            "B = 1",
            "Run something between",
        ),
    ],
    "whole_exercises": [
        ([EXERCISE], "{exercise}", "alpha.try has no"),
        (
            [EXERCISE.replace("alpha.try", "other.try")],
            "{exercise}",
            "label: must be",
        ),
        (
            [EXERCISE.replace("difficulty: 2", "difficulty: 6")],
            "{exercise}",
            "from 1 to 5",
        ),
        (
            [
                EXERCISE,
                cell("y = 1", "starter"),
                "````{solution-start} alpha.try\n````",
            ],
            "solution-start",
            "has no hint",
        ),
    ],
    "figures_have_alt": [
        ([cell("viz.show(1)")], "viz.show", "viz.show needs alt="),
        ([cell("x = 1\nviz.show(x, alt='')")], "viz.show", "needs alt="),
        ([cell("show(1, alt=None)")], "show(1", "needs alt="),
    ],
    "no_home_folder": [
        ([f"See {HOME}/x."], "See", "a path of a home folder"),
        ([cell(f"x = '{HOME}'")], "x =", "a path of a home folder"),
        (["Look in /" + "Users/me."], "Look", "a path of a home folder"),
        (["Look in C:" + "\\Users\\me."], "Look", "a path of a home folder"),
    ],
    "short_sentences": [
        (
            ["Short one.\n\n" + "Word " * 30 + "end. " + "Word " * 20 + "end."],
            "Word",
            "the median sentence has 21 words; the most is 18. The longest, "
            "of 31",
        )
    ],
}
CASES = [
    pytest.param(rule, *case, id=f"{rule}-{i}")
    for rule, cases in BROKEN.items()
    for i, case in enumerate(cases)
]


@pytest.mark.parametrize(("rule", "parts", "at", "message"), CASES)
def test_a_broken_rule_is_told_with_the_line(
    chapter, tiny_book, capsys, rule, parts, at, message
):
    found = list(getattr(rules, rule)(chapter(*parts)))
    assert [p.where for p in found] == [tiny_book.line("alpha", at)]
    with pytest.raises(BookError, match=message):
        raise BookError(str(found[0]))
    assert main(["lint"]) == 1
    assert str(found[0]) in capsys.readouterr().out


def test_every_rule_is_in_the_table_and_has_a_failing_chapter():
    """`front_matter` has a test of its own."""
    table = {rule.__name__ for rule in rules.RULES}
    assert table == {*BROKEN, "front_matter"}


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda r: r.__name__)
def test_a_clean_chapter_passes_every_rule(chapter, rule):
    assert list(rule(chapter(*CLEAN))) == []


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ({"description": ""}, "no `description`. Write one sentence"),
        ({"budget": "much"}, "no `budget`. Write the CPU seconds"),
        ({"budget": 0}, "no `budget`"),
    ],
)
def test_the_front_matter_is_complete(chapter, meta, message):
    (found,) = rules.front_matter(chapter(**meta))
    assert found.where == "chapters/alpha.md:1"
    assert message in found.text


def test_the_setup_cell_comes_first(chapter, tiny_book):
    made = chapter(SETUP, setup=cell("early = 1"))
    (found,) = rules.one_setup(made)
    assert found.where == tiny_book.line("alpha", "early = 1")
    assert "the first code cell is not tagged `setup`" in found.text


def test_the_setup_cell_is_folded(chapter):
    (found,) = rules.one_setup(chapter(setup=cell("x = 1", "setup")))
    assert "needs the tag `hide-input`" in found.text


def test_sentences_are_counted_as_a_reader_counts_them(chapter, tiny_book):
    made = chapter(
        "One two three, e.g. four. Is `a + b + c` two? It $x + y$ is.",
        "- An item of five words.\n- Not a sentence",
        "| a table. | is not prose. |",
        "$$\nx . y .\n$$ (eq)",
        "```python\nNot. Prose. Either.\n```",
        ":::{note}\nNested prose counts.\n:::",
        "```{mermaid}\n:alt: No.\n\nA drawing does. Not.\n```",
        "A paragraph over\ntwo lines. {term}`The end <end>` is *near.*",
    )
    assert [n for _, n in rules.sentence_lengths(made)] == [
        *[5, 3, 3],
        *[5],
        *[3],
        *[5, 5],
    ]
    where = {line for line, n in rules.sentence_lengths(made) if n == 3}
    note = int(tiny_book.line("alpha", "Nested").rpartition(":")[2])
    assert note in where


# --- ruff over the cells -------------------------------------------------


def told(chapter) -> list[str]:
    return [str(p) for p in lint.lint_cells(chapter)]


@pytest.mark.parametrize(
    ("source", "at", "message"),
    [
        ("import os\nmath.pi", "import os", "F401"),
        ("math.pi\n\n\nx == None", "x == None", "E711"),
        ("x = 1\nx\ny = math.pi", "x\n", "B018"),
        ("x = [\nmath.pi", "math.pi", "E999|invalid-syntax|Expected"),
        ("x = 'a' + " * 12 + "'b'", "x = 'a'", "E501"),
        ("%time math.pi\nimport os", "import os", "F401"),
    ],
)
def test_exploratory_cells_are_linted(chapter, tiny_book, source, at, message):
    marked = source.replace(at.strip("\n"), at.strip("\n"), 1)
    found = told(chapter(cell("math.e"), "Prose.", cell(marked)))
    with pytest.raises(BookError, match=message):
        raise BookError("\n".join(found))
    text = tiny_book.read("chapters/alpha.md")
    number = text[: text.index("\n" + at) + 1].count("\n") + 1
    assert any(f.startswith(f"chapters/alpha.md:{number}: ") for f in found)


def test_a_clean_chapter_is_clean(chapter):
    assert told(chapter(*CLEAN[:5])) == []


def test_a_cell_that_must_fail_may_be_no_python(chapter):
    made = chapter(cell("def f(:", "raises-exception"), cell("math.pi"))
    assert told(made) == []


def test_ruff_that_reads_no_file_is_an_error(chapter, monkeypatch, tiny_book):
    config = tiny_book.read("pyproject.toml")
    config = config.replace("[tool.ruff]", "[tool.ruff]\nforce-exclude = true")
    tiny_book.write("pyproject.toml", config)
    with pytest.raises(BookError, match="ruff finds nothing to check"):
        told(chapter(cell("math.pi")))


def test_ruff_that_fails_is_an_error(chapter, tiny_book):
    made = chapter(cell("math.pi"))
    tiny_book.write("pyproject.toml", "[tool.ruff]\nline-length = 'wide'\n")
    with pytest.raises(BookError, match=r"ruff.*"):
        told(made)


UGLY = "x = { 'a':math.pi }\n\n\n\ny = x"
NICE = 'x = {"a": math.pi}\n\n\ny = x'


def test_cells_are_formatted(chapter, tiny_book):
    found = told(chapter(cell(UGLY)))
    where = tiny_book.line("alpha", "x = {")
    assert found == [
        f"{where}: not formatted as ruff does at 80 columns. Run "
        "`bookkit lint --fix`."
    ]


def test_fix_rewrites_only_the_bodies_of_cells(chapter, tiny_book, capsys):
    made = chapter(
        cell("import os\nimport math\nmath.pi", "hide-input"),
        "Prose  with odd   blanks.\n\n\n\nMore.",
        cell(UGLY),
        cell("x = 1"),
        cell("def f(:", "raises-exception"),
    )
    before = made.text
    assert main(["lint", "--fix"]) == 0
    assert "chapters/alpha.md: rewrote 2 cells" in capsys.readouterr().out
    expected = before.replace(UGLY, NICE).replace(
        "[hide-input]\nimport os\nimport math\nmath.pi",
        "[hide-input]\nimport math\n\nmath.pi",
    )
    assert tiny_book.read("chapters/alpha.md") == expected
    assert main(["lint", "--fix"]) == 0
    assert "rewrote" not in capsys.readouterr().out
    assert tiny_book.read("chapters/alpha.md") == expected


# --- the command ---------------------------------------------------------


def test_the_command_sums_up(chapter, tiny_book, capsys):
    chapter(*CLEAN[:5], cell("math.pi"))
    main(["export"])
    assert main(["lint"]) == 0
    out = capsys.readouterr().out
    assert "chapters/alpha.md: 2 sentences, median 2.5 words, longest 3." in out
    assert "lint: 0 problems in 2 files, 6 cells of 1 chapter." in out


def test_the_package_and_the_tools_are_linted(chapter, tiny_book, capsys):
    chapter(cell("math.pi"))
    tiny_book.write("src/litformer/viz.py", '"""By hand."""\nimport os\n')
    tiny_book.write("tests/test_x.py", "x = { }\n")
    tiny_book.write("book/_ext/quiz.py", "import os\n")
    assert main(["lint"]) == 1
    out = capsys.readouterr().out
    assert "src/litformer/viz.py:2: F401" in out
    assert "book/_ext/quiz.py:1: F401" in out
    assert "tests/test_x.py:1: not formatted. Run `bookkit lint --fix`" in out
    assert main(["lint", "--fix"]) == 0


def test_a_generated_file_is_told_with_its_chapter(chapter, tiny_book, capsys):
    chapter(DOC, cell("def one():\n    return math.pi", "export"))
    main(["export"])
    assert main(["lint"]) == 1
    where = tiny_book.line("alpha", "def one")
    assert f"(written at {where})" in capsys.readouterr().out


def test_a_chapter_that_the_contents_forgot(chapter, tiny_book, capsys):
    chapter(cell("math.pi"))
    tiny_book.chapter("beta", SETUP, **META)
    tiny_book.drop("beta")
    assert main(["lint"]) == 1
    assert (
        "chapters/beta.md:1: this chapter is not in" in capsys.readouterr().out
    )


def test_the_notebook_for_ruff_does_not_change_by_itself(chapter):
    made = chapter(cell("math.pi"))
    first = lint.write_notebook(made).read_text()
    assert lint.write_notebook(made).read_text() == first
    assert len(json.loads(first)["cells"]) == 2


# --- the hook ------------------------------------------------------------


@pytest.fixture
def commit(chapter, tiny_book, monkeypatch):
    """Commit a tiny book with the hook switched on; status and text."""
    root = tiny_book.root
    chapter(DOC, cell(DEF.format("one"), "export"), cell("one()"))
    (root / "src" / "bookkit").symlink_to(REPOSITORY / "src" / "bookkit")
    python = root / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    shutil.copytree(REPOSITORY / ".githooks", root / ".githooks")
    shutil.copy(REPOSITORY / "Makefile", root)
    tiny_book.write(".gitignore", ".venv\n_build\nsrc/bookkit\n")
    for name in list(os.environ):  # a hook of ours may be running us
        if name.startswith("GIT_"):
            monkeypatch.delenv(name)
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    subprocess.run(["make", "hooks"], cwd=root, check=True)
    assert main(["export"]) == 0

    def run() -> tuple[int, str]:
        subprocess.run(["git", "add", "-A"], cwd=root, check=True)
        done = subprocess.run(
            ["git", *identity, "commit", "-q", "-m", "x"],
            cwd=root,
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout + done.stderr

    return run


def test_the_hook_lets_a_clean_commit_pass(commit):
    assert commit()[0] == 0


def test_the_hook_refuses_a_hand_edit_of_a_generated_file(commit, tiny_book):
    path = tiny_book.root / "src/litformer/alpha.py"
    path.write_text(path.read_text().replace("math.pi", "math.e"))
    code, text = commit()
    assert code == 1
    assert f"differs from {tiny_book.line('alpha', 'math.pi')}" in text


def test_the_hook_refuses_an_unclean_cell(commit, chapter, tiny_book):
    chapter(DOC, cell(DEF.format("one"), "export"), cell("one( )"))
    code, text = commit()
    assert code == 1
    assert f"{tiny_book.line('alpha', 'one( )')}: not formatted" in text
