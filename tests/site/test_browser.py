"""Every page in a real browser: quiet, offline, accessible, narrow or wide."""

import re

import pytest

from bookkit.book import Book

pytestmark = pytest.mark.browser

# KaTeX says each formula twice; axe looks at the one for screen readers.
# Without `preload`, axe does not fetch the style sheets a second time, which
# a page from the file system may not do.
AXE = """
async (rules) => {
  const options = {resultTypes: ["violations"], preload: false};
  if (rules) options.runOnly = {type: "rule", values: rules};
  const found = await axe.run({exclude: [".katex-html"]}, options);
  return found.violations.flatMap((v) =>
    v.nodes.map((n) => `${v.id}: ${n.target} ${n.any[0]?.message ?? ""}`));
}
"""
# every element that sticks out of the window, unless a box around it scrolls
OVERFLOW = """
() => {
  const wide = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= wide) return [];
  const scrolls = (e) => e && e !== document.body &&
    (getComputedStyle(e).overflowX !== "visible" || scrolls(e.parentElement));
  return [...document.body.querySelectorAll("*")]
    .filter((e) => e.getBoundingClientRect().right > wide + 1
                   && !scrolls(e.parentElement))
    .map((e) => `${e.tagName}.${e.className} ${e.innerText?.slice(0, 40)}`);
}
"""


def chapter_pages() -> list[str]:
    """The pages of the chapters."""
    return [f"chapters/{chapter.name}.html" for chapter in Book().chapters]


def settle(page) -> None:
    """Wait until fonts and scripts are done, and a transition is over."""
    page.evaluate("document.fonts.ready")
    page.wait_for_timeout(60)


@pytest.mark.parametrize("base", ["file"], indirect=True)
def test_page_is_accessible(base, page, tab, axe):
    """axe-core in both colour schemes, and what scrolls on a phone."""
    view = tab(f"{base}/{page}", "light", base)
    settle(view)
    view.evaluate(axe)
    assert view.evaluate(AXE) == []
    view.emulate_media(color_scheme="dark")
    settle(view)
    assert view.evaluate(AXE, ["color-contrast"]) == []
    view.set_viewport_size({"width": 360, "height": 780})
    settle(view)
    assert view.evaluate(AXE, ["scrollable-region-focusable"]) == []


@pytest.mark.parametrize("base", ["file", "http"], indirect=True)
def test_page_is_quiet_and_fits(base, page, tab):
    """No request leaves, nothing fails, nothing is wider than the window."""
    scheme, other = ("dark", "light") if "http" in base else ("light", "dark")
    view = tab(f"{base}/{page}", scheme, base)
    settle(view)
    assert view.locator("html").get_attribute("data-theme") == scheme
    assert view.evaluate(OVERFLOW) == []
    view.emulate_media(color_scheme=other)
    view.set_viewport_size({"width": 360, "height": 780})
    settle(view)
    assert view.locator("html").get_attribute("data-theme") == other
    assert view.evaluate(OVERFLOW) == []
    # down to the end, where pictures and data load late
    view.evaluate("scrollTo(0, document.body.scrollHeight)")
    view.wait_for_load_state("networkidle")


@pytest.mark.parametrize("base", ["file", "http"], indirect=True)
def test_search_finds(base, tab):
    """Offline too: the index is a script, not a request."""
    view = tab(f"{base}/search.html?q=softmax", "light", base)
    view.wait_for_selector("#search-results li a")
    links = view.locator("#search-results li a").evaluate_all(
        "links => links.map((a) => a.href)"
    )
    assert any("chapters/attention.html" in link for link in links)
    view.wait_for_load_state("networkidle")
    view = tab(f"{base}/search.html?q=zyzzyva", "dark", base)
    view.wait_for_function(
        "document.querySelector('#search-results').innerText"
        ".includes('did not match')"
    )


def test_search_from_the_keyboard(site, tab):
    """Ctrl-K, a word, Enter; and Escape leaves."""
    view = tab((site / "index.html").as_uri(), base=site.as_uri())
    settle(view)
    view.keyboard.press("Control+k")
    assert view.evaluate("document.activeElement.name") == "q"
    view.keyboard.press("Escape")
    assert not view.locator("dialog[open]").count()
    view.keyboard.press("Control+k")
    view.keyboard.type("variance")
    view.keyboard.press("Enter")
    view.wait_for_selector("#search-results li a")
    view.wait_for_load_state("networkidle")


def focus(view) -> dict:
    """What has the focus, and whether that shows."""
    return view.evaluate(
        """() => {
          const e = document.activeElement, s = getComputedStyle(e);
          return {tag: e.tagName, text: e.innerText?.trim().slice(0, 40) ?? "",
            label: e.getAttribute("aria-label"),
            shows: s.outlineStyle !== "none" || s.boxShadow !== "none"};
        }"""
    )


def test_keyboard_reaches_everything(site, tab):
    """Tab goes through the page: the skip link first, each with a ring."""
    view = tab((site / "chapters/attention.html").as_uri(), base=site.as_uri())
    settle(view)
    view.keyboard.press("Tab")
    assert focus(view)["text"] == "Skip to main content"
    view.keyboard.press("Enter")
    assert view.url.endswith("#main-content")
    view.reload()
    settle(view)
    seen = []
    for _ in range(60):
        view.keyboard.press("Tab")
        now = focus(view)
        if now["tag"] == "BODY":
            break
        assert now["shows"], now
        seen.append(now["label"] or now["text"])
    for wanted in (
        "Work on this chapter online",
        "Download this page",
        "Colour scheme",
    ):
        assert wanted in seen


