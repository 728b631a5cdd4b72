"""The documentation builds as a site: every link and anchor leads somewhere, and no page loads anything from elsewhere."""

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from house import ROOT

LOADS = {"script": "src", "img": "src", "link": "href", "iframe": "src", "video": "src", "source": "src"}
NOT_LOADED = {"canonical", "next", "prev", "edit"}  # kinds of <link> that browsers do not fetch


class Loaded(HTMLParser):
    """Addresses that a page loads when it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag in LOADS and given.get("rel") not in NOT_LOADED and given.get(LOADS[tag]):
            self.found.append(given[LOADS[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_there(site):
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} | {"contributing", "changelog"}
    assert [name for name in sorted(pages) if not (site / name / "index.html").is_file()] == []
    assert "Do the lips say what the voice says?" in (site / "index.html").read_text()


def test_sources_that_pages_lead_to_are_pages(site):
    link = re.search(r'href="([^"]*source/concord/arrays/held[^"]*)"', (site / "precompute" / "index.html").read_text())
    assert link
    assert (site / "precompute" / link[1] / "index.html").resolve().is_file()


def test_no_page_loads_anything_from_elsewhere(site):
    for page in site.rglob("*.html"):
        loaded = Loaded()
        loaded.feed(page.read_text())
        assert [address for address in loaded.found if re.match(r"(https?:)?//", address)] == [], page


def test_a_broken_link_ends_the_build(tmp_path):
    for name in ("mkdocs.yml", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "NOTICE", "CITATION.cff"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    page = tmp_path / "docs" / "faq.md"
    page.write_text(page.read_text() + "\n[nowhere](nowhere.md)\n")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "nowhere.md" in done.stderr
