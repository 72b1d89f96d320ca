"""MyST as plain Markdown, for notebooks in JupyterLab and Colab.

Neither of them knows directives or roles. What MyST resolves on the site
(labels, numbers, citations, glossary terms, glued numbers) is resolved here
into text and links to the site; a directive or role that has no rule is an
error with its file and line, never a stray brace in a learner's notebook.
"""

import base64
import hashlib
import html
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import nbformat
import yaml
from docutils.nodes import make_id
from pybtex.database import Person, parse_file

from bookkit.book import Book, BookError, Chapter
from bookkit.myst import Directive, Text, Unclosed, blocks

ADMONITIONS = (
    "note tip important warning caution danger hint attention error seealso "
    "admonition topic margin sidebar"
).split()
QUOTES = ("epigraph", "highlights", "pull-quote")
BOXES = ("div", "container", "card", "grid", "grid-item", "grid-item-card")
CODE_ROLES = "func class meth mod attr data obj exc const any code".split()
LITERAL = ("code", "code-block", "sourcecode", "raw", "quiz", "errata")
_FENCED = re.compile(r"^([ \t]*)(`{3,}|~{3,})(?:.*\n)*?[ \t]*\2[ \t]*$", re.M)
_TARGETS = re.compile(
    r"^\((?P<target>[^()\s]+)\)=[ \t]*$(?:\n+#+ (?P<title>.+))?"
    r"|\$\$(?:\\.|[^\\$])+?\$\$[ \t]*\((?P<eq>[\w:.-]+)\)",
    re.M,
)
MIMES = {
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
}
# One pass over a text, so that whatever comes first wins: code spans and
# maths are never searched for roles, and every match knows its line.
INLINE = re.compile(
    r"""
    (?P<fenced>^[ \t]*(?P<tick>`{3,}|~{3,})[^\n`]*\n
      (?:.*\n)*?[ \t]*(?P=tick)[ \t]*$)
  | (?P<drop>^%.*(?:\n|\Z) | ^\+\+\+.*(?:\n|\Z)
      | ^\([^()\s]+\)=[ \t]*(?:\n|\Z) | ^\{[.\#][^}\n]*\}[ \t]*(?:\n|\Z))
  | (?P<escape>\\[\\`*_{}\[\]()\#+.!$-])
  | \$\$(?P<display>(?:\\.|[^\\$])+?)\$\$(?:[ \t]*\((?P<label>[\w:.-]+)\))?
  | (?P<ams>^\\begin\{(?P<env>equation|align|gather|multline)(?P<star>\*?)\}
      (?P<inner>(?:.|\n)*?)\\end\{(?P=env)(?P=star)\})
  | \{(?P<role>[a-z][\w:+-]*)\}(?P<q>`+)(?P<arg>(?:.|\n)+?)(?P=q)(?!`)
  | (?P<code>(?P<c>`+)(?!`)(?:.|\n)+?(?<!`)(?P=c)(?!`))
  | (?<!\$)\$(?!\s|\$)(?P<math>(?:\\.|[^$\\])+?)(?<!\s)\$(?!\d|\$)
  | !\[(?P<alt>[^\]]*)\]\((?P<src>[^)\s]+)(?:\s+"[^"]*")?\)(?:\{[^}\n]*\})?
  | \[\^(?P<note>[^\]\s]+)\](?P<notedef>:[ \t]*)?
  | \[(?P<text>(?:[^\[\]]|\[[^\[\]]*\])*)\](?:
        \((?P<url>[^()\s]+(?:\([^()]*\))?)(?:\s+"[^"]*")?\)
      | (?P<attrs>\{[.\#][^}\n]*\}))
  | <project:(?P<auto>[^>\s]+)>
  | (?P<subst>\{\{[^}]*\}\})
  | (?P<stray>(?:^[ \t]*[`:]{3,}\{[\w:-]+\}|\{[a-z][\w:-]*\}`))
    """,
    re.M | re.X,
)


@dataclass(frozen=True)
class Label:
    """What a label of the book points at."""

    kind: str  # section eq fig table exercise cell
    text: str  # a title, or a number such as 1.2
    page: str  # chapters/attention
    anchor: str


