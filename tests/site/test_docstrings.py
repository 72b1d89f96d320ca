"""Docstrings in plain Markdown become reStructuredText for the API page."""

import importlib.util
from pathlib import Path

import pytest

EXT = Path(__file__).parents[2] / "book" / "_ext" / "docstrings.py"


@pytest.fixture(scope="module")
def to_rst():
    spec = importlib.util.spec_from_file_location("docstrings", EXT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.to_rst


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("`x` of (B, T)", "``x`` of (B, T)"),
        ("combine with & and |", r"combine with & and \|"),
        ("`a | b`, or *args", r"``a | b``, or \*args"),
    ],
)
def test_a_line(to_rst, before, after):
    assert to_rst([before]) == [after]


def test_indented_lines_below_a_colon_are_code(to_rst):
    lines = ["Use it so:", "", "    f(**sizes)", "", "It is `fast`."]
    assert to_rst(lines) == [
        "Use it so::",
        "",
        "    f(**sizes)",
        "",
        "It is ``fast``.",
    ]


def test_sections_stay_sections(to_rst):
    lines = ["Raises:", "    ValueError: a `bad` shape."]
    assert to_rst(lines) == ["Raises:", "    ValueError: a ``bad`` shape."]
