"""What a chapter must be, rule by rule: a small table of functions.

Each rule takes a chapter and yields the problems that it finds, with the line
and how to mend it. The linter runs them all.
"""

import ast
import difflib
import re
from collections.abc import Callable, Iterator
from statistics import median

from bookkit.book import BookError, Cell, Chapter
from bookkit.exercises import exercises
from bookkit.modules import target
from bookkit.myst import Directive, Unclosed, blocks
from bookkit.pieces import Problem, parse

Rule = Callable[[Chapter], Iterator[Problem]]

LONGEST = {
    "exported": 40,
    "exported class": 60,  # of code: a class says what it is in a docstring
    "exploratory": 15,
    "hidden plot": 25,
}
LONGEST_MEDIAN = 18
TAGS = frozenset(
    "export setup test glue raises-exception check-output starter solution "
    "check hide-input hide-output hide-cell remove-cell remove-input "
    "remove-output scroll-output full-width margin popout".split()
)
_HOME = re.compile(
    r"(?<![\w.~/])(/home/[\w.-]+|/Users/[\w.-]+|/root\b)|[A-Z]:\\Users\\\w+"
)
# directives whose content is prose to be read
_PROSE = frozenset(
    "note tip warning important admonition hint caution attention danger "
    "seealso exercise dropdown solution solution-start interview epigraph "
    "margin topic sidebar grid grid-item grid-item-card card".split()
)
_ABBREVIATION = re.compile(r"\b(e\.g|i\.e|cf|vs|Eq|Fig|Sec|et al|resp)\.")


def front_matter(chapter: Chapter) -> Iterator[Problem]:
    """A chapter says what it is about and how long it may run."""
    where = f"{chapter.rel}:1"
    if not str(chapter.meta.get("description") or "").strip():
        yield Problem(
            where,
            "the front matter has no `description`. Write one sentence for "
            "search engines.",
        )
    budget = chapter.meta.get("budget")
    if not isinstance(budget, int | float) or budget <= 0:
        yield Problem(
            where,
            "the front matter has no `budget`. Write the CPU seconds that a "
            "run may take, such as `budget: 60`.",
        )


def known_tags(chapter: Chapter) -> Iterator[Problem]:
    """A misspelt tag does nothing, silently."""
    for cell in code_cells(chapter):
        for tag in cell.tags:
            if tag in TAGS or tag.startswith("export-to:"):
                continue
            near = difflib.get_close_matches(tag, TAGS, 1)
            known = ", ".join(sorted(TAGS))
            hint = f"Is it `{near[0]}`?" if near else f"There are: {known}."
            yield Problem(cell.where(), f"an unknown tag, `{tag}`. {hint}")


def hidden_tests(chapter: Chapter) -> Iterator[Problem]:
    """Tests and glue are for the run, not for the reader."""
    for cell in code_cells(chapter):
        for tag in ("test", "glue"):
            if tag in cell.tags and "remove-cell" not in cell.tags:
                yield Problem(
                    cell.where(),
                    f"a cell tagged `{tag}` shows in the book. Add the tag "
                    "`remove-cell`.",
                )


def one_setup(chapter: Chapter) -> Iterator[Problem]:
    """The first code cell, and only it, sets the chapter up."""
    cells = code_cells(chapter)
    setups = [c for c in cells if "setup" in c.tags]
    if cells and "setup" not in cells[0].tags:
        yield Problem(
            cells[0].where(),
            "the first code cell is not tagged `setup`. Begin with imports "
            "and seed in one such cell.",
        )
    for extra in setups[1:]:
        yield Problem(
            extra.where(),
            f"a second setup cell; the first is at {setups[0].where()}. "
            "Join them.",
        )
    for cell in setups[:1]:
        if "hide-input" not in cell.tags:
            yield Problem(
                cell.where(), "the setup cell needs the tag `hide-input` too."
            )


def cell_length(chapter: Chapter) -> Iterator[Problem]:
    """A cell can be read at a glance."""
    exempt = {"setup", "test", "glue", "starter", "solution", "check"}
    for cell in code_cells(chapter):
        lines = sum(bool(line.strip()) for line in cell.source.split("\n"))
        if target(cell) is not None:
            kind = "exported"
            if code := _class_code(cell):
                kind, lines = "exported class", code
        elif exempt & set(cell.tags) or "remove-cell" in cell.tags:
            continue
        else:
            hidden = "hide-input" in cell.tags
            kind = "hidden plot" if hidden else "exploratory"
        if lines > LONGEST[kind]:
            yield Problem(
                cell.where(),
                f"an {kind} cell of {lines} lines (blank ones not counted); "
                f"the most is {LONGEST[kind]}. Split it."
                if kind[0] == "e"
                else f"a {kind} cell of {lines} lines; the most is "
                f"{LONGEST[kind]}. Move the plotting into litformer.viz.",
            )


def _class_code(cell: Cell) -> int:
    """The lines of code of a cell that holds a class, docstrings left out."""
    tree, _ = parse(cell)
    if tree is None or not any(isinstance(n, ast.ClassDef) for n in tree.body):
        return 0
    words: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            if ast.get_docstring(node) is not None:
                text = node.body[0]
                words |= set(range(text.lineno, text.end_lineno + 1))
    return sum(
        bool(line.strip()) and number not in words
        for number, line in enumerate(cell.source.split("\n"), 1)
    )


