"""The translator in the page: its numbers, its answers, its refusals.

The model is a small random one, so that the test needs no training; what the
page computes is compared with PyTorch's own.
"""

import re

import pytest
import torch

from bookkit.widget import export
from litformer.attention import attention_weights, fused_attention
from litformer.data import (
    Vocabulary,
    english_words,
    german_spelling,
    german_words,
)
from litformer.generation import greedy_decode
from litformer.seq2seq import Seq2Seq, Seq2SeqConfig
from tiny_site import Site

pytestmark = pytest.mark.browser
NUMBERS = [
    *range(131),
    *(200, 201, 311, 999, 1000, 1001, 1017, 1100, 2101, 10_000, 61_017),
    *(100_001, 101_000, 847_693, 999_999, 1_000_000, 1_000_001, 2_000_000),
    *(21_000_021, 101_101_101, 10**9, 2 * 10**9, 1_001_001_001),
    *(120_006_988, 601_831_479_369, 999_999_999_999),
]
ENGLISH = Vocabulary(map(english_words, NUMBERS))
GERMAN = Vocabulary(map(german_words, NUMBERS))


def ids(number):
    return [*ENGLISH.encode(english_words(number)), Vocabulary.EOS]


def model():
    """Random, but not indifferent: each word depends on what it reads."""
    torch.manual_seed(4)
    sizes = dict(d_model=24, n_heads=3, d_ff=40, n_decoder_layers=3)
    config = Seq2SeqConfig.tiny(len(ENGLISH), len(GERMAN), **sizes)
    translator = Seq2Seq(config)
    with torch.no_grad():
        for p in translator.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return translator.eval().requires_grad_(False)


def written(translator, number):
    source = torch.tensor([ids(number)])
    (text,) = greedy_decode(translator, source, max_new_tokens=63)
    given = torch.cat([torch.tensor([1]), text[:-1]])[None]
    seen = []

    def attend(q, k, v, mask=None, **options):
        seen.append(attention_weights(q, k, mask)[0])
        return fused_attention(q, k, v, mask, **options)

    for block in translator.decoder.blocks:
        block.cross_attn.attend = attend
    logits = translator(source, given)[0]
    return text, logits, torch.stack(seen).permute(2, 0, 1, 3)


def payload(half):
    translator = model()
    tensors = translator.state_dict()
    if half:
        rounded = {name: w.half().float() for name, w in tensors.items()}
        translator.load_state_dict(rounded)
    config = translator.config
    found = [written(translator, n) for n in NUMBERS[-2:]]
    return export(
        "translator",
        tensors=tensors,
        half=half,
        config={
            "source": ENGLISH.words,
            "target": GERMAN.words,
            "d_model": config.d_model,
            "n_heads": config.n_heads,
            "layers": [config.n_encoder_layers, config.n_decoder_layers],
            "max_len": config.max_len,
            "start": "847693",
            "examples": ["47", "seven forty"],
            "cases": NUMBERS[-2:] + NUMBERS[:-2],
        },
        check={
            "english": [ids(n) for n in NUMBERS[-2:] + NUMBERS[:-2]],
            "german": [
                GERMAN.encode(german_words(n))
                for n in NUMBERS[-2:] + NUMBERS[:-2]
            ],
            "logits": [logits for _, logits, _ in found],
            "attention": [seen for _, _, seen in found[:1]],
        },
    )


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """A page with the translator alone."""
    site = Site.of_the_book(tmp_path_factory.mktemp("translator"))
    site.page("chapters/alpha", "## T\n\n```{widget} translator\nType.\n```\n")
    site.executed("alpha", payload(half=True))
    assert site.build() == []
    return site.path("chapters/alpha")


def box_of(page):
    return page.locator('.bk-widget[data-widget="translator"]')


def ask(page, text):
    box = box_of(page)
    box.locator("input[type=text]").fill(text)
    box.get_by_role("button", name="Translate").click()
    return box


def shown(box):
    """The English words, and the German ones, as the page shows them."""
    english = box.locator(".from .word > span").all_inner_texts()
    return english, box.locator(".to .word").all_inner_texts()


def test_agrees_with_torch(open_page):
    """Number words of both languages, logits, attention: all the same."""
    box = box_of(open_page())
    assert float(box.get_attribute("data-maxdiff")) < 1e-4