class Site:
    """The whole book as others refer to it: labels, numbers, citations."""

    def __init__(self, book: Book) -> None:
        self.book, self.root = book, book.root

    @cached_property
    def config(self) -> dict:
        """`_config.yml`."""
        path = self.root / "_config.yml"
        try:
            return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except FileNotFoundError:
            raise BookError(
                f"{path.name}: missing. It names the site (html.baseurl) and "
                "the repository (repository.url)."
            ) from None
        except yaml.YAMLError as error:
            raise BookError(f"{path.name}: not valid YAML: {error}") from error

    def _setting(self, section: str, key: str) -> str:
        value = (self.config.get(section) or {}).get(key)
        if not value:
            raise BookError(f"_config.yml: {section}.{key} is not set.")
        return str(value).rstrip("/")

    @property
    def repository(self) -> str:
        """The address of the repository."""
        return self._setting("repository", "url")

    @property
    def branch(self) -> str:
        """The repository's main branch."""
        return (self.config.get("repository") or {}).get("branch", "main")

    def url(self, page: str, anchor: str = "") -> str:
        """The address of a page on the site."""
        address = f"{self._setting('html', 'baseurl')}/{page}.html"
        return f"{address}#{anchor}" if anchor else address

    @cached_property
    def macros(self) -> dict[str, str]:
        """The macros of formulas; MathJax in a notebook does not know them."""
        sphinx = (self.config.get("sphinx") or {}).get("config") or {}
        return dict(sphinx.get("katex_macros") or {})

    def expand(self, formula: str) -> str:
        """A formula without the book's own macros."""
        for _ in range(5):  # a macro may use another one
            before = formula
            for name, text in self.macros.items():
                formula = re.sub(
                    rf"{re.escape(name)}(?![A-Za-z])(?P<sp>\s?)",
                    lambda m, text=text: _macro(text, m),
                    formula,
                )
            if formula == before:
                break
        return formula

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Page -> chapter number, as the site counts them."""
        toc = yaml.safe_load((self.root / "_toc.yml").read_text("utf-8"))
        parts = toc.get("parts") or [toc]
        pages = [
            entry["file"]
            for part in parts
            if part.get("numbered")
            or (part.get("options") or {}).get("numbered")
            for entry in part.get("chapters") or []
            if "file" in entry
        ]
        return {page: i for i, page in enumerate(pages, 1)}

    @cached_property
    def titles(self) -> dict[str, str]:
        """Page -> title."""
        found = {}
        for page in self.book.pages:
            path = self.root / f"{page}.md"
            text = path.read_text("utf-8") if path.exists() else ""
            title = re.search(r"^# (.+)$", text, re.M)
            found[page] = title[1].strip() if title else page
        return found

    @cached_property
    def labels(self) -> dict[str, Label]:
        """Every label of every page."""
        found: dict[str, Label] = {}
        for page in self.book.pages:
            path = self.root / f"{page}.md"
            if path.exists():
                for name, label in _labels(self, page, path):
                    found.setdefault(name, label)
        return found

    @cached_property
    def references(self) -> dict:
        """The bibliography: key -> entry."""
        files = self.config.get("bibtex_bibfiles") or ["book/references.bib"]
        entries = {}
        for name in files:
            path = self.root / name
            if path.exists():
                entries.update(parse_file(str(path)).entries)
        return entries


def _macro(text: str, match: re.Match) -> str:
    # "\R^n" -> "\mathbb{R}^n"; "\macro x" must stay two words
    keep = match["sp"] if not text.endswith("}") else ""
    return text + keep


def _labels(site: Site, page: str, path: Path):
    """(name, Label) of everything on a page that can be referred to."""
    number = site.numbers.get(page)
    counts = {"eq": 0, "fig": 0, "table": 0, "exercise": 0}

    def count(kind: str) -> str:
        counts[kind] += 1
        return f"{number}.{counts[kind]}" if number else str(counts[kind])

    def label(kind: str, name: str, text: str):
        prefix = "equation-" if kind == "eq" else ""
        return name, Label(kind, text, page, prefix + make_id(name))

    def numbered(kind: str, name: str, caption: str, line: int):
        """A figure or table: found by its name, and by its place."""
        value = count(kind) if caption.strip() else ""
        yield label(kind, f"{page}:{line}", value)
        if name:
            yield label(kind, name, value)

    def of_text(text: str):
        text = _FENCED.sub("", text)
        for match in _TARGETS.finditer(text):
            if match["eq"]:
                yield label("eq", match["eq"], count("eq"))
            elif match["title"]:
                yield label("section", match["target"], match["title"].strip())
            else:
                yield label("cell", match["target"], "")

    def of_blocks(items):
        for item in items:
            if isinstance(item, Text):
                yield from of_text(item.text)
                continue
            name = item.options.get("name") or item.options.get("label")
            if item.name == "math":
                if name:
                    yield label("eq", name, count("eq"))
            elif item.name in ("figure", "mermaid"):
                caption = item.options.get("caption", "")
                if item.name == "figure":
                    caption = item.body
                yield from numbered("fig", name, caption, item.line)
            elif item.name in ("table", "list-table", "csv-table"):
                yield from numbered("table", name, item.argument, item.line)
            elif item.name == "exercise":
                value = f"Exercise {count('exercise')}"
                if name:
                    yield label("exercise", name, value)
                yield from of_blocks(blocks(item.body, item.body_line))
            elif item.name not in LITERAL:
                yield from of_blocks(blocks(item.body, item.body_line))

    try:
        if page.startswith("chapters/"):
            for cell in site.book.chapter(path.stem).cells:
                if not cell.is_code:
                    yield from of_blocks(blocks(cell.source, cell.line))
                    continue
                figure = cell.node.metadata.get("mystnb", {}).get("figure", {})
                yield from numbered(
                    "fig",
                    figure.get("name", ""),
                    figure.get("caption", ""),
                    cell.line,
                )
        else:
            yield from of_blocks(blocks(path.read_text("utf-8")))
    except Unclosed as error:
        raise BookError(f"{page}.md: {error}.") from None


class Glue:
    """The numbers that the executed chapter glued, for its prose."""

    def __init__(self, path: Path, chapter: str) -> None:
        self.path, self.chapter = path, chapter

    @cached_property
    def values(self) -> dict[str, dict]:
        """Key -> mime bundle."""
        try:
            notebook = nbformat.read(self.path, as_version=4)
        except FileNotFoundError:
            raise BookError(
                "this number comes from the executed chapter, and there is "
                f"none. Run `python -m bookkit run {self.chapter}` first."
            ) from None
        except Exception as error:  # nbformat raises many kinds
            raise BookError(
                f"{self.path}: cannot be read ({error}). Run `python -m "
                f"bookkit run {self.chapter}` again."
            ) from error
        found = {}
        for cell in notebook.cells:
            for output in cell.get("outputs", []):
                note = output.get("metadata", {}).get("scrapbook")
                if note:
                    prefix = note.get("mime_prefix", "")
                    found[note["name"]] = {
                        mime.removeprefix(prefix): data
                        for mime, data in output["data"].items()
                    }
        return found

    def text(self, key: str, spec: str = "s") -> str:
        """The glued value, formatted as the site formats it."""
        from myst_nb.core.variables import format_plain_text

        if key not in self.values:
            raise BookError(
                f"nothing is glued as {key!r}. Run `python -m bookkit run "
                f"{self.chapter}` again, or correct the name."
            )
        bundle = self.values[key]
        if "text/plain" not in bundle:
            raise BookError(f"{key!r} was glued without a plain text.")
        if "text/markdown" in bundle:
            return bundle["text/markdown"]
        try:
            return format_plain_text(bundle["text/plain"], spec)
        except Exception as error:
            raise BookError(
                f"{key!r} cannot be shown as {spec!r}: {error}"
            ) from error


class Renderer:
    """Turns the MyST of one chapter into plain Markdown."""

    def __init__(self, site: Site, chapter: Chapter, glue: Glue) -> None:
        self.site, self.chapter, self.glue = site, chapter, glue
        self.page = f"chapters/{chapter.name}"
        self.cited: list[str] = []
        self.listed = False  # the chapter has its own {bibliography}
        self.images = self.questions = 0
        self._data: list[str] = []  # images of the cell being rendered

    def error(self, line: int, text: str) -> BookError:
        """An error at a line of the chapter."""
        return BookError(f"{self.chapter.rel}:{line}: {text}")

    def cell(self, items: list[Text | Directive]) -> str:
        """The blocks of one Markdown cell."""
        self._data = []
        text = self.blocks(items)
        text = re.sub(r"\n{3,}", "\n\n", text).strip()
        return "\n\n".join(filter(None, [text, "\n".join(self._data)]))

    def blocks(self, items: list[Text | Directive]) -> str:
        """Several blocks, one after the other."""
        parts = []
        for item in items:
            if isinstance(item, Text):
                parts.append(self.text(item.text, item.line).strip("\n"))
                continue
            try:
                made = self.directive(item).strip("\n")
            except Unclosed as error:
                raise self.error(error.line, f"{error}.") from None
            indent = item.indent
            parts.append(
                "\n".join(f"{indent}{x}".rstrip() for x in made.split("\n"))
            )
        return "\n\n".join(p for p in parts if p.strip())

    def nested(self, text: str, line: int) -> str:
        """MyST inside a directive."""
        return self.blocks(blocks(text, line))

    # ------------------------------------------------------------- inline

    def text(self, text: str, line: int) -> str:
        """Prose without directives."""

        def replace(match: re.Match) -> str:
            at = line + text.count("\n", 0, match.start())
            return self._inline(match, at)

        text = INLINE.sub(replace, text)
        # a definition list: the term in bold, the definition under it
        return re.sub(
            r"^(?![ \t>#|:-])(\S[^\n]*)\n:[ \t]+",
            r"**\1**  \n",
            text,
            flags=re.M,
        )

    def line(self, text: str, line: int) -> str:
        """One line of prose, such as a title or a caption."""
        return " ".join(self.text(str(text).strip(), line).split())

    def _inline(self, m: re.Match, at: int) -> str:
        whole = m[0]
        if m["fenced"] or m["escape"] or m["code"]:
            return whole
        if m["drop"] is not None:
            return ""
        if m["display"]:
            return self.display(m["display"], m["label"])
        if m["ams"]:
            return self.display(_aligned(m["env"], m["inner"]), None)
        if m["math"]:
            return f"${self.site.expand(m['math'])}$"
        if m["role"]:
            return self.role(m["role"], " ".join(m["arg"].split()), at)
        if m["src"]:
            return self.image(m["src"], m["alt"], at)
        if m["note"]:
            mark = f"<sup>{m['note']}</sup>"
            return f"{mark} " if m["notedef"] else mark
        if m["auto"]:
            return self.link("", m["auto"], at)
        if m["attrs"]:
            return self.text(m["text"], at)
        if m["url"]:
            return self.link(m["text"], m["url"], at)
        if m["subst"] or m["stray"]:
            raise self.error(
                at,
                f"{whole.strip()!r} would be left as it is in the learner's "
                "notebook. Write it in another way, or teach bookkit.plain.",
            )
        return whole  # [text] alone

    def display(self, formula: str, label: str | None) -> str:
        """A displayed formula, with its number when it has a label."""
        formula = self.site.expand(formula.strip())
        if r"\\" in formula and r"\begin{" not in formula:
            formula = f"\\begin{{aligned}}\n{formula}\n\\end{{aligned}}"
        if label:
            formula += f" \\tag{{{self.site.labels[label].text}}}"
        return f"$$\n{formula}\n$$"

    def image(self, src: str, alt: str, at: int) -> str:
        """A picture of the repository, inside the notebook."""
        if re.match(r"https?:|data:", src):
            return f"![{alt}]({src})"
        path = (self.chapter.path.parent / src).resolve()
        if src.startswith("/"):
            path = self.site.root / src[1:]
        if not path.exists() or path.suffix.lower() not in MIMES:
            raise self.error(at, f"image {src}: no such picture.")
        return self._embed(path, alt)

    def _embed(self, path: Path, alt: str) -> str:
        data = path.read_bytes()
        if path.suffix == ".svg":  # dark ink needs a light ground, always
            data = re.sub(
                rb"<svg\b(?![^>]*\bstyle=)",
                b'<svg style="background:#fff"',
                data,
                count=1,
            )
            data = re.sub(
                rb"(<svg\b[^>]*\bstyle=\")(?!background:#fff)",
                rb"\1background:#fff;",
                data,
                count=1,
            )
        code = base64.b64encode(data).decode()
        self.images += 1
        name = f"picture-{self.images}"
        mime = MIMES[path.suffix.lower()]
        # a reference keeps the long data out of the sentence
        self._data.append(f"[{name}]: data:{mime};base64,{code}")
        return f"![{alt}][{name}]"

    def link(self, text: str, url: str, at: int) -> str:
        """A link: to another host, to a label, or to a page of the book."""
        words = self.text(text, at)
        if re.match(r"[a-z]+:", url):
            return f"[{words}]({url})"
        target = url.removeprefix("#")
        if target in self.site.labels:
            return self._ref(target, words, at)
        path, _, anchor = url.partition("#")
        page = self._page(path, at) if path else self.page
        words = words or self.site.titles.get(page, page)
        if not path:
            raise self.error(at, f"no label {target!r} in the book.")
        return f"[{words}]({self.site.url(page, anchor)})"

    def _page(self, path: str, at: int) -> str:
        here = self.chapter.path.parent
        full = self.site.root / path[1:] if path[0] == "/" else here / path
        try:
            page = full.resolve().relative_to(self.site.root)
        except ValueError:
            page = Path("..")
        name = page.as_posix()
        name = name.removesuffix(".md").removesuffix(".html")
        if name not in self.site.book.pages:
            raise self.error(at, f"link to {path}: no such page of the book.")
        return name

    def _ref(self, name: str, words: str, at: int) -> str:
        label = self.site.labels.get(name)
        if label is None:
            raise self.error(at, f"no label {name!r} in the book.")
        shown = {
            "eq": f"({label.text})",
            "fig": f"Fig. {label.text}",
            "table": f"Table {label.text}",
        }.get(label.kind, label.text)
        if label.kind == "section":
            shown = self.line(label.text, at)
        words = words or shown
        if not words:
            raise self.error(
                at, f"the label {name!r} has no title: give the link a text."
            )
        return f"[{words}]({self.site.url(label.page, label.anchor)})"

    def role(self, name: str, argument: str, at: int) -> str:
        """What a role shows, as text."""
        short = name.removeprefix("py:")
        named = re.fullmatch(r"(.*?)\s*<([^<>]+)>", argument)
        words, target = named.groups() if named else ("", argument)
        if name == "math":
            return f"${self.site.expand(argument)}$"
        if name == "eq":
            return self._ref(target, "", at)
        if name == "numref":
            label = self.site.labels.get(target)
            if label is None:
                raise self.error(at, f"no label {target!r} in the book.")
            for mark in ("%s", "{number}"):
                words = words.replace(mark, label.text)
            return self._ref(target, words.replace("{name}", ""), at)
        if name in ("ref", "any"):
            return self._ref(target, words, at)
        if name == "doc":
            page = self._page(f"{target.removesuffix('.md')}.md", at)
            title = words or self.line(self.site.titles[page], at)
            return f"[{title}]({self.site.url(page)})"
        if name in ("cite", "cite:p", "cite:t"):
            return self.cite(argument, name == "cite:t", at)
        if name in ("term", "dfn", "emphasis"):
            return f"*{words or target}*"
        if name in ("strong", "guilabel") or name.startswith("bdg"):
            return f"**{words or target}**"
        if short in CODE_ROLES or name in ("command", "file", "samp"):
            shown = target.lstrip("!~.")
            if target.startswith("~"):
                shown = shown.rsplit(".", 1)[-1]
            end = "()" if short in ("func", "meth") and not named else ""
            return f"`{words or shown}{end}`"
        if name in ("kbd", "sub", "sup"):
            return f"<{name}>{html.escape(argument)}</{name}>"
        if name == "abbr":
            text = re.fullmatch(r"(.*?)\s*\((.*)\)", argument)
            return f"{text[1]} ({text[2]})" if text else argument
        if name.startswith(("fa", "octicon", "material")) or name == "index":
            return ""
        if name in ("glue", "glue:text", "glue:md", "glue:math"):
            return self.glued(name, argument, at)
        raise self.error(
            at,
            f"the role {{{name}}} has no rule for the learner's notebook "
            "(bookkit.plain).",
        )

    def glued(self, name: str, argument: str, at: int) -> str:
        """A number from the executed chapter."""
        key, _, spec = argument.partition(":")
        try:
            value = self.glue.text(key, spec or "s")
        except BookError as error:
            raise self.error(at, str(error)) from None
        return f"${value}$" if name == "glue:math" else value

    def cite(self, argument: str, textual: bool, at: int) -> str:
        """(Vaswani et al., 2017), or Vaswani et al. (2017)."""
        made = []
        for key in (k.strip() for k in argument.split(",")):
            entry = self.site.references.get(key)
            if entry is None:
                raise self.error(at, f"no reference {key!r} in the .bib file.")
            if key not in self.cited:
                self.cited.append(key)
            names = [_family(p) for p in _people(entry)]
            who = names[0] if names else entry.fields.get("title", key)
            if len(names) == 2:
                who = " and ".join(names)
            elif len(names) > 2:
                who = f"{names[0]} et al."
            year = entry.fields.get("year", "n.d.")
            made.append(f"{who} ({year})" if textual else f"{who}, {year}")
        return ", ".join(made) if textual else f"({'; '.join(made)})"

    def bibliography(self) -> str:
        """The list of everything cited so far, by name."""
        lines = []
        for key in self.cited:
            entry = self.site.references[key]
            field = {k.lower(): _untex(v) for k, v in entry.fields.items()}
            people = [_family(p, first=True) for p in _people(entry)]
            if len(people) > 6:
                people = [*people[:5], "et al."]
            where = next(
                (
                    field[k]
                    for k in (
                        "journal",
                        "booktitle",
                        "publisher",
                        "howpublished",
                    )
                    if field.get(k)
                ),
                "",
            )
            url = field.get("url") or (
                f"https://doi.org/{field['doi']}" if "doi" in field else ""
            )
            if not url and field.get("eprint"):
                url = f"https://arxiv.org/abs/{field['eprint']}"
            title = f"*{field.get('title', key)}*"
            head = f"{', '.join(people)} ({field.get('year', 'n.d.')})."
            end = f" {where}." if where else ""
            lines.append(
                f"- {head} {title}.{end}" + (f" <{url}>" if url else "")
            )
        return "\n".join(sorted(lines, key=str.casefold))

    # --------------------------------------------------------- directives

    def directive(self, d: Directive) -> str:
        """A directive, its nested text included."""
        name = d.name
        inner = lambda: self.nested(d.body, d.body_line)  # noqa: E731
        if name in ADMONITIONS:
            title = "See also" if name == "seealso" else name.capitalize()
            body = inner()
            if name in ("admonition", "topic", "sidebar"):
                title = self.line(d.argument, d.line)
            elif d.argument:  # ":::{note} text on the first line"
                body = f"{self.text(d.argument, d.line)}\n\n{body}".strip()
            head = "" if name == "margin" else f"**{title}**\n\n"
            return _quote(head + body)
        if name == "dropdown":
            return _details(self.line(d.argument, d.line), inner())
        if name in ("tab-set", *BOXES):
            title = self.line(d.argument, d.line) if "card" in name else ""
            head = f"**{title}**\n\n" if title else ""
            return head + inner()
        if name == "tab-item":
            return f"**{self.line(d.argument, d.line)}**\n\n{inner()}"
        if name in QUOTES:
            return _quote(inner())
        if name == "math":
            formula = "\n".join(filter(None, [d.argument, d.body.strip()]))
            return self.display(
                formula, d.options.get("label") or d.options.get("name")
            )
        if name in ("code", "code-block", "sourcecode"):
            return f"````{d.argument}\n{d.body.rstrip()}\n````"
        if name in ("figure", "image"):
            return self._figure(d)
        if name == "mermaid":
            return self._mermaid(d)
        if name == "table":
            return self._captioned(d, self.line(d.argument, d.line), inner())
        if name == "list-table":
            return self._list_table(d)
        if name == "bibliography":
            self.listed = True
            return self.bibliography()
        if name in ("glue", "glue:", "glue:md", "glue:math"):
            return self.glued(name.rstrip(":"), d.argument, d.line)
        if name == "exercise":
            return self._exercise(d)
        if name == "quiz":
            return self._quiz(d)
        if name == "interview":
            return self._interview(d)
        if name == "errata":
            return self._errata(d)
        if name == "widget":
            url = self.site.url(self.page, make_id(f"widget-{d.argument}"))
            return _quote(
                f"**Try it in the page**\n\n{inner()}\n\n"
                f"[Open the widget on the site]({url})"
            )
        if name in ("solution-start", "solution-end", "index", "contents"):
            return ""
        raise self.error(
            d.line,
            f"the directive {{{name}}} has no rule for the learner's notebook "
            "(bookkit.plain).",
        )

    def _captioned(self, d: Directive, caption: str, content: str) -> str:
        label = self.site.labels[f"{self.page}:{d.line}"]
        if label.text:
            word = "Table" if label.kind == "table" else "Fig."
            caption = f"{word} {label.text}: {caption}"
        return f"{content}\n\n*{caption}*" if caption else content

    def _figure(self, d: Directive) -> str:
        alt = d.options.get("alt", "")
        picture = self.image(d.argument, alt, d.line)
        caption, _, legend = d.body.strip().partition("\n\n")
        text = self._captioned(d, self.line(caption, d.body_line), picture)
        at = d.body_line + caption.count("\n") + 2
        return f"{text}\n\n{self.nested(legend, at)}" if legend else text

    def _mermaid(self, d: Directive) -> str:
        from bookkit.diagrams import FOLDER, diagram_key

        name = f"{diagram_key(d.body)}-light.svg"
        path = self.site.root / FOLDER / name
        alt = self.line(d.options.get("alt", ""), d.line)
        caption = self.line(d.options.get("caption", ""), d.line)
        if path.exists():
            return self._captioned(d, caption, self._embed(path, alt))
        return self._captioned(d, caption, f"*Diagram: {alt}*")

    def _list_table(self, d: Directive) -> str:
        rows, cell = [], None
        for i, text in enumerate(d.body.split("\n")):
            found = re.match(r"^(\*|-)?\s*-\s+(.*)$", text.rstrip())
            if text.startswith(("* -", "- -", "*  -")):
                rows.append([])
            if found and rows:
                cell = [found[2], d.body_line + i]
                rows[-1].append(cell)
            elif cell and text.strip():
                cell[0] += " " + text.strip()
        if not rows:
            raise self.error(d.line, "list-table: no rows.")
        lines = []
        for i, row in enumerate(rows):
            cells = (self.line(c, n).replace("|", r"\|") for c, n in row)
            lines.append(f"| {' | '.join(cells)} |")
            if i == 0:
                lines.append("|" + " --- |" * len(row))
        caption = self.line(d.argument, d.line)
        return self._captioned(d, caption, "\n".join(lines))

    def _exercise(self, d: Directive) -> str:
        label = self.site.labels[d.options["label"]]
        level = int(d.options["difficulty"])
        dots = "●" * level + "○" * (5 - level)
        return (
            f"### {label.text}: {self.line(d.argument, d.line)}\n\n"
            f"Difficulty {dots} · about {d.options['minutes']} minutes · "
            f"`{d.options['label']}`\n\n"
            f"{self.nested(d.body, d.body_line)}"
        )

    def _yaml(self, d: Directive, *keys: str) -> dict:
        try:
            data = yaml.safe_load(d.body)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            at = d.body_line + (mark.line if mark else 0)
            what = getattr(error, "problem", None) or error
            raise self.error(at, f"{d.name}: not valid YAML: {what}") from None
        missing = [k for k in keys if not (data or {}).get(k)]
        if missing:
            raise self.error(d.line, f"{d.name}: {missing[0]!r} is missing.")
        return data

    def _quiz(self, d: Directive) -> str:
        data = self._yaml(d, "question", "choices")
        self.questions += 1
        question = self.nested(str(data["question"]), d.line)
        parts = [f"**Question {self.questions}.** {question}"]
        if sum(bool(c.get("correct")) for c in data["choices"]) > 1:
            parts.append("More than one answer is right.")
        elif self.questions == 1:
            parts.append("Choose an answer, then open it.")
        # authors tend to write the right answer first
        choices = sorted(data["choices"], key=_lot)
        for letter, choice in zip("ABCDEFGHIJ", choices, strict=False):
            verdict = "✓ **Right.**" if choice.get("correct") else "✗ **No.**"
            why = self.nested(str(choice.get("why", "")), d.line)
            answer = self.line(choice["answer"], d.line)
            parts.append(_details(f"{letter}. {answer}", f"{verdict} {why}"))
        return "\n\n".join(parts)

    def _proof(self, target: str, at: int) -> str:
        if not target:
            return ""
        return self._ref(target, "The cell that shows it", at)

    def _interview(self, d: Directive) -> str:
        level = d.options.get("level", "").capitalize()
        question = self.line(d.argument, d.line)
        title = f"*{level}.* {question}" if level else question
        proof = self._proof(d.options.get("proof", ""), d.line)
        body = self.nested(d.body, d.body_line)
        return _details(title, f"{body}\n\n{proof}".strip())

    def _errata(self, d: Directive) -> str:
        data = self._yaml(d, "title", "claim", "truth")
        return _quote(
            f"**Erratum: {self.line(data['title'], d.line)}**\n\n"
            f"**The claim.** {self.nested(str(data['claim']), d.line)}\n\n"
            f"**What is true.** {self.nested(str(data['truth']), d.line)}\n\n"
            + self._proof(data.get("proof", ""), d.line)
        )


def _lot(choice: dict) -> bytes:
    """An order that is the same every time and follows no habit."""
    return hashlib.sha256(str(choice["answer"]).encode()).digest()


def _quote(text: str) -> str:
    return "\n".join(f"> {x}".rstrip() for x in text.strip().split("\n"))


def _details(title: str, body: str) -> str:
    """A part that unfolds; the blank lines make the inside Markdown again."""
    title = re.sub(
        r"(?<!`)`([^`]+)`(?!`)",
        lambda m: f"<code>{html.escape(m[1], quote=False)}</code>",
        title,
    )
    title = re.sub(r"\*\*(\S[^*]*)\*\*", r"<strong>\1</strong>", title)
    title = re.sub(r"(?<![\w*\\])\*(\S[^*]*)\*", r"<em>\1</em>", title)
    title = re.sub(r"\[([^\]]+)\]\(([^)\s]+)\)", r'<a href="\2">\1</a>', title)
    return (
        f"<details>\n<summary>{title}</summary>\n\n{body.strip()}\n\n</details>"
    )


def _aligned(env: str, inner: str) -> str:
    if env == "equation":
        return inner
    kind = "gathered" if env == "gather" else "aligned"
    return f"\\begin{{{kind}}}{inner}\\end{{{kind}}}"


def _people(entry) -> list[Person]:
    return entry.persons.get("author") or entry.persons.get("editor") or []


def _family(person: Person, *, first: bool = False) -> str:
    family = _untex(" ".join(person.prelast_names + person.last_names))
    given = " ".join(
        f"{_untex(n)[0]}."
        for n in person.first_names + person.middle_names
        if n
    )
    return f"{family}, {given}" if first and given else family


def _untex(text: str) -> str:
    """A field of a .bib file without its TeX."""
    from pybtex.richtext import Text as Rich

    try:
        return str(Rich.from_latex(text))
    except Exception:  # odd TeX is still better shown than refused
        return text.replace("{", "").replace("}", "")
