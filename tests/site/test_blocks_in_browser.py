"""Quizzes and widgets under the hands of a reader, in a real browser.

The pages are a small site with the book's own scripts and styles, opened from
the file system: no server, as a reader may do.
"""

import re

import pytest
import torch

from bookkit.book import Book
from bookkit.widget import export
from litformer import masks
from litformer.attention import attention, attention_weights
from litformer.pretokenize import RULES, WHITE_SPACE
from litformer.tokenizer import BPETokenizer, train_bpe
from tiny_site import EXERCISE, INTERVIEW, ROOT, Site

pytestmark = pytest.mark.browser
QUIZZES = """\
```{quiz} NAME.one
question: Which is right?
choices:
  - answer: The first.
    why: Not the first.
  - answer: The second.
    correct: true
    why: It is the second.
  - answer: The third.
    why: Not the third.
```

```{quiz} NAME.many
multiple: true
question: Which two are even?
choices:
  - answer: Two.
    correct: true
    why: Twice one.
  - answer: Three.
    why: Odd.
  - answer: Four.
    correct: true
    why: Twice two.
```
"""
TOKENS = ["Ada", "thanked", "Ben", "she"]


def trained():
    """Queries, keys and values with no symmetry to hide a mistake."""
    seed = torch.Generator().manual_seed(7)
    return tuple(torch.randn(4, 2, generator=seed) * 1.5 for _ in "qkv")


def both(q, k, v, **options):
    q, k, v = (x[None, None] for x in (q, k, v))
    weights = attention_weights(q, k, **options)[0, 0]
    return weights, attention(q, k, v, **options)[0, 0]


def plane():
    q, k, v = trained()
    weights, output = both(q, k, v)
    causal_weights, causal_output = both(q, k, v, causal=True)
    return export(
        "attention-plane",
        tensors={"q": q, "k": k, "v": v},
        config={"tokens": TOKENS, "d_k": 2},
        check={
            "weights": weights,
            "output": output,
            "causal_weights": causal_weights,
            "causal_output": causal_output,
        },
    )


def combined(t, s, causal, window, prefix, length, documents):
    """The `and` of the parts, by litformer."""
    mask = torch.ones(t, s, dtype=torch.bool)
    if causal:
        mask = mask & masks.causal_mask(t, s)
    if window is not None:
        mask = mask & masks.sliding_window_mask(t, s, window=window)
    if prefix is not None:
        mask = mask & masks.prefix_mask(t, s, prefix=prefix)
    if length is not None:
        mask = mask & masks.padding_mask(torch.tensor([length]), s)[0, 0]
    if documents is not None:
        mask = mask & masks.document_mask(torch.tensor([documents]), t)[0, 0]
    return mask.int().tolist()


def builder():
    names = ("t", "s", "causal", "window", "prefix", "length", "documents")
    rows = [
        (5, 5, True, None, None, None, None),
        (2, 7, False, 3, None, None, None),
        (6, 6, False, None, 4, None, None),
        (3, 7, False, None, 0, 5, None),
        (5, 5, True, None, 3, None, None),
        (3, 6, False, None, None, None, [7, 7, 2, 2, 2, 7]),
        (4, 6, True, 2, None, 5, [0, 0, 0, 1, 1, 1]),
        (3, 3, False, None, None, 0, None),
    ]
    cases = [dict(zip(names, row, strict=True)) for row in rows]
    return export(
        "mask-builder",
        tensors={},
        config={"cases": cases},
        check={"masks": [combined(**case) for case in cases]},
    )


TRAINED = train_bpe("the cat sat there, the cat is 1234 naïve 🙂 " * 3, 300)


def cut_with(text, used, rule):
    """The ids of a text by the first merges."""
    kept = TRAINED.merges[:used]
    return BPETokenizer(TRAINED.tokens, kept, rule=rule).encode(text)