def run_between_exports(chapter: Chapter) -> Iterator[Problem]:
    """After an exported definition something runs, before the next."""
    before: Cell | None = None
    for cell in code_cells(chapter):
        exported = target(cell) is not None
        if exported and before and _defines(before):
            yield Problem(
                cell.where(),
                f"two exported cells in a row; the other is at "
                f"{before.where()}. Run something between them.",
            )
        before = cell if exported else None


def _defines(cell: Cell) -> bool:
    """False for a cell of imports and a docstring only."""
    tree, _ = parse(cell)
    light = ast.Import | ast.ImportFrom | ast.Expr
    return tree is None or not all(isinstance(n, light) for n in tree.body)


def whole_exercises(chapter: Chapter) -> Iterator[Problem]:
    """Exercises have all their parts, in order."""
    try:
        exercises(chapter)
    except BookError as error:
        where, _, text = str(error).partition(": ")
        yield Problem(where, text)


def figures_have_alt(chapter: Chapter) -> Iterator[Problem]:
    """A figure can be read by someone who does not see it."""
    for cell in code_cells(chapter):
        tree, _ = parse(cell)
        for node in ast.walk(tree) if tree else ():
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "viz.show",
                "show",
            ):
                alt = [k.value for k in node.keywords if k.arg == "alt"]
                alt += node.args[1:2]
                if not alt or _is_empty(alt[0]):
                    yield Problem(
                        cell.where(node.lineno),
                        'viz.show needs alt="...": what the figure shows, in '
                        "words.",
                    )


def _is_empty(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and not str(node.value or "").strip()


def no_home_folder(chapter: Chapter) -> Iterator[Problem]:
    """Nothing of the author's machine is in the book."""
    for number, line in enumerate(chapter.text.split("\n"), 1):
        if found := _HOME.search(line):
            yield Problem(
                f"{chapter.rel}:{number}",
                f"a path of a home folder, {found[0]}. Write a path that "
                "every reader has.",
            )


def short_sentences(chapter: Chapter) -> Iterator[Problem]:
    """The prose is in short sentences."""
    lengths = sentence_lengths(chapter)
    if lengths and median(length for _, length in lengths) > LONGEST_MEDIAN:
        line, longest = max(lengths, key=lambda pair: pair[1])
        yield Problem(
            f"{chapter.rel}:{line}",
            f"the median sentence has {median(n for _, n in lengths):g} words; "
            f"the most is {LONGEST_MEDIAN}. The longest, of {longest} words, "
            "is here. Split the long ones.",
        )


RULES: tuple[Rule, ...] = (
    front_matter,
    known_tags,
    hidden_tests,
    one_setup,
    cell_length,
    run_between_exports,
    whole_exercises,
    figures_have_alt,
    no_home_folder,
    short_sentences,
)


def code_cells(chapter: Chapter) -> list[Cell]:
    """The code cells of a chapter, in order."""
    return [cell for cell in chapter.cells if cell.is_code]


def sentence_lengths(chapter: Chapter) -> list[tuple[int, int]]:
    """(line, number of words) of every sentence of the prose."""
    found = []
    for cell in chapter.cells:
        if cell.node.cell_type == "markdown":
            for line, paragraph in _paragraphs(cell.source, cell.line):
                for sentence in _sentences(paragraph):
                    words = re.findall(r"\S*\w\S*", sentence)
                    if words:
                        found.append((line, len(words)))
    return found


def _paragraphs(text: str, line: int) -> Iterator[tuple[int, str]]:
    """(line, text) of every paragraph and list item, directives opened."""
    try:
        parts = blocks(text, line)
    except Unclosed:
        return  # whole_exercises and the site tell it
    for part in parts:
        if isinstance(part, Directive):
            if part.name in _PROSE:
                yield from _paragraphs(part.body, part.body_line)
            continue
        plain = _without_blocks(part.text)
        start, lines = part.line, []
        for number, row in enumerate([*plain.split("\n"), ""], part.line):
            begins = re.match(r"\s*([-*+]|\d+[.)])\s+|\s*(#|\||\(\S+\)=)", row)
            if lines and (begins or not row.strip()):
                yield start, " ".join(lines)
                lines = []
            if row.strip() and not (begins and begins[2]):
                if not lines:
                    start = number
                lines.append(row[begins.end() :] if begins else row.strip())


def _without_blocks(text: str) -> str:
    """Plain code, display maths and comments blanked, lines kept."""

    def blank(match: re.Match) -> str:
        return "\n" * match[0].count("\n")

    text = re.sub(r"(?ms)^\s*(`{3,}|~{3,}).*?^\s*\1`*\s*$", blank, text)
    text = re.sub(r"(?s)\$\$.*?\$\$(\s*\([\w:-]+\))?", blank, text)
    return re.sub(r"(?ms)^%.*?$|<!--.*?-->", blank, text)


def _sentences(paragraph: str) -> Iterator[str]:
    """Sentences that end; roles, code and maths count as one word."""
    text = re.sub(r"\{[\w:-]+\}`([^`]*)`", r"\1", paragraph)
    text = re.sub(r"`+[^`]+`+|\$[^$]+\$", "x", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = _ABBREVIATION.sub(r"\1", text)
    for sentence in re.split(r"(?<=[.!?])[\"')\]*_]*\s+(?=[^a-z])", text):
        if re.search(r"[.!?][\"')\]*_]*\s*$", sentence):
            yield sentence
