"""The built site, read as files: links, descriptions, downloads, weight."""

import gzip
import itertools
import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit
from xml.etree import ElementTree

import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup

from bookkit.book import Book
from bookkit.diagrams import compare, find_diagrams

ROOT = Path(__file__).resolve().parents[2]
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
HOME = CONFIG["html"]["baseurl"]
REPOSITORY = CONFIG["repository"]["url"].removeprefix("https://github.com/")
CHAPTERS = [chapter.name for chapter in Book(ROOT).chapters]
SERVICE = {"search.html", "genindex.html", "py-modindex.html"}


@cache
def soup(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


@cache
def anchors(path: Path) -> frozenset[str]:
    return frozenset(
        tag.get("id") or tag.get("name")
        for tag in soup(path).find_all(lambda t: t.get("id") or t.get("name"))
    )


def test_every_link_inside_leads_somewhere(site, page):
    """Files exist, and so does the place in them."""
    broken = []
    for tag in soup(site / page).find_all(["a", "link", "script", "img"]):
        address = tag.get("href") or tag.get("src")
        if not address or tag.get("rel") == ["canonical"]:
            continue
        if urlsplit(address).scheme or address.startswith("//"):
            continue
        path, place = urldefrag(address)
        path = urlsplit(path).path
        target = (site / page).parent / unquote(path) if path else site / page
        target = target.resolve()
        if not target.is_file():
            broken.append(f"{address}: no such file")
        elif place and target.suffix == ".html":
            if unquote(place) not in anchors(target):
                broken.append(f"{address}: no such place on that page")
    assert broken == []


def test_page_is_described(site, page):
    """For search engines and for whoever sees a shared link."""
    head = soup(site / page).head
    said = {
        tag.get("name") or tag.get("property"): tag.get("content")
        for tag in head.find_all("meta")
    }
    assert 10 <= len(said["description"]) <= 200
    assert said["og:description"] == said["description"]
    assert said["og:url"] == urljoin(HOME, page)
    assert head.title.get_text().strip()
    assert soup(site / page).html["lang"] == "en"
    if not page.startswith("_modules"):
        card = site / said["og:image"].removeprefix(HOME)
        assert card.read_bytes().startswith(b"\x89PNG")
        assert said["og:image:alt"]


def test_descriptions_differ(site):
    pages = [f"chapters/{name}.html" for name in CHAPTERS]
    said = {
        soup(site / page).find("meta", {"name": "description"})["content"]
        for page in [*pages, "index.html", "book/intro.html"]
    }
    assert len(said) == len(pages) + 2


def test_pictures_have_words(site, page):
    """Every image and every inline figure has a text alternative."""
    mute = [
        str(tag)[:100]
        for tag in soup(site / page).find_all("img")
        if not tag.get("alt")
    ]
    for svg in soup(site / page).select(".cell_output svg"):
        if svg.find_parent("button"):
            continue
        if svg.find_parent(attrs={"aria-hidden": "true"}):
            continue  # a root in a formula, which is spoken as MathML
        inner = svg.find_parent(attrs={"role": "img"}) or svg
        if not (inner.get("aria-label") or inner.find("title")):
            mute.append(str(svg)[:100])
    assert mute == []


def test_one_first_heading(site, page):
    """One h1 that shows, and no level is skipped below it."""
    main = soup(site / page).article or soup(site / page).main
    levels = [int(tag.name[1]) for tag in main.find_all(re.compile("^h[1-6]$"))]
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))


def test_sitemap_lists_the_pages(site):
    tree = ElementTree.parse(site / "sitemap.xml")
    listed = {
        place.text.removeprefix(HOME)
        for place in tree.iter(
            "{http://www.sitemaps.org/schemas/sitemap/0.9}loc"
        )
    }
    wanted = {f"{page}.html" for page in Book(ROOT).pages} | {"index.html"}
    assert wanted <= listed
    assert all((site / page).is_file() for page in listed)
    robots = (site / "robots.txt").read_text()
    assert f"Sitemap: {HOME}sitemap.xml" in robots


@pytest.mark.parametrize("name", CHAPTERS)
def test_downloads(site, name):
    """The notebook to study, the executed one, the script, the source."""
    page = soup(site / "chapters" / f"{name}.html")
    menu = page.select_one(".dropdown-download-buttons")
    found = {
        tag.get_text(strip=True): tag["href"] for tag in menu.find_all("a")
    }
    assert set(found) == {
        "Study notebook",
        "Executed notebook",
        "Python script",
        "Source",
    }
    files = {
        text: (site / "chapters" / href).resolve()
        for text, href in found.items()
    }
    executed = nbformat.read(files["Executed notebook"], as_version=4)
    nbformat.validate(executed)
    assert any(c.get("outputs") for c in executed.cells)
    study = nbformat.read(files["Study notebook"], as_version=4)
    nbformat.validate(study)
    assert not any(c.get("outputs") for c in study.cells)
    assert not any(
        "solution" in c.metadata.get("tags", []) for c in study.cells
    )
    compile(files["Python script"].read_text("utf-8"), name, "exec")
    source = (ROOT / "chapters" / f"{name}.md").read_text("utf-8")
    assert files["Source"].read_text("utf-8") == source