def pairs():
    texts = [
        "the cat 12 🙂",
        "  a\u00a0\u0085b\ufeff\n\n c't'll ",
        "٣½東é\u0301",
        "",
    ]
    cases = [[t, u, r] for t in texts for u in (0, 9, 99) for r in RULES]
    return export(
        "byte-pairs",
        tensors={"merges": TRAINED.merges},
        config={
            "rules": RULES,
            "white": WHITE_SPACE,
            "text": "the cat 12 🙃",
            "cases": cases,
        },
        check={"ids": [cut_with(*case) for case in cases]},
    )


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """One page with everything, with the scripts of the book."""
    site = Site.of_the_book(tmp_path_factory.mktemp("browser"))
    # no maths: without the book's own KaTeX it would ask a distant host
    question = re.sub(r"\$\$.*|\$.*?\$", "it", INTERVIEW)
    site.page(
        "chapters/alpha",
        "## Blocks\n\n"
        + QUIZZES
        + "\n(alpha-cell)=\n```{code-cell}\n1\n```\n\n"
        + EXERCISE.replace("$x^2$", "it")
        + question.replace("{eq}`eq-one`", "it")
        + "\n```{widget} attention-plane\nDrag.\n```\n"
        + "\n```{widget} mask-builder\nBuild.\n```\n"
        + "\n```{widget} byte-pairs\nType.\n```\n",
    )
    site.executed("alpha", plane(), builder(), pairs())
    assert site.build() == []
    return site.path("chapters/alpha")


# --- quizzes -----------------------------------------------------------------
def test_quiz_by_keyboard_alone(open_page):
    page = open_page()
    quiz = page.locator("form.bk-quiz").first
    verdict = quiz.locator(".quiz-verdict")
    words = {
        "The first.": "Not the first.",
        "The second.": "It is the second.",
        "The third.": "Not the third.",
    }

    def open_reasons():
        return {
            answer
            for answer, why in words.items()
            if quiz.get_by_text(why).is_visible()
        }

    def reachable():
        summaries = quiz.locator("details.quiz-reason > summary").all()
        return sum(summary.is_visible() for summary in summaries)

    first, second = (
        quiz.get_by_label(f"The {x}.") for x in ("first", "second")
    )
    first.focus()
    page.keyboard.press("Space")
    # choosing alone gives nothing away
    assert verdict.inner_text() == ""
    assert reachable() == 0
    page.keyboard.press("Enter")
    assert verdict.inner_text() == "Not quite. Read why, and try again."
    assert open_reasons() == {"The first."}
    assert reachable() == 1
    while not second.is_checked():
        page.keyboard.press("ArrowDown")
        assert verdict.inner_text() == ""
    page.keyboard.press("Enter")
    assert verdict.inner_text() == "Right."
    assert open_reasons() == {"The second."}
    # once it is solved, every reason may be read
    assert reachable() == 3
    progress = page.locator(".quiz-progress")
    for i in range(2):
        assert progress.nth(i).inner_text() == (
            "1 of 2 answered right in this chapter"
        )
    # the focus is on what comes next, and starts anew
    page.keyboard.press("Enter")
    assert verdict.inner_text() == ""
    assert not second.is_checked()
    assert "0 of 2" in progress.first.inner_text()


def test_quiz_asks_for_an_answer_first(open_page):
    page = open_page()
    quiz = page.locator("form.bk-quiz").first
    quiz.get_by_role("button", name="Check answer").click()
    assert quiz.locator(".quiz-verdict").inner_text() == (
        "Choose an answer first."
    )


def test_quiz_with_several_answers(open_page):
    page = open_page()
    quiz = page.locator("form.bk-quiz").nth(1)
    verdict, check = (
        quiz.locator(".quiz-verdict"),
        quiz.get_by_role("button", name="Check answer"),
    )
    quiz.get_by_label("Two.").check()
    check.click()
    assert verdict.inner_text() == "Right so far, but not all of them."
    quiz.get_by_label("Three.").check()
    quiz.get_by_label("Four.").check()
    check.click()
    assert verdict.inner_text() == "Not quite. Read why, and try again."
    quiz.get_by_label("Three.").uncheck()
    check.click()
    assert verdict.inner_text() == "Right."


def test_quiz_remembers_and_forgets_a_changed_question(open_page):
    page = open_page()
    quiz = page.locator("form.bk-quiz").first
    quiz.get_by_label("The second.").check()
    quiz.get_by_role("button", name="Check answer").click()
    page.reload()
    verdict = page.locator(".quiz-verdict").first
    assert verdict.inner_text() == "Right."
    assert "1 of 2" in page.locator(".quiz-progress").first.inner_text()
    page.evaluate(
        """() => {
          const all = JSON.parse(localStorage.getItem("litformer.quiz"));
          all["alpha.one"].digest = "of an older question";
          localStorage.setItem("litformer.quiz", JSON.stringify(all));
        }"""
    )
    page.reload()
    assert verdict.inner_text() == ""


