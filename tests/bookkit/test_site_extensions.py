"""The parts of the site's Sphinx extensions that are plain functions."""

import html
import re
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from docutils import nodes
from docutils.utils import new_document

from bookkit.book import BookError

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import html_fixes  # noqa: E402
import katex_static  # noqa: E402
import landing  # noqa: E402
import pytorch_links  # noqa: E402
import social  # noqa: E402

# --- html_fixes ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            '<summary aria-label="Toggle hidden content">Show</summary>',
            "<summary>Show</summary>",
        ),
        (
            '<button aria-label="Search" class="btn search-button-field">',
            '<button class="btn search-button-field">',
        ),
        (
            '<button class="btn search-button-field" aria-label="Search">',
            '<button class="btn search-button-field">',
        ),
        ('<button aria-label="Search">', '<button aria-label="Search">'),
        (
            '<div class="citation" role="doc-biblioentry" id="a">',
            '<div class="citation" id="a" role="listitem">',
        ),
        ('<th class="head"><p></p></th>', "<td></td>"),
        ('<th class="head"><p>a</p></th>', '<th class="head"><p>a</p></th>'),
        (
            "<dl>\n<dd><em>q</em>,</dd>\n<dd>k</dd>\n</dl>",
            '<span class="sig-lines"><span class="sig-line"><em>q</em>,'
            '</span>\n<span class="sig-line">k</span>\n</span>',
        ),
        ("<dl><dt>a</dt><dd>b</dd></dl>", "<dl><dt>a</dt><dd>b</dd></dl>"),
        (
            '<a href="#x"><code class="py"><span class="pre">a.b_c()</span>',
            '<a href="#x"><code class="py"><span class="pre">'
            "a.<wbr>b_<wbr>c()</span>",
        ),
        ('<code><span class="pre">a.b</span>',) * 2,
        ('<p>\n<script src="../searchindex.js"></script></p>', "<p></p>"),
    ],
)
def test_pages_are_mended_once(before, after):
    assert html_fixes.fix(before) == after
    assert html_fixes.fix(after) == after


def test_the_search_page_keeps_its_index():
    text = '<script src="searchindex.js"></script>'
    assert html_fixes.fix(text, keep_search=True) == text


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("of 15 %, or 100 %.", "of 15~%, or 100~%."),
        (" % of all", "~% of all"),  # behind a number that the run wrote
        ("1 114 112 rows, 25 000", "1~114~112 rows, 25~000"),
        ("8 × 8 pixels", "8~×~8 pixels"),
        ("in 2017 16 heads and 4 1000s", "in 2017 16 heads and 4 1000s"),
    ],
)
def test_numbers_keep_their_units(before, after):
    page = new_document("page")
    page += [nodes.paragraph("", before), nodes.literal_block("", before)]
    app = SimpleNamespace(builder=SimpleNamespace(format="html"))
    html_fixes.hold_numbers(app, page, "page")
    assert page[0].astext() == after.replace("~", "\u00a0")
    assert page[1].astext() == before


# --- the pages ----------------------------------------------------------------


def test_every_module_has_a_heading_on_the_page_of_the_package():
    source = ROOT / "src" / "litformer"
    modules = {f"litformer.{m.stem}" for m in source.glob("[!_]*.py")}
    modules |= {f"litformer.{m.parent.name}" for m in source.glob("*/*.py")}
    page = (ROOT / "book" / "api.md").read_text()
    headings = re.findall(r"^### (\S+)$", page, re.M)
    documented = re.findall(r"^\.\. automodule:: (\S+)$", page, re.M)
    assert headings == documented
    assert sorted(documented) == sorted(modules)


# --- pytorch_links ------------------------------------------------------------


def test_names_are_followed_through_imports():
    found = pytorch_links.names_in(
        [
            "import torch\nimport torch.nn.functional as F\nimport numpy",
            "from torch import nn, Tensor as T",
            "%magic that is not Python",
            "x = torch.randn(2).sum()\nF.softmax(x)\nnn.Linear(1, 2)\nnumpy.a",
            "def f(x: T): ...",
        ]
    )
    assert found >= {
        "torch.randn",
        "torch.nn.functional.softmax",
        "torch.nn.Linear",
        "torch.Tensor",
    }
    assert not any("numpy" in name for name in found)


