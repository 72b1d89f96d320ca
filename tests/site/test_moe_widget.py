"""The figure that routes a reader's text, in a real browser.

A small model with random weights stands in for the trained one, exported as
the chapter does it; the script and the styles are the book's own.
"""

import re

import pytest
import torch

from bookkit.widget import export
from litformer.gpt import GPT, GPTConfig
from litformer.moe import GroupedExperts, MoE, TopKRouter, record_routing
from litformer.norm import RMSNorm
from tiny_site import Site

pytestmark = pytest.mark.browser
ALPHABET = ["\n", *map(chr, range(32, 127)), *"ßéöü"]
SAMPLES = {"English": "Ada thanked Ben.", "Code": "a = [1]\nb"}
LENGTH = 24


def encode(text):
    return [ALPHABET.index(c) if c in ALPHABET else len(ALPHABET) for c in text]


def sparse(d_model, d_ff, *, bias):
    router = TopKRouter(d_model, 8, top_k=1)
    return MoE(router, GroupedExperts(8, d_model, d_ff))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = GPTConfig(
        len(ALPHABET) + 1,
        LENGTH,
        d_model=16,
        n_layers=2,
        n_heads=4,
        d_ff=12,
        bias=False,
        norm=RMSNorm,
        feedforward=sparse,
        tie_embeddings=False,
        init_std=0.5,
    )
    return GPT(config).half().float().eval()


def routed(model, text):
    """(probabilities, chosen), a row for each layer, and what comes next."""
    with torch.no_grad(), record_routing(model) as routings:
        logits = model(torch.tensor([encode(text)]))[0]
    p = torch.stack([r.logits.softmax(-1) for r in routings])
    chosen = torch.stack([r.experts[:, 0] for r in routings])
    return p, chosen, logits.softmax(-1)


@pytest.fixture(scope="module")
def page_file(model, tmp_path_factory):
    found = [routed(model, text) for text in SAMPLES.values()]
    site = Site.of_the_book(tmp_path_factory.mktemp("moe"))
    site.page("chapters/alpha", "## Text\n\n```{widget} moe-router\nType.\n```")
    site.executed(
        "alpha",
        export(
            "moe-router",
            tensors={
                name: tensor
                for name, tensor in model.state_dict().items()
                if "selection_bias" not in name
            },
            config={
                "alphabet": "".join(ALPHABET),
                "heads": 4,
                "samples": [list(pair) for pair in SAMPLES.items()],
            },
            check={
                "routing": [
                    row for p, _, _ in found for row in p.flatten(0, 1)
                ],
                "chosen": [
                    e for _, c, _ in found for e in c.flatten().tolist()
                ],
                "next": torch.stack([n[-1] for _, _, n in found]),
            },
            half=True,
        ),
    )
    assert site.build() == []
    return site.path("chapters/alpha")


@pytest.fixture
def open_box(open_page):
    """Open the page and give the figure."""

    def open_it(**options):
        page = open_page(**options)
        return page.locator('.bk-widget[data-widget="moe-router"]')

    return open_it


def shown(box):
    """The experts under each character: a row for each layer."""
    columns = [
        [int(x) for x in letter.locator(".expert").all_inner_texts()]
        for letter in box.locator(".letter").all()
    ]
    return [list(row) for row in zip(*columns, strict=True)]


def test_agrees_with_torch(open_box):
    box = open_box()
    assert float(box.get_attribute("data-maxdiff")) < 1e-5


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "three (3) bees!",
        "Grüße, zéro",
        "a\n b",
        "ж & ж",  # a letter that is in no alphabet
        "exactly twenty-four char",
    ],
)
def test_routes_what_is_typed_as_torch_does(open_box, model, text):
    box = open_box()
    box.get_by_label("Your text").fill(text)
    p, chosen, following = routed(model, text)
    # characters that are nearly a tie might go either way; there are none
    best = p.topk(2).values
    assert (best[..., 0] - best[..., 1]).min() > 1e-4
    assert shown(box) == chosen.tolist()
    box.locator(".letter").last.hover()
    cells = box.locator("table.routes td.weight").all_inner_texts()
    percents = torch.tensor([int(c.split("\u202f")[0]) for c in cells])
    expected = 100 * p[:, -1].T.flatten()  # row by row: expert, then layer
    assert (percents - expected).abs().max() <= 0.51
    said = box.locator(".said").inner_text()
    for layer, expert in enumerate(chosen[:, -1].tolist(), 1):
        assert f"expert {expert} in layer {layer}" in said
    top = following[-1].topk(3).values
    guesses = [int(n) for n in re.findall(r"(\d+)\u202f%", said)]
    assert guesses == pytest.approx((100 * top).tolist(), abs=0.51)