@pytest.mark.parametrize("stored", ["throw new Error('denied')", "'{broken'"])
def test_quiz_works_without_storage(open_page, stored):
    page = open_page(
        init=f"""
          for (const name of ["getItem", "setItem"]) {{
            const real = Storage.prototype[name];
            Storage.prototype[name] = function (key, ...rest) {{
              if (!key.startsWith("litformer")) // the theme stores, too
                return real.call(this, key, ...rest);
              {stored if "throw" in stored else f"return {stored}"};
            }};
          }}"""
    )
    quiz = page.locator("form.bk-quiz").first
    quiz.get_by_label("The second.").check()
    quiz.get_by_role("button", name="Check answer").click()
    assert quiz.locator(".quiz-verdict").inner_text() == "Right."


def test_without_scripts_everything_can_be_read(open_page):
    page = open_page(java_script_enabled=False)
    why = page.get_by_text("It is the second.")
    assert not why.is_visible()
    page.locator(".quiz-row", has=page.get_by_label("The second.")).locator(
        "summary"
    ).click()
    assert why.is_visible()
    assert not page.get_by_role("button", name="Check answer").count()
    notes = page.locator("noscript p")
    assert notes.count() == page.locator(".bk-widget").count() > 0
    assert "needs JavaScript" in notes.first.text_content()
    assert notes.first.is_visible()
    solution = page.locator("details.bk-solution")
    solution.locator("summary").click()
    assert page.get_by_text("The idea of the solution.").is_visible()


# --- links to what is folded -------------------------------------------------
def test_a_link_unfolds_its_target(open_page):
    page = open_page()
    question = page.locator("#interview-alpha-why")
    assert question.get_attribute("open") is None
    page = open_page("#interview-alpha-why")
    question = page.locator("#interview-alpha-why")
    assert question.get_attribute("open") is not None
    assert question.get_by_text("says so").is_visible()


# --- attention-plane ---------------------------------------------------------
def widget(page, name="attention-plane"):
    return page.locator(f'.bk-widget[data-widget="{name}"]')


def point(handle):
    """Where a handle says that it is."""
    text = handle.get_attribute("aria-valuetext").replace("\u2212", "-")
    x, y = re.fullmatch(r"x (\S+), y (\S+)", text).groups()
    return [float(x), float(y)]


def heat(box):
    cells = box.locator("table.heat tbody td").all_inner_texts()
    numbers = [0 if c == "\u00b7" else int(c) for c in cells]
    return torch.tensor(numbers).reshape(4, 4) / 100


def test_plane_agrees_with_the_chapter(open_page):
    box = widget(open_page())
    assert float(box.get_attribute("data-maxdiff")) < 1e-6
    q, k, v = trained()
    torch.testing.assert_close(
        heat(box), both(q, k, v)[0], atol=0.00501, rtol=0
    )


def test_plane_would_notice_a_wrong_number(open_page):
    """The comparison in the page can fail: one wrong weight is enough."""
    page = open_page()
    worst = page.evaluate(
        """() => {
          const given = window.bookWidgets["attention-plane"];
          const payload = structuredClone(given);
          payload.check.causal_output[2][1] += 0.25;
          window.bookWidgets.again = payload;
          const box = document.querySelector('[data-widget="mask-builder"]');
          box.dataset.widget = "again";
          lit.widget("again", () => given.check);
          return box.dataset.maxdiff;
        }"""
    )
    assert float(worst) == pytest.approx(0.25)


def test_plane_by_keyboard(open_page):
    page = open_page()
    box = widget(page)
    said = box.locator(".said")
    handles = box.get_by_role("slider")
    assert handles.count() == 5
    q, k, v = trained()
    key = box.get_by_role("slider", name="key of Ben")
    before, start = said.inner_text(), point(key)
    assert start == pytest.approx(k[2].tolist(), abs=0.005)
    key.focus()
    for press in ("ArrowRight", "ArrowUp", "Shift+ArrowRight", "ArrowLeft"):
        page.keyboard.press(press)
    moved = point(key)
    assert moved[0] > start[0]
    assert moved[1] > start[1]
    k[2] = torch.tensor(moved)
    torch.testing.assert_close(heat(box), both(q, k, v)[0], atol=0.02, rtol=0)
    _, output = both(q, k, v)
    page.wait_for_function(
        "before => document.querySelector('.said').textContent !== before",
        arg=before,
    )
    words = said.inner_text().replace("\u2212", "-")
    assert words.startswith("she attends to Ada ")
    spoken = [float(x) for x in re.findall(r"\((\S+), (\S+)\)", words)[0]]
    assert spoken == pytest.approx(output[3].tolist(), abs=0.05)
    page.keyboard.press("Home")
    assert point(key) == start


