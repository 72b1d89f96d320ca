"""The book's directives: what they write, and what they refuse.

One small book is built once with everything right, and one with a page for
each mistake, so that every message is tested with its file and line.
"""

import base64
import json
import re
import textwrap

import pytest

from bookkit.widget import export
from tiny_site import (
    CELL,
    ERRATA,
    EXERCISE,
    GOOD,
    QUIZ,
    WIDGET,
    Site,
)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A book with nothing wrong, built once."""
    site = Site(tmp_path_factory.mktemp("good"))
    site.page("chapters/alpha", GOOD)
    site.page(
        "chapters/beta",
        "(beta-cell)=\n```{code-cell} ipython3\n2\n```\n\n"
        ":::{interview} What is basic?\n:id: beta.what\n:level: basic\n"
        ":proof: beta-cell\n\nThis.\n:::\n",
    )
    site.executed("alpha", export("plane", tensors={"q": [[1.0, 2.0]]}))
    assert site.build() == []
    return site


# --- what the directives write -----------------------------------------------
def test_exercise_is_numbered_and_says_what_it_costs(good):
    box = good.html("chapters/alpha").select_one("div.exercise")
    assert box["id"] == "alpha-repair"
    title = box.select_one(".admonition-title")
    assert title.select_one(".caption-number").text == "Exercise 1.1 "
    assert title.select_one("em").text == "cat"
    dots = box.select_one(".dots")
    assert dots["role"] == "img"
    assert dots["aria-label"] == "difficulty 2 of 5"
    assert len(dots.select("i.on")) == 2
    assert len(dots.select("i")) == 5
    assert box.select_one(".minutes").text == "about 10 minutes"
    assert box.select_one(".exercise-id").text == "alpha.repair"


def test_exercise_is_referable_by_number_and_by_title(tmp_path):
    site = Site(tmp_path)
    site.page("chapters/alpha", EXERCISE)
    site.page(
        "chapters/beta",
        "{numref}`alpha.repair`, {ref}`alpha.repair`, [](alpha.repair).",
    )
    assert site.build() == []
    by_number, by_title, by_link = site.html("chapters/beta").select(
        "p a.internal"
    )
    assert by_number.text == "Exercise 1.1"
    assert by_title.text == by_link.text == "Repair the cat"
    assert by_number["href"] == "alpha.html#alpha-repair"


def test_exercise_group_holds_statement_cells_hints_and_check(good):
    group = good.html("chapters/alpha").select_one("div.exercise-group")
    parts = [
        next(name for name in child["class"] if name != "cell")
        for child in group.find_all(recursive=False)
    ]
    assert parts == [
        "admonition",
        "tag_starter",
        "dropdown",
        "bk-details",
        "tag_check",
    ]
    assert "Between" not in group.text


def test_solution_is_folded_with_text_and_code(good):
    folded = good.html("chapters/alpha").select_one("details.bk-solution")
    assert not folded.has_attr("open")
    assert folded.summary.text == "Solution to Exercise 1.1"
    assert "The idea of the solution." in folded.text
    assert "return" in folded.select_one(".tag_solution").text


def test_quiz_reads_without_a_script(good):
    quiz = good.html("chapters/alpha").select_one("form.bk-quiz")
    assert quiz.select_one(".quiz-head").text == "Question 1 of 1"
    group = quiz.select_one("[role=radiogroup]")
    named = quiz.find(id=group["aria-labelledby"])
    assert "ask?" in named.text
    rows = quiz.select(".quiz-row")
    assert {
        row.select_one(".quiz-answer").text: row.summary.text for row in rows
    } == {
        "Which keys fit.": "Right: why?",
        "yes": "Wrong: why?",
        "1e-9": "Wrong: why?",
    }
    for row in rows:
        control, label = row.select_one("input"), row.select_one("label")
        assert control["type"] == "radio"
        assert control["name"] == quiz["id"]
        assert label["for"] == control["id"]
        assert label.find("p") is None  # a label holds phrasing only
        assert row.select_one("details .quiz-why").text.strip()
    assert quiz.select_one(".quiz-verdict")["aria-live"] == "polite"
    assert all(b.has_attr("hidden") for b in quiz.select("button"))


def test_quiz_deals_its_answers_in_an_order_that_tells_nothing(tmp_path):
    """The author's order does not show: it would often start with the truth."""
    site = Site(tmp_path)
    letters = "abcdefgh"
    question = (
        "```{{quiz}} NAME.{}\nquestion: Which?\nchoices:\n"
        "  - answer: right {}\n    correct: true\n    why: So.\n"
        "  - answer: wrong {}\n    why: Not so.\n```\n\n"
    )
    page = "".join(question.format(x, x, x) for x in letters)
    site.page("chapters/alpha", page)
    assert site.build() == []

    def first():
        html = site.html("chapters/alpha")
        rows = [q.select_one(".quiz-row") for q in html.select("form.bk-quiz")]
        return [row.input["data-correct"] for row in rows]

    assert set(first()) == {"0", "1"}
    before = first()
    site.page("chapters/alpha", page + "More.\n")
    assert site.build() == []
    assert first() == before