def test_menus_open_by_keyboard(site, tab):
    view = tab((site / "chapters/attention.html").as_uri(), base=site.as_uri())
    settle(view)
    view.locator(".dropdown-download-buttons > button").focus()
    view.keyboard.press("Enter")
    menu = view.locator(".dropdown-download-buttons .dropdown-menu")
    menu.wait_for(state="visible")
    view.keyboard.press("ArrowDown")
    assert focus(view)["text"] == "Study notebook"
    view.keyboard.press("Escape")
    menu.wait_for(state="hidden")


def test_colour_scheme_is_chosen_and_kept(site, tab):
    """The switch works by keyboard, and the choice survives a reload."""
    view = tab((site / "index.html").as_uri(), "light", site.as_uri())
    settle(view)
    switch = view.locator(".theme-switch-button:visible").first
    for _ in range(3):
        switch.focus()
        view.keyboard.press("Enter")
        if view.locator("html").get_attribute("data-mode") == "dark":
            break
    assert view.locator("html").get_attribute("data-theme") == "dark"
    view.reload()
    assert view.locator("html").get_attribute("data-theme") == "dark"
    view.evaluate("localStorage.clear()")


# axe-core does not look inside a picture, so its ink is measured here
INK_CONTRAST = """() => {
  const rgba = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b]
    .map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  return [...document.querySelectorAll("svg.lf-figure")].map(figure => {
    let ground = figure;
    while (ground.parentElement &&
           rgba(getComputedStyle(ground).backgroundColor)[3] === 0)
      ground = ground.parentElement;
    const two = [getComputedStyle(figure).color,
                 getComputedStyle(ground).backgroundColor]
      .map(rgba).map(light).sort((a, b) => b - a);
    return (two[0] + 0.05) / (two[1] + 0.05);
  });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", chapter_pages())
def test_ink_of_figures_is_seen(site, tab, name, scheme):
    """Whatever the theme lays behind an output, letters stand out on it."""
    view = tab((site / name).as_uri(), scheme, site.as_uri())
    settle(view)
    found = view.evaluate(INK_CONTRAST)
    assert len(found) >= 4
    assert min(found) >= 7


def test_tips_appear(site, tab):
    """Over a citation, an equation, a figure and a term; also on focus."""
    view = tab((site / "chapters/attention.html").as_uri(), base=site.as_uri())
    settle(view)
    kinds = {
        "citation": 'article p a.reference[href*="#id"]',
        "equation": 'article a.reference[href^="#equation-"]',
        "figure": 'article a.reference[href^="#fig-"]',
        "term": 'article a[href*="glossary.html#term-"]',
    }
    for kind, selector in kinds.items():
        link = view.locator(selector).first
        link.scroll_into_view_if_needed()
        link.hover()
        tip = view.locator(".tippy-box[data-state=visible]")
        tip.wait_for(state="visible", timeout=10_000)
        assert tip.inner_text().strip(), kind
        view.mouse.move(0, 0)
        tip.wait_for(state="hidden", timeout=10_000)


def test_tips_do_not_pile_up_for_the_keyboard(site, tab):
    """One tip at a time, without links of its own; Escape closes it."""
    view = tab((site / "chapters/attention.html").as_uri(), base=site.as_uri())
    settle(view)
    view.locator('article a[href*="glossary.html#term-"]').first.focus()
    tip = view.locator(".tippy-box[data-state=visible]")
    tip.wait_for(state="visible")
    for _ in range(8):
        assert tip.count() <= 1
        assert not view.locator(".tippy-box a").count()
        assert view.evaluate("!document.activeElement.closest('.tippy-box')")
        view.keyboard.press("Tab")
        view.wait_for_timeout(400)
    view.locator('article p a.reference[href*="#id"]').first.focus()
    tip.wait_for(state="visible")
    view.keyboard.press("Escape")
    tip.wait_for(state="hidden")


def test_motion_stops_when_asked(site, tab):
    view = tab((site / "chapters/attention.html").as_uri(), base=site.as_uri())
    moving = view.evaluate(
        """() => [...document.querySelectorAll("*")].filter((e) =>
          parseFloat(getComputedStyle(e).transitionDuration) > 0.001).length"""
    )
    assert moving == 0


def test_printing_leaves_the_text(site, tab):
    """On paper: no sidebar, black on white, code that wraps."""
    page = (site / "chapters/attention.html").as_uri()
    view = tab(page, "dark", site.as_uri())
    view.emulate_media(media="print")
    assert not view.locator(".bd-sidebar-primary").is_visible()
    assert not view.locator(".bd-header-article").is_visible()
    wrap = view.locator("article pre").first.evaluate(
        "e => getComputedStyle(e).whiteSpace"
    )
    ink = view.locator("article p").first.evaluate(
        "e => getComputedStyle(e).color"
    )
    assert wrap == "pre-wrap"
    assert re.findall(r"\d+", ink)[:3] == ["0", "0", "0"]


def test_readable_without_scripts(open_page, site):
    """The text, the formulas, the figures and the reasons of a quiz."""
    url = (site / "chapters/attention.html").as_uri()
    view = open_page(url=url, java_script_enabled=False)
    assert view.locator("article h1").is_visible()
    assert view.locator("article .katex-display").first.is_visible()
    assert view.locator("article figure svg").first.is_visible()