def test_plane_by_mouse(open_page):
    page = open_page()
    box = widget(page)
    query = box.get_by_role("slider", name="query of she")
    query.scroll_into_view_if_needed()
    mark = query.locator(".mark").bounding_box()
    x, y = mark["x"] + mark["width"] / 2, mark["y"] + mark["height"] / 2
    before, start = heat(box), point(query)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 40, y - 30, steps=4)
    page.mouse.up()
    end = point(query)
    assert end[0] < start[0]
    assert end[1] > start[1]
    q, k, v = trained()
    q[3] = torch.tensor(end)
    after = heat(box)
    torch.testing.assert_close(after, both(q, k, v)[0], atol=0.02, rtol=0)
    assert not torch.equal(after[3], before[3])
    assert torch.equal(after[:3], before[:3])
    # a move without a button moves nothing
    page.mouse.move(x, y)
    assert point(query) == end
    box.get_by_role("button", name="Reset").click()
    assert point(query) == start


def test_plane_by_touch(open_page):
    page = open_page(
        has_touch=True,
        is_mobile=True,
        viewport={"width": 360, "height": 740},
    )
    box = widget(page)
    key = box.get_by_role("slider", name="key of Ada")
    key.locator(".mark").scroll_into_view_if_needed()
    page.evaluate("scrollBy(0, -150)")
    mark = key.locator(".mark").bounding_box()
    x, y = mark["x"] + mark["width"] / 2, mark["y"] + mark["height"] / 2
    start, scrolled = point(key), page.evaluate("scrollY")
    session = page.context.new_cdp_session(page)

    def touch(kind, *points):
        session.send(
            "Input.dispatchTouchEvent",
            {
                "type": kind,
                "touchPoints": [{"x": a, "y": b} for a, b in points],
            },
        )

    touch("touchStart", (x, y))
    for i in range(1, 6):
        touch("touchMove", (x + 2 * i, y + 8 * i))
    touch("touchEnd")
    page.wait_for_timeout(100)
    end = point(key)
    assert end[1] < start[1] - 0.1
    # the finger moved the handle, and not the page
    assert page.evaluate("scrollY") == scrolled


def test_plane_stays_inside(open_page):
    page = open_page()
    query = widget(page).get_by_role("slider", name="query of she")
    most = float(query.get_attribute("aria-valuemax"))
    query.focus()
    for _ in range(30):
        page.keyboard.press("Shift+ArrowRight")
    assert point(query)[0] == most
    assert float(query.get_attribute("aria-valuenow")) == most


def test_plane_toggles_and_choice(open_page):
    box = widget(open_page())
    q, k, v = trained()
    box.get_by_label("causal mask").check()
    torch.testing.assert_close(
        heat(box), both(q, k, v, causal=True)[0], atol=0.00501, rtol=0
    )
    box.get_by_role("radio", name="Ada").check()
    scores = box.locator("table.numbers .score").all_inner_texts()
    assert scores[1:] == ["masked"] * 3
    assert box.get_by_role("slider", name="query of Ada").count() == 1
    box.get_by_label("causal mask").uncheck()
    box.get_by_label("divide by").uncheck()
    shown = [
        float(s.replace("\u2212", "-"))
        for s in box.locator("table.numbers .score").all_inner_texts()
    ]
    assert shown == pytest.approx((q[0] @ k.T).tolist(), abs=0.00501)
    torch.testing.assert_close(
        heat(box), (q @ k.T).softmax(-1), atol=0.00501, rtol=0
    )


def test_a_plane_that_cannot_start_says_so(open_page):
    page = open_page()
    page.evaluate(
        """() => {
          console.error = () => {};
          const box = document.querySelector('[data-widget="mask-builder"]');
          box.dataset.widget = "unheard-of";
          lit.widget("unheard-of", () => ({}));
        }"""
    )
    box = widget(page, "unheard-of")
    assert box.get_attribute("data-maxdiff") == "Infinity"
    assert "could not start" in box.inner_text()