@pytest.mark.parametrize(
    ("name", "role", "address"),
    [
        ("torch", "py:module", "torch.html#module-torch"),
        ("torch.nn", "py:module", "nn.html#module-torch.nn"),
        ("torch.Tensor", "py:class", "tensors.html#torch.Tensor"),
        (
            "torch.softmax",
            "py:function",
            "generated/torch.softmax.html#torch.softmax",
        ),
        (
            "torch.Tensor.view",
            "py:method",
            "generated/torch.Tensor.view.html#torch.Tensor.view",
        ),
        (
            "torch.nn.Module.state_dict",
            "py:method",
            "generated/torch.nn.Module.html#torch.nn.Module.state_dict",
        ),
        (
            "torch.testing.assert_close",
            "py:function",
            "testing.html#torch.testing.assert_close",
        ),
        (
            "torch.utils.data.DataLoader",
            "py:class",
            "data.html#torch.utils.data.DataLoader",
        ),
        (
            "torch.float32",
            "py:attribute",
            "tensor_attributes.html#torch.dtype",
        ),
    ],
)
def test_where_a_name_is_documented(name, role, address):
    assert pytorch_links.entry(name) == (role, address)


@pytest.mark.parametrize(
    "name", ["torch.no_such_thing", "torch.inf", "torch.nn._private"]
)
def test_names_without_a_page_are_left_out(name):
    assert pytorch_links.entry(name) is None


def test_the_inventory_is_one_that_sphinx_reads():
    from io import BytesIO

    from sphinx.util.inventory import InventoryFile

    data = pytorch_links.inventory({"torch.randn", "torch.nothing"})
    read = InventoryFile.load(
        BytesIO(data), "https://x.org", lambda base, uri: f"{base}/{uri}"
    )
    assert list(read) == ["py:function"]
    assert read["py:function"]["torch.randn"][2] == (
        "https://x.org/generated/torch.randn.html#torch.randn"
    )
    assert zlib.decompress(data.split(b"\n", 4)[4])


# --- landing ------------------------------------------------------------------


@pytest.fixture
def mapped(tmp_path):
    """A book with two chapters and a map of three."""
    (tmp_path / "chapters").mkdir()
    (tmp_path / "book").mkdir()
    for name in ("one", "two"):
        (tmp_path / "chapters" / f"{name}.md").write_text(f"# Title {name}\n")
    (tmp_path / "_toc.yml").write_text(
        "root: book/intro\n"
        "chapters: [{file: chapters/one}, {file: chapters/two}]\n"
    )

    def write(*chapters):
        parts = [{"part": "P", "idea": "I", "chapters": list(chapters)}]
        text = yaml.safe_dump(parts)
        (tmp_path / "book" / "map.yml").write_text(text)
        return tmp_path

    return write


ONE, TWO = {"file": "chapters/one"}, {"file": "chapters/two"}


def test_the_map_tells_written_from_planned(mapped):
    planned = {"file": "chapters/three", "title": "Three"}
    ((part,),) = [landing.read_map(mapped(ONE, TWO, planned))]
    assert [c["title"] for c in part["chapters"]] == [
        "Title one",
        "Title two",
        "Three",
    ]
    assert [c["written"] for c in part["chapters"]] == [True, True, False]


def test_a_written_chapter_must_be_on_the_map(mapped):
    with pytest.raises(BookError, match=r"_toc\.yml has chapters/one"):
        landing.read_map(mapped(ONE))


def test_the_map_has_the_order_of_the_book(mapped):
    with pytest.raises(BookError, match="same order"):
        landing.read_map(mapped(TWO, ONE))


def test_a_planned_chapter_needs_a_title(mapped):
    with pytest.raises(BookError, match="chapters/new.*no title"):
        landing.read_map(mapped(ONE, TWO, {"file": "chapters/new"}))


