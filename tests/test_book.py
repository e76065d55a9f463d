"""The book: no warning, no broken link, no picture without words, nothing from another host."""

import os
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import nbformat
import pytest

from dmclib.paths import NOTEBOOKS, ROOT

pytestmark = pytest.mark.slow

# A browser of the system's, told not to look for updates.
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--no-first-run",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
]


class Page(HTMLParser):
    """The tags of one page, with their attributes, and every place that a link can lead to."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.anchors = [], {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        self.anchors.add(attrs.get("id"))

    handle_startendtag = handle_starttag

    def all(self, *names):
        return [attrs for tag, attrs in self.tags if tag in names]


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """The folder of pages, built where no data, clip or training was ever made."""
    folder = tmp_path_factory.mktemp("book")
    html = folder / "html"
    command = [sys.executable, "-m", "sphinx", "-c", "book", "-W", "--keep-going", "-q", ".", html]
    changed = {name: str(folder / "absent") for name in ("DMC_CACHE", "DMC_SHARED_DATA")}
    changed["GITHUB_REPOSITORY"] = "somebody/something"
    built = subprocess.run(
        command, cwd=ROOT, env=os.environ | changed, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    return html


@pytest.fixture(scope="module")
def pages(book):
    return {path: Page(path) for path in book.rglob("*.html")}


def test_every_page_is_there_and_the_first_is_the_readme(book, pages):
    documents = [*ROOT.glob("*.md"), *NOTEBOOKS.glob("*.ipynb"), ROOT / "book" / "api.md"]
    for document in documents:
        assert book / document.relative_to(ROOT).with_suffix(".html") in pages
    assert (book / "index.html").read_text() == (book / "README.html").read_text()


def test_each_notebook_says_where_it_runs_without_an_installation(book, pages):
    for notebook in NOTEBOOKS.glob("*.ipynb"):
        place = notebook.relative_to(ROOT)
        links = [attrs.get("href") for attrs in pages[book / place.with_suffix(".html")].all("a")]
        binder = f"https://mybinder.org/v2/gh/somebody/something/HEAD?urlpath=lab/tree/{place}"
        colab = "https://colab.research.google.com/github/somebody/something/blob/HEAD"
        assert links.count(binder) == links.count(f"{colab}/{place}") == 1


def test_every_link_leads_somewhere(book, pages):
    for path, page in pages.items():
        for link in (attrs["href"] for attrs in page.all("a", "link") if attrs.get("href")):
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.is_file(), f"{path.relative_to(book)}: {link}"
            if target in pages:
                anchor = unquote(parts.fragment)
                assert anchor in pages[target].anchors, f"{path.relative_to(book)}: {link}"


def test_every_picture_is_there_and_says_what_it_shows(book, pages):
    for path, page in pages.items():
        for image in page.all("img"):
            where = path.relative_to(book), image["src"][:80]
            if not image["src"].startswith("data:"):  # what moves is in the page itself
                assert (path.parent / unquote(image["src"])).is_file(), where
            assert image.get("alt"), where


def test_no_figure_of_a_notebook_is_lost(book, pages):
    for notebook in NOTEBOOKS.glob("*.ipynb"):
        outputs = [o for c in nbformat.read(notebook, 4).cells for o in c.get("outputs", [])]
        drawn = [o for o in outputs if any(kind.startswith("image/") for kind in o.get("data", {}))]
        page = pages[book / "notebooks" / f"{notebook.stem}.html"]
        assert len(page.all("img")) >= len(drawn), notebook.stem


def test_no_page_asks_another_host_for_anything(pages):
    for path, page in pages.items():
        for attrs in page.all("script", "link", "img", "iframe", "source", "video"):
            for address in (attrs.get("src"), attrs.get("href")):
                assert not urlsplit(address or "").netloc, (path, attrs)


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser found: install one of {', '.join(BROWSERS)}")
    with sync_api.sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=found, args=FLAGS)


# Where a picture ends on the right, and where a table does or the box in which it is scrolled.
EDGES = """all => all.map(seen => {
    const box = seen.closest(".cell_output, .table-wrapper") ?? seen;
    const scrolled = seen.tagName == "TABLE" && getComputedStyle(box).overflowX == "auto";
    return [seen.outerHTML.slice(0, 200), (scrolled ? box : seen).getBoundingClientRect().right];
})"""


@pytest.mark.parametrize("width", [1200, 400])
def test_nothing_is_cut_on_the_right(book, browser, width):
    tab = browser.new_page(viewport={"width": width, "height": 900})
    for path in sorted(book.rglob("*.html")):
        tab.goto(path.as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, path.name
        for what, right in tab.eval_on_selector_all("article :is(img, table)", EDGES):
            assert right <= width, (path.name, what)
        sizes = tab.eval_on_selector_all("article img", "all => all.map(i => i.naturalWidth)")
        assert all(sizes), path.name
    tab.close()


def test_search_finds_a_word_of_the_glossary(book, browser):
    tab = browser.new_page()
    tab.goto((book / "search.html").as_uri() + "?q=residual")
    tab.wait_for_selector("#search-results li a")
    assert tab.locator("#search-results li a[href*='GLOSSARY']").count()
    tab.close()