# --- mask-builder ------------------------------------------------------------
def shown(box):
    rows = box.locator("table.mask tbody tr")
    return [
        [int(text == "\u2713") for text in row.locator("td").all_inner_texts()]
        for row in rows.all()
    ]


def evaluated(box):
    """The expression in the figure, run by litformer."""
    code = box.locator("pre.expression").inner_text().replace("\n", " ")
    return eval(code, {"torch": torch, **vars(masks)})


def set_range(box, name, value):
    box.get_by_label(name, exact=True).evaluate(
        "(e, v) => { e.value = v; e.dispatchEvent(new Event('input')) }", value
    )


def test_builder_agrees_with_the_chapter(open_page):
    box = widget(open_page(), "mask-builder")
    assert float(box.get_attribute("data-maxdiff")) == 0


def test_builder_shows_what_its_expression_says(open_page):
    box = widget(open_page(), "mask-builder")
    names = ("causal", "window", "prefix", "padding", "documents")
    some = [{name} for name in names]
    some += [{"causal", "padding", "documents"}, set(names)]
    for t, s in ((8, 8), (3, 11), (1, 1)):
        set_range(box, "number of keys S", s)
        set_range(box, "number of queries T", t)
        for parts in some:
            for name in names:
                box.get_by_label(name, exact=True).set_checked(name in parts)
            mask = evaluated(box)
            assert mask.shape[-2:] in ((t, s), (1, s))
            table = mask.expand(*mask.shape[:-2], t, s).reshape(t, s)
            assert shown(box) == table.int().tolist(), (t, s, parts)
    for name in names:
        box.get_by_label(name, exact=True).uncheck()
    assert evaluated(box) is None
    assert shown(box) == [[1]]


def test_builder_sentence_and_highlight_by_keyboard(open_page):
    page = open_page()
    box = widget(page, "mask-builder")
    box.get_by_label("window", exact=True).check()
    said = box.locator(".said")
    cell = box.get_by_role("gridcell", name="query 5, key 0: hidden")
    cell.hover()
    assert said.inner_text() == (
        "Query 5 may attend to keys 3, 4, 5. Key 0 is hidden by: window."
    )
    lit = box.locator("table.mask td.lit")
    assert lit.count() == 8 + 8 - 1
    box.locator('table.mask td[tabindex="0"]').focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert said.inner_text().startswith("Query 6 may attend to keys 4, 5, 6.")
    focused = page.evaluate("document.activeElement.ariaLabel")
    assert focused == "query 6, key 1: hidden"


def test_builder_says_when_nothing_is_left(open_page):
    box = widget(open_page(), "mask-builder")
    box.get_by_label("padding", exact=True).check()
    set_range(box, "padding n", 0)
    assert (
        box.locator(".said")
        .inner_text()
        .startswith("Query 7 may attend to no key: its output is zero.")
    )


def test_builder_documents_by_keyboard(open_page):
    page = open_page()
    box = widget(page, "mask-builder")
    chip = box.get_by_role("button", name="a document begins at 5")
    assert chip.get_attribute("aria-pressed") == "false"
    chip.focus()
    page.keyboard.press("Enter")
    assert chip.get_attribute("aria-pressed") == "true"
    assert page.evaluate("document.activeElement.textContent") == "5"
    assert box.get_by_label("documents", exact=True).is_checked()
    assert "[[0, 0, 0, 1, 1, 2, 3, 3]]" in box.locator("pre").inner_text()


def test_builder_warns_that_causal_undoes_the_prefix(open_page):
    box = widget(open_page(), "mask-builder")
    note = box.locator(".note")
    assert note.inner_text() == ""
    box.get_by_label("prefix", exact=True).check()
    assert "causal mask undoes the prefix" in note.inner_text()
    box.get_by_label("causal", exact=True).uncheck()
    assert note.inner_text() == ""


# --- byte-pairs --------------------------------------------------------------
def numbers(box):
    """The ids that stand under the tokens."""
    return [int(i) for i in box.locator("ol.tokens small").all_inner_texts()]