def test_the_code_on_the_landing_page_is_the_real_one():
    text = landing.shown_code()
    assert "attention" in text
    assert '"""' not in text


# --- social -------------------------------------------------------------------


def test_descriptions_end_with_a_sentence():
    long = "A first sentence that is quite long enough to stand alone, see. "
    text = social.shorten(long * 2 + "And a third that is cut" + " word" * 40)
    assert len(text) <= social.LENGTH
    assert text.endswith("see.")
    words = social.shorten("word " * 80)
    assert len(words) <= social.LENGTH
    assert words.endswith("…")
    assert social.shorten(" a  b ") == "a b"


def test_a_card_is_drawn_once_for_its_words(tmp_path, monkeypatch):
    drawn = []

    def draw(path, *words):
        drawn.append(words)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"png")

    monkeypatch.setattr(social, "draw_card", draw)
    app = SimpleNamespace(
        config=SimpleNamespace(html_baseurl="https://x.org/", project="B"),
        srcdir=tmp_path,
        outdir=tmp_path / "out",
    )
    first = social.card(app, "Title", "Text")
    assert social.card(app, "Title", "Text") == first
    assert len(drawn) == 1
    assert social.card(app, "Title", "Other") != first
    assert (tmp_path / "out" / first).read_bytes() == b"png"


def test_a_card_has_the_size_that_sites_expect(tmp_path):
    from matplotlib.image import imread

    path = tmp_path / "card.png"
    social.draw_card(path, "Book", "A title " * 9, "Text " * 60, "x.org")
    assert imread(path).shape[:2] == (630, 1200)


# --- katex_static -------------------------------------------------------------


@pytest.fixture(scope="module")
def katex():
    return lambda tex, macros="{}": katex_static.render(ROOT, tex, True, macros)


def test_formulas_become_html_and_mathml(katex):
    done = katex(r"\frac{a}{b}")["html"]
    assert '<math xmlns="http://www.w3.org/1998/Math/MathML"' in done
    assert "katex-html" in done


def test_macros_of_the_configuration(katex):
    assert "error" in katex(r"\nosuch{x}")
    assert "html" in katex(r"\nosuch", r'{"\\nosuch": "x"}')


@pytest.mark.parametrize("tex", [r"\frac{a", r"\unknown", "a & b", "é"])
def test_a_bad_formula_is_an_error(katex, tex):
    assert katex(tex)["error"]


@pytest.mark.parametrize(
    ("text", "tail"),
    [
        (", and so on", ","),
        ("; so", ";"),
        ("-dimensional.", "-dimensional."),
        (" and", ""),
        (").", ")."),
    ],
)
def test_punctuation_that_stays_with_a_formula(text, tail):
    assert katex_static.AFTER.match(text)[0] == tail


@pytest.mark.parametrize(
    ("before", "after"),
    [("Is ", "?"), ("(", "), and more"), ("the ", "-th key."), ("", "")],
)
def test_no_letter_beside_a_formula_is_lost(before, after):
    """What is moved next to the formula is written there."""
    math = nodes.math("", "x")
    parts = [nodes.Text(t) if t else None for t in (before, after)]
    paragraph = nodes.paragraph("", "", *filter(None, [parts[0], math]))
    if parts[1]:
        paragraph += parts[1]
    document = new_document("page.md")
    document += paragraph
    app = SimpleNamespace(builder=SimpleNamespace(format="html"))
    katex_static.hold_punctuation(app, document, "page")
    body = []
    writer = SimpleNamespace(
        body=body,
        builder=SimpleNamespace(srcdir=ROOT),
        config=SimpleNamespace(katex_macros={}),
        encode=html.escape,
        starttag=lambda node, tag, suffix="", **_: f"<{tag}>",
    )
    for child in paragraph:
        if isinstance(child, nodes.math):
            with pytest.raises(nodes.SkipNode):
                katex_static.visit_inline(writer, child)
        else:
            body.append(child.astext())
    page = re.sub(r"<math.*?</math>", "", "".join(body))  # told twice
    assert re.sub(r"<[^>]*>", "", page) == f"{before}x{after}"
