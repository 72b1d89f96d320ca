"""One browser, one server and the built site for every browser test."""

import functools
import http.server
import threading
from pathlib import Path

import pytest

from bookkit import web
from bookkit.book import BookError
from bookkit.diagrams import FLAGS, find_chromium
from bookkit.site import stale

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "_build" / "html"


def pages_of(site: Path) -> list[str]:
    """Every page of the site, in order."""
    return sorted(
        page.relative_to(site).as_posix()
        for page in site.rglob("*.html")
        if "_static" not in page.parts
    )


def pytest_generate_tests(metafunc):
    """A test with a `page` runs on every page."""
    if "page" in metafunc.fixturenames:
        metafunc.parametrize("page", pages_of(SITE) or ["(no site)"])


@pytest.hookimpl(tryfirst=True)  # before -m chooses by the marks
def pytest_collection_modifyitems(items):
    """Whatever reads the built site is marked: it runs after the build."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and "site" in item.fixturenames:
            item.add_marker("site")


@pytest.fixture(scope="session")
def site() -> Path:
    """The built site; its tests are worth nothing if it is an old one."""
    reason = stale(ROOT)
    if reason:
        pytest.fail(f"{reason} Run `python -m bookkit site`.", pytrace=False)
    return SITE


@pytest.fixture(scope="session")
def browser():
    """Chromium, or a skip that says how to get it."""
    try:
        path = find_chromium()
    except BookError as error:
        pytest.skip(f"NOT TESTED in a browser: {error}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        running = play.chromium.launch(executable_path=path, args=FLAGS)
        yield running
        running.close()


@pytest.fixture(scope="session")
def axe() -> str:
    """The script of axe-core, the accessibility checker."""
    modules = web.install(ROOT, dev=True)
    return (modules / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def server(site):
    """The site over http, on a free port."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=site)
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    running.server_close()


@pytest.fixture
def base(request, site) -> str:
    """The address of the site, over the scheme that a test asks for."""
    if request.param == "file":
        return site.as_uri()
    return request.getfixturevalue("server")


def watch(page, base: str = "") -> list[str]:
    """What goes wrong on a page from now on, a line each.

    Errors of scripts, in the console, of requests; and with `base`, which
    is the address of a site, each request that leaves it.
    """
    trouble: list[str] = []
    say = trouble.append
    inside = (base, "data:", "blob:", "about:")
    page.on(
        "request", lambda r: r.url.startswith(inside) or say(f"leaves: {r.url}")
    )
    # "csp" is a script where scripts are off; else the console says it too.
    # And a page that closes, or goes to another, takes back what it asked for.
    fine = ("csp", "net::ERR_ABORTED")
    page.on(
        "requestfailed",
        lambda r: r.failure in fine or say(f"failed: {r.url} ({r.failure})"),
    )
    page.on(
        "response", lambda r: r.status >= 400 and say(f"{r.status}: {r.url}")
    )
    page.on("pageerror", lambda e: say(f"script: {e}"))
    page.on(
        "console", lambda m: m.type == "error" and say(f"console: {m.text}")
    )
    return trouble


@pytest.fixture
def open_page(request, browser):
    """Open a page as a new reader; when the test ends, nothing went wrong.

    `open_page("#id", init="a script", color_scheme="dark")` opens the
    `page_file` of the test's module in a context of its own, made with these
    options. The script runs before those of the page. Another page has an
    address: `open_page(url=...)`.
    """
    opened = []

    def open_it(fragment="", *, url=None, init="", **options):
        if url is None:
            url = request.getfixturevalue("page_file").as_uri()
        page = browser.new_context(**options).new_page()
        opened.append((page, watch(page)))
        if init:
            page.add_init_script(init)
        page.goto(url + fragment)
        return page

    yield open_it
    for page, _ in opened:
        page.context.close()
    assert [line for _, trouble in opened for line in trouble] == []


@pytest.fixture(scope="session")
def contexts(browser):
    """One browser context per colour scheme, shared by all tests."""
    made = {
        scheme: browser.new_context(
            color_scheme=scheme,
            reduced_motion="reduce",  # no waiting for transitions
            viewport={"width": 1280, "height": 900},
        )
        for scheme in ("light", "dark")
    }
    yield made
    for context in made.values():
        context.close()


@pytest.fixture
def tab(contexts):
    """Open a page of the site; when the test ends, nothing went wrong.

    `tab(url, scheme, base)` gives the page. Its context is shared, which
    saves most of the time; no request may leave `base`.
    """
    opened = []

    def open_tab(url, scheme="light", base=None):
        page = contexts[scheme].new_page()
        opened.append((page, watch(page, base or url)))
        page.goto(url, wait_until="load")
        return page

    yield open_tab
    for page, _ in opened:
        page.close()
    assert [line for _, trouble in opened for line in trouble] == []