def test_curly_quotes_are_read_as_plain_ones(open_box):
    box = open_box()
    field = box.get_by_label("Your text")
    field.fill("\u201ca\u2019s\u201d \u2013")
    curly = shown(box)
    assert box.locator(".note").inner_text() == ""
    field.fill('"a\'s" -')
    assert shown(box) == curly


def test_samples_are_a_click_away(open_box):
    box = open_box()
    box.get_by_role("button", name="Code", exact=True).click()
    assert box.get_by_label("Your text").input_value() == SAMPLES["Code"]
    letters = box.locator(".letter .character").all_inner_texts()
    assert letters == [*"a\u2423=\u2423[1]\u21b5b"]


def test_by_keyboard(open_box, model):
    box = open_box()
    field = box.get_by_label("Your text")
    field.focus()
    page = box.page
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type("one two")
    _, chosen, _ = routed(model, "one two")
    assert shown(box) == chosen.tolist()
    for _ in SAMPLES:
        page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    said = box.locator(".said")
    assert said.inner_text().startswith("Character 1, o, goes to expert ")
    for key, words in (
        ("ArrowRight", "Character 2, n,"),
        ("End", "Character 7, o,"),
        ("ArrowRight", "Character 7, o,"),
        ("ArrowLeft", "Character 6, w,"),
        ("ArrowLeft", "Character 5, t,"),
        ("ArrowLeft", "Character 4, space,"),
        ("Home", "Character 1, o,"),
    ):
        page.keyboard.press(key)
        assert said.inner_text().startswith(words)
    label = page.evaluate("document.activeElement.textContent")
    first, second = chosen[:, 0].tolist()
    assert label == f"1: o, layer 1 expert {first}, layer 2 expert {second}"
    # one stop for the whole row of characters
    page.keyboard.press("Tab")
    inside = "document.activeElement.classList.contains('letter')"
    assert not page.evaluate(inside)


def test_messages_for_bad_input(open_box):
    box = open_box()
    field, note = box.get_by_label("Your text"), box.locator(".note")
    assert note.inner_text() == ""
    field.fill("")
    assert note.inner_text() == "There is nothing to route yet: type a text."
    assert box.locator(".letter").count() == 0
    assert not box.locator("table.routes").is_visible()
    assert box.locator(".said").inner_text() == ""
    field.fill("x" * 30)
    assert note.inner_text() == (
        "The model reads 24 characters; the last 6 of your text are left out."
    )
    assert box.locator(".letter").count() == 24
    field.fill("Ж and \t")
    assert note.inner_text() == (
        "The model has never seen Ж tab: it reads them all as one unknown "
        "character."
    )
    assert box.locator(".letter .character").first.inner_text() == "\u25af"
    field.fill("fine")
    assert note.inner_text() == ""
    assert box.locator("table.routes").is_visible()


def test_a_pair_of_code_units_is_one_character(open_box):
    box = open_box()
    box.get_by_label("Your text").fill("a😀b")
    assert box.locator(".letter").count() == 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone(open_box, scheme):
    box = open_box(
        viewport={"width": 360, "height": 740},
        color_scheme=scheme,
        has_touch=True,
        is_mobile=True,
    )
    box.get_by_label("Your text").fill("WWWWWWWWWWWWWWWWWWWWWWWW")
    box.locator(".letter").nth(5).tap()
    assert box.locator(".said").inner_text().startswith("Character 6, W,")
    wide = box.page.evaluate(
        """() => [...document.querySelectorAll(".bk-widget, .bk-widget *")]
          .filter((e) => e.getBoundingClientRect().right > innerWidth)
          .map((e) => e.outerHTML.slice(0, 80))"""
    )
    assert wide == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessible(open_box, axe, scheme):
    box = open_box(color_scheme=scheme)
    page = box.page
    page.evaluate(f"document.documentElement.dataset.theme = '{scheme}'")
    page.evaluate(axe)
    found = page.evaluate(
        """() => axe.run({ include: [[".bk-widget"]] },
          { resultTypes: ["violations"], preload: false },
        ).then((r) => r.violations.flatMap((v) =>
          v.nodes.map((n) => `${v.id}: ${n.html.slice(0, 150)}`)))"""
    )
    assert found == []