def test_shows_what_torch_writes(open_page):
    page = open_page()
    translator = model()
    weights = {n: w.half().float() for n, w in translator.state_dict().items()}
    translator.load_state_dict(weights)
    for number in (847_693, 5, 61_017):
        box = ask(page, str(number))
        text, _, seen = written(translator, number)
        english, german = shown(box)
        assert english == [*english_words(number), "end"]
        words = GERMAN.decode(text)
        assert german[: len(words)] == words
        spelled = german_spelling(words) or "(nothing)"
        assert box.locator(".spelling").inner_text() == spelled
        cells = box.locator("table.align tbody td").all_inner_texts()
        percent = torch.tensor([int(c or 0) for c in cells])
        expected = 100 * seen[:, -1].mean(1).flatten()
        assert (percent - expected).abs().max() <= 0.51
        verdict = box.locator(".verdict").inner_text()
        right = german_spelling(german_words(number))
        assert f"{number:,} is {right}." in verdict


def test_heads_and_layers(open_page):
    page = open_page()
    box = ask(page, "47")
    translator = model()
    weights = {n: w.half().float() for n, w in translator.state_dict().items()}
    translator.load_state_dict(weights)
    _, _, seen = written(translator, 47)
    box.get_by_label("Attention of").select_option("layer 1, head 2")
    cells = box.locator("table.align tbody td").all_inner_texts()
    percent = torch.tensor([int(c or 0) for c in cells])
    assert (percent - 100 * seen[:, 0, 1].flatten()).abs().max() <= 0.51


def test_by_keyboard(open_page):
    page = open_page()
    box = box_of(page)
    box.locator("input[type=text]").focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("sixty one thousand and seventeen")
    page.keyboard.press("Enter")
    assert shown(box)[0] == [*english_words(61_017), "end"]
    first = box.locator(".to .word").first
    first.focus()
    page.keyboard.press("ArrowRight")
    chosen = box.locator('.to .word[aria-checked="true"]')
    assert chosen.count() == 1
    assert chosen.evaluate("e => [...e.parentNode.children].indexOf(e)") == 1
    assert chosen.evaluate("e => e === document.activeElement")
    said = box.locator(".result .said").inner_text()
    assert re.fullmatch(r".+ looks most at .+, \d+\s%\.", said)
    page.keyboard.press("End")
    assert box.locator("table.align tr.chosen").count() == 1
    page.keyboard.press("Home")
    assert first.get_attribute("aria-checked") == "true"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "Type a number, such as 847693, or its English words."),
        ("  - ", "Type a number, such as 847693, or its English words."),
        ("-5", "The model knows no negative numbers."),
        ("3.14", "A whole number is needed"),
        ("12,34", "A whole number is needed"),
        ("1000000000000", "at most 999,999,999,999"),
        ("99999999999999999999", "at most 999,999,999,999"),
        ("7 hundred", "Type digits or words, not both at once."),
        ("forty sevn", "no word \u201csevn\u201d"),
        ("<b>one</b>", "no word \u201c<b>one</b>\u201d"),
        ("one " * 80, "at most 63 at once"),
    ],
)
def test_refusals(open_page, text, words):
    page = open_page()
    box = box_of(page)
    before = shown(box)
    ask(page, text)
    assert words in box.locator(".message").inner_text()
    field = box.locator("input[type=text]")
    assert field.get_attribute("aria-invalid") == "true"
    assert shown(box) == before  # the last answer stays
    ask(page, "47")
    assert box.locator(".message").inner_text() == ""
    assert field.get_attribute("aria-invalid") == "false"


@pytest.mark.parametrize(
    "text",
    ["847693", "847,693", "847 693", "847.693", " 847\u202f693 ",
     "Eight hundred and forty-seven thousand, six hundred and ninety-three"],
)  # fmt: skip
def test_many_ways_to_say_it(open_page, text):
    box = ask(open_page(), text)
    assert box.locator(".message").inner_text() == ""
    assert shown(box)[0] == [*english_words(847_693), "end"]
    assert "847,693" in box.locator(".verdict").inner_text()


def test_words_that_are_no_number(open_page):
    box = ask(open_page(), "seven forty")
    assert "no right answer" in box.locator(".verdict").inner_text()
    assert shown(box)[0] == ["seven", "forty", "end"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone(open_page, scheme):
    page = open_page(
        viewport={"width": 360, "height": 740},
        has_touch=True,
        is_mobile=True,
        color_scheme=scheme,
    )
    box = ask(page, "999999999999")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    word = box.locator(".to .word").nth(3)
    word.tap()
    assert word.get_attribute("aria-checked") == "true"


def test_any_number(open_page):
    page = open_page()
    box = box_of(page)
    for _ in range(5):
        box.get_by_role("button", name="any number").click()
        text = box.locator("input[type=text]").input_value()
        assert re.fullmatch(r"[1-9]\d{2,11}", text)
        assert shown(box)[0] == [*english_words(int(text)), "end"]
