"""What the README shows must hold."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_snippet_runs_and_the_model_knows_the_answer(capsys):
    """The assertion in it holds, and real weights answer."""
    (source,) = re.findall(r"```python\n(.*?)```", README, re.S)
    exec(compile(source, "README.md", "exec"), {})
    assert "Paris" in capsys.readouterr().out


def test_every_command_is_a_target():
    """`make x` in the README, and in the pages, is a target."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.M))
    pages = [README, *(p.read_text("utf-8") for p in ROOT.glob("book/*.md"))]
    named = {
        name
        for page in pages
        for line in re.findall(r"^ {4}make (.+?)(?:#|$)", page, re.M)
        for name in line.split()
        if "=" not in name
    }
    assert named
    assert named <= targets


@pytest.mark.parametrize(
    "path", re.findall(r"\]\((?!https?:)([^)]+)\)", README)
)
def test_every_linked_file_is_there(path):
    """Pictures and files that the README links."""
    assert (ROOT / path).is_file()


def test_the_citation_has_the_version():
    """One version everywhere."""
    import litformer

    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version: {litformer.__version__}\n" in citation
