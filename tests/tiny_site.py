"""A small Sphinx project with the book's directives, for tests of the site."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[1]
EXT = ROOT / "book" / "_ext"
CONF = f"""
import sys
sys.path.insert(0, {str(EXT)!r})
extensions = ["myst_nb", "exercises", "quiz", "interview", "errata", "widget",
    "bench_tables"]
nb_execution_mode = "off"
numfig = True
nitpicky = True
myst_enable_extensions = ["dollarmath", "colon_fence"]
html_static_path = ["book/_static"]
html_theme = "THEME"
html_context = {{"default_mode": "light"}}
exclude_patterns = ["_build", "book"]
"""
FRONT = """---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---
"""
EXERCISE = """\
`````{exercise} Repair the *cat*
:label: NAME.repair
:difficulty: 2
:minutes: 10

The statement, with $x^2$.
`````

```{code-cell} ipython3
:tags: [starter]
def repaired(q):
    raise NotImplementedError
```

:::{admonition} Hint 1
:class: dropdown
A hint.
:::

````{solution-start} NAME.repair
:class: dropdown
````

The idea of the solution.

```{code-cell} ipython3
:tags: [solution]
def repaired(q):
    return q
```

````{solution-end}
````

```{code-cell} ipython3
:tags: [check]
check("NAME.repair")
```
"""
QUIZ = """\
```{quiz} NAME.role
question: |
  What does $q$ in {eq}`eq-one` ask?

  See {numref}`NAME.repair`.
choices:
  - answer: Which *keys* fit.
    correct: true
    why: As {ref}`the cell <NAME-cell>` shows.
  - answer: yes
    why: 'No: it does not.'
  - answer: 1e-9
    why: No.
```
"""
INTERVIEW = """\
:::{interview} Why divide by $\\sqrt{d_k}$?
:id: NAME.why
:level: intermediate
:proof: NAME-cell

Because {ref}`the cell <NAME-cell>` says so, by {eq}`eq-one`.

$$ c = d $$ (eq-two)
:::
"""
ERRATA = """\
```{errata} NAME.claim
title: The *cat*
claim: |
  Scores are weights.
truth: They are not, see {doc}`beta`.
proof: NAME-cell
```
"""
WIDGET = """\
```{widget} plane
Drag the **handles**.
```
"""
CELL = """\
(NAME-cell)=
```{code-cell} ipython3
:tags: [hide-input]
1 + 1
```
"""
GOOD = "$$ a = b $$ (eq-one)\n\n" + "\n".join(
    [CELL, EXERCISE, "Between.\n", QUIZ, INTERVIEW, ERRATA, WIDGET]
)


class Site:
    """A small Sphinx project and its last build."""

    def __init__(self, root: Path, theme: str = "basic") -> None:
        self.root = root
        (root / "chapters").mkdir(parents=True)
        (root / "conf.py").write_text(CONF.replace("THEME", theme))
        static = root / "book" / "_static" / "widgets"
        static.mkdir(parents=True)
        (static / "plane.js").write_text("")
        (static / "runtime.js").write_text("")
        self.page(
            "index",
            "```{toctree}\n:numbered:\n:glob:\nchapters/*\ninterview\n"
            "errata\n```\n",
        )
        self.page("interview", "```{interview-book}\n```\n")
        self.page("errata", "```{errata-book}\n```\n")

    @classmethod
    def of_the_book(cls, root: Path) -> "Site":
        """One with the theme, the scripts and the styles of the book."""
        site = cls(root, "sphinx_book_theme")
        static = root / "book" / "_static"
        shutil.rmtree(static)
        shutil.copytree(ROOT / "book" / "_static", static)
        return site

    def page(self, name: str, text: str) -> None:
        """Write a page; NAME in it becomes the name of its file."""
        short = name.rsplit("/", 1)[-1]
        text = f"{FRONT}\n# {short.title()}\n\n{text}".replace("NAME", short)
        (self.root / f"{name}.md").write_text(text)

    def executed(self, chapter: str, *exports) -> None:
        """Write the executed notebook of a chapter."""
        outputs = [
            {"output_type": "execute_result", "data": e._repr_mimebundle_()}
            for e in exports
        ]
        path = self.root / "_build" / "executed" / f"{chapter}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        cells = [{"cell_type": "markdown"}, {"outputs": outputs}]
        path.write_text(json.dumps({"cells": cells}))

    def build(self, *flags: str) -> list[str]:
        """Build, and return the warnings."""
        done = subprocess.run(
            [
                *(sys.executable, "-m", "sphinx", "-b", "html", "-q"),
                *("--no-color", *flags, ".", "_build/html"),
            ],
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return [
            line.replace(f"{self.root}/", "")
            for line in done.stderr.splitlines()
            if line.strip()
        ]

    def path(self, name: str) -> Path:
        """The file of a page of the built site."""
        return self.root / "_build" / "html" / f"{name}.html"

    def html(self, name: str) -> BeautifulSoup:
        """A page of the built site."""
        return BeautifulSoup(self.path(name).read_text(), "html.parser")