def test_quiz_resolves_maths_and_references(good):
    quiz = good.html("chapters/alpha").select_one("form.bk-quiz")
    assert quiz.select_one(".quiz-question .math")
    links = {a.text: a["href"] for a in quiz.select("a")}
    assert links == {
        "(1.1)": "#equation-eq-one",
        "Exercise 1.1": "#alpha-repair",
        "the cell": "#alpha-cell",
    }


def test_quiz_with_several_right_answers_is_a_group_of_boxes(tmp_path):
    site = Site(tmp_path)
    text = QUIZ.replace("choices:", "multiple: true\nchoices:")
    text = text.replace("answer: yes", "answer: yes\n    correct: true")
    site.page("chapters/alpha", "$$a$$ (eq-one)\n" + CELL + EXERCISE + text)
    assert site.build() == []
    quiz = site.html("chapters/alpha").select_one("form.bk-quiz")
    assert quiz.select_one("[role=group]")
    assert quiz.select_one(".quiz-many").text == "several answers are right"
    assert [i["type"] for i in quiz.select("input")] == ["checkbox"] * 3


def test_scripts_are_loaded_where_they_are_needed_only(good):
    def scripts(page):
        found = (s.get("src", "") for s in good.html(page).select("script"))
        return [re.sub(r".*_static/|\?.*", "", s) for s in found]

    needed = [
        "quiz.js",
        "widgets/runtime.js",
        "widgets/plane.data.js",
        "widgets/plane.js",
    ]
    alpha = scripts("chapters/alpha")
    assert [s for s in alpha if s in needed] == needed
    assert not set(needed) & set(scripts("chapters/beta"))


def test_interview_unfolds_to_answer_and_proof(good):
    box = good.html("chapters/alpha").select_one("details.bk-interview")
    assert box["id"] == "interview-alpha-why"
    assert box.select_one("summary .bk-level").text == "intermediate"
    assert box.select_one("summary .math")
    proof = box.select_one("a.bk-proof")
    assert (proof.text, proof["href"]) == (
        "The cell that proves it",
        "#alpha-cell",
    )


def test_interview_book_collects_by_level_with_links_that_work(good):
    page = good.html("interview")
    levels = {
        s["id"]: [q.text for q in s.select(".interview-question")]
        for s in page.select("section section")
    }
    assert levels == {
        "basic": ["What is basic?"],
        "intermediate": [r"Why divide by \(\sqrt{d_k}\)?"],
        "advanced": [],
    }
    assert "No question of this level yet." in page.text
    box = page.select_one("#intermediate details")
    assert box.select_one("a.bk-back")["href"] == (
        "chapters/alpha.html#interview-alpha-why"
    )
    assert box.select_one("a.bk-back").text == "Alpha"
    hrefs = {a.text: a["href"] for a in box.select("a")}
    assert hrefs["the cell"] == "chapters/alpha.html#alpha-cell"
    assert hrefs["(1.1)"] == "chapters/alpha.html#equation-eq-one"
    # the copy of an equation has no number: it would be there twice
    assert not box.select(".eqno")
    assert_links_lead_somewhere(good)


def assert_links_lead_somewhere(site):
    """Every link between pages of the site has its anchor."""
    for page in ("chapters/alpha", "interview", "errata"):
        here = (site.root / "_build/html" / page).parent
        for link in site.html(page).select("div.body a.internal"):
            path, _, anchor = link["href"].partition("#")
            target = (here / path).resolve() if path else None
            text = (target or here / f"{page.split('/')[-1]}.html").read_text()
            assert not anchor or f'id="{anchor}"' in text, link


def test_errata_in_place_and_collected(good):
    for page, proof in (
        ("chapters/alpha", "#alpha-cell"),
        ("errata", "chapters/alpha.html#alpha-cell"),
    ):
        box = good.html(page).select_one(".admonition.errata")
        assert box.select_one(".admonition-title").text == "The cat"
        labels = [p.text for p in box.select(".errata-label")]
        assert labels == ["The claim", "What is true"]
        link = box.select_one("a.bk-proof")
        assert (link.text, link["href"]) == ("The cell that shows it", proof)
    doc = good.html("errata").select_one(".errata-truth a")
    assert doc["href"] == "chapters/beta.html"