def test_pairs_agree_with_the_chapter(open_page):
    box = widget(open_page(), "byte-pairs")
    assert len(TRAINED.merges) > 20
    assert float(box.get_attribute("data-maxdiff")) == 0
    assert numbers(box) == cut_with("the cat 12 🙃", 99, "gpt2")


def test_pairs_follow_what_is_typed(open_page):
    box = widget(open_page(), "byte-pairs")
    text = "there is 1234\nthe 🙂"
    box.get_by_label("text", exact=True).fill(text)
    for used in (99, 7, 0):
        set_range(box, "merges", used)
        for apart in (True, False):
            box.get_by_label("cut digits apart").set_checked(apart)
            rule = "smollm2" if apart else "gpt2"
            assert numbers(box) == cut_with(text, used, rule), (used, rule)
    said = box.locator(".said").inner_text()
    assert said == "19 characters, 22 bytes, 22 tokens: 1.00 bytes per token."
    box.get_by_label("text", exact=True).fill("")
    assert box.locator(".said").inner_text() == (
        "0 characters, 0 bytes, 0 tokens."
    )


def test_pairs_show_bytes_that_are_no_character(open_page):
    box = widget(open_page(), "byte-pairs")
    set_range(box, "merges", 0)
    box.get_by_label("text", exact=True).fill("a é\n")
    shown = box.locator("ol.tokens span").all_inner_texts()
    assert shown == ["a", "\u2423", "c3", "a9", "\u23ce"]


# --- every screen ------------------------------------------------------------
def test_nothing_is_wider_than_a_phone(open_page):
    page = open_page(viewport={"width": 360, "height": 740})
    widget(page, "byte-pairs").get_by_label("text").fill("w" * 120 + " é" * 60)
    set_range(widget(page, "mask-builder"), "number of keys S", 12)
    wide = page.evaluate(
        """() => [...document.querySelectorAll(
            ".bk-widget, .bk-widget *, .bk-quiz, .bk-quiz *")]
          .filter((e) => !e.closest("svg *, .scroll"))
          .filter((e) => e.getBoundingClientRect().right > innerWidth)
          .map((e) => e.outerHTML.slice(0, 80))"""
    )
    assert wide == []


def test_nothing_moves_by_itself_for_who_asked(open_page):
    def moving(**options):
        return open_page(**options).evaluate(
            """() => [...document.querySelectorAll(".bk-widget *")].filter(
                (e) => getComputedStyle(e).transitionDuration !== "0s"
            ).length"""
        )

    assert moving(reduced_motion="no-preference") > 0
    assert moving(reduced_motion="reduce") == 0


# --- the built site ----------------------------------------------------------
USE_EVERYTHING = """() => {
  document.querySelectorAll("details").forEach((d) => (d.open = true));
  document.querySelectorAll("form.bk-quiz").forEach((form, i) => {
    const right = (input) => input.dataset.correct === "1";
    const inputs = [...form.querySelectorAll("input")];
    inputs.find((input) => right(input) === (i % 2 === 0)).click();
    form.requestSubmit();
  });
  document
    .querySelectorAll(".bk-widget input[type=checkbox]")
    .forEach((box) => box.click());
}"""
CHECK = """() => axe.run(
  { include: [[".bk-quiz"], [".bk-widget"], [".bk-details"],
    [".exercise-group"], [".errata"]].filter(
      ([s]) => document.querySelector(s)) },
  { resultTypes: ["violations"], preload: false },
).then((r) => r.violations.flatMap((v) =>
  v.nodes.map((n) => `${v.id}: ${n.html.slice(0, 150)}`)))"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "chapter", [c.name for c in Book(ROOT).chapters if "{widget}" in c.text]
)
def test_built_page_in_use(site, tab, axe, chapter, scheme):
    """The page's numbers are the chapter's; every state is accessible."""
    opened = tab(
        (site / "chapters" / f"{chapter}.html").as_uri(), scheme, site.as_uri()
    )
    boxes = opened.locator(".bk-widget").all()
    assert boxes
    for box in boxes:
        assert float(box.get_attribute("data-maxdiff")) < 1e-3
    opened.evaluate(USE_EVERYTHING)
    opened.evaluate(axe)
    opened.wait_for_timeout(500)
    assert opened.evaluate(CHECK) == []
    # leave no answers to the tests that share this browser
    opened.evaluate("localStorage.clear()")
