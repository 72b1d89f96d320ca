"""nbval for chapters: `pytest -p bookkit.nbval_plugin --nbval-lax chapters`.

nbval collects `.ipynb` files only, and forgives much in a text notebook. Here
a chapter is a file of tests:

* `source`: every cell compiles, every `check-output` cell has a reference;
* one test for each cell: it runs, in time; `raises-exception` must raise;
  `check-output` must print what `tests/reference/` says. After the first
  failure the rest is not run, so that one mistake is one message;
* `whole chapter`: every cell passed within the budget of CPU seconds. Then,
  and only then, the executed notebook is written for the site.
"""

from pathlib import Path

from bookkit.book import BookError, find_root


def pytest_addoption(parser):
    """Add our option beside those of nbval."""
    parser.getgroup("nbval").addoption(
        "--update-reference",
        action="store_true",
        help="rewrite tests/reference/ from what check-output cells print",
    )


def pytest_collect_file(file_path: Path, parent):
    """Collect the chapters of a book as notebooks."""
    option = parent.config.option
    if file_path.suffix != ".md" or not (option.nbval or option.nbval_lax):
        return None
    try:
        root = find_root(file_path.parent)
    except BookError:
        return None
    if file_path.parent != root / "chapters":
        return None
    from bookkit.nbval_items import ChapterFile

    return ChapterFile.from_parent(parent, path=file_path)