def test_target_before_a_code_cell_is_its_anchor(good):
    cell = good.html("chapters/alpha").find(id="alpha-cell")
    assert {"cell", "tag_hide-input"} <= set(cell["class"])


def test_widget_has_instructions_data_and_a_word_without_script(good):
    box = good.html("chapters/alpha").select_one("div.bk-widget")
    assert box["data-widget"] == "plane"
    assert box.select_one(".widget-caption strong").text == "handles"
    assert "needs JavaScript" in box.noscript.text
    path = good.root / "_build/html/_static/widgets/plane.data.js"
    code = path.read_text()
    head = '(window.bookWidgets ??= {})["plane"] = '
    assert code.startswith(head)
    data = json.loads(code.removeprefix(head).rstrip(";\n"))
    q = base64.b64decode(data["tensors"]["q"]["data"])
    assert q == bytes.fromhex("0000803f00000040")


# --- incremental and parallel builds -----------------------------------------
def test_collected_pages_follow_every_change(tmp_path):
    site = Site(tmp_path)
    for name in "abcdef":
        site.page(f"chapters/{name}", PLAIN_INTERVIEW)
    text = (site.root / "chapters/a.md").read_text()
    assert site.build("-j", "2") == []

    def anchors():
        found = site.html("interview").select("details")
        return [d["id"].split("-")[1] for d in found]

    assert anchors() == list("abcdef")
    (site.root / "chapters/c.md").unlink()
    (site.root / "chapters/a.md").write_text(
        change(text, ":level: basic", ":level: advanced")
    )
    assert site.build("-j", "2") == []
    assert anchors() == list("bdefa")


def test_widget_data_follows_the_executed_notebook(tmp_path):
    site = Site(tmp_path)
    site.page("chapters/alpha", WIDGET)
    data = tmp_path / "_build/html/_static/widgets/plane.data.js"
    for value in (1, 2):
        site.executed("alpha", export("plane", tensors={}, config={"n": value}))
        assert site.build() == []
        assert f'"n":{value}' in data.read_text()


def test_widget_may_be_fed_by_another_chapter(tmp_path):
    site = Site(tmp_path)
    site.page(
        "chapters/beta",
        "```{widget} plane\n:chapter: alpha\n\nDrag.\n```\n",
    )
    site.executed("alpha", export("plane", tensors={}, config={"n": 7}))
    assert site.build() == []
    data = tmp_path / "_build/html/_static/widgets/plane.data.js"
    assert '"n":7' in data.read_text()


# --- what they refuse --------------------------------------------------------
def cut(text: str, start: str, end: str) -> str:
    """`text` without the part from `start` up to `end`."""
    before, found, rest = text.partition(start)
    assert found
    assert end in rest
    return before + end + rest.partition(end)[2]


def change(text: str, old: str, new: str) -> str:
    """`text` with its first `old` changed; it must be there."""
    assert old in text
    return text.replace(old, new, 1)


PLAIN_QUIZ = textwrap.dedent("""\
    ```{quiz} NAME.role
    question: Which?
    choices:
      - answer: This.
        correct: true
        why: So.
      - answer: That.
        why: Not so.
    ```
    """)
PLAIN_INTERVIEW = CELL + textwrap.dedent("""\

    :::{interview} Why?
    :id: NAME.why
    :level: basic
    :proof: NAME-cell

    So.
    :::
    """)