@pytest.mark.parametrize("name", CHAPTERS)
def test_launch_links(site, name):
    """Colab and Binder get a notebook of the branch that holds notebooks."""
    page = soup(site / "chapters" / f"{name}.html")
    menu = page.select_one(".dropdown-launch-buttons")
    assert [tag["href"] for tag in menu.find_all("a")] == [
        "https://colab.research.google.com/github/"
        f"{REPOSITORY}/blob/notebooks/{name}.ipynb",
        f"https://mybinder.org/v2/gh/{REPOSITORY}/notebooks"
        f"?urlpath=lab/tree/{name}.ipynb",
    ]


@pytest.mark.parametrize("name", CHAPTERS)
def test_exported_cells_say_where_they_go(site, name):
    page = soup(site / "chapters" / f"{name}.html")
    chapter = Book(ROOT).chapter(name)
    cells = [
        cell
        for cell in chapter.cells
        if any(tag.split("-to:")[0] == "export" for tag in cell.tags)
        and "remove-cell" not in cell.tags
    ]
    badges = page.select(".export-badge")
    assert len(badges) == len(cells) > 0
    module = chapter.meta["export_to"]
    assert {b.get_text(strip=True) for b in badges} >= {f"in{module}"}
    for badge in badges:
        assert "_modules/litformer/" in badge.a["href"]


@pytest.mark.parametrize("name", CHAPTERS)
def test_names_in_cells_are_links(site, name):
    """To our API page, and to PyTorch's documentation."""
    page = soup(site / "chapters" / f"{name}.html")
    links = {a["href"] for a in page.select("a.sphinx-codeautolink-a")}
    torch = "https://docs.pytorch.org/docs/stable/"
    if re.search(r"^import torch$", Book(ROOT).chapter(name).text, re.M):
        assert any(link.startswith(torch) for link in links)
    assert any(link.startswith("../book/api.html#litformer.") for link in links)
    assert all(link.startswith((torch, "../book/api.html#")) for link in links)


def test_formulas_are_drawn(site):
    """By KaTeX, at build time: HTML and MathML, and no script."""
    text = (site / "chapters" / "attention.html").read_text("utf-8")
    assert text.count('<math xmlns="http://www.w3.org/1998/Math/MathML"') > 20
    assert "mathjax" not in text.lower()
    assert "katex.min.js" not in text


def test_diagrams_are_drawn():
    missing, unused = compare(ROOT, find_diagrams(ROOT))
    assert [d.where for d in missing] == []
    assert unused == []


def test_map_links_what_is_written(site):
    page = soup(site / "index.html")
    links = [a["href"] for a in page.select(".map a")]
    assert links == [f"chapters/{name}.html" for name in CHAPTERS]
    assert page.select(".map .to-come")
    assert not page.select(".map .to-come a")


def test_page_weight(site):
    """A chapter's page with all that it loads, compressed, in kilobytes.

    The theme's own page weighs 990; the limit is ours with room for figures.
    """
    path = site / "chapters" / "attention.html"
    loaded = {path}
    for tag in soup(path).find_all(["script", "link", "img"]):
        address = tag.get("src") or (
            tag.get("href") if tag.get("rel") == ["stylesheet"] else None
        )
        if address and not urlsplit(address).scheme:
            file = (path.parent / urlsplit(address).path).resolve()
            loaded.add(file)
            if file.suffix == ".css":  # at worst every font it names
                for font in re.findall(
                    r"url\(([^)]+?\.woff2?)\)", file.read_text("utf-8")
                ):
                    loaded.add((file.parent / font.strip("\"'")).resolve())
    assert all(file.is_file() for file in loaded)
    weight = sum(len(gzip.compress(f.read_bytes())) for f in loaded) / 1024
    assert weight < 800


def test_nothing_is_loaded_from_elsewhere(site, page):
    """In the text of every page; the browser test watches the network."""
    tags = soup(site / page).find_all(
        ["script", "img", "iframe", "source", "video", "audio", "link"]
    )
    outside = [
        tag.get("src") or tag.get("href")
        for tag in tags
        if urlsplit(tag.get("src") or tag.get("href") or "").scheme
        in ("http", "https")
        and tag.get("rel") != ["canonical"]
    ]
    assert outside == []