PLAIN_ERRATA = (
    CELL + "\n" + change(ERRATA, "They are not, see {doc}`beta`", "No")
)
# name: (page, text of the line that must be named, message)
BAD = {
    # exercises
    "labelmissing": (
        change(EXERCISE, ":label: NAME.repair\n", ""),
        "{exercise}",
        "exercise: no :label:. Give it one, like labelmissing.a-short-name.",
    ),
    "labelform": (
        change(EXERCISE, ":label: NAME.repair", ":label: other.repair"),
        "{exercise}",
        "exercise other.repair: the id must be the chapter's name, a dot",
    ),
    "difficulty": (
        change(EXERCISE, ":difficulty: 2", ":difficulty: 6"),
        "{exercise}",
        "exercise difficulty.repair: :difficulty: must be a whole number "
        "from 1 to 5, got 6.",
    ),
    "difficulty0": (
        change(EXERCISE, ":difficulty: 2\n", ""),
        "{exercise}",
        "must be a whole number from 1 to 5, got nothing.",
    ),
    "minutes": (
        change(EXERCISE, ":minutes: 10", ":minutes: ten"),
        "{exercise}",
        ":minutes: must be a whole number from 1 to 600, got ten.",
    ),
    "statement": (
        change(EXERCISE, "The statement, with $x^2$.\n", ""),
        "{exercise}",
        "exercise statement.repair: no statement.",
    ),
    "starter": (
        change(EXERCISE, ":tags: [starter]\n", ""),
        "{exercise}",
        "exercise starter.repair: no cell tagged 'starter' after the "
        "statement.",
    ),
    "nocheck": (
        change(EXERCISE, ":tags: [check]\n", ""),
        "{exercise}",
        "exercise nocheck.repair: no cell tagged 'check' after the solution.",
    ),
    "otherch": (
        change(EXERCISE, 'check("NAME.repair")', 'check("NAME.other")'),
        "{exercise}",
        'its check cell does not call check("otherch.repair").',
    ),
    "nosolution": (
        cut(
            EXERCISE,
            "````{solution-start}",
            "```{code-cell} ipython3\n:tags: [check]",
        ),
        "{exercise}",
        "exercise nosolution.repair: no solution between its starter and "
        "its check.",
    ),
    "alone": (
        "````{solution-start} NAME.repair\n````\n\n````{solution-end}\n````\n",
        "{solution-start}",
        "exercise alone.repair: the solution does not follow its exercise.",
    ),
    "open": (
        "````{solution-start} NAME.repair\n````\n\nText.\n",
        "{solution-start}",
        "exercise open.repair: the solution has no solution-end",
    ),
    "end": (
        "````{solution-end}\n````\n\nText.\n",
        "{solution-end}",
        "exercise: solution-end without a solution-start.",
    ),
    "whose": (
        "````{solution-start}\n````\n\nText.\n",
        "{solution-start}",
        "solution-start: no exercise. Give it one",
    ),
    # quizzes
    "yaml": (
        change(PLAIN_QUIZ, "Which?", "Which: this"),
        "question:",
        "quiz yaml.role: not valid YAML: mapping values are not allowed "
        "here. A text with",
    ),
    "nofields": (
        "```{quiz} NAME.role\njust text\n```\n",
        "just text",
        "quiz nofields.role: expected YAML fields",
    ),
    "twice": (
        change(PLAIN_QUIZ, "choices:", "question: Again?\nchoices:"),
        "question: Again?",
        "quiz twice.role: 'question' is given twice.",
    ),
    "unknown": (
        change(PLAIN_QUIZ, "why: So.", "reason: So."),
        "reason:",
        "quiz unknown.role: unknown field 'reason'. There are: answer, "
        "correct, why.",
    ),
    "why": (
        change(PLAIN_QUIZ, "    why: Not so.\n", ""),
        "answer: That.",
        "quiz why.role: 'why' is missing or empty.",
    ),
    "noquestion": (
        change(PLAIN_QUIZ, "question: Which?\n", ""),
        "choices:",
        "quiz noquestion.role: 'question' is missing or empty.",
    ),
    "listed": (
        change(PLAIN_QUIZ, "question: Which?", "question: [a, b]"),
        "question:",
        "quiz listed.role: 'question' must be a text.",
    ),
    "noright": (
        change(PLAIN_QUIZ, "    correct: true\n", ""),
        "question:",
        "quiz noright.role: no choice is `correct: true`.",
    ),
    "tworight": (
        change(PLAIN_QUIZ, "Not so.", "Not so.\n    correct: true"),
        "question:",
        "quiz tworight.role: 2 choices are correct. Leave one, or say "
        "`multiple: true`.",
    ),
    "allright": (
        change(PLAIN_QUIZ, "Not so.", "Not so.\n    correct: true").replace(
            "choices:", "multiple: true\nchoices:"
        ),
        "question:",
        "quiz allright.role: every choice is correct.",
    ),
    "flag": (
        change(PLAIN_QUIZ, "correct: true", "correct: yes"),
        "correct:",
        "quiz flag.role: 'correct' must be true or false, got 'yes'.",
    ),
    "onechoice": (
        cut(PLAIN_QUIZ, "  - answer: That.", "```\n"),
        "question:",
        "quiz onechoice.role: 'choices' must list at least two.",
    ),
    "bare": (
        change(PLAIN_QUIZ, "  - answer: That.\n    why: Not so.", "  - That."),
        "- That.",
        "quiz bare.role: each choice needs 'answer:' and 'why:'.",
    ),
    "same": (
        change(PLAIN_QUIZ, "answer: That.", "answer: This."),
        None,
        "quiz same.role: the answer 'This.' stands there twice.",
    ),
    "quizid": (
        change(PLAIN_QUIZ, "NAME.role", "Role"),
        "{quiz}",
        "quiz Role: the id must be the chapter's name, a dot and a slug",
    ),
    "inner": (
        change(PLAIN_QUIZ, "why: Not so.", "why: '{nonsense}`x`'"),
        "why: '{nonsense}",
        'Unknown interpreted text role "nonsense".',
    ),
    "taken": (
        PLAIN_QUIZ + "\n" + change(PLAIN_QUIZ, "Which?", "What?"),
        None,
        "quiz taken.role: the id is taken by chapters/taken.md:16. Choose "
        "another.",
    ),
    # interview questions
    "level": (
        change(PLAIN_INTERVIEW, "level: basic", "level: easy"),
        "{interview}",
        "interview level.why: :level: must be one of basic, intermediate, "
        "advanced, got easy.",
    ),
    "noproof": (
        change(PLAIN_INTERVIEW, ":proof: NAME-cell\n", ""),
        "{interview}",
        "interview noproof.why: no :proof:. Name the label of the cell",
    ),
    "badproof": (
        change(PLAIN_INTERVIEW, ":proof: NAME-cell", ":proof: nowhere"),
        "{interview}",
        "interview badproof.why: no code cell is labelled 'nowhere'. Put "
        "(nowhere)= on the line before the fence",
    ),
    "notacell": (
        change(
            PLAIN_INTERVIEW, "(NAME-cell)=\n", "(NAME-cell)=\nA paragraph.\n\n"
        ),
        "{interview}",
        "interview notacell.why: no code cell is labelled 'notacell-cell'.",
    ),
    "noid": (
        change(PLAIN_INTERVIEW, ":id: NAME.why\n", ""),
        "{interview}",
        "interview: no :id:. Give it one",
    ),
    "noanswer": (
        change(PLAIN_INTERVIEW, "\nSo.\n", ""),
        "{interview}",
        "interview noanswer.why: no answer.",
    ),
    # errata
    "notruth": (
        change(PLAIN_ERRATA, "truth: No.\n", ""),
        "title:",
        "errata notruth.claim: 'truth' is missing or empty.",
    ),
    "eproof": (
        change(PLAIN_ERRATA, "proof: NAME-cell", "proof: nowhere"),
        "{errata}",
        "errata eproof.claim: no code cell is labelled 'nowhere'.",
    ),
    # widgets
    "noscript": (
        "```{widget} unheard-of\n```\n",
        "{widget}",
        "widget unheard-of: there is no book/_static/widgets/unheard-of.js.",
    ),
    "wname": (
        "```{widget} ../plane\n```\n",
        "{widget}",
        "widget ../plane: the name must be lower-case words with '-'.",
    ),
    "notrun": (
        WIDGET,
        "{widget}",
        "widget plane: _build/executed/notrun.ipynb is not there. Run the "
        "chapter first: python -m bookkit run notrun",
    ),
    "noexport": (
        WIDGET,
        "{widget}",
        "widget plane: no cell of noexport exports it. Add a cell with "
        'bookkit.widget.export("plane", ...).',
    ),
}


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    """One page per mistake, and the warnings of one build of them all."""
    site = Site(tmp_path_factory.mktemp("bad"))
    for name, (text, _, _) in BAD.items():
        site.page(f"chapters/{name}", f"Text.\n\n{text}\n")
    site.executed("noexport", export("another", tensors={}))
    site.warnings = site.build()
    return site


@pytest.mark.parametrize("name", BAD)
def test_refuses(bad, name):
    _, fragment, message = BAD[name]
    page = f"chapters/{name}.md"
    mine = [w for w in bad.warnings if w.startswith(f"{page}:")]
    assert len(mine) == 1, mine
    assert message in mine[0]
    if fragment:
        lines = (bad.root / page).read_text().splitlines()
        line = 1 + next(i for i, x in enumerate(lines) if fragment in x)
        assert mine[0].startswith(f"{page}:{line}: "), (line, mine[0])


def test_nothing_else_is_said(bad):
    pages = {f"chapters/{name}.md" for name in BAD}
    others = [w for w in bad.warnings if w.split(":")[0] not in pages]
    assert others == []
